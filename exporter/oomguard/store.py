"""Recent history of every series: what rules, the page and a scrape read.

All series share one timeline: a slot is a slow tick (1 to 5 s), so a series costs 8 bytes a slot and no
timestamps of its own. A slot in which a series was not seen holds the stale marker; it never leaves the store but
to the evaluator. What rules want for longer than `SLOTS` (`keep_long`) has a second timeline with a slot every
15 s. The series of the fast lane have a live value besides, newer than any slot.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Final

from oomguard.metrics import Metric
from oomguard.promql.series import METRIC_NAME, STALE, Labels, Matcher, is_stale

SLOTS: Final = 900
"""15 minutes at a slot a second."""
LONG_STEP: Final = 15_000
"""Milliseconds between two slots of the long timeline."""
LONG_SLOTS: Final = 1440
"""6 hours at 15 s."""
MAX_REACH: Final = LONG_STEP * LONG_SLOTS
"""Milliseconds of history that a rule may ask for."""
MAX_SERIES: Final = 2000
"""Bound on memory: 2,000 series of 1,000 slots are 16 MB; a target of 16 processes has about 600."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one series. `suffix` is ``_bucket``, ``_sum`` or ``_count`` in histograms, else empty."""

    metric: Metric
    labels: tuple[str, ...]
    value: float
    suffix: str = ""


Key = tuple[str, tuple[str, ...], tuple[str, ...]]
"""Name with suffix, label values in the order of the metric's label names (``le`` last), and those names."""


def key_of(sample: Sample) -> Key:
    """The key of a sample's series."""
    return (sample.metric.name + sample.suffix, sample.labels, sample.metric.labels)


def labels_of(sample: Sample) -> Labels:
    """A sample's labels as PromQL sees them."""
    names = sample.metric.label_names + (("le",) if sample.suffix == "_bucket" else ())
    pairs = [(METRIC_NAME, sample.metric.name + sample.suffix), *zip(names, sample.labels, strict=True)]
    return tuple(sorted(pair for pair in pairs if pair[1]))


