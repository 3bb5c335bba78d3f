"""Tells of alerts in the log and the journal: those that page, and one that flaps no oftener than it can be read.

An instant rule is evaluated up to 200 times a second; told each time, an alert at its threshold would turn the journal
over in minutes, and with it what was done to the target.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from oomguard.journal import Journal
from oomguard.log import LOGGER, fields
from oomguard.promql.series import Labels
from oomguard.rules.alerts import ActiveAlert, Change, ChangeKind

NOT_PAGED: Final = ("", "none")
"""Severities of alerts that are not told: what they lead to is."""
WINDOW: Final = 10_000
"""Milliseconds."""
MOST: Final = 4
"""Times that one alert is told of in a window; then its last word is, at the window's end."""


@dataclass(slots=True)
class _Told:
    """What was said of one alert in a window."""

    since: int
    kind: ChangeKind
    times: int = 0


class Teller:
    """What was said of which alert, and when. Times are Unix milliseconds, never going back."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._told: dict[Labels, _Told] = {}
        self._kept: dict[Labels, Change] = {}
        """The last word on alerts of which enough was said in their window."""

    def take(self, changes: Iterable[Change], now: int) -> None:
        """Tell of what fires now or is resolved."""
        for change in changes:
            severity = change.alert.labels.get("severity", "")
            if severity in NOT_PAGED or change.kind not in (ChangeKind.FIRING, ChangeKind.RESOLVED):
                continue
            key = tuple(sorted(change.alert.labels.items()))
            told = self._told.get(key)
            if told is None:
                told = self._told[key] = _Told(now, change.kind)
            if told.times < MOST:
                self._say(told, change)
            else:
                self._kept[key] = change

    def catch_up(self, now: int) -> None:
        """Close the windows that have ended, with the last word where it is another than was said."""
        for key, told in list(self._told.items()):
            if now - told.since < WINDOW:
                continue
            kept = self._kept.pop(key, None)
            if kept is None or kept.kind is told.kind:
                del self._told[key]
            else:
                self._told[key] = again = _Told(now, kept.kind)
                self._say(again, kept)

    def _say(self, told: _Told, change: Change) -> None:
        told.times += 1
        told.kind = change.kind
        alert: ActiveAlert = change.alert
        severity = alert.labels["severity"]
        name, summary = alert.labels.get("alertname", ""), alert.annotations.get("summary", "")
        self._journal.write(f"alert_{change.kind.value}", alert=name, severity=severity, summary=summary)
        say = LOGGER.warning if change.kind is ChangeKind.FIRING else LOGGER.info
        say(f"alert {change.kind.value}: {summary or name}", extra=fields(alert=name, severity=severity))
