"""The life of a rule's alerts: inactive, pending (for), firing (keep_firing_for), resolved (rules/alerting.go).

Times are Unix milliseconds. The states, and what makes an alert pass from one to the next, are those of Prometheus 3;
what is added is what a restart needs, since a sidecar's store is empty then (see `RuleAlerts.adopt`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from oomguard.promql.series import METRIC_NAME, Labels
from oomguard.rules.rule import AlertRule

RESOLVED_RETENTION: Final = 15 * 60_000
"""How long a resolved alert is remembered (rules/alerting.go, resolvedRetention)."""
_REMEMBERED_LABELS: Final = 1000
"""Label sets whose expansion is kept; beyond, they are forgotten all at once."""


class RuleError(Exception):
    """A rule's result can't be used: duplicate label sets, or more alerts than its group's limit."""


class AlertState(enum.Enum):
    """Where an alert stands."""

    INACTIVE = "inactive"
    """Resolved: it has fired."""
    PENDING = "pending"
    FIRING = "firing"


class ChangeKind(enum.Enum):
    """What became of an alert in an evaluation."""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"
    """It fired, and does no longer."""
    DROPPED = "dropped"
    """It was pending, and its condition ended before it fired."""


_ENDS: Final = (ChangeKind.RESOLVED, ChangeKind.DROPPED)


@dataclass(slots=True, eq=False)
class ActiveAlert:
    """One alert of a rule; it lives on, and changes, from evaluation to evaluation."""

    rule: AlertRule
    labels: Mapping[str, str]
    """The series' labels without its name, the rule's, and ``alertname``."""
    source: Mapping[str, str]
    """The series' labels with its name, as templates see them."""
    value: float
    """The expression's value when it last gave one."""
    active_at: int
    """Since when the condition holds."""
    state: AlertState = AlertState.PENDING
    fired_at: int | None = None
    resolved_at: int | None = None
    keep_firing_since: int | None = None
    """When the condition ended while ``keep_firing_for`` goes on."""
    believed_until: int | None = None
    """After a restart: until then an absent result says nothing."""
    _annotations: Mapping[str, str] | None = field(default=None, repr=False)

    @property
    def annotations(self) -> Mapping[str, str]:
        """Rendered with the last value; only when asked for, since a fast tick has no time for it."""
        if self._annotations is None:
            self._annotations = {
                name: template.render(self.source, self.value) for name, template in self.rule.annotations
            }
        return self._annotations

    def refresh(self, value: float, source: Mapping[str, str]) -> None:
        """Take the value of a new evaluation."""
        if value != self.value or source is not self.source:
            self.value = value
            self.source = source
            self._annotations = None

    def moved_to(self, rule: AlertRule) -> None:
        """Belong to the rule as it reads after a reload."""
        self.rule = rule
        self._annotations = None


@dataclass(frozen=True, slots=True)
class Change:
    """One alert's step from state to state."""

    kind: ChangeKind
    alert: ActiveAlert


