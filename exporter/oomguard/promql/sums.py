"""Sums and means just as Prometheus takes them, and the float operations that Go does without an exception.

Prometheus sums with Neumaier's compensation (util/kahansum). Regressions, which take four sums of each series, use
math.fsum instead: it gives in C the correctly rounded sum, which is what the compensation approximates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

_LARGEST = 1.7976931348623157e308


def compensated(values: Iterable[float], total: float = 0.0, lost: float = 0.0) -> tuple[float, float]:
    """The running sum and what rounding took from it (kahansum.Inc over all values)."""
    for value in values:
        total, lost = add(value, total, lost)
    return total, lost


def add(value: float, total: float, lost: float) -> tuple[float, float]:
    """One step of compensated summation (kahansum.Inc): the new sum and the new rest."""
    new = total + value
    if new > _LARGEST or new < -_LARGEST:
        return new, 0.0
    if abs(total) >= abs(value):
        return new, lost + ((total - new) + value)
    return new, lost + ((value - new) + total)


def _finite(values: Iterable[float]) -> tuple[float, float]:
    """`compensated` without its rule for infinities, in one loop: a third of the time."""
    total = lost = 0.0
    for value in values:
        new = total + value
        if abs(total) >= abs(value):
            lost += (total - new) + value
        else:
            lost += (value - new) + total
        total = new
    return total, lost


def sum_of(values: Sequence[float]) -> float:
    """The sum of all values (functions.go, funcSumOverTime)."""
    total, lost = _finite(values)
    if math.isfinite(total):
        return total + lost
    total, lost = compensated(values)
    return total if math.isinf(total) else total + lost


def mean(values: Sequence[float]) -> float:
    """The mean of at least one value, also where the sum alone would overflow (functions.go, funcAvgOverTime)."""
    total, lost = _finite(values)
    if math.isfinite(total):
        return total / len(values) + lost / len(values)
    return _incremental_mean(values)


def exact_sum(values: Sequence[float]) -> float:
    """The correctly rounded sum; `sum_of` where there is none."""
    try:
        return math.fsum(values)
    except (OverflowError, ValueError):
        return sum_of(values)


def _incremental_mean(values: Sequence[float]) -> float:
    total, lost = values[0], 0.0
    incremental = False
    for count, value in enumerate(values[1:], 2):
        if not incremental:
            new, new_lost = add(value, total, lost)
            if not math.isinf(new):
                total, lost = new, new_lost
                continue
            incremental = True
            total, lost = total / (count - 1), lost / (count - 1)
        share = (count - 1) / count
        total, lost = add(value / count, share * total, share * lost)
    return total + lost if incremental else total / len(values) + lost / len(values)


def divide(left: float, right: float) -> float:
    """Division as IEEE 754 has it: by zero it is infinite or NaN."""
    try:
        return left / right
    except ZeroDivisionError:
        if left == 0 or left != left:  # noqa: PLR0124 - the test for NaN
            return math.nan
        return math.copysign(math.inf, left) * math.copysign(1.0, right)


def modulo(left: float, right: float) -> float:
    """The remainder with the sign of the dividend (Go's math.Mod)."""
    try:
        return math.fmod(left, right)
    except ValueError:
        return math.nan


def power(base: float, exponent: float) -> float:
    """Go's math.Pow: NaN and infinities where Python raises."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return -math.inf if base < 0 and _odd(exponent) else math.inf
    except ValueError:
        if base == 0:
            return math.copysign(math.inf, base) if _odd(exponent) else math.inf
        return math.nan


def _odd(value: float) -> bool:
    return math.isfinite(value) and math.fmod(value, 2) in {1.0, -1.0}


def largest(left: float, right: float) -> float:
    """Go's math.Max: +Inf wins, then NaN."""
    if math.inf in {left, right}:
        return math.inf
    if left != left or right != right:  # noqa: PLR0124 - the test for NaN
        return math.nan
    return max(left, right)


def smallest(left: float, right: float) -> float:
    """Go's math.Min: -Inf wins, then NaN."""
    return -largest(-left, -right)


def quantile(q: float, values: Iterable[float]) -> float:
    """The q-quantile of values, interpolated between two ranks (quantile.go, quantile); NaN counts as smallest."""
    ordered = sorted(values, key=lambda value: (value == value, value))  # noqa: PLR0124 - the test for NaN
    if not ordered or q != q:  # noqa: PLR0124 - the test for NaN
        return math.nan
    if q < 0:
        return -math.inf
    if q > 1:
        return math.inf
    rank = q * (len(ordered) - 1)
    lower = max(0, math.floor(rank))
    upper = min(len(ordered) - 1, lower + 1)
    weight = rank - math.floor(rank)
    return ordered[lower] * (1 - weight) + ordered[upper] * weight
