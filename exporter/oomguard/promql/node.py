"""What an expression is compiled to: one small evaluating function a node of the tree.

The functions take the query and a time (Unix ms), for a subquery evaluates what is inside it at many times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from oomguard.errors import PromqlError
from oomguard.promql.series import Labels, Matcher, Storage

Vector = list[tuple[Labels, float]]
"""An instant vector; no label set is in it twice."""

Window = tuple[Labels, Sequence[int], Sequence[float]]
"""One series of a range vector: labels, times, values; never empty."""


@dataclass(slots=True)
class Query:
    """One evaluation of an expression."""

    storage: Storage
    time: int
    """Of the whole evaluation: what ``@ start()`` and ``@ end()`` mean."""
    origins: dict[tuple[int, Labels], Labels] | None = None
    """Inside a subquery: which series each result came from, by the operation and the result's labels."""

    def claim(self, operation: int, result: Labels, series: Labels) -> None:
        """PromqlError if an operation gave the same labels to two series at different steps of a subquery.

        Prometheus checks the whole range at once for what it evaluates series by series (engine.go,
        ContainsSameLabelset of a matrix), so two series that never meet at one step collide all the same.
        """
        if self.origins is not None and self.origins.setdefault((operation, result), series) != series:
            raise duplicate(result)


@dataclass(frozen=True, slots=True)
class Selector:
    """One selector of an expression: what it reads."""

    name: str | None
    """The metric's name; None if the selector names none, or more than one by a pattern."""
    matchers: tuple[Matcher, ...]
    """Without the one that `name` stands for."""
    reach: int
    """How far back it reads, in ms, before the evaluation's time or its fixed `at`: range, offset and all
    subqueries around it. The lookback is not counted."""
    instant: bool
    """It reads the latest sample only: no range, offset, ``@`` or subquery."""
    at: int | None = None
    """The Unix ms that an ``@`` on it or on a subquery around it names, whatever the evaluation's time."""


@dataclass(frozen=True, slots=True)
class VectorNode:
    """Gives an instant vector."""

    evaluate: Callable[[Query, int], Vector]
    selector: Selector | None = None
    """Set for a bare selector, in parentheses or not: absent() takes labels from it."""
    timestamps: Callable[[Query, int], Vector] | None = None
    """Set for a bare selector, but for one with offset and ``@``: times (Unix seconds) of the samples."""
    sure: bool = False
    """Known to fail on no series at all, since no two of its own differ in nothing but their names: it need not be
    evaluated where the rest of the expression leaves nothing of it."""
    light: bool = False
    """Reads no ranges."""


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """Gives a number."""

    evaluate: Callable[[Query, int], float]
    sure: bool = False
    """Reads no series, and can't fail."""


@dataclass(frozen=True, slots=True)
class StringNode:
    """A string literal."""

    value: str


@dataclass(frozen=True, slots=True)
class MatrixNode:
    """Gives a range vector."""

    evaluate: Callable[[Query, int], Sequence[Window]]
    end: Callable[[Query, int], int]
    """Where the range ends (Unix ms), offset and ``@`` applied."""
    range: int
    """In ms."""
    selector: Selector | None = None
    """Set for a selector, not for a subquery."""
    sure: bool = False
    """As of a `VectorNode`."""


Node = VectorNode | ScalarNode | StringNode | MatrixNode


@dataclass(slots=True)
class Scope:
    """Where in the tree the compiler is, and what it has met."""

    reach: int = 0
    """Ranges and offsets of the subqueries around it, in ms."""
    depth: int = 0
    """How many subqueries stand around it."""
    at: int | None = None
    selectors: list[Selector] = field(default_factory=list)


def duplicate(labels: Labels) -> PromqlError:
    """The error for a vector in which a label set would stand twice."""
    return PromqlError(
        f"vector cannot contain metrics with the same labelset: {show(labels)} stands twice; "
        "aggregate, or select one metric name"
    )


def check_unique(vector: Vector) -> Vector:
    """The vector; PromqlError if a label set stands in it twice."""
    if len(vector) > 1:
        seen = set()
        for labels, _ in vector:
            if labels in seen:
                raise duplicate(labels)
            seen.add(labels)
    return vector


def show(labels: Labels) -> str:
    """Labels as text for an error."""
    return "{" + ", ".join(f'{name}="{value}"' for name, value in labels) + "}"
