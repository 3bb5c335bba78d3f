"""The guardian: at every fast tick, from the level to alerts, wishes and the broker.

Runs on the event loop. It decides nothing itself: `policy` says what fires, `broker` what is done.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

from oomguard import policy
from oomguard.actions import LADDER, STEP_NAMES
from oomguard.actions.ladder import Ladder
from oomguard.actions.step import Worker
from oomguard.broker import RISE, Broker
from oomguard.config import Settings
from oomguard.counters import Counters
from oomguard.journal import Journal
from oomguard.level import LevelReader
from oomguard.log import LOGGER, fields
from oomguard.model import HookReading, Level, Reading
from oomguard.policy import Wish
from oomguard.sampler import FastLane, measure_fill_rate
from oomguard.sizes import megabytes
from oomguard.sources.hooks import Hook, Hooks
from oomguard.state import State

SAY_AGAIN: Final = 1.0
"""Seconds for which an alert that flaps is not logged again."""


class Guardian:
    """Reads the level, evaluates the policy, follows its wishes."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        reader: LevelReader,
        hooks: Hooks,
        journal: Journal,
        counters: Counters,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.rules = policy.rules(settings, STEP_NAMES)
        self.firing: frozenset[policy.Rule] = frozenset()
        self.lane = FastLane(self._tick, measure_fill_rate(), clock=clock)
        self.broker = Broker(
            LADDER,
            ladder=lambda held: Ladder(
                LADDER,
                measure=self.measure,
                workers=self.workers,
                held=held,
                journal=journal,
                counters=counters,
                describe=self.sizes,
            ),
            journal=journal,
            counters=counters,
            past=tuple(journal.records),
        )
        self._settings = settings
        self._state = state
        self._reader = reader
        self._hooks = hooks
        self._clock = clock
        self._said: dict[str, float] = {}
        self._asked: frozenset[Hook] = frozenset()
        """Whom the last step could be ordered from."""
        self._promised = 0
        """What they could have given then, by their own word."""
        self._limit = 0
        self._thresholds: dict[str, int] = {}

    def measure(self) -> Level | None:
        """Memory now, between ticks; None without a target or where it can't be read."""
        return self._reader.read(self._clock()) if self._state.root is not None else None

    def workers(self) -> Sequence[Worker]:
        """The target's processes that have a hook, worst first."""
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
        return sorted(workers, key=lambda worker: -worker.weight)

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

    def _tick(self, at: float) -> tuple[int, tuple[int, ...]] | None:
        # Without a target the box's memory is somebody else's.
        level = self._reader.read(at, tick=True) if self._state.root is not None else None
        self._state.level = level
        if level is None:
            return None
        if level.limit != self._limit:
            self._limit, self._thresholds = level.limit, self._settings.thresholds(level.limit)
        thresholds = self._thresholds
        goal, broker = thresholds["goal"], self.broker
        if level.used <= goal and not self.firing and broker.active is None:
            # Nothing fires at or below the goal (policy.lowered), and this is where a target spends its life.
            broker.consider((), level, goal=goal, critical=thresholds["critical"])
            if level.rate <= 0:
                return level.used, (thresholds["high"],)
            return level.used, (
                policy.lowered(thresholds["high"], goal, level.rate, self.lane.lateness.now(at)),
            )
        lateness = self.lane.lateness.now(at)
        firing = policy.firing(level, self.rules, goal, lateness)
        if firing.keys() != self.firing:
            self._announce(frozenset(firing), level)
        wishes = [
            Wish(rule.alertname, rule.steps, goal, threshold)
            for rule, threshold in firing.items()
            if self._settings.act
        ]
        if broker.held:
            self._look_for_something_new(level.limit)
        broker.consider(wishes, level, goal=goal, critical=thresholds["critical"])
        if broker.active is not None:
            return level.used, ()
        ahead = [
            policy.lowered(thresholds[name], goal, level.rate, lateness) for name in ("high", "critical")
        ]
        if broker.held and broker.restraint.floor is not None:
            # What is held back can start there: wait for that, instead of looking 200 times a second.
            ahead.append(broker.restraint.next_level(level.limit))
        if broker.held or not self._settings.act:
            ahead.append(level.limit)
        return level.used, tuple(ahead)

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

    def _announce(self, firing: frozenset[policy.Rule], level: Level) -> None:
        new = [rule for rule in self.rules if rule in firing - self.firing]
        self.firing = firing
        for rule in new:
            if level.at - self._said.get(rule.alertname, -SAY_AGAIN) < SAY_AGAIN:
                continue
            self._said[rule.alertname] = level.at
            say = LOGGER.error if rule.severity == "critical" else LOGGER.warning
            say(
                f"memory usage {rule.severity}: {100 * level.ratio:.1f}% of limit "
                f"({megabytes(level.used)} / {megabytes(level.limit)})",
                extra=fields(**self.sizes()),
            )


def _promise(hooks: Sequence[Hook]) -> int:
    """Bytes in registered caches and free inside malloc, as the hooks last told."""
    readings = [hook.last.value for hook in hooks if hook.last.value is not None]
    cached = sum(cache.bytes or 0 for reading in readings for cache in reading.caches)
    allocators = [reading.allocator.value for reading in readings]
    return cached + sum(stats.retained or 0 for stats in allocators if stats is not None)


def _frozen(reading: Reading[HookReading]) -> bool:
    stats = reading.value.gc.value if reading.value is not None else None
    return stats is not None and stats.frozen
