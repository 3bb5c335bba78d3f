"""The sidecar's own counters, from 0 at its start, as samples for the store."""

from __future__ import annotations

from collections.abc import Iterator

from oomguard.metrics import Metric
from oomguard.store import Sample


class Counters:
    """Counts by metric and labels (without ``target``, which is added to the target's metrics)."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._values: dict[tuple[Metric, tuple[str, ...]], float] = {}

    def add(self, metric: Metric, *labels: str, by: float = 1.0) -> None:
        """Count; ``by=0`` makes the series known at 0."""
        key = (metric, labels)
        self._values[key] = self._values.get(key, 0.0) + by

    def samples(self) -> Iterator[Sample]:
        """Every count so far."""
        for (metric, labels), value in self._values.items():
            yield Sample(metric, labels if metric.own else (self._target, *labels), value)
