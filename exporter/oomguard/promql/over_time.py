"""Aggregations of one series over a range: every ``*_over_time``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from oomguard.promql import sums
from oomguard.promql.labels import without_name
from oomguard.promql.node import MatrixNode, Query, ScalarNode, Vector, VectorNode, check_unique
from oomguard.promql.ranges import over_range
from oomguard.promql.sums import add

OfValues = Callable[[Sequence[float]], float]


def maximum(values: Sequence[float]) -> float:
    """The largest; NaN only if all are."""
    return _extreme(values, max)


def minimum(values: Sequence[float]) -> float:
    """The smallest; NaN only if all are."""
    return _extreme(values, min)


def _extreme(values: Sequence[float], choose: Callable[[Sequence[float]], float]) -> float:
    result = choose(values)
    # A NaN anywhere may have spoilt the comparisons, and shows in the sum; so do infinities, which cost a second pass.
    if math.isnan(sum(values)):
        return choose([value for value in values if value == value] or values[:1])  # noqa: PLR0124 - NaN
    return result


def variance(values: Sequence[float]) -> float:
    """Population variance (functions.go, varianceOverTime: Welford's recurrence, compensated)."""
    mean = mean_lost = squares = squares_lost = 0.0
    for count, value in enumerate(values, 1):
        delta = value - (mean + mean_lost)
        mean, mean_lost = add(delta / count, mean, mean_lost)
        squares, squares_lost = add(delta * (value - (mean + mean_lost)), squares, squares_lost)
    return (squares + squares_lost) / len(values)


OF_VALUES: dict[str, OfValues] = {
    "avg_over_time": sums.mean,
    "count_over_time": lambda values: float(len(values)),
    "last_over_time": lambda values: values[-1],
    "max_over_time": maximum,
    "min_over_time": minimum,
    "present_over_time": lambda _values: 1.0,
    "stddev_over_time": lambda values: math.sqrt(variance(values)),
    "stdvar_over_time": variance,
    "sum_over_time": sums.sum_of,
}


def of_values(name: str, matrix: MatrixNode) -> VectorNode:
    """One of `OF_VALUES`; last_over_time keeps the metric's name, as it is that metric, only later."""
    function = OF_VALUES[name]
    return over_range(
        matrix, lambda _times, values, _end, _time: function(values), keep_name=name == "last_over_time"
    )


def quantile_over_time(q: ScalarNode, matrix: MatrixNode) -> VectorNode:
    """The q-quantile of each series' values."""
    evaluate, rank, names = matrix.evaluate, q.evaluate, without_name()

    def run(query: Query, time: int) -> Vector:
        at = rank(query, time)
        vector = []
        for labels, _, values in evaluate(query, time):
            named = names[labels]
            query.claim(identity, named, labels)
            vector.append((named, sums.quantile(at, values)))
        return check_unique(vector)

    identity = id(run)
    return VectorNode(run)
