"""The notification log: what each receiver was last told of a group, so that it is told again only if need be.

Alertmanager, nflog/nflog.go and notify/notify.go (DedupStage.needsUpdate).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

RETENTION: Final = 120 * 3600.0
"""Seconds for which an entry is kept at most; twice the repeat interval, if that is less."""

Key = tuple[str, str, int]
"""Group key, receiver, position of the webhook in the receiver."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The last notification that was delivered; alerts are fingerprints."""

    time: float
    firing: frozenset[str]
    resolved: frozenset[str]
    expires: float


class NotificationLog:
    """The entries."""

    def __init__(self) -> None:
        self._entries: dict[Key, Entry] = {}

    def note(
        self, key: Key, firing: frozenset[str], resolved: frozenset[str], now: float, repeat: float
    ) -> None:
        """A notification was delivered."""
        self._entries[key] = Entry(now, firing, resolved, now + min(RETENTION, 2 * repeat))

    def needs_update(
        self,
        key: Key,
        firing: frozenset[str],
        resolved: frozenset[str],
        *,
        now: float,
        repeat: float,
        send_resolved: bool,
    ) -> bool:
        """Whether a receiver must be told what is now."""
        entry = self._entries.get(key)
        if entry is None:
            return bool(firing)
        if not firing <= entry.firing:
            return True
        if not firing:
            # Told even where resolved alerts are not sent: the log must forget that they fired.
            return bool(entry.firing)
        if send_resolved and not resolved <= entry.resolved:
            return True
        return entry.time < now - repeat

    def forget(self, now: float) -> None:
        """Drop what has expired."""
        for key in [key for key, entry in self._entries.items() if entry.expires <= now]:
            del self._entries[key]

    def dump(self) -> list[dict[str, Any]]:
        """JSON-able data for `restore`."""
        return [
            {
                "group_key": key[0],
                "receiver": key[1],
                "index": key[2],
                "time": entry.time,
                "firing": sorted(entry.firing),
                "resolved": sorted(entry.resolved),
                "expires": entry.expires,
            }
            for key, entry in self._entries.items()
        ]

    def restore(self, data: list[Mapping[str, Any]], now: float) -> None:
        """Take over what `dump` gave."""
        for item in data:
            self._entries[item["group_key"], item["receiver"], item["index"]] = Entry(
                item["time"], frozenset(item["firing"]), frozenset(item["resolved"]), item["expires"]
            )
        self.forget(now)
