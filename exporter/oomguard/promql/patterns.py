"""Regular expressions of Go's RE2 syntax, as Python's `re` where both mean the same; anything else is refused.

Every character and class is written out for Python as ranges of code points, so that none of its own notions of
digits, spaces or cases apply. Prometheus 3 matches the whole value, and the dot also matches a line break. Python
backtracks, which RE2 never does: patterns that could take it exponential time are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from oomguard.errors import PromqlError
from oomguard.promql import charsets
from oomguard.promql.charsets import Ranges

_REPEAT: Final = re.compile(r"\{(\d{1,4})(,(\d{0,4}))?\}", re.ASCII)
_GROUP: Final = re.compile(
    r"\(\?(?:P?<(?P<name>[A-Za-z_]\w*)>|(?P<on>[is]*)(?:-(?P<off>[is]+))?(?P<end>[:)]))", re.ASCII
)
_POSIX: Final = re.compile(r"\[:(\^?)(\w+):\]", re.ASCII)
_HEX: Final = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,6})\})")
_OCTAL: Final = re.compile(r"0[0-7]{0,2}|[1-7][0-7]{1,2}")
_CONTROLS: Final = {"a": 7, "f": 12, "t": 9, "n": 10, "r": 13, "v": 11}
_ANCHORS: Final = {"A": r"\A", "z": r"\Z", "b": r"(?a:\b)"}
"""Escapes that match no character; a word's boundary is one of ASCII in RE2."""
_MOST_REPEATS: Final = 1000
"""What RE2 allows."""
_MANY: Final = 20
"""A loop of more rounds counts as one without end."""
_MOST_LOOPS: Final = 4
"""Loops in a row: each one multiplies the time that a value which does not match takes by its length."""
_DEEPEST: Final = 50
"""Of nested groups."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of a pattern, in Python's syntax, with what bounds the time it can take."""

    text: str
    chars: Ranges | None = None
    """What it matches, if that is exactly one character, or a loop over one."""
    single: bool = False
    """It is exactly one character."""
    varies: bool = False
    """It can match in more than one way from one place."""
    simple: bool = True
    """It is one character, a loop over one, or without any choice."""
    loops: int = 0


