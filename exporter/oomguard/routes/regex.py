r"""Regular expressions in RE2's syntax (Go's regexp), on Python's `re`: equal where accepted, else refused.

Anchored at both ends, as in every matcher of Alertmanager and Prometheus. What Python reads differently is
rewritten (``$``, ``\s``, ``\z``, flags in the middle, POSIX classes, ``{,n}``); what RE2 does not have
(look-around, references, possessive quantifiers), what Python does not (``\pL``, ``(?U)``) and what would take
Python for ever (``(a+)+``) raises ValueError.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Final

_POSIX: Final = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "ascii": r"\x00-\x7F", "blank": r"\t ", "cntrl": r"\x00-\x1F\x7F",
    "digit": "0-9", "graph": "!-~", "lower": "a-z", "print": " -~", "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ", "upper": "A-Z", "word": "0-9A-Za-z_", "xdigit": "0-9A-Fa-f",
}  # fmt: skip
_CLASSES: Final = {
    "d": "0-9", "s": r"\t\n\f\r ", "w": "0-9A-Za-z_",
    "D": r"\x00-/:-\U0010ffff", "S": r"\x00-\x08\x0b\x0e-\x1f!-\U0010ffff", "W": r"\x00-/:-@\[-\^`{-\U0010ffff",
}  # fmt: skip
_ANCHORS: Final = {"A": r"\A", "z": r"\Z", "b": r"(?a:\b)", "B": r"(?a:\B)"}
_CODE: Final = re.compile(r"\\(?:x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,6})\})|(0[0-7]{0,2}|[1-7][0-7]{1,2}))")
_CONTROLS: Final = {"a": r"\x07", "f": r"\x0c", "t": r"\t", "n": r"\n", "r": r"\r", "v": r"\x0b"}
_REPEAT: Final = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_MOST_REPEATS: Final = 1000
_MOST_OF_CHOICES: Final = 4
_TURKISH: Final = {0x130: "\uf8fe", 0x131: "\uf8ff"}
"""To characters for private use."""


@lru_cache(maxsize=512)
def compile_regex(text: str) -> Callable[[str], bool]:
    """Whether a whole text matches; ValueError names what can't be used."""
    translated = _Translation(text).run()
    try:
        compiled = re.compile(translated)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{text!r} is not a regular expression: {error}") from None
    full = compiled.fullmatch
    if "(?" not in translated:
        return lambda value: full(value) is not None
    # Without regard to case, Python takes the dotted capital and the dotless small i for an i; RE2 does not.
    return lambda value: full(value.translate(_TURKISH)) is not None


