"""Label matchers in Alertmanager's syntax: ``severity="page"``, ``alertname=~"Memory.*"``, ``{a=b, c!=d}``."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from oomguard.errors import PromqlError
from oomguard.promql.patterns import compile_pattern

_MATCHER: Final = re.compile(
    r"[\t\n\f\r ]*([a-zA-Z_:][a-zA-Z0-9_:]*)[\t\n\f\r ]*(=~|=|!=|!~)[\t\n\f\r ]*(.*?)[\t\n\f\r ]*", re.DOTALL
)


class Op(enum.Enum):
    """How a label's value is compared; in the order in which Alertmanager sorts them."""

    EQUAL = "="
    NOT_EQUAL = "!="
    REGEX = "=~"
    NOT_REGEX = "!~"


_ORDER = {op: position for position, op in enumerate(Op)}


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on one label; a label that is not there counts as empty."""

    name: str
    op: Op
    value: str
    accepts: Callable[[str], bool] = field(compare=False, repr=False)

    def __str__(self) -> str:
        escaped = self.value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
        return f'{self.name}{self.op.value}"{escaped}"'


Matchers = tuple[Matcher, ...]


def matcher(name: str, op: Op, value: str) -> Matcher:
    """A matcher; ValueError for a regular expression that can't be used, with the reason."""
    if op is Op.EQUAL:
        return Matcher(name, op, value, value.__eq__)
    if op is Op.NOT_EQUAL:
        return Matcher(name, op, value, value.__ne__)
    found = _regex(value)
    if op is Op.REGEX:
        return Matcher(name, op, value, found)
    return Matcher(name, op, value, lambda text: not found(text))


def _regex(text: str) -> Callable[[str], bool]:
    """Whether a whole value matches; unlike in Prometheus 3, the dot matches no line break."""
    try:
        compile_pattern(text)  # by itself: it must not close the group that it is put in
        full = compile_pattern(f"(?-s:{text})").fullmatch
    except PromqlError as error:
        raise ValueError(str(error)) from None
    return lambda value: full(value) is not None


def parse_matchers(text: str) -> list[Matcher]:
    """The matchers of one line, braces optional (pkg/labels/parse.go); ValueError tells what is wrong."""
    body = text.removeprefix("{").removesuffix("}")
    return [parse_matcher(token) for token in _split(body)]


def _split(text: str) -> Iterator[str]:
    """What stands between commas outside of quotes; an empty rest after the last comma is nothing."""
    quoted = escaped = False
    start = 0
    for index, char in enumerate(text):
        if char == "," and not quoted:
            yield text[start:index]
            start = index + 1
            # Alertmanager leaves a backslash before a comma in force; nothing can follow from it but the same split.
            continue
        if char == '"':
            quoted = quoted if escaped else not quoted
            escaped = False
        else:
            escaped = char == "\\" and not escaped
    if text[start:].strip():
        yield text[start:].strip()


def parse_matcher(text: str) -> Matcher:
    """One ``name op value`` (pkg/labels/parse.go, ParseMatcher); ValueError tells what is wrong."""
    match = _MATCHER.fullmatch(text)
    if match is None:
        raise ValueError(f'{text!r} is not a matcher; write for example severity="page"')
    name, op, raw = match[1], Op(match[2]), match[3]
    return matcher(name, op, _unquote(raw))


_ESCAPES = {"n": "\n", '"': '"', "\\": "\\"}


def _unquote(raw: str) -> str:
    """A value without its optional quotes; OpenMetrics escapes are undone, other backslashes stay."""
    opened = raw.startswith('"')
    body = raw[1:] if opened else raw
    value = []
    index = 0
    closed = False
    while index < len(body):
        char = body[index]
        if char == "\\" and index + 1 < len(body):
            following = body[index + 1]
            value.append(_ESCAPES.get(following, "\\" + following))
            index += 2
            continue
        if char == '"':
            closed = opened and index == len(body) - 1
            if not closed:
                raise ValueError(f'{raw!r} has a double quote inside; write it as \\"')
        else:
            value.append(char)
        index += 1
    if opened and not closed:
        raise ValueError(f"{raw!r} lacks its closing double quote")
    return "".join(value)


def in_order(matchers: Iterable[Matcher]) -> Matchers:
    """Sorted as Alertmanager sorts them, which shows in group keys."""
    return tuple(sorted(matchers, key=lambda entry: (entry.name, entry.value, _ORDER[entry.op])))


def matches(matchers: Matchers, labels: Mapping[str, str]) -> bool:
    """Whether all accept."""
    return all(entry.accepts(labels.get(entry.name, "")) for entry in matchers)


def written(matchers: Matchers) -> str:
    """``{a="b",c=~"d"}``, as group keys hold them."""
    return "{" + ",".join(map(str, matchers)) + "}"
