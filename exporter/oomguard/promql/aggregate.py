"""Aggregations over the series of a vector, with ``by`` and ``without``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final

from oomguard.errors import PromqlError
from oomguard.promql import labels as label_sets
from oomguard.promql import sums
from oomguard.promql.node import Query, ScalarNode, Vector, VectorNode
from oomguard.promql.over_time import maximum, minimum
from oomguard.promql.series import METRIC_NAME, Labels

_INT64: Final = 2.0**63


def lone_variance(value: float) -> float:
    """The variance of one value: 0 if it is finite, else NaN (0 in any case before Prometheus 3)."""
    return 0.0 if math.isfinite(value) else math.nan


def _variance(values: Sequence[float]) -> float:
    """Population variance (engine.go, aggregation: Welford's recurrence)."""
    mean, squares = values[0], lone_variance(values[0])
    for count, value in enumerate(values[1:], 2):
        delta = value - mean
        mean += delta / count
        squares += delta * (value - mean)
    return squares / len(values)


SIMPLE: Final[dict[str, Callable[[Sequence[float]], float]]] = {
    "sum": lambda values: sums.sum_of(values) if len(values) > 1 else values[0],
    "avg": lambda values: sums.mean(values) if len(values) > 1 else values[0],
    "min": minimum,
    "max": maximum,
    "count": lambda values: float(len(values)),
    "group": lambda _values: 1.0,
    "stddev": lambda values: math.sqrt(_variance(values)),
    "stdvar": _variance,
}


def grouping(names: Sequence[str], *, without: bool) -> label_sets.LabelCache:
    """The labels of the group that a series belongs to."""
    return label_sets.drop((*names, METRIC_NAME)) if without else label_sets.keep(names)


def _groups(vector: Vector, groups: label_sets.LabelCache) -> dict[Labels, list[float]]:
    found: dict[Labels, list[float]] = {}
    for labels, value in vector:
        found.setdefault(groups[labels], []).append(value)
    return found


def simple(op: str, vector: VectorNode, groups: label_sets.LabelCache) -> VectorNode:
    """One of `SIMPLE`."""
    evaluate, compute = vector.evaluate, SIMPLE[op]

    def run(query: Query, time: int) -> Vector:
        found = _groups(evaluate(query, time), groups)
        return [(labels, compute(values)) for labels, values in found.items()]

    return VectorNode(run, sure=vector.sure, light=vector.light)


def quantile(q: ScalarNode, vector: VectorNode, groups: label_sets.LabelCache) -> VectorNode:
    """The q-quantile of each group."""
    evaluate, rank = vector.evaluate, q.evaluate

    def run(query: Query, time: int) -> Vector:
        at = rank(query, time)
        found = _groups(evaluate(query, time), groups)
        return [(labels, sums.quantile(at, values)) for labels, values in found.items()]

    return VectorNode(run)


def extremes(op: str, k: ScalarNode, vector: VectorNode, groups: label_sets.LabelCache) -> VectorNode:
    """``topk`` and ``bottomk``: the k samples of each group that come first, in order; NaN comes last.

    Among equal values the one that the storage lists first is taken; Prometheus leaves that open.
    """
    evaluate, number = vector.evaluate, k.evaluate
    sign = -1.0 if op == "topk" else 1.0

    def order(sample: tuple[Labels, float]) -> tuple[bool, float]:
        value = sample[1]
        return (True, 0.0) if value != value else (False, sign * value)  # noqa: PLR0124 - the test for NaN

    def run(query: Query, time: int) -> Vector:
        count = number(query, time)
        samples = evaluate(query, time)
        if count < 1:
            return []
        if count != count:  # noqa: PLR0124 - the test for NaN
            raise PromqlError(f"parameter value of {op} is NaN; give a number")
        if count >= _INT64:
            raise PromqlError(f"scalar value {count} of {op} overflows int64")
        found: dict[Labels, Vector] = {}
        for sample in samples:
            found.setdefault(groups[sample[0]], []).append(sample)
        vector = []
        for group in found.values():
            vector += sorted(group, key=order)[: int(count)]
        return vector

    return VectorNode(run)


def count_values(label: str, vector: VectorNode, names: Sequence[str], *, without: bool) -> VectorNode:
    """How many samples of each group have each value; the value becomes a label."""
    evaluate = vector.evaluate
    groups = grouping(names if without else (*names, label), without=without)

    def run(query: Query, time: int) -> Vector:
        counts: dict[Labels, int] = {}
        for labels, value in evaluate(query, time):
            key = groups[label_sets.with_label(labels, label, format_value(value))]
            counts[key] = counts.get(key, 0) + 1
        return [(labels, float(count)) for labels, count in counts.items()]

    return VectorNode(run)


def format_value(value: float) -> str:
    """A number as Prometheus writes it into a label: the shortest digits, no exponent (Go's FormatFloat 'f', -1)."""
    if value != value:  # noqa: PLR0124 - the test for NaN
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = format(Decimal(repr(value)), "f")
    return text.removesuffix(".0")
