"""What rules have just made, laid over the store: a later rule reads an earlier one's result in the same evaluation.

The engine's caller writes the same samples into the store after each evaluation; the overlay holds no history.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence

from oomguard.promql.series import METRIC_NAME, STALE, Labels, Matcher, Series, Storage, is_stale


class Overlay:
    """A storage on top of another; names that no rule makes are passed through."""

    def __init__(self, storage: Storage, names: Collection[str], hidden: tuple[str, str]) -> None:
        """`names` are those that rules make; of them, the storage's series with the label `hidden` are left out."""
        self._storage = storage
        self._names = frozenset(names)
        self._hidden = hidden
        self._series: dict[Labels, _Overlaid] = {}
        self._generation = 0
        self._below = storage.generation

    @property
    def generation(self) -> int:
        """Changes with the storage's own and with the series laid over it."""
        below = self._storage.generation
        if below != self._below:
            self._below = below
            self._generation += 1
        return self._generation

    def select(self, name: str | None, matchers: Sequence[Matcher]) -> Sequence[Series]:
        """The storage's series, each with the newest sample that is not written yet."""
        found = self._storage.select(name, matchers)
        if name is not None and name not in self._names:
            return found
        laid: dict[Labels, Series] = {
            series.labels: series for series in found if not self._hides(series.labels)
        }
        for labels, overlaid in self._series.items():
            if labels in laid or _matches(labels, name, matchers):
                overlaid.below = laid.get(labels)
                laid[labels] = overlaid
        return tuple(laid.values())

    def _hides(self, labels: Labels) -> bool:
        return self._hidden in labels and dict(labels).get(METRIC_NAME) in self._names

    def put(self, samples: Mapping[Labels, float], time: int) -> None:
        """Lay samples over the storage; `STALE` ends a series."""
        for labels, value in samples.items():
            overlaid = self._series.get(labels)
            if overlaid is None:
                overlaid = self._series[labels] = _Overlaid(labels)
                self._generation += 1
            overlaid.time, overlaid.value = time, value

    def forget_ended(self, time: int) -> None:
        """Leave to the storage the series that ended before `time`: it has their end by now."""
        ended = [
            labels for labels, series in self._series.items() if series.time < time and is_stale(series.value)
        ]
        for labels in ended:
            del self._series[labels]
            self._generation += 1


class _Overlaid:
    """One series with a sample on top."""

    def __init__(self, labels: Labels) -> None:
        self.labels = labels
        self.below: Series | None = None
        self.time = 0
        self.value = STALE

    def at(self, time: int, oldest: int) -> tuple[int, float] | None:
        if self.time <= time:
            # Not older than what the storage has, which is written from this very sample.
            return None if self.time <= oldest or is_stale(self.value) else (self.time, self.value)
        return self.below.at(time, oldest) if self.below is not None else None

    def window(self, start: int, end: int) -> tuple[Sequence[int], Sequence[float]]:
        times, values = self.below.window(start, end) if self.below is not None else ((), ())
        if not start < self.time <= end or is_stale(self.value):
            return times, values
        if bisect_right(times, self.time) and times[-1] >= self.time:
            return times, values  # it has been written
        return [*times, self.time], [*values, self.value]


def _matches(labels: Labels, name: str | None, matchers: Sequence[Matcher]) -> bool:
    held = dict(labels)
    if name is not None and held.get(METRIC_NAME) != name:
        return False
    return all(matcher.accepts(held.get(matcher.name, "")) for matcher in matchers)