class _Translation:
    """One walk over an expression."""

    def __init__(self, text: str) -> None:
        self._text = text.translate(_TURKISH) if "(?" in text else text
        self._at = 0
        self._out: list[str] = []
        self._levels: list[list[str]] = [[]]
        """For every open group: the flags that were set in it or for it, which end with it."""
        self._choices = [False]
        """For every open group: whether it can match one text in several ways, by a repetition or alternatives."""

    def run(self) -> str:
        while self._at < len(self._text):
            self._step()
        if len(self._levels) > 1:
            raise self._refusal("a parenthesis is not closed")
        return "".join(self._out) + ")" * len(self._levels[0])

    def _refusal(self, why: str) -> ValueError:
        return ValueError(f"{self._text!r} can't be used as a regular expression: {why}")

    def _step(self) -> None:
        char = self._text[self._at]
        if char == "\\":
            self._escape()
        elif char == "[":
            self._class()
        elif char == "(":
            self._group()
        elif char == ")":
            if len(self._levels) == 1:
                raise self._refusal("a closing parenthesis has no opening one")
            self._out.append(")" * (len(self._levels.pop()) + 1))
            self._at += 1
            choice = self._choices.pop()
            self._choices[-1] |= choice
            self._quantifier(choice=choice)
        elif char in "*+?":
            raise self._refusal(f"nothing that can be repeated stands before {char!r}")
        elif char == "|":
            # A flag holds across alternatives, a Python group with flags would swallow them.
            flags = self._levels[-1]
            self._choices[-1] = True
            self._out.append(")" * len(flags) + "|" + "".join(f"(?{flag}:" for flag in flags))
            self._at += 1
        elif char in "^$":
            # Python's $ would also match before a newline at the end.
            self._out.append("$" if char == "$" and self._multiline() else {"^": "^", "$": r"\Z"}[char])
            self._at += 1
        else:
            self._out.append("." if char == "." else re.escape(char))
            self._at += 1
            self._quantifier()

    def _multiline(self) -> bool:
        on = False
        for flag in (flag for level in self._levels for flag in level):
            plus, _, minus = flag.partition("-")
            on = (on or "m" in plus) and "m" not in minus
        return on

    def _quantifier(self, *, choice: bool = False) -> None:
        """A repetition that follows an atom; `choice`: the atom is a group that matches in several ways."""
        found = self._repetition()
        if not found:
            return
        low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(found[0]) or self._bounds(found)
        if choice and (high is None or high > _MOST_OF_CHOICES):
            # Python tries all the ways, RE2 none twice: on some text of 30 characters it would take hours.
            raise self._refusal("a repetition of what holds a repetition or alternatives may never end here")
        self._choices[-1] |= high not in (low, 1)
        self._at += len(found)
        if self._text.startswith("?", self._at):
            found += "?"
            self._at += 1
        self._out.append(found)
        if self._repetition():
            raise self._refusal("a repetition follows a repetition; write parentheses")

    def _bounds(self, found: str) -> tuple[int, int | None]:
        """The least and the most of ``{2}``, ``{2,}`` or ``{2,3}``."""
        low_text, comma, high_text = found[1:-1].partition(",")
        low = int(low_text)
        high = int(high_text) if high_text else None if comma else low
        if max(low, high or low) > _MOST_REPEATS or (high is not None and low > high):
            raise self._refusal(f"{found} repeats more than {_MOST_REPEATS} times, or backwards")
        return low, high

    def _repetition(self) -> str:
        rest = self._text[self._at :]
        if rest[:1] in ("*", "+", "?"):
            return rest[0]
        match = _REPEAT.match(rest)
        return match[0] if match is not None else ""

    def _open(self) -> None:
        self._levels.append([])
        self._choices.append(False)

    def _group(self) -> None:
        rest = self._text[self._at :]
        if not rest.startswith("(?"):
            self._out.append("(")
            self._at += 1
            self._open()
        elif (named := re.match(r"\(\?P<([A-Za-z_]\w*)>", rest)) is not None:
            self._out.append(f"(?P<{named[1]}>")
            self._at += len(named[0])
            self._open()
        elif (flags := re.match(r"\(\?([ims]*)(?:-([ims]+))?([:)])", rest)) is not None:
            wanted = flags[1] + (f"-{flags[2]}" if flags[2] else "")
            self._at += len(flags[0])
            if flags[3] == ")" and not wanted:
                raise self._refusal("(?) lacks its flags")
            if flags[3] == ")":
                self._out.append(f"(?{wanted}:")
                self._levels[-1].append(wanted)  # it holds up to the end of the group around it
            else:
                self._out.append("(?:")
                self._open()
                if wanted:
                    self._out.append(f"(?{wanted}:")
                    self._levels[-1].append(wanted)
        else:
            raise self._refusal(
                f"{rest[:4]!r} is not supported (look-around, references and the flag U are not)"
            )

    def _escape(self) -> None:
        following = self._text[self._at + 1 : self._at + 2]
        if not following:
            raise self._refusal("it ends in a backslash")
        if following == "Q":
            end = self._text.find("\\E", self._at)
            if end < 0:
                raise self._refusal("\\Q lacks its \\E")  # the anchors around it would be taken literally
            self._out.append(re.escape(self._text[self._at + 2 : end]))
            self._at = end + 2
        elif following in _ANCHORS:
            self._out.append(_ANCHORS[following])
            self._at += 2
        else:
            self._out.append(self._character(in_class=False))
            self._quantifier()

    def _character(self, *, in_class: bool) -> str:
        """An escape for a character or a class of characters, as Python writes it."""
        rest = self._text[self._at :]
        code = _CODE.match(rest)
        if code is not None:
            self._at += len(code[0])
            value = int(code[3], 8) if code[3] is not None else int(code[1] or code[2], 16)
            if value > sys.maxunicode:
                raise self._refusal(f"{code[0]} is no character")
            return f"\\U{value:08x}"
        char = rest[1:2]
        self._at += 2
        if char in _CONTROLS:
            return _CONTROLS[char]
        if char and char in "dswDSW":
            return _CLASSES[char] if in_class else f"[{_CLASSES[char]}]"
        if char and char.isascii() and not char.isalnum():
            return re.escape(char)
        raise self._refusal(f"\\{char} is not supported")

    def _class(self) -> None:
        out = ["["]
        self._at += 1
        if self._text.startswith("^", self._at):
            out.append("^")
            self._at += 1
        first = True
        while first or not self._text.startswith("]", self._at):
            rest = self._text[self._at :]
            if not rest:
                raise self._refusal("a bracket is not closed")
            if (posix := re.match(r"\[:(\^?\w+):\]", rest)) is not None:
                if posix[1] not in _POSIX:
                    raise self._refusal(f"{posix[0]} is not supported")
                self._many(out, _POSIX[posix[1]])
                self._at += len(posix[0])
            elif rest[0] == "\\" and rest[1:2] in ("d", "s", "w", "D", "S", "W"):
                self._many(out, self._character(in_class=True))
            elif rest[0] == "\\":
                out.append(self._character(in_class=True))
            else:
                out.append("-" if rest[0] == "-" else re.escape(rest[0]))
                self._at += 1
            first = False
        self._at += 1
        self._out.append("".join(out) + "]")
        self._quantifier()

    def _many(self, out: list[str], members: str) -> None:
        """A class inside of brackets; it can't be an end of a range."""
        if out[-1] == "-" and len(out) > 2:  # noqa: PLR2004 - after the bracket and what the range would begin with
            raise self._refusal("a class of characters can't end a range")
        out.append(members)