@dataclass(frozen=True, slots=True)
class _Flags:
    fold: bool = False
    newline: bool = True
    """The dot matches a line break."""


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern for `fullmatch`; PromqlError where Python would match otherwise than Prometheus, or without end."""
    reader = _Reader(pattern)
    part = reader.alternatives(_Flags(), 0)
    if reader.rest:
        raise reader.wrong("unexpected )")
    if part.loops > _MOST_LOOPS:
        raise reader.wrong(
            f"more than {_MOST_LOOPS} loops in a row would take too long; use fewer of * and +"
        )
    try:
        return re.compile(part.text)
    except (re.error, OverflowError, RecursionError) as error:
        raise reader.wrong(str(error)) from None


class _Reader:
    """Reads a pattern from left to right."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self.rest = pattern

    def wrong(self, why: str) -> PromqlError:
        return PromqlError(f"regular expression {self._pattern!r} is not supported: {why}")

    def _take(self, count: int = 1) -> str:
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def _match(self, expected: re.Pattern[str]) -> re.Match[str] | None:
        found = expected.match(self.rest)
        if found:
            self.rest = self.rest[found.end() :]
        return found

    def alternatives(self, flags: _Flags, depth: int) -> _Part:
        """Sequences between ``|``, up to the end of a group or of the pattern."""
        if depth > _DEEPEST:
            raise self.wrong("groups are nested too deeply")
        branches: list[list[_Part]] = [[]]
        while self.rest and self.rest[0] != ")":
            if self.rest[0] == "|":
                self._take()
                branches.append([])
                continue
            switch = _GROUP.match(self.rest)
            if switch and switch["end"] == ")":
                self._take(switch.end())
                flags = _switched(flags, switch)
                continue
            branches[-1].append(self._repeated(flags, depth))
        return self._joined(branches)

    def _joined(self, branches: list[list[_Part]]) -> _Part:
        text = "|".join("".join(part.text for part in branch) for branch in branches)
        loops = max(sum(part.loops for part in branch) for branch in branches)
        if len(branches) == 1:
            parts = branches[0]
            varies = any(part.varies for part in parts)
            if len(parts) == 1:
                return replace(parts[0], text=text)
            return _Part(text, None, varies=varies, simple=not varies or self._separated(parts), loops=loops)
        # Alternatives that begin with different characters leave no choice; none may hold one inside.
        firsts = [branch[0].chars if branch else None for branch in branches]
        plain = not any(part.varies for branch in branches for part in branch) and all(
            one is not None and other is not None and charsets.disjoint(one, other)
            for index, one in enumerate(firsts)
            for other in firsts[:index]
        )
        return _Part(text, None, varies=not plain, simple=plain, loops=loops)

    @staticmethod
    def _separated(parts: list[_Part]) -> bool:
        """Whether a sequence has one loop, and a character that stands in it once and that no other part matches.

        Such a sequence may be repeated: there is one way at most to cut a text into rounds.
        """
        if sum(part.varies for part in parts) > 1 or any(part.chars is None for part in parts):
            return False
        return any(
            part.single
            and all(
                charsets.disjoint(part.chars or (), other.chars or ()) for other in parts if other is not part
            )
            for part in parts
        )

    def _repeated(self, flags: _Flags, depth: int) -> _Part:
        part = self._atom(flags, depth)
        least, most, text = 1, 1, ""
        if self.rest[:1] in {"*", "+", "?"}:
            text = self._take()
            least, most = {"*": (0, -1), "+": (1, -1), "?": (0, 1)}[text]
        elif found := self._match(_REPEAT):
            least = int(found[1])
            most = least if found[2] is None else int(found[3] or -1)
            text = found[0]
            if max(least, most) > _MOST_REPEATS or -1 < most < least:
                raise self.wrong(f"bad repeat count {text}")
        if not text:
            return part
        if part.text in _ANCHORS.values():
            raise self.wrong(f"{text} after what matches no character")
        lazy = self._take() if self.rest[:1] == "?" else ""
        if self.rest[:1] in {"*", "+", "?"} or _REPEAT.match(self.rest):
            raise self.wrong("two repeats in a row")
        return self._loop(part, text + lazy, least, most)

    def _loop(self, part: _Part, suffix: str, least: int, most: int) -> _Part:
        endless = most < 0 or most > _MANY
        several = most < 0 or most > 1
        if several and part.varies and (part.chars is not None or not part.simple):
            raise self.wrong(
                "a repeated group whose parts can be cut in several ways could take for ever; "
                "put a separator between them, or repeat less"
            )
        inner = part.loops * (most if 0 < most <= _MANY else 1)
        varies = least != most or part.varies
        simple = part.chars is not None or not varies
        return _Part(part.text + suffix, part.chars, False, varies, simple, inner + (1 if endless else 0))

    def _atom(self, flags: _Flags, depth: int) -> _Part:
        char = self.rest[0]
        if char == "(":
            return self._group(flags, depth)
        if char == "[":
            return self._class(flags)
        if char == "\\":
            return self._escaped(flags)
        if char in "*+?" or _REPEAT.match(self.rest):
            raise self.wrong(f"{char} has nothing to repeat")
        self._take()
        if char == ".":
            return self._one(charsets.ANY if flags.newline else charsets.NOT_NEWLINE)
        if char in "^$":
            return _Part(r"\A" if char == "^" else r"\Z")
        return self._one(self._cased(((ord(char), ord(char)),), flags))

    @staticmethod
    def _one(ranges: Ranges) -> _Part:
        return _Part(charsets.python_class(ranges), ranges, single=True)

    def _cased(self, ranges: Ranges, flags: _Flags) -> Ranges:
        if not flags.fold:
            return ranges
        try:
            return charsets.folded(ranges)
        except ValueError as error:
            raise self.wrong(str(error)) from None

    def _group(self, flags: _Flags, depth: int) -> _Part:
        opening = "("
        if self.rest.startswith("(?"):
            found = self._match(_GROUP)
            if found is None:
                raise self.wrong(f"{self.rest[:4]}… is not a group that RE2 and Python share")
            opening = f"(?P<{found['name']}>" if found["name"] else "(?:"
            flags = _switched(flags, found)
        else:
            self._take()
        inner = self.alternatives(flags, depth + 1)
        if self._take() != ")":
            raise self.wrong("missing )")
        return replace(inner, text=f"{opening}{inner.text})")

    def _escaped(self, flags: _Flags) -> _Part:
        self._take()
        if self.rest[:1] and self.rest[0] in _ANCHORS:
            return _Part(_ANCHORS[self._take()])
        return self._one(self._class_escape(flags))

    def _class_escape(self, flags: _Flags) -> Ranges:
        """What follows a backslash, in a class or not."""
        kind = self.rest[:1].lower()
        if kind and kind in charsets.ESCAPES:
            ranges = self._cased(charsets.ESCAPES[kind], flags)
            return charsets.negated(ranges) if self._take().isupper() else ranges
        code = self._code()
        return self._cased(((code, code),), flags)

    def _code(self) -> int:
        """The character that an escape stands for."""
        if found := self._match(_HEX):
            return int(found[1] or found[2], 16)
        if found := self._match(_OCTAL):
            return int(found[0], 8)
        char = self._take()
        if char in _CONTROLS:
            return _CONTROLS[char]
        if not char or not char.isascii() or char.isalnum():
            raise self.wrong(f"\\{char} is not an escape that RE2 and Python share")
        return ord(char)

    def _class(self, flags: _Flags) -> _Part:
        self._take()
        negate = self.rest[:1] == "^"
        if negate:
            self._take()
        ranges: Ranges = ()
        first = True
        while first or self.rest[:1] != "]":
            first = False
            if not self.rest:
                raise self.wrong("missing ]")
            ranges += self._class_item(flags)
        self._take()
        ranges = tuple(sorted(set(ranges)))
        return self._one(charsets.negated(ranges) if negate else ranges)

    def _class_item(self, flags: _Flags) -> Ranges:
        if found := self._match(_POSIX):
            if found[2] not in charsets.POSIX:
                raise self.wrong(f"unknown class {found[0]}")
            ranges = self._cased(charsets.POSIX[found[2]], flags)
            return charsets.negated(ranges) if found[1] else ranges
        if self.rest[0] == "\\" and self.rest[1:2].lower() in charsets.ESCAPES:
            self._take()
            return self._class_escape(flags)
        low = high = self._class_char()
        if self.rest[:1] == "-" and self.rest[1:2] not in {"]", ""}:
            self._take()
            high = self._class_char()
            if high < low:
                raise self.wrong("a range of characters runs backwards")
        return self._cased(((low, high),), flags)

    def _class_char(self) -> int:
        char = self._take()
        return self._code() if char == "\\" else ord(char)


def _switched(flags: _Flags, found: re.Match[str]) -> _Flags:
    """Flags after a group has set some."""
    for letter, value in [*((c, True) for c in found["on"] or ""), *((c, False) for c in found["off"] or "")]:
        flags = replace(flags, fold=value) if letter == "i" else replace(flags, newline=value)
    return flags
