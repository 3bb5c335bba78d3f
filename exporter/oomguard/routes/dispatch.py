"""When which receiver is told of which alerts: Alertmanager's dispatcher and pipeline, no I/O, no clock.

A state machine: alerts go in (`update`), notifications that are due come out (`due`), what became of them is said
(`delivered`, `failed`). Times are Unix seconds and passed in. `standing` answers the sidecar's own receiver at every
fast tick, without the waits, which are there for people and networks.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from oomguard.model import Alert
from oomguard.routes.config import RoutesConfig
from oomguard.routes.groups import Group, Notification, in_order
from oomguard.routes.inhibit import Inhibitor
from oomguard.routes.intervals import any_contains
from oomguard.routes.nflog import NotificationLog
from oomguard.routes.payload import fingerprint_of
from oomguard.routes.silences import Silences
from oomguard.routes.tree import Route, Router

_MINUTE: Final = 60.0
"""Time intervals begin and end at full minutes."""
_CLOCK_BACK: Final = 1.0
"""Seconds: a clock that goes back further was set, and the waits with it."""


class AlertState(enum.Enum):
    """Whether an alert goes out (Alertmanager's API v2, alertStatus)."""

    ACTIVE = "active"
    SUPPRESSED = "suppressed"


@dataclass(frozen=True, slots=True)
class AlertStatus:
    """What holds an alert back."""

    state: AlertState
    silenced_by: tuple[str, ...]
    """Ids of silences."""
    inhibited: bool


@dataclass(frozen=True, slots=True)
class _Standing:
    """An answer of `standing`, and how long it holds."""

    alerts: tuple[Alert, ...]
    version: tuple[int, int]
    since: float
    until: float


class Dispatcher:
    """One configuration's groups. For another configuration make a new one and `restore` what this one dumps."""

    def __init__(self, config: RoutesConfig, silences: Silences) -> None:
        self.config = config
        self.router = Router(config.route)
        self._silences = silences
        self._inhibitor = Inhibitor(config.inhibit_rules)
        self._inhibitor_version = -1
        self._firing: dict[str, Alert] = {}
        self._version = 0
        """Grows when what fires changes."""
        self._updates = 0
        self._serials = 0
        self._groups: dict[tuple[Route, frozenset[tuple[str, str]]], Group] = {}
        self._waiting: dict[int, Group] = {}
        """The group of every notification that is wanted, by serial."""
        self._log = NotificationLog()
        self._next: float | None = None
        self._next_known = True
        self._now = -math.inf
        self._standing: dict[str, _Standing] = {}
        self._timed = {
            route.receiver
            for route in config.route.walk()
            if route.mute_time_intervals or route.active_time_intervals
        }

    def update(self, alerts: Iterable[Alert], now: float) -> None:
        """Take in alerts that began, changed or were resolved (`ends_at` is set); others stay as they are."""
        self._clock(now)
        for alert in alerts:
            self._take(alert, now)

    def reconcile(self, firing: Iterable[Alert], now: float) -> None:
        """Take in all alerts that fire; every other one that fired is resolved now.

        For after a start or a reload: nobody else tells of the alerts of rules that are gone.
        """
        alerts = list(firing)
        present = {fingerprint_of(alert.labels) for alert in alerts}
        gone = [alert for fingerprint, alert in self._firing.items() if fingerprint not in present]
        self.update([*alerts, *(replace(alert, ends_at=now) for alert in gone)], now)

    def due(self, now: float) -> list[Notification]:
        """The notifications to be sent now; those not wanted any more are told by `wanted`."""
        self._clock(now)
        upcoming = self.next_due()
        if upcoming is None or upcoming > now:
            return []
        self._log.forget(now)
        for key in [key for key, group in self._groups.items() if group.expired(now)]:
            del self._groups[key]
        ready = [group for group in self._groups.values() if group.alerts and group.next_flush <= now]
        made = [
            notification
            for group in sorted(ready, key=lambda group: group.next_flush)
            for notification in self._flush(group, now)
        ]
        self._next_known = False
        return made

    def next_due(self) -> float | None:
        """When `due` will next have something to do; None: not before the next update."""
        if not self._next_known:
            self._next = min(
                (group.next_flush for group in self._groups.values() if group.alerts), default=None
            )
            self._next_known = True
        return self._next

    def wanted(self, notification: Notification) -> bool:
        """Whether a notification is still to be sent: not yet delivered, replaced or muted since."""
        group = self._waiting.get(notification.serial)
        return group is not None and group.waiting.get(notification.index) is notification

    def delivered(self, notification: Notification, now: float) -> None:
        """It arrived: the receiver is told again only of changes, and after the repeat interval."""
        self._log.note(
            notification.key, notification.firing, notification.resolved, now, notification.repeat_interval
        )
        group = self._settle(notification)
        if group is not None and not group.waiting and not group.failed:
            group.forget_ended(now)
            self._next_known = False

    def failed(self, notification: Notification) -> None:
        """It will not arrive; the group's next flush makes another, as in Alertmanager."""
        group = self._settle(notification)
        if group is not None:
            group.failed = True

    def standing(self, receiver: str, now: float) -> tuple[Alert, ...]:
        """The firing alerts that are routed to a receiver and neither silenced, inhibited nor muted now."""
        known = self._standing.get(receiver)
        version = (self._version, self._silences.version)
        if known is not None and known.version == version and known.since <= now < known.until:
            return known.alerts
        alerts = tuple(
            alert
            for alert in self._firing.values()
            if receiver in self.router.receivers_of(alert.labels)
            and any(
                route.receiver == receiver and not self._time_muted(route, now)
                for route in self.router.routes_of(alert.labels)
            )
            and not self._muted(alert.labels, now)
        )
        until = self._silences.next_change(now)
        until = math.inf if until is None else until
        if receiver in self._timed:
            until = min(until, (now // _MINUTE + 1) * _MINUTE)
        self._standing[receiver] = _Standing(alerts, version, now, until)
        return alerts

    def status(self, labels: Mapping[str, str], now: float) -> AlertStatus:
        """What holds an alert back, time intervals aside (they belong to routes)."""
        silenced: tuple[str, ...] = tuple(self._silences.silenced(labels, now))
        inhibited = self._inhibits(labels)
        suppressed = inhibited or bool(silenced)
        return AlertStatus(AlertState.SUPPRESSED if suppressed else AlertState.ACTIVE, silenced, inhibited)

    def dump(self) -> dict[str, Any]:
        """JSON-able state for `restore`: alerts, groups' clocks, what was notified, what waits. It holds no secret."""
        held = {
            fingerprint: held.alert
            for group in self._groups.values()
            for fingerprint, held in group.alerts.items()
            if held.alert.ends_at is not None
        }
        return {
            "alerts": [_alert_data(alert) for alert in (held | self._firing).values()],
            "groups": [
                {
                    "key": group.key,
                    "receiver": group.route.receiver,
                    "next_flush": group.next_flush,
                    "flushed": group.flushed,
                    "owed": bool(group.waiting) or group.failed,
                }
                for group in self._groups.values()
                if group.alerts
            ],
            "log": self._log.dump(),
        }

    def restore(self, data: Mapping[str, Any], now: float) -> None:
        """Take over what `dump` gave, into a new dispatcher: nothing is told twice, and what was not told is."""
        self._log.restore(data["log"], now)
        self.update((Alert(**item) for item in data["alerts"]), now)
        known = {(item["key"], item["receiver"]): item for item in data["groups"]}
        for group in self._groups.values():
            item = known.get((group.key, group.route.receiver))
            if item is None:
                continue
            group.flushed = item["flushed"]
            longest = now + max(group.route.group_wait, group.route.group_interval)
            group.next_flush = now if item["owed"] else min(item["next_flush"], longest)
        self._next_known = False

    def _take(self, alert: Alert, now: float) -> None:
        fingerprint = fingerprint_of(alert.labels)
        before = self._firing.get(fingerprint)
        if before is not None and before.starts_at < alert.starts_at:
            alert = replace(alert, starts_at=before.starts_at)
        if alert == before:
            return
        if alert.ends_at is None:
            self._firing[fingerprint] = alert
        else:
            self._firing.pop(fingerprint, None)
        self._version += 1
        self._updates += 1
        for route in self.router.routes_of(alert.labels):
            self._group(route, alert.labels, now).insert(fingerprint, alert, self._updates, now)
        self._next_known = False

    def _group(self, route: Route, labels: Mapping[str, str], now: float) -> Group:
        group_labels = route.group_labels(labels)
        key = (route, frozenset(group_labels.items()))
        group = self._groups.get(key)
        if group is None or group.expired(now):
            group = self._groups[key] = Group(route, group_labels, next_flush=now + route.group_wait)
        return group

    def _flush(self, group: Group, now: float) -> Iterator[Notification]:
        """What a group's webhooks must be told now."""
        route = group.route
        # A flush counts from its time, not from when somebody came to ask: so the repeat interval is waited for in full
        # intervals, as by Alertmanager's timers.
        on_time = group.next_flush if now - group.next_flush < route.group_interval else now
        group.next_flush = on_time + route.group_interval
        group.flushed = True
        group.failed = False
        group.ended = {
            fingerprint: held.update
            for fingerprint, held in group.alerts.items()
            if held.alert.ends_at is not None
        }
        left: dict[str, Alert] = {}
        if not self._time_muted(route, now):
            left = {
                fingerprint: held.alert
                for fingerprint, held in group.alerts.items()
                if not self._muted(held.alert.labels, now)
            }
        firing = frozenset(fingerprint for fingerprint, alert in left.items() if alert.ends_at is None)
        resolved = frozenset(left) - firing
        for index, webhook in enumerate(self.config.receivers[route.receiver].webhooks):
            key = (group.key, route.receiver, index)
            before = group.waiting.get(index)
            needed = bool(left) and self._log.needs_update(
                key,
                firing,
                resolved,
                now=now,
                repeat=route.repeat_interval,
                send_resolved=webhook.send_resolved,
            )
            if needed and before is not None and (before.firing, before.resolved) == (firing, resolved):
                continue  # it is on its way
            if before is not None:
                del group.waiting[index], self._waiting[before.serial]
            if not needed:
                continue
            if not firing and not webhook.send_resolved:
                self._log.note(key, firing, resolved, now, route.repeat_interval)
                continue
            self._serials += 1
            chosen = (alert for alert in left.values() if webhook.send_resolved or alert.ends_at is None)
            notification = Notification(
                serial=self._serials,
                receiver=route.receiver,
                index=index,
                webhook=webhook,
                group_key=group.key,
                group_labels=group.labels,
                alerts=tuple(in_order(chosen)),
                firing=firing,
                resolved=resolved,
                repeat_interval=route.repeat_interval,
            )
            group.waiting[index] = notification
            self._waiting[notification.serial] = group
            yield notification
        if not group.waiting:
            group.forget_ended(now)

    def _settle(self, notification: Notification) -> Group | None:
        """Take a notification off the list of those that wait; None where it was not wanted any more."""
        if not self.wanted(notification):
            return None
        group = self._waiting.pop(notification.serial)
        del group.waiting[notification.index]
        return group

    def _muted(self, labels: Mapping[str, str], now: float) -> bool:
        return self._inhibits(labels) or bool(self._silences.silenced(labels, now))

    def _inhibits(self, labels: Mapping[str, str]) -> bool:
        if self._inhibitor_version != self._version:
            self._inhibitor.look(alert.labels for alert in self._firing.values())
            self._inhibitor_version = self._version
        return self._inhibitor.inhibits(labels)

    def _time_muted(self, route: Route, now: float) -> bool:
        intervals = self.config.intervals
        if route.active_time_intervals and not any_contains(intervals, route.active_time_intervals, now):
            return True
        return any_contains(intervals, route.mute_time_intervals, now)

    def _clock(self, now: float) -> None:
        """Where the clock was set back, so are the groups' clocks."""
        if now < self._now - _CLOCK_BACK:
            for group in self._groups.values():
                group.next_flush -= self._now - now
            self._next_known = False
        self._now = now


def _alert_data(alert: Alert) -> dict[str, Any]:
    return {
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "starts_at": alert.starts_at,
        "ends_at": alert.ends_at,
        "generator_url": alert.generator_url,
    }
