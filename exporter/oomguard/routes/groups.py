"""Aggregation groups: the alerts of one route with equal group labels, and when they are next looked at.

Alertmanager, dispatch/dispatch.go (aggrGroup); the order of alerts is that of types/types.go (AlertSlice).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from oomguard.model import Alert
from oomguard.routes.nflog import Key
from oomguard.routes.payload import build, group_key
from oomguard.routes.tree import Route
from oomguard.routes.webhook import Webhook

EMPTY_FOR: Final = 30.0
"""Seconds for which a group outlives its last alert: one that comes back meanwhile waits for the group's interval
and not for group_wait again. Alertmanager sweeps empty groups every 30 s."""


@dataclass(frozen=True, slots=True)
class Notification:
    """What one webhook of a receiver is to be told of a group."""

    serial: int
    receiver: str
    index: int
    """Position of the webhook in the receiver."""
    webhook: Webhook
    group_key: str
    group_labels: Mapping[str, str]
    alerts: tuple[Alert, ...]
    """In order; those with `ends_at` are resolved, and left out where the webhook doesn't want them."""
    firing: frozenset[str]
    """Fingerprints of all alerts of the group that fire."""
    resolved: frozenset[str]
    repeat_interval: float

    @property
    def key(self) -> Key:
        """What a newer notification of the same kind replaces."""
        return (self.group_key, self.receiver, self.index)

    def payload(self, external_url: str) -> bytes:
        """The body that is sent."""
        return build(
            receiver=self.receiver,
            group_key=self.group_key,
            group_labels=self.group_labels,
            alerts=self.alerts,
            external_url=external_url,
            max_alerts=self.webhook.max_alerts,
        )


@dataclass(slots=True)
class Held:
    """An alert in a group, as it came last."""

    alert: Alert
    update: int
    """Number of the update that brought it."""


@dataclass(slots=True, eq=False)
class Group:
    """One group. Times are Unix seconds."""

    route: Route
    labels: Mapping[str, str]
    next_flush: float
    flushed: bool = False
    alerts: dict[str, Held] = field(default_factory=dict)
    """By fingerprint."""
    empty_since: float | None = None
    waiting: dict[int, Notification] = field(default_factory=dict)
    """What was made and not yet delivered, by the webhook's position."""
    failed: bool = False
    """Whether a delivery of the last flush failed for good."""
    ended: dict[str, int] = field(default_factory=dict)
    """The resolved alerts of the last flush with their update: they leave the group once that is delivered."""
    key: str = ""

    def __post_init__(self) -> None:
        self.key = group_key(self.route.key, self.labels)

    def insert(self, fingerprint: str, alert: Alert, update: int, now: float) -> None:
        """Take an alert in; the first flush comes at once if the alert began longer than group_wait ago."""
        if not self.alerts and self.flushed and self.next_flush < now:
            # An empty group's clock went on ticking.
            missed = math.ceil((now - self.next_flush) / self.route.group_interval)
            self.next_flush += missed * self.route.group_interval
        self.empty_since = None
        self.alerts[fingerprint] = Held(alert, update)
        if not self.flushed and alert.starts_at + self.route.group_wait < now:
            self.next_flush = now

    def forget_ended(self, now: float) -> None:
        """Resolved alerts have been told of: drop those that have not come again since."""
        for fingerprint, update in self.ended.items():
            held = self.alerts.get(fingerprint)
            if held is not None and held.update == update:
                del self.alerts[fingerprint]
        self.ended.clear()
        if not self.alerts and self.empty_since is None:
            self.empty_since = now

    def expired(self, now: float) -> bool:
        """Whether it has been empty for so long that it is no group any more."""
        return self.empty_since is not None and now - self.empty_since >= EMPTY_FOR


def in_order(alerts: Iterable[Alert]) -> list[Alert]:
    """By job, by instance, then as label sets compare."""
    return sorted(alerts, key=_order)


def _order(alert: Alert) -> tuple[object, ...]:
    labels = alert.labels
    job, instance = labels.get("job"), labels.get("instance")
    # Of two sets of equal size, that which lacks the first name comes first (common/model, LabelSet.Before).
    pairs = [(_descending(name), labels[name]) for name in sorted(labels)]
    return (job is None, job or "", instance is None, instance or "", len(labels), pairs)


@lru_cache(maxsize=1024)
def _descending(name: str) -> tuple[int, ...]:
    """A key by which texts sort backwards."""
    return (*(-ord(char) for char in name), 1)
