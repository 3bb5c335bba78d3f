"""What rules and routes would have made of a recording: the same code, with the recording's own time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from oomguard.alerting import Alerting
from oomguard.alerting.loading import Loaded
from oomguard.broker.wishes import Wish
from oomguard.counters import Counters
from oomguard.journal import Journal
from oomguard.metrics import ALERTS, ALERTS_FOR_STATE
from oomguard.model import Level, LimitOrigin, UsedKind
from oomguard.promql import MemorySeries, MemoryStorage
from oomguard.promql.series import METRIC_NAME, Labels
from oomguard.recording import Moment
from oomguard.routes.deliver import Outcome
from oomguard.routes.groups import Notification
from oomguard.rules.alerts import ActiveAlert, AlertState
from oomguard.rules.engine import Lane
from oomguard.rules.rule import RecordingRule
from oomguard.sizes import format_size
from oomguard.store import Sample, labels_of

_USED: Final = "oomguard_memory_used_bytes"
_LIMIT: Final = "oomguard_memory_limit_bytes"
_GOAL: Final = (("threshold", "goal"), "oomguard_memory_threshold_ratio")
_DEFAULT_GOAL: Final = 0.7


@dataclass(frozen=True, slots=True)
class Event:
    """Something that would have happened."""

    time: int
    """Unix milliseconds."""
    kind: str
    """``pending``, ``firing``, ``resolved``, ``action``, ``notification`` or ``failed``."""
    text: str


class Replay:
    """One target's alerting on a recording. An action ends in it when memory has come below the goal."""

    def __init__(self, loaded: Loaded, target: str) -> None:
        self._storage = MemoryStorage()
        self._series: dict[Labels, MemorySeries] = {}
        self._sent: list[Notification] = []
        self._alerting = Alerting(
            loaded, self._storage, Counters(target), Journal(None), target=target, send=self._sent.extend,
            write=self._write,
        )  # fmt: skip
        self._target = target
        rules = [rule for group in loaded.groups for rule in group.rules]
        self._made = {ALERTS.name, ALERTS_FOR_STATE.name}
        self._made.update(rule.name for rule in rules if isinstance(rule, RecordingRule))
        """Metrics that these rules make: what others made of them while it was recorded is left out."""
        self._known: dict[int, tuple[ActiveAlert, AlertState]] = {}
        self._errors: dict[int, str] = {}
        """The last error of each rule, by its place: two may have one name."""
        self._acting = False
        self._used: float | None = None
        self._limit: float | None = None
        self._goal = _DEFAULT_GOAL

    def events(self, moments: Iterable[Moment]) -> Iterator[Event]:
        """What happens at each moment, in order."""
        last = 0
        for moment in moments:
            if moment.time <= last:
                continue  # a clock that was set back while it was recorded
            last = moment.time
            self._take(moment)
            self._alerting.evaluate(Lane.ALL if moment.slot else Lane.LIVE, moment.time)
            yield from self._alerts(moment.time)
            yield from self._notifications(moment.time)
            yield from self._actions(moment.time)

    def _take(self, moment: Moment) -> None:
        for labels, value in moment.values.items():
            named = dict(labels)
            name = named[METRIC_NAME]
            if name in self._made:
                continue
            self._append(moment.time, labels, value)
            if value != value or named.get("target", "") not in ("", self._target):  # noqa: PLR0124 - ended, or unknown
                continue
            if name == _USED:
                self._used = value
            elif name == _LIMIT:
                self._limit = value
            elif name == _GOAL[1] and _GOAL[0] in labels:
                self._goal = value

    def _write(self, time: int, samples: Sequence[Sample]) -> None:
        """Keep what recording rules made, for the windows of others."""
        for sample in samples:
            self._append(time, labels_of(sample), sample.value)

    def _append(self, time: int, labels: Labels, value: float) -> None:
        series = self._series.get(labels)
        if series is None:
            named = dict(labels)
            series = self._series[labels] = self._storage.series(named.pop(METRIC_NAME), named)
        series.append(time, value)

    def _alerts(self, time: int) -> Iterator[Event]:
        alerts = {id(alert): alert for alert in self._alerting.engine.alerts()}
        for key in [key for key in self._known if key not in alerts]:
            alert, state = self._known.pop(key)
            yield Event(
                time, "resolved" if state is AlertState.FIRING else "dropped", alert.labels["alertname"]
            )
        for key, alert in alerts.items():
            if self._known.get(key) == (alert, alert.state):
                continue
            self._known[key] = (alert, alert.state)
            summary = alert.annotations.get("summary", "")
            yield Event(time, alert.state.value, f"{alert.labels['alertname']}: {summary}".rstrip(": "))
        for index, rule in enumerate(self._alerting.engine.rules):
            if rule.last_error != self._errors.get(index, ""):
                self._errors[index] = rule.last_error
                if rule.last_error:
                    yield Event(time, "failed", f"{rule.rule.name}: {rule.last_error}")

    def _notifications(self, time: int) -> Iterator[Event]:
        sent, self._sent[:] = list(self._sent), []
        for notification in sent:
            names = ", ".join(dict.fromkeys(alert.name for alert in notification.alerts))
            yield Event(time, "notification", f"to {notification.receiver}: {names}")
            self._alerting.reported(notification, Outcome.DELIVERED, time)

    def _actions(self, time: int) -> Iterator[Event]:
        wishes = self._alerting.wishes(time)
        level = self._level(time)
        if level is None:
            return
        wanted = [wish for wish in wishes if level.used > self._goal_of(wish, level)]
        if wanted and not self._acting:
            goal = min(self._goal_of(wish, level) for wish in wanted)
            steps = list(dict.fromkeys(step for wish in wanted for step in wish.steps))
            names = ", ".join(dict.fromkeys(wish.alertname for wish in wanted))
            yield Event(
                time,
                "action",
                f"{', '.join(steps)} for {names}: {format_size(level.used)} of {format_size(level.limit)} used, "
                f"goal {format_size(goal)}",
            )
        self._acting = bool(wanted)

    def _goal_of(self, wish: Wish, level: Level) -> int:
        return wish.goal.of(level.limit) if wish.goal is not None else int(self._goal * level.limit)

    def _level(self, time: int) -> Level | None:
        if self._used is None or not self._limit:
            return None
        return Level(
            time / 1000, int(self._used), int(self._limit), LimitOrigin.CONFIGURED, UsedKind.CGROUP, 0.0
        )
