"""The tokens of a Go template: text, and what stands between ``{{`` and ``}}`` (text/template/parse/lex.go)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_SPACE = " \t\r\n"
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_CLOSE = re.compile(r"[ \t\r\n]+-\}\}|\}\}")
_TOKEN = re.compile(
    r"""
    (?P<string>"(?:[^"\\\n]|\\.)*" | `[^`]*`)
  | (?P<number>[+-]?(?:0[xX][0-9a-fA-F_]+|(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))
  | (?P<path>\$\w*(?:\.\w+)*|(?:\.[^\W\d]\w*)+|\.)
  | (?P<word>[^\W\d]\w*)
  | (?P<sign>:=|[()|=,])
    """,
    re.VERBOSE,
)
_ENDS_OPERAND = re.compile(r"[ \t\r\n|()]|\}\}|\Z")


class TemplateError(ValueError):
    """A template can't be parsed, or uses what is not supported; the text names it and the template's line."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(f"line {line} of the template: {text}")


@dataclass(frozen=True, slots=True)
class Token:
    """One word inside an action."""

    kind: str
    """``string``, ``number``, ``path`` (``.Value``, ``$labels.job``), ``word`` or ``sign``."""
    text: str
    spaced: bool
    """Whether white space stands before it."""


@dataclass(frozen=True, slots=True)
class Action:
    """What stands between one pair of braces."""

    tokens: tuple[Token, ...]
    line: int


def split(text: str) -> Iterator[str | Action]:
    """The literal texts, trimmed as ``{{-`` and ``-}}`` ask, and the actions of a template, in order."""
    place = 0
    trim = False
    while True:
        opening = text.find("{{", place)
        literal = text[place:] if opening < 0 else text[place:opening]
        if trim:
            literal = literal.lstrip(_SPACE)
        if opening < 0:
            if literal:
                yield literal
            return
        inside = opening + 2
        if text[inside : inside + 1] == "-" and text[inside + 1 : inside + 2] in tuple(_SPACE):
            literal = literal.rstrip(_SPACE)
            inside += 2
        if literal:
            yield literal
        line = text.count("\n", 0, opening) + 1
        if text.startswith("/*", inside):
            close = _comment(text, inside, line)
        else:
            tokens, close = _action(text, inside, line)
            yield Action(tokens, line)
        trim = close[0] != "}}"
        place = close.end()


def _comment(text: str, inside: int, line: int) -> re.Match[str]:
    comment = _COMMENT.match(text, inside)
    close = _CLOSE.match(text, comment.end()) if comment is not None else None
    if close is None:
        raise TemplateError(line, "a comment must end with */}}")
    return close


def _action(text: str, inside: int, line: int) -> tuple[tuple[Token, ...], re.Match[str]]:
    tokens: list[Token] = []
    place = inside
    while True:
        close = _CLOSE.match(text, place)
        if close is not None:
            return tuple(tokens), close
        start = place
        while text[place : place + 1] in tuple(_SPACE):
            place += 1
        if close := _CLOSE.match(text, place):
            return tuple(tokens), close
        if place >= len(text):
            raise TemplateError(line, "{{ is not closed by }}")
        match = _TOKEN.match(text, place)
        if match is None or match.lastgroup is None:
            raise TemplateError(line, f"unexpected {text[place]!r} between the braces")
        place = match.end()
        if match.lastgroup != "sign" and not _ENDS_OPERAND.match(text, place):
            raise TemplateError(line, f"unexpected {text[place]!r} after {match[0]!r}")
        tokens.append(Token(match.lastgroup, match[0], spaced=place - len(match[0]) > start))