class Timeline:
    """Times of slots in Unix milliseconds, oldest first; at most an eighth more than `slots` of them."""

    def __init__(self, slots: int) -> None:
        self.times = array("q")
        self.forgot = False
        """Whether older slots were dropped: what is not here may still have been."""
        self._slots = slots
        self._slack = max(1, slots // 8)

    def add(self, time: int, columns: Iterable[array[float]]) -> None:
        """A new slot, in which every column holds the stale marker until it is written."""
        self.times.append(time)
        surplus = len(self.times) - self._slots if len(self.times) >= self._slots + self._slack else 0
        if surplus:
            del self.times[:surplus]
            self.forgot = True
        for column in columns:
            column.append(STALE)
            if surplus:
                del column[:surplus]

    def column(self) -> array[float]:
        """Values of a series that comes now: stale so far."""
        return array("d", [STALE]) * len(self.times)

    def reaches(self, time: int) -> bool:
        """Whether everything that was seen after `time` is still here."""
        return not self.forgot or (bool(self.times) and self.times[0] <= time)


class StoredSeries:
    """One series of the store (`oomguard.promql.series.Series`)."""

    __slots__ = ("_long", "_long_values", "_short", "labels", "live_time", "live_value", "seen", "values")

    def __init__(self, labels: Labels, short: Timeline, long: Timeline | None) -> None:
        self.labels = labels
        self.values = short.column()
        self.seen = 0
        """Number of the last write that had it."""
        self.live_time = 0
        """Unix milliseconds of `live_value`; 0: there was none yet."""
        self.live_value = 0.0
        self._short = short
        self._long = long
        self._long_values = long.column() if long is not None else None

    @property
    def long_values(self) -> array[float] | None:
        """Values on the long timeline; None where nobody asked for them."""
        return self._long_values

    def at(self, time: int, oldest: int) -> tuple[int, float] | None:
        """See `oomguard.promql.series.Series`."""
        if oldest < self.live_time <= time and not self._overtaken():
            return None if is_stale(self.live_value) else (self.live_time, self.live_value)
        times, values = self._timeline(time)
        index = bisect_right(times, time) - 1
        if index < 0 or times[index] <= oldest:
            return None
        value = values[index]
        return None if value != value and is_stale(value) else (times[index], value)  # noqa: PLR0124 - NaN

    def window(self, start: int, end: int) -> tuple[Sequence[int], Sequence[float]]:
        """See `oomguard.promql.series.Series`."""
        times, values = self._timeline(start)
        low, high = bisect_right(times, start), bisect_right(times, end)
        found_times: Sequence[int] = times[low:high]
        found: Sequence[float] = values[low:high]
        # A sum is NaN if a value is, and is taken in C: 2 µs for 600 values, a generator's test takes 15.
        if isnan(sum(found)):
            kept = [(at, value) for at, value in zip(found_times, found, strict=True) if not is_stale(value)]
            found_times, found = [at for at, _ in kept], [value for _, value in kept]
        if start < self.live_time <= end and not self._overtaken() and not is_stale(self.live_value):
            return [*found_times, self.live_time], [*found, self.live_value]
        return found_times, found

    def _overtaken(self) -> bool:
        """Whether a slot has been filled since the live value: it knows better, if only that there is none."""
        times = self._short.times
        return bool(times) and times[-1] >= self.live_time

    def _timeline(self, start: int) -> tuple[array[int], array[float]]:
        """One timeline for a whole window: mixed steps would weigh the newer half of it more."""
        if self._long is not None and self._long_values is not None and not self._short.reaches(start):
            return self._long.times, self._long_values
        return self._short.times, self.values


class Store:
    """The latest value and the recent history of every series (`oomguard.promql.series.Storage`)."""

    def __init__(self, slots: int = SLOTS, max_series: int = MAX_SERIES) -> None:
        self.refused = 0
        """Series turned away because the store was full."""
        self.generation = 0
        self._max = max_series
        self._slots = slots
        self._short = Timeline(slots)
        self._long = Timeline(LONG_SLOTS)
        self._long_names: frozenset[str] = frozenset()
        self._series: dict[Key, StoredSeries] = {}
        self._by_name: dict[str, list[StoredSeries]] = {}
        self._latest: dict[Key, Sample] = {}
        self._writes = 0

    def __len__(self) -> int:
        return len(self._series)

    def keep_long(self, names: Collection[str]) -> None:
        """Keep series of these names for `MAX_REACH`; those that are known already begin anew, the others go on."""
        wanted = frozenset(names)
        for key in [key for key in self._series if key[0] in wanted - self._long_names]:
            old = self._forget(key)
            made = self._add(key, old.labels, long=True)
            made.values, made.seen = old.values, old.seen
        self._long_names |= wanted

    def write(self, time: float, samples: Iterable[Sample]) -> None:
        """Fill one slot at `time` (Unix seconds); a series without a sample becomes unknown from here on."""
        at = round(1000 * time)
        if self._short.times and at <= self._short.times[-1]:
            at = self._short.times[-1] + 1  # the clock was set back: windows need times that rise
        self._short.add(at, [series.values for series in self._series.values()])
        long = not self._long.times or at - self._long.times[-1] >= LONG_STEP
        if long:
            columns = [series.long_values for series in self._series.values()]
            self._long.add(at, [column for column in columns if column is not None])
        self._writes += 1
        latest: dict[Key, Sample] = {}
        for sample in samples:
            key = key_of(sample)
            series = self._series.get(key) or self._make(key, sample)
            if series is None:
                continue
            series.values[-1] = sample.value
            if long and series.long_values is not None:
                series.long_values[-1] = sample.value
            series.seen = self._writes
            latest[key] = sample
        self._latest = latest
        if self._writes % 60 == 0:
            self._forget_old()

    def live(self, time: int, samples: Iterable[Sample]) -> None:
        """Values of the fast lane at `time` (Unix milliseconds); they hold until the next slot."""
        for sample in samples:
            key = key_of(sample)
            series = self._series.get(key) or self._make(key, sample)
            if series is not None:
                series.live_time, series.live_value = time, sample.value

    def latest(self) -> list[Sample]:
        """What the last slot holds, in the order in which it was written."""
        return list(self._latest.values())

    def select(self, name: str | None, matchers: Sequence[Matcher]) -> list[StoredSeries]:
        """See `oomguard.promql.series.Storage`."""
        candidates = self._series.values() if name is None else self._by_name.get(name, ())
        return [series for series in candidates if _matches(series.labels, matchers)]

    def history(self, name: str, labels: tuple[str, ...], since: float = 0.0) -> list[tuple[float, float]]:
        """(Unix seconds, value) of one series, oldest first; unknown slots are left out."""
        found = [series for key, series in self._series.items() if key[:2] == (name, labels)]
        if not found or not self._short.times:
            return []
        times, values = found[0].window(max(round(1000 * since), self._short.times[0]) - 1, 1 << 62)
        return [(at / 1000, value) for at, value in zip(times, values, strict=True)]

    def _make(self, key: Key, sample: Sample) -> StoredSeries | None:
        if len(self._series) >= self._max:
            self.refused += 1
            return None
        return self._add(key, labels_of(sample), long=key[0] in self._long_names)

    def _add(self, key: Key, labels: Labels, *, long: bool) -> StoredSeries:
        series = StoredSeries(labels, self._short, self._long if long else None)
        self._series[key] = series
        self._by_name.setdefault(key[0], []).append(series)
        self.generation += 1
        return series

    def _forget(self, key: Key) -> StoredSeries:
        series = self._series.pop(key)
        same = self._by_name[key[0]]
        same.remove(series)
        if not same:
            del self._by_name[key[0]]
        self.generation += 1
        return series

    def _forget_old(self) -> None:
        """Drop series of which no slot holds a value any more."""
        for key, series in list(self._series.items()):
            kept = LONG_SLOTS * LONG_STEP // 1000 if series.long_values is not None else self._slots
            if series.seen <= self._writes - kept:
                self._forget(key)


def _matches(labels: Labels, matchers: Sequence[Matcher]) -> bool:
    if not matchers:
        return True
    values = dict(labels)
    return all(matcher.accepts(values.get(matcher.name, "")) for matcher in matchers)
