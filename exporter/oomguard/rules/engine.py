"""All rules on one storage: evaluated in the order of their files, by lane, each on what the ones before it made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, Final
from urllib.parse import quote_plus

from oomguard.metrics import ALERTS, ALERTS_FOR_STATE, FAST
from oomguard.model import Alert
from oomguard.promql.series import METRIC_NAME, Labels, Storage
from oomguard.rules.alerts import ActiveAlert, AlertState, Change, LimitError, RuleAlerts
from oomguard.rules.lanes import Lane, lanes_of, may_read
from oomguard.rules.overlay import Overlay
from oomguard.rules.rule import Group, RecordingRule
from oomguard.rules.running import Health, RunningRule, Vector, alert_samples
from oomguard.rules.saved import VERSION, dump_alert, ended_alert, load_alert, saved_rules

__all__ = ["FAST_NAMES", "Engine", "Lane", "generator_url"]

FAST_NAMES: Final = frozenset(metric.name for metric in FAST)
_ALERT_NAMES: Final = (ALERTS.name, ALERTS_FOR_STATE.name)
# The store holds what /metrics shows as well: rules are to see each alert once, and as Prometheus writes it.
_COPY: Final = ("engine", "oomguard")
# After a restart: what sources and hooks need to be heard again, and Prometheus' lookback, the longest that a
# window's lack of samples is forgiven.
_HEARD_AGAIN: Final = 15_000
_LOOKBACK: Final = 300_000


class Engine:
    """Evaluates rules and keeps their alerts. Times are Unix milliseconds and are passed in, never going back."""

    def __init__(
        self,
        groups: Sequence[Group],
        storage: Storage,
        *,
        external_url: str = "",
        fast: Collection[str] = FAST_NAMES,
    ) -> None:
        self.recorded: dict[Labels, float] = {}
        """What recording rules made in the last evaluation, `STALE` for series that ended. The caller writes it into
        the store, with that evaluation's time, before the next one. If a rule reads ALERTS, those are in it too."""
        self._below = storage
        self.external_url = external_url.rstrip("/")
        """Address of the page that links of alerts lead to."""
        self._fast = frozenset(fast)
        self._links: dict[str, str] = {}
        self._firing: tuple[ActiveAlert, ...] = ()
        self._believing: list[RunningRule] = []
        """Rules with alerts from before a restart of which nothing has been heard yet."""
        self._set(groups)

    @property
    def rules(self) -> Sequence[RunningRule]:
        """Every rule in order, with its health and its alerts."""
        return self._rules

    def evaluate(self, lane: Lane, time: int) -> list[Change]:
        """Evaluate the rules of a lane; what fails is kept at its rule (`RunningRule.last_error`), others go on."""
        changes: list[Change] = []
        self._begin(time)
        storage = self._storage
        for running in self._lanes[lane]:
            running.last_evaluation = time
            try:
                vector = running.query(storage, time)
                if vector or running.alerts is None or running.alerts or running.made:
                    changes += self._take(running, vector, time)
            except LimitError as error:
                changes += error.changes
                self._failed(running, error)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one rule, the others guard the target
                self._failed(running, error)
            else:
                if running.health is not Health.OK:
                    running.health = Health.OK
                    running.last_error = ""
        if changes:
            self._gather()
        return changes

    def _begin(self, time: int) -> None:
        if self.recorded:
            self.recorded = {}
            if self._overlay is not None:
                self._overlay.forget_ended(time)
        if self._believing:
            self._hear(time)

    def alerts(self) -> list[ActiveAlert]:
        """Those that are pending or firing, in the order of their rules."""
        return [alert for alert in self._all() if alert.state is not AlertState.INACTIVE]

    def firing(self) -> tuple[ActiveAlert, ...]:
        """Those that are firing; the same tuple until one comes or goes."""
        return self._firing

    def resolved(self) -> list[ActiveAlert]:
        """Those that were resolved within the last 15 minutes, as far as this process or its saved state knows."""
        return [alert for alert in self._all() if alert.state is AlertState.INACTIVE]

    def samples(self) -> dict[Labels, float]:
        """``ALERTS`` and ``ALERTS_FOR_STATE``, as Prometheus would write them."""
        return alert_samples(self._all())

    def to_alert(self, active: ActiveAlert) -> Alert:
        """The alert as routes and receivers see it, with its annotations as they read now."""
        expression = active.rule.expression.text
        link = self._links.get(expression)
        if link is None:
            link = self._links[expression] = generator_url(self.external_url, expression)
        return Alert(
            labels=active.labels,
            annotations=active.annotations,
            starts_at=(active.fired_at if active.fired_at is not None else active.active_at) / 1000,
            ends_at=active.resolved_at / 1000 if active.resolved_at is not None else None,
            generator_url=link,
        )

    def reload(self, groups: Sequence[Group], time: int) -> list[Change]:
        """Go on with other rules; those that are the same keep their alerts, the alerts of those that are gone end."""
        former: dict[tuple[str, ...], list[RunningRule]] = defaultdict(list)
        for running in self._rules:
            former[running.identity].append(running)
        self._links.clear()
        self._set(groups)
        for running in self._rules:
            if same := former[running.identity]:
                running.take_over(same.pop(0))
        changes: list[Change] = []
        self.recorded = {}
        for gone in (running for left in former.values() for running in left):
            self.recorded.update(gone.ends())
            if gone.alerts is not None:
                changes += gone.alerts.abandon(time)
        self._gather()
        return changes

    def dump(self, time: int) -> dict[str, Any]:
        """The state of all alerts, for `restore` in another process."""
        rules = [
            {
                "rule": list(running.identity),
                "expr": running.rule.expression.text,
                "alerts": [dump_alert(alert) for alert in running.alerts.all()],
            }
            for running in self._rules
            if running.alerts
        ]
        return {"version": VERSION, "time": time, "rules": rules}

    def restore(self, data: Any, time: int) -> list[Alert]:
        """Go on with dumped alerts; those that fired and whose rules are gone, or have other labels, are returned
        as resolved.

        A rule with another ``expr`` or ``for`` is judged by them at its next evaluation. Raises ValueError, having
        changed nothing, where the data is not what `dump` wrote.
        """
        saved_at, saved = saved_rules(data)
        here: dict[tuple[str, ...], list[RuleAlerts]] = defaultdict(list)
        patience: dict[RuleAlerts, int] = {}
        for running in self._rules:
            if running.alerts is not None:
                here[running.identity].append(running.alerts)
                patience[running.alerts] = _patience(running)
        found: list[tuple[RuleAlerts, ActiveAlert]] = []
        ended: list[Alert] = []
        for rule in saved:
            alerts = here[rule.identity].pop(0) if here[rule.identity] else None
            for entry in rule.alerts:
                if alerts is not None:
                    found.append((alerts, load_alert(entry, alerts.rule, time - saved_at)))
                elif alert := ended_alert(entry, generator_url(self.external_url, rule.expression), time):
                    ended.append(alert)
        for alerts, active in found:
            alerts.adopt(active, time + patience[alerts])
        self._believing = [running for running in self._rules if running.alerts and running.alerts.believed()]
        self._gather()
        return ended

    def is_instant(self, alert: ActiveAlert) -> bool:
        """Whether an alert is judged at every fast tick."""
        return id(alert.rule) in self._instant

    def believed(self) -> frozenset[Labels]:
        """Labels of the alerts that fire on an earlier process's word alone: they are not acted upon."""
        return frozenset(
            tuple(alert.labels.items())
            for running in self._believing
            if running.alerts is not None
            for alert in running.alerts.believed()
        )

    def _hear(self, time: int) -> None:
        """Judge alerts from before a restart as any other as soon as the series that they were about are there again.

        Where a rule looks back, its window has to fill first.
        """
        for running in self._believing:
            if running.alerts is None or running.rule.expression.reach:
                continue
            for alert in running.alerts.believed():
                if self._is_heard(running, alert, time):
                    alert.believed_until = None
        self._believing = [
            running for running in self._believing if running.alerts and running.alerts.believed()
        ]

    def _is_heard(self, running: RunningRule, alert: ActiveAlert, time: int) -> bool:
        wanted = {pair for pair in alert.source.items() if pair[0] != METRIC_NAME}
        return any(
            wanted.issubset(series.labels) and series.at(time, time - _LOOKBACK) is not None
            for selector in running.rule.expression.selectors
            for series in self._storage.select(selector.name, ())
        )

    def _set(self, groups: Sequence[Group]) -> None:
        pairs = [(group, rule) for group in groups for rule in group.rules]
        lanes = lanes_of([rule for _, rule in pairs], self._fast)
        self._rules = tuple(RunningRule(*pair, lane) for pair, lane in zip(pairs, lanes, strict=True))
        self._instant = {id(running.rule) for running in self._rules if running.lane is Lane.FAST}
        of_lane = {Lane.FAST: (Lane.FAST,), Lane.LIVE: (Lane.FAST, Lane.LIVE), Lane.ALL: tuple(Lane)}
        self._lanes = {
            lane: tuple(running for running in self._rules if running.lane in parts)
            for lane, parts in of_lane.items()
        }
        selectors = [selector for _, rule in pairs for selector in rule.expression.selectors]
        self._alerts_are_read = any(may_read(selector, _ALERT_NAMES) for selector in selectors)
        made = {rule.name for _, rule in pairs if isinstance(rule, RecordingRule)}
        if self._alerts_are_read:
            made.update(_ALERT_NAMES)
        # Without rules that read rules, nothing stands between an expression and the store.
        are_read = any(may_read(selector, made) for selector in selectors)
        self._overlay = Overlay(self._below, made, _COPY) if are_read else None
        self._storage = self._overlay if self._overlay is not None else self._below

    def _take(self, running: RunningRule, vector: Vector, time: int) -> Sequence[Change]:
        if running.alerts is None:
            self._made(running.record(vector), time)
            return ()
        changes = running.alerts.update(vector, time)
        if self._alerts_are_read:
            self._made(running.with_ends(alert_samples(running.alerts.all())), time)
        return changes

    def _made(self, samples: Any, time: int) -> None:
        self.recorded.update(samples)
        if self._overlay is not None:
            self._overlay.put(samples, time)

    def _failed(self, running: RunningRule, error: Exception) -> None:
        running.failures += 1
        running.health = Health.ERR
        running.last_error = str(error) or type(error).__name__

    def _all(self) -> list[ActiveAlert]:
        return [alert for running in self._rules if running.alerts for alert in running.alerts.all()]

    def _gather(self) -> None:
        firing = tuple(alert for alert in self._all() if alert.state is AlertState.FIRING)
        if firing != self._firing:
            self._firing = firing


def generator_url(external_url: str, expression: str) -> str:
    """Where Prometheus' page would show an expression (util/strutil, TableLinkForExpression)."""
    # quote_plus leaves what Go's url.QueryEscape leaves: letters, digits and -_.~
    return f"{external_url}/graph?g0.expr={quote_plus(expression)}&g0.tab=1"


def _patience(running: RunningRule) -> int:
    """How long after a restart an absent result says nothing: the fast lane's series are there at the first tick."""
    if running.lane is Lane.FAST:
        return 0
    return _HEARD_AGAIN + min(running.rule.expression.reach, _LOOKBACK)
