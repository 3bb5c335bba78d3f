"""Functions that look at how a series moves over a range: rate and its kin, resets, changes, regression."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from itertools import islice

from oomguard.promql.labels import without_name
from oomguard.promql.node import MatrixNode, Query, ScalarNode, Vector, VectorNode, check_unique
from oomguard.promql.sums import divide, exact_sum

Over = Callable[[Sequence[int], Sequence[float], int, int], float | None]
"""What a function makes of times and values, the range's end (Unix ms) and the time it is evaluated at."""


def over_range(matrix: MatrixNode, function: Over, *, keep_name: bool = False) -> VectorNode:
    """A function of each series over a range; None leaves the series out."""
    evaluate, find_end, names = matrix.evaluate, matrix.end, without_name()

    def run(query: Query, time: int) -> Vector:
        end = find_end(query, time)
        vector = []
        for labels, times, values in evaluate(query, time):
            result = function(times, values, end, time)
            if result is None:
                continue
            if keep_name:
                vector.append((labels, result))
                continue
            named = names[labels]
            query.claim(identity, named, labels)
            vector.append((named, result))
        return vector if keep_name else check_unique(vector)

    identity = id(run)
    return VectorNode(run, sure=matrix.sure)


def extrapolated(length: int, *, counter: bool, per_second: bool) -> Over:
    """rate, increase and delta over `length` ms (functions.go, extrapolatedRate): at least two samples."""
    seconds = length / 1000

    def function(times: Sequence[int], values: Sequence[float], end: int, _time: int) -> float | None:
        steps = len(times) - 1
        if steps < 1:
            return None
        first = values[0]
        change = values[-1] - first
        if counter:
            after = islice(values, 1, None)
            if any(map(operator.lt, after, values)):
                for previous, current in zip(values, islice(values, 1, None), strict=False):
                    if current < previous:
                        change += previous
        to_start = (times[0] - (end - length)) / 1000
        to_end = (end - times[-1]) / 1000
        sampled = (times[-1] - times[0]) / 1000
        average = sampled / steps
        threshold = average * 1.1
        # A counter can't have been below zero: extrapolate no further than to where it would be zero.
        to_zero = sampled * (first / change) if counter and change > 0 and first >= 0 else None
        to_start = start_gap(to_start, threshold, average, to_zero)
        if to_end >= threshold:
            to_end = average / 2
        factor = (sampled + to_start + to_end) / sampled
        return change * (factor / seconds if per_second else factor)

    return function


def start_gap(to_start: float, threshold: float, average: float, to_zero: float | None) -> float:
    """How far before its first sample (seconds) a series is extended: not to a start further off than `threshold`.

    Since Prometheus 2.53 the distance to where a counter would be zero shortens what is left after the threshold;
    before, it was what the threshold was held against.
    """
    if to_start >= threshold:
        to_start = average / 2
    return to_start if to_zero is None or to_zero >= to_start else to_zero


def irate(times: Sequence[int], values: Sequence[float], _end: int, _time: int) -> float | None:
    """Change per second between the last two samples; after a reset, the last value alone."""
    if len(times) < 2:  # noqa: PLR2004 - two samples
        return None
    previous, last = values[-2], values[-1]
    change = last if last < previous else last - previous
    return change / ((times[-1] - times[-2]) / 1000)


def idelta(times: Sequence[int], values: Sequence[float], _end: int, _time: int) -> float | None:
    """Change between the last two samples."""
    return values[-1] - values[-2] if len(times) > 1 else None


def resets(_times: Sequence[int], values: Sequence[float], _end: int, _time: int) -> float:
    """How often a value was lower than the one before."""
    return float(sum(map(operator.lt, islice(values, 1, None), values)))


def changes(_times: Sequence[int], values: Sequence[float], _end: int, _time: int) -> float:
    """How often a value differed from the one before; NaN does not differ from NaN."""
    return float(
        sum(
            current != previous and not (current != current and previous != previous)  # noqa: PLR0124 - NaN
            for previous, current in zip(values, islice(values, 1, None), strict=False)
        )
    )


def deriv(times: Sequence[int], values: Sequence[float], _end: int, _time: int) -> float | None:
    """Slope per second of the least-squares line; at least two samples."""
    return regression(times, values, times[0])[0] if len(times) > 1 else None


def predict_linear(matrix: MatrixNode, ahead: ScalarNode) -> VectorNode:
    """Where the least-squares line will be so many seconds after the time of evaluation.

    After the evaluation's time, not the range's end: an offset does not move it (functions.go, funcPredictLinear).
    """
    evaluate, seconds_ahead, names = matrix.evaluate, ahead.evaluate, without_name()

    def run(query: Query, time: int) -> Vector:
        seconds = seconds_ahead(query, time)
        vector = []
        for labels, times, values in evaluate(query, time):
            if len(times) > 1:
                slope, intercept = regression(times, values, time)
                named = names[labels]
                query.claim(identity, named, labels)
                vector.append((named, slope * seconds + intercept))
        return check_unique(vector)

    identity = id(run)
    return VectorNode(run, sure=matrix.sure and ahead.sure)


def regression(times: Sequence[int], values: Sequence[float], origin: int) -> tuple[float, float]:
    """Slope (per second) and intercept at `origin` (Unix ms) of the least-squares line (linearRegression).

    A constant series has slope 0 exactly; a constant infinity has no line.
    """
    first, n = values[0], len(values)
    # The first comparison keeps NaN out: count() takes an object as equal to itself.
    if first == first and values.count(first) == n:  # noqa: PLR0124 - the test for NaN
        return (0.0, first) if abs(first) != float("inf") else (float("nan"), float("nan"))
    seconds = [(time - origin) / 1e3 for time in times]
    sum_x, sum_y = exact_sum(seconds), exact_sum(values)
    sum_xy = exact_sum(list(map(operator.mul, seconds, values)))
    sum_xx = exact_sum(list(map(operator.mul, seconds, seconds)))
    slope = divide(sum_xy - sum_x * sum_y / n, sum_xx - sum_x * sum_x / n)
    return slope, sum_y / n - slope * sum_x / n
