"""Counting values into buckets."""

from __future__ import annotations

from bisect import bisect_left

from oomguard.hook import unpatched


class Histogram:
    """How many values lay in which bucket; a value that equals a bound lies below it, as Prometheus has it."""

    __slots__ = ("_bounds", "_counts", "_lock", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.forked()

    def forked(self) -> None:
        """Begin at zero, with a lock of its own."""
        self._lock = unpatched.allocate_rlock()
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum: float = 0

    def observe(self, value: float) -> None:
        """Count one value; from any thread."""
        place = bisect_left(self._bounds, value)
        with self._lock:
            self._counts[place] += 1
            self._sum += value

    def reading(self) -> dict[str, object]:
        """Bounds, counts (one more than bounds, the last is everything above; not cumulative) and the sum."""
        with self._lock:
            return {"bounds": list(self._bounds), "counts": list(self._counts), "sum": self._sum}
