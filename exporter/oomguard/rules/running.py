"""A rule with what came of it so far."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

from oomguard.promql.series import METRIC_NAME, STALE, Labels
from oomguard.rules.alerts import ActiveAlert, AlertState, RuleAlerts, RuleError
from oomguard.rules.lanes import Lane
from oomguard.rules.rule import AlertRule, Group, RecordingRule, Rule

Vector = Sequence[tuple[Labels, float]]


class Health(enum.Enum):
    """As Prometheus' API names it."""

    UNKNOWN = "unknown"
    """Not evaluated yet."""
    OK = "ok"
    ERR = "err"


class RunningRule:
    """One rule of the engine: its last evaluation, and its alerts or series."""

    def __init__(self, group: Group, rule: Rule, lane: Lane) -> None:
        self.group = group
        self.rule = rule
        self.lane = lane
        self.health = Health.UNKNOWN
        self.last_error = ""
        """Of the last evaluation; empty if it went well."""
        self.last_evaluation: int | None = None
        """Unix milliseconds."""
        self.failures = 0
        self.alerts = RuleAlerts(rule, group.limit) if isinstance(rule, AlertRule) else None
        self.query = rule.expression.evaluate
        self.made: set[Labels] = set()
        """The series that its last evaluation wrote."""

    @property
    def identity(self) -> tuple[str, ...]:
        """What makes it the same rule after a reload or a restart."""
        return (self.group.name, *self.rule.identity)

    def record(self, vector: Vector) -> Mapping[Labels, float]:
        """The series that a recording rule makes of its result (rules/recording.go), `STALE` for those that ended.

        Raises `RuleError` where two would be the same, or there are more than the group's limit.
        """
        assert isinstance(self.rule, RecordingRule)
        samples: dict[Labels, float] = {}
        for series, value in vector:
            labels = {**dict(series), METRIC_NAME: self.rule.name, **dict(self.rule.labels)}
            key = tuple(sorted(pair for pair in labels.items() if pair[1]))
            if key in samples:
                raise RuleError("vector contains metrics with the same labelset after applying rule labels")
            samples[key] = value
        if 0 < self.group.limit < len(samples):
            raise RuleError(f"exceeded limit of {self.group.limit} with {len(samples)} series")
        return self.with_ends(samples)

    def with_ends(self, samples: dict[Labels, float]) -> Mapping[Labels, float]:
        """These samples, and a stale marker for each series that the evaluation before had and they lack."""
        ended = self.made.difference(samples)
        self.made = set(samples)
        samples.update((labels, STALE) for labels in ended)
        return samples

    def take_over(self, former: RunningRule) -> None:
        """Go on where the same rule was before a reload."""
        self.made = former.made
        self.failures = former.failures
        if self.alerts is not None and former.alerts is not None:
            self.alerts.take_over(former.alerts)

    def ends(self) -> Mapping[Labels, float]:
        """Stale markers for all that it made: it is gone."""
        return dict.fromkeys(self.made, STALE)


def alert_samples(alerts: Sequence[ActiveAlert]) -> dict[Labels, float]:
    """``ALERTS`` and ``ALERTS_FOR_STATE`` of those that are pending or firing, as Prometheus writes them."""
    samples: dict[Labels, float] = {}
    for alert in alerts:
        if alert.state is AlertState.INACTIVE:
            continue
        labels = {**alert.labels, METRIC_NAME: "ALERTS", "alertstate": alert.state.value}
        samples[tuple(sorted(labels.items()))] = 1.0
        since = {**alert.labels, METRIC_NAME: "ALERTS_FOR_STATE"}
        samples[tuple(sorted(since.items()))] = float(alert.active_at // 1000)
    return samples
