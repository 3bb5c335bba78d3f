"""Rules and routes at work: what fires, what it asks of the sidecar itself, and who else is told.

Everything is decided here with the time passed in; posting webhooks and writing the saved state are done by what the
application gives (`send`, `save_soon`), so that a replay runs the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from oomguard import metrics as m
from oomguard.alerting.loading import RECEIVER, Loaded
from oomguard.alerting.silencing import is_pause
from oomguard.alerting.telling import Teller
from oomguard.broker.wishes import Declined, Wish, wish_of
from oomguard.counters import Counters
from oomguard.errors import UserError
from oomguard.export import alerts as told
from oomguard.journal import Journal
from oomguard.log import LOGGER, fields
from oomguard.metrics import Metric
from oomguard.model import Alert
from oomguard.promql.series import METRIC_NAME, Labels, Storage, is_stale
from oomguard.routes.deliver import Outcome
from oomguard.routes.dispatch import Dispatcher
from oomguard.routes.groups import Notification
from oomguard.routes.matchers import matches, parse_matchers
from oomguard.routes.silences import SilenceNotFoundError, Silences, SilenceState
from oomguard.rules.alerts import Change, ChangeKind
from oomguard.rules.engine import Engine, Lane
from oomguard.store import Sample


class Alerting:
    """The rules, the routes and the silences of one target. Runs on the event loop; times are Unix milliseconds."""

    def __init__(
        self,
        loaded: Loaded,
        storage: Storage,
        counters: Counters,
        journal: Journal,
        *,
        target: str,
        send: Callable[[Sequence[Notification]], None] = lambda _: None,
        changed: Callable[[], None] = lambda: None,
        write: Callable[[int, Sequence[Sample]], None] = lambda _, __: None,
        clock: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`send` takes notifications for others, `changed` is called when what `dump` gives is another, `write` takes
        what recording rules have made; `clock` gives seconds, for the cost of evaluations.
        """
        self.silences = Silences(changed)
        self.loaded = loaded
        self.engine = Engine(loaded.groups, storage)
        self.dispatcher = Dispatcher(loaded.routes, self.silences)
        self._write = write
        self._counters = counters
        self._journal = journal
        self._teller = Teller(journal)
        self._target = target
        self._send = send
        self._changed = changed
        self._clock = clock
        self._believed: frozenset[Labels] = frozenset()
        """Labels of alerts that another process saw fire: they are measured again before anything is done."""
        self._standing: tuple[Alert, ...] = ()
        self._wishes: tuple[Wish, ...] = ()
        self._recorded: dict[Labels, float] = {}
        self._metrics: dict[tuple[str, ...], Metric] = {}
        self._failures = [0] * len(self.engine.rules)
        """How many failures of each rule have been counted; two rules may have one name."""
        for lane in Lane:
            counters.add(m.RULE_EVALUATIONS, lane.value, by=0)
            counters.add(m.RULE_SECONDS, lane.value, by=0)
        self._meet_routes()

    # -- evaluation ---------------------------------------------------------------------------

    def evaluate(self, lane: Lane, now: int) -> None:
        """Evaluate the rules of a lane, and tell whom it concerns."""
        began = self._clock()
        changes = self.engine.evaluate(lane, now)
        if self.engine.recorded:
            self._record(now)
        if changes:
            self._take(changes, now)
        self.flush(now)
        if lane is not Lane.FAST:
            self._count_failures()
            self._teller.catch_up(now)
        self._counters.add(m.RULE_EVALUATIONS, lane.value)
        self._counters.add(m.RULE_SECONDS, lane.value, by=self._clock() - began)

    def wishes(self, now: int) -> Sequence[Wish]:
        """What the alerts that fire ask of the sidecar itself; the routes' waits are not for it."""
        standing = self.dispatcher.standing(RECEIVER, now / 1000)
        if self._believed:
            self._believed = self.engine.believed()
            known = (alert for alert in standing if tuple(alert.labels.items()) not in self._believed)
            return tuple(dict.fromkeys(self._wishes_of(known)))
        if standing is not self._standing:
            self._standing = standing
            self._wishes = tuple(dict.fromkeys(self._wishes_of(standing)))
        return self._wishes

    def flush(self, now: int) -> None:
        """Hand on the notifications that are due."""
        upcoming = self.dispatcher.next_due()
        if upcoming is None or upcoming * 1000 > now:
            return
        # Annotations as they read now, not as they read when it began.
        self.dispatcher.update([self.engine.to_alert(alert) for alert in self.engine.firing()], now / 1000)
        due = self.dispatcher.due(now / 1000)
        for notification in due:
            if notification.receiver == RECEIVER:
                self.dispatcher.delivered(notification, now / 1000)  # `wishes` told it long ago
        if others := [notification for notification in due if notification.receiver != RECEIVER]:
            self._send(others)
        if due:
            self._changed()

    def reported(self, notification: Notification, outcome: Outcome, now: int) -> None:
        """What became of a notification that was handed to `send`."""
        if outcome is Outcome.DELIVERED:
            self.dispatcher.delivered(notification, now / 1000)
        elif outcome is not Outcome.RETRIED:
            self.dispatcher.failed(notification)
        self._counters.add(m.NOTIFICATIONS, notification.receiver, outcome.value)
        self._changed()

    def _take(self, changes: Sequence[Change], now: int) -> None:
        alerts = [
            self.engine.to_alert(change.alert)
            for change in changes
            if change.kind in (ChangeKind.FIRING, ChangeKind.RESOLVED)
        ]
        if alerts:
            self.dispatcher.update(alerts, now / 1000)
        self._teller.take(changes, now)
        self._changed()

    def _wishes_of(self, alerts: Iterable[Alert]) -> Iterator[Wish]:
        instant = {
            tuple(alert.labels.items()) for alert in self.engine.firing() if self.engine.is_instant(alert)
        }
        for alert in alerts:
            try:
                wish = wish_of(alert, self._target)
            except (
                UserError
            ) as error:  # of a label that a template made; others were refused when they were read
                LOGGER.error("alert can't be followed", extra=fields(alert=alert.name, reason=str(error)))
                continue
            if isinstance(wish, Wish):
                yield replace(wish, instant=tuple(alert.labels.items()) in instant)
            elif wish is Declined.NOT_ALLOWED:
                LOGGER.warning("restart is not taken: nothing allows it", extra=fields(alert=alert.name))

    def _record(self, now: int) -> None:
        """Keep what recording rules have made: for the store at once, for its slots from `samples`."""
        for labels, value in self.engine.recorded.items():
            if is_stale(value):
                self._recorded.pop(labels, None)
            else:
                self._recorded[labels] = value
        self._write(now, [self._sample(labels, value) for labels, value in self.engine.recorded.items()])

    def _count_failures(self) -> None:
        for index, rule in enumerate(self.engine.rules):
            counted, name = self._failures[index], rule.rule.name
            if rule.failures > counted:
                if not counted:
                    LOGGER.error("rule can't be evaluated", extra=fields(rule=name, reason=rule.last_error))
                self._failures[index] = rule.failures
                self._counters.add(m.RULE_FAILURES, name, by=rule.failures - counted)

    # -- what it tells ------------------------------------------------------------------------

    def samples(self, now: int, *, exported: bool) -> Iterator[Sample]:
        """ALERTS, what recording rules made, and counts of silences; `exported`: for others than the store.

        Where a rule reads ALERTS the store holds them as Prometheus has them, too: see docs/decisions/0012.
        """
        for labels, value in self.engine.samples().items():
            yield self._sample((*labels, ("engine", "oomguard")), value)
        for labels, value in self._recorded.items():
            unknown = value != value  # noqa: PLR0124 - NaN, which a rule may make and an expression see
            if not (exported and (unknown or _is_alert(labels))):
                yield self._sample(labels, value)
        counts = self.silences.count(now / 1000)
        for state in SilenceState:
            yield Sample(m.SILENCES, (state.value,), counts[state])
        yield Sample(m.PAUSED, (), float(self.paused_until(now) is not None))

    def alerts(self) -> list[dict[str, Any]]:
        """``data.alerts`` of Prometheus' /api/v1/alerts."""
        return [told.alert_json(alert) for alert in self.engine.alerts()]

    def rules(self) -> list[dict[str, Any]]:
        """``data.groups`` of Prometheus' /api/v1/rules."""
        return told.groups_json(self.engine.rules)

    def alerts_held(self, now: int) -> list[dict[str, Any]]:
        """Alerts for the page: as `alerts`, with what holds each back (``silenced``, ``inhibited`` or empty)."""
        shown = []
        for alert in self.engine.alerts():
            status = self.dispatcher.status(alert.labels, now / 1000)
            held = "silenced" if status.silenced_by else "inhibited" if status.inhibited else ""
            shown.append({**told.alert_json(alert), "held": held})
        return shown

    def silences_json(self, now: int, filters: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Body of Alertmanager's /api/v2/silences; `filters` are matchers that their matchers must fit.

        Raises UserError for a filter that is no matcher.
        """
        try:
            wanted = tuple(matcher for text in filters for matcher in parse_matchers(text))
        except ValueError as error:
            raise UserError(f"filter: {error}") from None
        return [
            silence.to_json(now / 1000)
            for silence in self.silences.listed(now / 1000)
            if matches(wanted, {matcher.name: matcher.value for matcher in silence.matchers})
        ]

    def silence_json(self, silence: str, now: int) -> dict[str, Any]:
        """Body of Alertmanager's /api/v2/silence/{id}; raises LookupError."""
        try:
            return self.silences.get(silence).to_json(now / 1000)
        except SilenceNotFoundError as error:
            raise LookupError(str(error)) from None

    def silence(self, body: object, now: int) -> str:
        """Set a silence; returns its id, raises UserError."""
        silence = self.silences.set(body, now / 1000)
        self._journal.write("silence", silence=silence.id, until=silence.ends_at, by=silence.created_by)
        return silence.id

    def expire(self, silence: str, now: int) -> None:
        """End a silence; raises LookupError."""
        try:
            self.silences.expire(silence, now / 1000)
        except SilenceNotFoundError as error:
            raise LookupError(str(error)) from None
        self._journal.write("silence_ended", silence=silence)

    def silenced(self, labels: Mapping[str, str], now: int) -> bool:
        """Whether a silence holds back an alert with these labels."""
        return bool(self.silences.silenced(labels, now / 1000))

    def paused_until(self, now: int) -> float | None:
        """Unix seconds until which automatic actions are paused; None: they are not."""
        seconds = now / 1000
        ends = [
            silence.ends_at
            for silence in self.silences.listed(seconds)
            if silence.state(seconds) is SilenceState.ACTIVE and is_pause(silence.to_json(seconds))
        ]
        return max(ends, default=None)

    def _sample(self, labels: Labels, value: float) -> Sample:
        """A sample with labels that no table knows beforehand."""
        named = dict(labels)
        name = named.pop(METRIC_NAME)
        key = (name, *named)
        metric = self._metrics.get(key)
        if metric is None:
            known = m.BY_NAME.get(name)
            metric = Metric(
                name, known.otel if known else "", m.GAUGE, "1", known.help if known else "Recorded by a rule.",
                tuple(named), own=True,
            )  # fmt: skip
            self._metrics[key] = metric
        return Sample(metric, tuple(named.values()), value)

    # -- change and restart -------------------------------------------------------------------

    def reload(self, loaded: Loaded, now: int) -> None:
        """Go on with other rules and routes; alerts of rules that are the same live on."""
        changes = self.engine.reload(loaded.groups, now)
        former = self.dispatcher.dump()
        self.loaded = loaded
        self.dispatcher = Dispatcher(loaded.routes, self.silences)
        self.dispatcher.restore(former, now / 1000)
        self._standing, self._wishes = (), ()
        self._recorded.clear()
        self._failures = [rule.failures for rule in self.engine.rules]
        if changes:
            self._take(changes, now)
        self.dispatcher.reconcile([self.engine.to_alert(alert) for alert in self.engine.firing()], now / 1000)
        self._meet_routes()
        self._changed()

    def dump(self, now: int) -> dict[str, Any]:
        """What survives the sidecar, JSON-able: alerts, notifications and silences."""
        return {
            "rules": self.engine.dump(now),
            "routes": self.dispatcher.dump(),
            "silences": self.silences.dump(),
        }

    def restore(self, saved: Mapping[str, Any], now: int, *, alive_until: int = 0) -> None:
        """Go on where `dump` was taken; what can't be read is left out, and said.

        `alive_until` is when the one who took it lived last: what it left was so until then.
        """
        parts: tuple[tuple[str, Callable[[Any], object]], ...] = (
            ("silences", lambda data: self.silences.restore(data, now / 1000)),
            ("routes", lambda data: self.dispatcher.restore(data, now / 1000)),
            ("rules", lambda data: self._restore_rules(data, now, alive_until)),
        )
        for name, restore in parts:
            if name not in saved:
                continue
            try:
                restore(saved[name])
            except (ValueError, TypeError, LookupError, AttributeError) as error:
                LOGGER.warning("saved state can't be read", extra=fields(part=name, reason=str(error)))
        self._believed = self.engine.believed()
        self.dispatcher.reconcile([self.engine.to_alert(alert) for alert in self.engine.firing()], now / 1000)

    def _restore_rules(self, data: Any, now: int, alive_until: int) -> None:
        if isinstance(data, dict) and isinstance(data.get("time"), int) and data["time"] <= now:
            data = {**data, "time": min(now, max(data["time"], alive_until))}
        self.dispatcher.update(self.engine.restore(data, now), now / 1000)

    def _meet_routes(self) -> None:
        """Know the counters of all receivers, and say what rules and routes leave undone."""
        for receiver in self.loaded.routes.receivers.values():
            for outcome in Outcome if receiver.webhooks and receiver.name != RECEIVER else ():
                self._counters.add(m.NOTIFICATIONS, receiver.name, outcome.value, by=0)
        for warning in self.loaded.warnings():
            LOGGER.warning(warning)


def _is_alert(labels: Labels) -> bool:
    return any(
        pair in labels for pair in ((METRIC_NAME, m.ALERTS.name), (METRIC_NAME, m.ALERTS_FOR_STATE.name))
    )
