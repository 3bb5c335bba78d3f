"""Selectors: the series they name, found once for each set of series, and their samples at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from oomguard.promql.node import MatrixNode, Query, Selector, Vector, VectorNode, Window
from oomguard.promql.series import Labels, Series, Storage

LOOKBACK: Final = 300_000
"""How old (ms) a sample may be and still count as a series' present value, exclusively (Prometheus' default)."""

Resolve = Callable[[Query, int], int]
"""The time (Unix ms) that a node reads at, given the time it is evaluated at."""


class Selection:
    """The series of a selector, selected again only when series have come or gone."""

    __slots__ = ("_found", "_generation", "_selector", "_storage")

    def __init__(self, selector: Selector) -> None:
        self._selector = selector
        self._storage: Storage | None = None
        self._generation = -1
        self._found: list[tuple[Labels, Series]] = []

    def series(self, storage: Storage) -> list[tuple[Labels, Series]]:
        """Labels and series, as the storage orders them."""
        generation = storage.generation
        if storage is not self._storage or generation != self._generation:
            found = storage.select(self._selector.name, self._selector.matchers)
            self._found = [(series.labels, series) for series in found]
            self._storage, self._generation = storage, generation
        return self._found


def resolver(offset: int, at: int | str | None) -> Resolve:
    """How a node's time follows from the evaluation's: offset in ms, and the ``@`` (Unix ms, ``start`` or ``end``).

    An instant evaluation starts and ends at one time, also inside a subquery.
    """
    if isinstance(at, int):
        fixed = at - offset
        return lambda _query, _time: fixed
    if at is not None:
        return lambda query, _time: query.time - offset
    return lambda _query, time: time - offset


def instant(selector: Selector, offset: int, at: int | str | None) -> VectorNode:
    """The latest sample of each series."""
    selection = Selection(selector)
    resolve = resolver(offset, at)

    def plain(query: Query, time: int) -> Vector:
        oldest = time - LOOKBACK
        vector = []
        for labels, series in selection.series(query.storage):
            found = series.at(time, oldest)
            if found is not None:
                vector.append((labels, found[1]))
        return vector

    def shifted(query: Query, time: int) -> Vector:
        return plain(query, resolve(query, time))

    def timestamps(query: Query, time: int) -> Vector:
        time = resolve(query, time)
        vector = []
        for labels, series in selection.series(query.storage):
            found = series.at(time, time - LOOKBACK)
            if found is not None:
                vector.append((labels, found[0] / 1000))
        return vector

    # Prometheus forgets the offset of a selector with an @ in timestamp() (engine.go).
    known = None if at is not None and offset else timestamps
    evaluate = plain if not offset and at is None else shifted
    return VectorNode(evaluate, selector, known, sure=selector.name is not None, light=True)


def ranged(selector: Selector, length: int, offset: int, at: int | str | None) -> MatrixNode:
    """The samples of each series in a range of so many ms."""
    selection = Selection(selector)
    end = resolver(offset, at)

    def evaluate(query: Query, time: int) -> Sequence[Window]:
        last = end(query, time)
        first = last - length
        windows = []
        for labels, series in selection.series(query.storage):
            times, values = series.window(first, last)
            if times:
                windows.append((labels, times, values))
        return windows

    return MatrixNode(evaluate, end, length, selector, sure=selector.name is not None)


def subquery(inner: VectorNode, length: int, step: int, offset: int, at: int | str | None) -> MatrixNode:
    """The results of an expression at all multiples of `step` in a range of so many ms."""
    end = resolver(offset, at)

    def evaluate(query: Query, time: int) -> Sequence[Window]:
        last = end(query, time)
        # The range is open on the left (engine.go, subqueryTimeRange).
        first = ((last - length) // step + 1) * step
        within = Query(query.storage, query.time, {})
        found: dict[Labels, tuple[list[int], list[float]]] = {}
        for moment in range(first, last + 1, step):
            for labels, value in inner.evaluate(within, moment):
                times, values = found.setdefault(labels, ([], []))
                times.append(moment)
                values.append(value)
        return [(labels, times, values) for labels, (times, values) in found.items()]

    return MatrixNode(evaluate, end, length)