class RuleAlerts:
    """The alerts of one rule."""

    def __init__(self, rule: AlertRule, limit: int = 0) -> None:
        self.rule = rule
        self._limit = limit
        self._alerts: dict[Labels, ActiveAlert] = {}
        self._expanded: dict[Labels, tuple[Labels, Mapping[str, str]]] = {}
        self._by_labels_alone = not any(template.uses_value for _, template in rule.labels)

    def __bool__(self) -> bool:
        """Whether there is any alert, a resolved one that is remembered included."""
        return bool(self._alerts)

    def all(self) -> Sequence[ActiveAlert]:
        """Pending, firing, and those resolved within `RESOLVED_RETENTION`."""
        return tuple(self._alerts.values())

    def update(self, vector: Sequence[tuple[Labels, float]], time: int) -> list[Change]:
        """Take the result of an evaluation; raises `RuleError` (the alerts stay as they were, or with `limit` end)."""
        if not vector and not self._alerts:
            return []
        changes: list[Change] = []
        seen = self._seen(vector)
        for key, (source, value) in seen.items():
            alert = self._alerts.get(key)
            if alert is not None and alert.state is not AlertState.INACTIVE:
                alert.refresh(value, source)
                continue
            alert = self._alerts[key] = ActiveAlert(self.rule, dict(key), source, value, time)
            changes.append(Change(ChangeKind.PENDING, alert))
        active = 0
        for key, alert in list(self._alerts.items()):
            if key in seen:
                alert.keep_firing_since = None
                alert.believed_until = None
            elif not self._goes_on(alert, time):
                self._end(key, alert, time, changes)
                continue
            active += 1
            if key in seen or alert.state is AlertState.FIRING:
                self._advance(alert, time, changes)
        if 0 < self._limit < active:
            ended = self.abandon(time)
            told = [change for change in changes if change.kind in _ENDS]
            raise LimitError(
                self._limit, active, told + [change for change in ended if change.alert.fired_at != time]
            )
        return changes

    def _seen(self, vector: Sequence[tuple[Labels, float]]) -> dict[Labels, tuple[Mapping[str, str], float]]:
        seen: dict[Labels, tuple[Mapping[str, str], float]] = {}
        for series, value in vector:
            key, source = self._expand(series, value)
            if key in seen:
                raise RuleError("vector contains metrics with the same labelset after applying alert labels")
            seen[key] = source, value
        return seen

    def _expand(self, series: Labels, value: float) -> tuple[Labels, Mapping[str, str]]:
        """An alert's labels, and the series' as a mapping."""
        known = self._expanded.get(series)
        if known is not None:
            return known
        source = dict(series)
        labels = {name: text for name, text in series if name != METRIC_NAME}
        for name, template in self.rule.labels:
            labels[name] = template.render(source, value)
        labels["alertname"] = self.rule.name
        made = tuple(sorted(pair for pair in labels.items() if pair[1])), source
        if self._by_labels_alone:
            if len(self._expanded) >= _REMEMBERED_LABELS:
                self._expanded.clear()
            self._expanded[series] = made
        return made

    def _goes_on(self, alert: ActiveAlert, time: int) -> bool:
        """Whether an alert without a result stays as it is."""
        if alert.believed_until is not None:
            if time < alert.believed_until and alert.state is not AlertState.INACTIVE:
                return True
            alert.believed_until = None
        if alert.state is not AlertState.FIRING or not self.rule.keep_firing:
            return False
        if alert.keep_firing_since is None:
            alert.keep_firing_since = time
        return time - alert.keep_firing_since < self.rule.keep_firing

    def _end(self, key: Labels, alert: ActiveAlert, time: int, changes: list[Change]) -> None:
        if alert.state is AlertState.PENDING:
            del self._alerts[key]
            changes.append(Change(ChangeKind.DROPPED, alert))
        elif alert.resolved_at is not None and time - alert.resolved_at > RESOLVED_RETENTION:
            del self._alerts[key]
        if alert.state is AlertState.FIRING:
            changes.append(Change(ChangeKind.RESOLVED, alert))
        if alert.state is not AlertState.INACTIVE:
            alert.state = AlertState.INACTIVE
            alert.resolved_at = time

    def _advance(self, alert: ActiveAlert, time: int, changes: list[Change]) -> None:
        held = time - alert.active_at >= self.rule.hold
        if alert.state is AlertState.PENDING and held:
            alert.state = AlertState.FIRING
            alert.fired_at = time
            changes.append(Change(ChangeKind.FIRING, alert))
        elif alert.state is AlertState.FIRING and not held:  # a reload has made `for` longer
            ended = replace(alert, state=AlertState.INACTIVE, resolved_at=time)
            alert.state = AlertState.PENDING
            alert.fired_at = alert.keep_firing_since = None
            changes += [Change(ChangeKind.RESOLVED, ended), Change(ChangeKind.PENDING, alert)]

    def abandon(self, time: int) -> list[Change]:
        """End all alerts, since their rule is gone or failed for good."""
        changes: list[Change] = []
        for key, alert in list(self._alerts.items()):
            if alert.state is not AlertState.INACTIVE:
                self._end(key, alert, time, changes)
        self._alerts.clear()
        return changes

    def take_over(self, former: RuleAlerts) -> None:
        """Go on with the alerts of the same rule before a reload (rules/group.go, CopyState)."""
        for key, alert in former._alerts.items():
            alert.moved_to(self.rule)
            self._alerts[key] = alert

    def believed(self) -> list[ActiveAlert]:
        """Those from before a restart of which nothing has been heard yet."""
        return [alert for alert in self._alerts.values() if alert.believed_until is not None]

    def adopt(self, alert: ActiveAlert, believed_until: int) -> None:
        """Go on with an alert from before a restart.

        The store begins empty, so that until `believed_until` an absent result is taken for not known rather than
        for resolved; else every restart would resolve an alert and fire it again minutes later.
        """
        alert.believed_until = believed_until
        self._alerts[tuple(sorted(alert.labels.items()))] = alert


class LimitError(RuleError):
    """More alerts than the group's limit: Prometheus drops all of the rule, and so do we, telling what ended."""

    def __init__(self, limit: int, found: int, changes: list[Change]) -> None:
        super().__init__(f"exceeded limit of {limit} with {found} alerts")
        self.changes = changes
