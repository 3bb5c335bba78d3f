"""The functions that templates may call, with the types they take (text/template/funcs.go; Prometheus' template.go).

Types are known when a template is compiled: ``$value`` is a float, labels are texts. So what would fail at every
evaluation is refused at load; what depends on a label's text fails when it is rendered.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from oomguard.rules.goformat import Value, type_name
from oomguard.rules.humanize import (
    humanize,
    humanize1024,
    humanize_duration,
    humanize_percentage,
    humanize_timestamp,
)

ANY: Final = "any"
"""A type that is known only when the template is rendered."""
MAP: Final = "map[string]string"

Check = Callable[[Sequence[str]], str]


@dataclass(frozen=True, slots=True)
class Function:
    """One function: how many values it takes, what it makes of their types, and what it does."""

    least: int
    most: int | None
    """None: any number."""
    result: Check
    """The result's type; raises ValueError for types that it can't take."""
    call: Callable[..., Value]


def truth(value: Value) -> bool:
    """Whether ``if`` takes it for true: not zero, not empty (template.IsTrue); NaN is true."""
    return bool(value)


def _number(types: Sequence[str]) -> str:
    if types[0] in {"bool", MAP}:
        raise ValueError(f"can't convert {types[0]} to float")
    return "string"


def _text(types: Sequence[str]) -> str:
    if types[0] not in {"string", ANY}:
        raise ValueError(f"expected string; got {types[0]}")
    return "string"


def _equal_types(types: Sequence[str]) -> str:
    for other in types[1:]:
        _same(types[0], other)
    return "bool"


def _ordered_types(types: Sequence[str]) -> str:
    if "bool" in types:
        raise ValueError("booleans have no order")
    return _equal_types(types)


def _same(one: str, other: str) -> None:
    if MAP in {one, other}:
        raise ValueError("maps can't be compared")
    if ANY not in {one, other} and one != other:
        advice = "; write the number with a point, as 1.0" if {one, other} == {"int", "float64"} else ""
        raise ValueError(f"incompatible types for comparison, {one} and {other}{advice}")


def _either(types: Sequence[str]) -> str:
    return types[0] if len(set(types)) == 1 else ANY


def _equal(first: Value, *others: Value) -> Value:
    for other in others:
        _same(type_name(first), type_name(other))
        if first == other:
            return True
    return False


def _unequal(one: Value, other: Value) -> Value:
    return not _equal(one, other)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Value, Value], Value]:
    def call(one: Value, other: Value) -> Value:
        _ordered_types((type_name(one), type_name(other)))
        # Go orders strings by their bytes.
        if isinstance(one, str) and isinstance(other, str):
            return compare(one.encode(), other.encode())
        return compare(one, other)

    return call


def _greater(one: Any, other: Any) -> bool:
    """Go's templates make gt and ge of lt, le and not, so that NaN is greater than everything."""
    return not one <= other


def _not_less(one: Any, other: Any) -> bool:
    return not one < other


def _upper(text: Value) -> Value:
    return _each(text, str.upper)


def _lower(text: Value) -> Value:
    return _each(text, str.lower)


def _each(text: Value, change: Callable[[str], str]) -> str:
    """Letter by letter as Go does: ß stays, for its capital would be two letters."""
    if not isinstance(text, str):
        raise ValueError(f"expected string; got {type_name(text)}")  # noqa: TRY004 - it is the template's fault
    return "".join(changed if len(changed := change(letter)) == 1 else letter for letter in text)


def _not(value: Value) -> Value:
    return not truth(value)


def _first(wanted: bool) -> Callable[..., Value]:
    def call(*values: Value) -> Value:
        return next((value for value in values if truth(value) is wanted), values[-1])

    return call


FUNCTIONS: Final[Mapping[str, Function]] = {
    "humanize": Function(1, 1, _number, humanize),
    "humanize1024": Function(1, 1, _number, humanize1024),
    "humanizeDuration": Function(1, 1, _number, humanize_duration),
    "humanizePercentage": Function(1, 1, _number, humanize_percentage),
    "humanizeTimestamp": Function(1, 1, _number, humanize_timestamp),
    "toUpper": Function(1, 1, _text, _upper),
    "toLower": Function(1, 1, _text, _lower),
    "eq": Function(2, None, _equal_types, _equal),
    "ne": Function(2, 2, _equal_types, _unequal),
    "lt": Function(2, 2, _ordered_types, _ordered(operator.lt)),
    "le": Function(2, 2, _ordered_types, _ordered(operator.le)),
    "gt": Function(2, 2, _ordered_types, _ordered(_greater)),
    "ge": Function(2, 2, _ordered_types, _ordered(_not_less)),
    "not": Function(1, 1, lambda _types: "bool", _not),
    "and": Function(1, None, _either, _first(wanted=False)),
    "or": Function(1, None, _either, _first(wanted=True)),
}
"""``printf`` stands apart: its format is read when the template is compiled."""
