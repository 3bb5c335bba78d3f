"""Series held in memory, for replaying a recording and for tests."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

from oomguard.promql.series import METRIC_NAME, Labels, Matcher, is_stale


def make_labels(name: str, labels: Mapping[str, str] | None = None) -> Labels:
    """The labels of a series as a sorted tuple; empty values are dropped, as they are the same as none."""
    pairs = {METRIC_NAME: name, **(labels or {})}
    return tuple(sorted((key, value) for key, value in pairs.items() if value))


class MemorySeries:
    """The samples of one series, in the order of their times."""

    __slots__ = ("_ended", "_times", "_values", "labels")

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self._times: list[int] = []
        self._values: list[float] = []
        self._ended = False

    def append(self, time: int, value: float) -> None:
        """Adds a sample at Unix ms; ValueError unless it is later than the last one."""
        if self._times and time <= self._times[-1]:
            raise ValueError(f"sample at {time} does not come after the one at {self._times[-1]}")
        self._times.append(time)
        self._values.append(value)
        self._ended = self._ended or is_stale(value)

    def at(self, time: int, oldest: int) -> tuple[int, float] | None:
        """As `Series.at`."""
        index = bisect_right(self._times, time) - 1
        if index < 0 or self._times[index] <= oldest or is_stale(self._values[index]):
            return None
        return self._times[index], self._values[index]

    def window(self, start: int, end: int) -> tuple[Sequence[int], Sequence[float]]:
        """As `Series.window`."""
        low, high = bisect_right(self._times, start), bisect_right(self._times, end)
        times, values = self._times[low:high], self._values[low:high]
        if self._ended and any(map(is_stale, values)):
            kept = [(t, v) for t, v in zip(times, values, strict=True) if not is_stale(v)]
            return [t for t, _ in kept], [v for _, v in kept]
        return times, values


class MemoryStorage:
    """A `Storage` that is filled by hand."""

    def __init__(self) -> None:
        self._series: dict[Labels, MemorySeries] = {}
        self._by_name: dict[str, list[MemorySeries]] = {}

    @property
    def generation(self) -> int:
        """How many series there are: they only come."""
        return len(self._series)

    def series(self, name: str, labels: Mapping[str, str] | None = None) -> MemorySeries:
        """The series of a name and labels; made if it is not there yet."""
        key = make_labels(name, labels)
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = MemorySeries(key)
            self._by_name.setdefault(name, []).append(found)
        return found

    def add(
        self, name: str, labels: Mapping[str, str] | None, samples: Iterable[tuple[int, float]]
    ) -> MemorySeries:
        """Appends samples (Unix ms, value), in the order of their times, to the series of a name and labels."""
        series = self.series(name, labels)
        for time, value in samples:
            series.append(time, value)
        return series

    def select(self, name: str | None, matchers: Sequence[Matcher]) -> Sequence[MemorySeries]:
        """As `Storage.select`."""
        candidates = self._series.values() if name is None else self._by_name.get(name, ())
        return [series for series in candidates if _accepted(dict(series.labels), matchers)]


def _accepted(labels: Mapping[str, str], matchers: Sequence[Matcher]) -> bool:
    return all(matcher.accepts(labels.get(matcher.name, "")) for matcher in matchers)
