"""Recent history of every series, in bounded ring buffers.

All series share one timeline: a slot is a slow tick (about a second), so a series costs one
``array('d')`` of 8 bytes a slot and no timestamps of its own. A slot in which a series was not seen
holds NaN, this store's mark for "unknown"; it never leaves the store.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from oomguard.metrics import Metric

SLOTS = 900
"""15 minutes at a slot a second."""

MAX_SERIES = 2000
"""Bound on memory: 2,000 series of 900 slots are 14 MB; a target of 16 processes has about 600."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one series. `suffix` is ``_bucket``, ``_sum`` or ``_count`` in histograms, else empty."""

    metric: Metric
    labels: tuple[str, ...]
    value: float
    suffix: str = ""


Key = tuple[str, tuple[str, ...]]
"""Name with suffix, and label values in the order of the metric's label names (``le`` last)."""


class Store:
    """The latest value and the last 15 minutes of every series."""

    def __init__(self, slots: int = SLOTS, max_series: int = MAX_SERIES) -> None:
        self.refused = 0
        """Series turned away because the store was full."""
        self._slots = slots
        self._max = max_series
        self._times = array("d")
        self._next = 0
        self._series: dict[Key, array[float]] = {}
        self._latest: dict[Key, Sample] = {}
        self._last_seen: dict[Key, int] = {}
        self._writes = 0

    def __len__(self) -> int:
        return len(self._series)

    def write(self, time: float, samples: Iterable[Sample]) -> None:
        """Fill one slot at `time` (Unix seconds); a series without a sample becomes unknown from here on."""
        slot = self._next
        if len(self._times) < self._slots:
            self._times.append(time)
        else:
            self._times[slot] = time
        self._next = (slot + 1) % self._slots
        self._writes += 1
        latest: dict[Key, Sample] = {}
        for sample in samples:
            key = (sample.metric.name + sample.suffix, sample.labels)
            values = self._series.get(key)
            if values is None:
                if len(self._series) >= self._max:
                    self.refused += 1
                    continue
                values = self._series[key] = array("d")
            self._put(values, slot, sample.value)
            self._last_seen[key] = self._writes
            latest[key] = sample
        for key, values in self._series.items():
            if key not in latest:
                self._put(values, slot, math.nan)
        self._latest = latest
        self._forget()

    def latest(self) -> list[Sample]:
        """What the last slot holds, in the order in which it was written."""
        return list(self._latest.values())

    def history(self, name: str, labels: tuple[str, ...], since: float = 0.0) -> list[tuple[float, float]]:
        """(Unix seconds, value) of one series, oldest first; unknown slots are left out."""
        values = self._series.get((name, labels))
        if values is None:
            return []
        return [
            (self._times[slot], values[slot])
            for slot in self._order()
            if slot < len(values) and self._times[slot] >= since and not math.isnan(values[slot])
        ]

    def _order(self) -> Iterator[int]:
        count = len(self._times)
        first = self._next if count == self._slots else 0
        return ((first + index) % self._slots for index in range(count))

    def _put(self, values: array[float], slot: int, value: float) -> None:
        if slot < len(values):
            values[slot] = value
            return
        while len(values) < slot:
            values.append(math.nan)
        values.append(value)

    def _forget(self) -> None:
        """Drop series of which no slot holds a value any more."""
        horizon = self._writes - self._slots
        if horizon <= 0 or self._writes % 60:
            return
        for key in [key for key, seen in self._last_seen.items() if seen <= horizon]:
            del self._series[key], self._last_seen[key]
