"""The guardian: at every fast tick, from the level to the rules, to their wishes and the broker.

Runs on the event loop. It decides nothing itself: the rules say what fires, the routes whom it concerns, the
broker what is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from oomguard import thresholds
from oomguard.actions import LADDER
from oomguard.actions.ladder import Ladder
from oomguard.actions.step import Worker
from oomguard.broker import Broker
from oomguard.broker.restraint import RISE
from oomguard.broker.wishes import Wish
from oomguard.config import Settings
from oomguard.counters import Counters
from oomguard.export.series import fast_samples
from oomguard.journal import Journal
from oomguard.level import LevelReader
from oomguard.log import LOGGER, fields
from oomguard.model import HookReading, Level, ProcessId, Reading
from oomguard.recording import Recorder
from oomguard.rules.engine import Lane
from oomguard.sampler import FastLane, measure_fill_rate
from oomguard.sizes import megabytes
from oomguard.sources.hooks import Hook, Hooks
from oomguard.state import State
from oomguard.store import Store
from oomguard.thresholds import Thresholds

LIVE_INTERVAL: Final = 0.25
"""Seconds between two evaluations of all rules that read fast-lane series; the instant ones run at every tick that
finds another level."""
SAY_AGAIN: Final = 1.0
"""Seconds for which an alert that flaps is not logged again."""


class Alerting(Protocol):
    """Rules and routes, as the fast lane needs them."""

    def evaluate(self, lane: Lane, now: int) -> None:
        """Evaluate the rules of a lane at `now`, in Unix milliseconds."""

    def flush(self, now: int) -> None:
        """Hand on the notifications that are due."""

    def wishes(self, now: int) -> Sequence[Wish]:
        """What the alerts that fire ask of the sidecar itself."""


class Guardian:
    """Reads the level, has the rules evaluated, follows their wishes."""

    def __init__(
        self,
        state: State,
        reader: LevelReader,
        hooks: Hooks,
        journal: Journal,
        counters: Counters,
        store: Store,
        alerting: Alerting,
        *,
        lives: Callable[[ProcessId], bool] = lambda _: True,
        kills: Callable[[], int | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`lives`: whether a process is there and no zombie; `kills`: how often the kernel's OOM killer has struck."""
        self.recorder: Recorder | None = None
        """Where samples are recorded to, if anywhere."""
        self.lane = FastLane(self._tick, measure_fill_rate(), clock=clock)
        self.broker = Broker(
            LADDER,
            ladder=lambda held: Ladder(
                LADDER,
                measure=self.measure,
                workers=self.workers,
                held=held,
                root=self.root,
                kills=kills,
                journal=journal,
                counters=counters,
                describe=self.sizes,
                dry_run=state.settings.dry_run,
            ),
            journal=journal,
            counters=counters,
            # The last of each kind first: 200 records may tell of alerts alone, and ids must not begin anew.
            past=(*journal.latest.values(), *journal.records),
        )
        self._state = state
        self._reader = reader
        self._hooks = hooks
        self._store = store
        self._alerting = alerting
        self._lives = lives
        self._clock = clock
        self._configured: tuple[Settings, int, Thresholds] | None = None
        self._live_due = 0.0
        self._seen: tuple[object, ...] = ()
        """What the rules were evaluated on at the last fast tick."""
        self._above = ""
        self._said: dict[str, float] = {}
        self._asked: frozenset[Hook] = frozenset()
        """Whom the last step could be ordered from."""
        self._promised = 0
        """What they could have given then, by their own word."""

    def measure(self) -> Level | None:
        """Memory now, between ticks; None without a target or where it can't be read."""
        return self._reader.read(self._clock()) if self.root() is not None else None

    def root(self) -> ProcessId | None:
        """The main process; None once it has gone, though nobody may have been told of it yet."""
        root = self._state.root
        return root if root is not None and self._lives(root) else None

    def hooks(self) -> Sequence[tuple[str, Hook]]:
        """The slot and the hook of every process of the target that has one."""
        slots = {process.sample.id.pid: process.slot for process in self._state.processes}
        return [(slots.get(hook.pid, "other"), hook) for hook in self._hooks.members()]

    def workers(self) -> Sequence[Worker]:
        """The target's processes that have a hook, worst first; those that do not answer come last."""
        known = {process.sample.id.pid: process for process in self._state.processes}
        hooks = self._hooks.members()
        self._asked, self._promised = frozenset(hooks), _promise(hooks)
        # The process that others were forked from shares its heap as much as they do.
        sharing = {hook.pid for hook in hooks if hook.forked}
        sharing |= {known[pid].sample.ppid for pid in sharing if pid in known}
        workers = []
        for hook in hooks:
            process = known.get(hook.pid)
            memory = process.memory.value if process is not None else None
            weight = (
                memory.uss if memory is not None else process.sample.rss_anon if process is not None else 0
            )
            shared_heap = hook.pid in sharing and not _frozen(hook.last)
            workers.append(
                Worker(hook, process.slot if process is not None else "other", weight or 0, shared_heap)
            )
        return sorted(workers, key=lambda worker: (worker.hook.stalled > 0, -worker.weight))

    def sizes(self) -> dict[str, object]:
        """RSS of the tree now, VMS as last sampled and what is left to the limit, for a log line."""
        samples = (
            [process.sample for process in self._state.processes] if self._state.root is not None else []
        )
        level, resident = self._state.level, self._reader.resident()
        return {
            "rss": megabytes(resident) if resident is not None else None,
            "vms": megabytes(sum(sample.vms or 0 for sample in samples)) if samples else None,
            "available": megabytes(max(0, level.limit - level.used)) if level is not None else None,
        }

    def in_force(self, level: Level) -> Thresholds:
        """The thresholds that hold at this level: lowered by growth times lateness."""
        settings, known = self._state.settings, self._configured
        if known is None or known[0] is not settings or known[1] != level.limit:
            # Made anew only by a reload or a resized limit: a fast tick has other things to reckon.
            known = (settings, level.limit, thresholds.configured(settings, level.limit))
            self._configured = known
        return thresholds.in_force(known[2], level, self.lane.lateness.now(self._clock()))

    def _tick(self, at: float) -> tuple[int, tuple[int, ...]] | None:
        # Without a target the box's memory is somebody else's.
        level = self._reader.read(at, tick=True) if self._state.root is not None else None
        self._state.level = level
        if level is None:
            self._seen = ()
            return None
        broker, state = self.broker, self._state
        limits = self.in_force(level)
        now = state.clock.milliseconds()
        self._evaluate(level, limits, now)
        self._announce(level, limits)
        if broker.held:
            self._look_for_something_new(level.limit)
        acts = state.settings.act
        wishes = self._alerting.wishes(now) if acts else ()
        broker.stand(wishes, level, limits.goal)
        broker.consider(wishes, level, limits)
        if broker.active is not None:
            return level.used, ()
        ahead = [limits.high, limits.critical]
        if broker.held and broker.restraint.floor is not None:
            # What is held back can start there: wait for that, instead of looking 200 times a second.
            ahead.append(broker.restraint.next_level(level.limit))
        if broker.held or not acts:
            ahead.append(level.limit)
        return level.used, tuple(ahead)

    def _evaluate(self, level: Level, limits: Thresholds, now: int) -> None:
        """Have the rules evaluated on this level, unless it is what they saw at the tick before.

        Then instant rules would find what they found; what time alone brings (a `for` that has passed) waits for
        the next live evaluation. A service that idles just below a threshold is looked at 200 times a second for hours.
        """
        lane = Lane.FAST
        if level.at >= self._live_due:
            lane, self._live_due = Lane.LIVE, level.at + LIVE_INTERVAL
        seen = (level.used, level.rate, level.limit, level.origin, level.kind, limits)
        if lane is Lane.FAST and seen == self._seen:
            self._alerting.flush(now)
            return
        self._seen = seen
        samples = fast_samples(level, self._state.target, limits)
        self._store.live(now, samples)
        if self.recorder is not None:
            self.recorder.live(samples, now)
        self._alerting.evaluate(lane, now)

    def _look_for_something_new(self, limit: int) -> None:
        """Lift what holds a run back where there is something to free that the last run could not know of.

        A cache may have been registered, or filled, since. And a hook that has come since may have what others
        had not: after a sidecar's restart the first run is over before any hook has connected again.
        """
        hooks, restraint = self._hooks.members(), self.broker.restraint
        if _promise(hooks) > self._promised + RISE * limit:
            restraint.forget()
        elif not self._asked.issuperset(hooks):
            restraint.floor = None

    def _announce(self, level: Level, limits: Thresholds) -> None:
        """Log that memory has climbed over a threshold."""
        above = (
            "critical" if level.used >= limits.critical else "warning" if level.used >= limits.high else ""
        )
        before, self._above = self._above, above
        if above in ("", before) or before == "critical":
            return
        for severity in ("warning", "critical") if (before, above) == ("", "critical") else (above,):
            if level.at - self._said.get(severity, -SAY_AGAIN) < SAY_AGAIN:
                continue
            self._said[severity] = level.at
            say = LOGGER.error if severity == "critical" else LOGGER.warning
            say(
                f"memory usage {severity}: {100 * level.ratio:.1f}% of limit "
                f"({megabytes(level.used)} / {megabytes(level.limit)})",
                extra=fields(**self.sizes()),
            )


def _promise(hooks: Sequence[Hook]) -> int:
    """Bytes in registered caches, in models that nobody uses and free inside malloc, as the hooks last told."""
    readings = [hook.last.value for hook in hooks if hook.last.value is not None]
    cached = sum(cache.bytes or 0 for reading in readings for cache in reading.caches)
    cached += sum(
        model.bytes or 0 for reading in readings for model in reading.app.models if not model.in_use
    )
    allocators = [reading.allocator.value for reading in readings]
    return cached + sum(stats.retained or 0 for stats in allocators if stats is not None)


def _frozen(reading: Reading[HookReading]) -> bool:
    stats = reading.value.gc.value if reading.value is not None else None
    return stats is not None and stats.frozen
