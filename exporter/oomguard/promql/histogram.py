"""histogram_quantile over the ``le`` buckets of classic histograms (Prometheus' quantile.go)."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from typing import Final

from oomguard.promql import labels as label_sets
from oomguard.promql.node import Query, ScalarNode, Vector, VectorNode, check_unique
from oomguard.promql.series import METRIC_NAME, Labels
from oomguard.promql.sums import divide

_LE: Final = "le"
_BOUND: Final = re.compile(
    r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?|nan)", re.IGNORECASE | re.ASCII
)
_TOLERANCE: Final = 1e-12
"""Relative difference of two buckets below which it is taken for rounding (smallDeltaTolerance)."""


def parse_bound(text: str) -> float | None:
    """The bound of a bucket; None if the label is not a number (Go's ParseFloat)."""
    if not _BOUND.fullmatch(text):
        return None
    bound = float(text)
    return None if math.isinf(bound) and "i" not in text.lower() else bound


def bucket_quantile(q: float, buckets: list[tuple[float, float]]) -> float:
    """The q-quantile, linear within a bucket, of at least one cumulative bucket (bound, count)."""
    if q != q:  # noqa: PLR0124 - the test for NaN
        return math.nan
    if q < 0 or q > 1:
        return math.copysign(math.inf, q)
    buckets.sort(key=lambda bucket: bucket[0])
    if buckets[-1][0] != math.inf:
        return math.nan
    bounds, counts = _monotonic(buckets)
    # +Inf alone says nothing.
    return _interpolated(q, bounds, counts) if len(bounds) > 1 and counts[-1] != 0 else math.nan


def _interpolated(q: float, bounds: list[float], counts: list[float]) -> float:
    rank = q * counts[-1]
    last = len(bounds) - 1
    index = bisect_left(counts, rank, 0, last) if rank == rank else last  # noqa: PLR0124 - the test for NaN
    if index == last:
        return bounds[last - 1]
    if index > 0:
        start, below = bounds[index - 1], counts[index - 1]
        return start + (bounds[index] - start) * divide(rank - below, counts[index] - below)
    return bounds[0] * divide(rank, counts[0]) if bounds[0] > 0 else bounds[0]


def _monotonic(buckets: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Bounds and counts with equal bounds added up and every decrease levelled.

    Prometheus: coalesceBuckets, ensureMonotonicAndIgnoreSmallDeltas.
    """
    bounds: list[float] = []
    counts: list[float] = []
    for bound, count in buckets:
        if bounds and bound == bounds[-1]:
            counts[-1] += count
        else:
            bounds.append(bound)
            counts.append(count)
    previous = counts[0]
    for index in range(1, len(counts)):
        current = counts[index]
        if current < previous or _almost_equal(previous, current):
            counts[index] = previous
        else:
            previous = current
    return bounds, counts


def _almost_equal(one: float, other: float) -> bool:
    """Prometheus' util/almost.Equal."""
    if one != one and other != other:  # noqa: PLR0124 - the test for NaN
        return True
    if one == other:
        return True
    size, difference = abs(one) + abs(other), abs(one - other)
    smallest = 2.2250738585072014e-308
    if one == 0 or other == 0 or size < smallest:
        return difference < _TOLERANCE * smallest
    return difference / min(size, 1.7976931348623157e308) < _TOLERANCE


def histogram_quantile(q: ScalarNode, vector: VectorNode) -> VectorNode:
    """The q-quantile of each histogram of a vector of buckets; samples without a number in ``le`` are passed over."""
    evaluate, rank = vector.evaluate, q.evaluate
    histograms, results = label_sets.drop((_LE,)), label_sets.drop((_LE, METRIC_NAME))
    bounds: dict[Labels, float | None] = {}

    def run(query: Query, time: int) -> Vector:
        at = rank(query, time)
        found: dict[Labels, list[tuple[float, float]]] = {}
        for labels, count in evaluate(query, time):
            if labels not in bounds:
                if len(bounds) >= label_sets.KEPT:
                    bounds.clear()
                bounds[labels] = parse_bound(label_sets.get(labels, _LE))
            bound = bounds[labels]
            if bound is not None:
                found.setdefault(histograms[labels], []).append((bound, count))
        return check_unique(
            [(results[labels], bucket_quantile(at, buckets)) for labels, buckets in found.items()]
        )

    return VectorNode(run)
