"""The slow lane: everything that is read once a second or less, its place in the store, and what it shows.

One tick at a time; the reading itself is done in the worker thread (`oomguard.collect`).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final
from weakref import WeakKeyDictionary, WeakSet

from oomguard import metrics as m
from oomguard.collect import Collected, Collector
from oomguard.counters import Counters
from oomguard.inject import no_hook_cause
from oomguard.journal import Journal
from oomguard.level import LevelReader
from oomguard.log import LOGGER, fields
from oomguard.model import CgroupEvents, Reading, Snapshot, Status, Tree
from oomguard.sampler import FastLane
from oomguard.sources.hooks import Hook, Hooks
from oomguard.state import State
from oomguard.store import Sample, Store

SLOW_INTERVAL: Final = 1.0
SLOWEST_INTERVAL: Final = 5.0
BUDGET: Final = 500
"""A slow tick that cost t of CPU time is not repeated before 500·t has passed: a fifth of a percent of a core, so
that with the fast lane an idle target costs less than half a percent."""
ATTENTION: Final = 10.0
"""Seconds after somebody has looked at the status for which it is kept fresh, whatever that costs."""
HOOK_PATIENCE: Final = 0.8
"""Seconds a hook is given for a reading: less than a slow tick, so that a stalled one delays none."""
UNMATCHED_TICKS: Final = 5
"""Slow ticks for which a kill waits for the child that it struck."""
OOM_KILL: Final = "oom_kill"
UNKNOWN: Final = "unknown"
STALL_QUIET: Final = 10.0
"""Seconds for which it is not said again that a hook is stalled: beside busy threads it may be so every second."""
HOOK_GRACE: Final = 10.0
"""Seconds after a target's start before its missing hook is mentioned."""


class SlowLane:
    """Reads everything, again and again, until told to stop."""

    def __init__(
        self,
        state: State,
        collector: Collector,
        reader: LevelReader,
        hooks: Hooks,
        fast: FastLane,
        store: Store,
        counters: Counters,
        journal: Journal,
        worker: ThreadPoolExecutor,
        *,
        follow: Callable[[], Awaitable[None]],
        first_level: Callable[[], None],
        slot: Callable[[], Iterable[Sample]],
        written: Callable[[], None],
        watched: str,
        proc: str,
    ) -> None:
        """`follow` finds the target, `first_level` is called once its memory is known, `slot` gives the samples of a
        slot, `written` is called after one; `watched` is the runtime directory under ``oomguard watch``, else empty.
        """
        self.seconds = 0.0
        """How long the last tick took."""
        self._state = state
        self._collector = collector
        self._reader = reader
        self._hooks = hooks
        self._fast = fast
        self._store = store
        self._counters = counters
        self._journal = journal
        self._worker = worker
        self._follow = follow
        self._first_level = first_level
        self._slot = slot
        self._written = written
        self._watched = watched
        self._proc = proc
        self._wake = asyncio.Event()
        self._looked_at = -ATTENTION
        self._said_no_hook = False
        self._oom_kills: int | None = None
        self._exited: int | None = None
        self._unmatched: list[int] = []
        self._stall_told: WeakKeyDictionary[Hook, float] = WeakKeyDictionary()
        """When (monotonic) it was said of a hook that it is stalled."""
        self._stalls_told: WeakSet[Hook] = WeakSet()
        """Those of which it is still to be said that they answer again."""
        for reason in (OOM_KILL, UNKNOWN):
            counters.add(m.CHILD_EXITS, reason, by=0)

    async def run(self, stop: asyncio.Event) -> None:
        """Tick until `stop` is set; `wake` makes it look."""
        # Told to end by a flag: before Python 3.12 wait_for may swallow a cancellation (python/cpython#86296).
        while not stop.is_set():
            began, began_cpu = time.monotonic(), time.process_time()
            self._wake.clear()
            try:
                await self._tick()
            except Exception:  # noqa: BLE001 - whatever fails once, the next tick comes
                LOGGER.exception("slow tick failed")
            if stop.is_set():
                break
            # CPU time, not the clock's: on a busy machine a tick takes much longer than it costs.
            spent = time.process_time() - began_cpu
            interval = min(SLOWEST_INTERVAL, max(SLOW_INTERVAL, BUDGET * spent))
            if began - self._looked_at < ATTENTION:
                interval = SLOW_INTERVAL
            pause = interval - (time.monotonic() - began)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(0.05, pause))

    def wake(self) -> None:
        """Tick now: something has changed."""
        self._wake.set()

    def looked(self) -> None:
        """Somebody reads the status or has the page open: what they see should be of now."""
        self._looked_at = time.monotonic()
        snapshot = self._state.snapshot
        if snapshot is not None and self._looked_at - snapshot.at > SLOW_INTERVAL:
            self._wake.set()

    def target_started(self) -> None:
        """Another target: what was counted of the one before says nothing of it."""
        self._said_no_hook = False
        self._oom_kills = self._exited = None
        self._unmatched.clear()

    def notice_kills(self, events: Reading[CgroupEvents]) -> int:
        """Journal what the kernel's OOM killer did since the reading before; returns how often it struck."""
        kills = events.value.oom_kill if events.value is not None else None
        if kills is None:
            return 0
        new = max(0, kills - self._oom_kills) if self._oom_kills is not None else 0
        if new > 0:
            self._journal.write("oom_kill", count=new)
            LOGGER.error("the kernel's OOM killer struck in the target's cgroup", extra=fields(kills=new))
        self._oom_kills = kills
        return new

    def hook_stalled(self, hook: Hook) -> None:
        """A hook does not answer; what the others say goes on."""
        self._hooks.errors[m.HookErrorReason.TIMEOUT] += 1
        now = time.monotonic()
        if now - self._stall_told.get(hook, -STALL_QUIET) < STALL_QUIET:
            return
        self._stall_told[hook] = now
        self._stalls_told.add(hook)
        self._journal.write("hook_stalled", process=self._slot_of(hook), pid=hook.pid)
        LOGGER.warning(
            "a process does not answer: its interpreter, or a callback of its own, is held up",
            extra=fields(process=self._slot_of(hook), pid=hook.pid),
        )
        self._wake.set()

    def hook_answered(self, hook: Hook, seconds: float) -> None:
        """A hook that was stalled for so long has answered, or has gone."""
        if hook not in self._stalls_told:
            return
        self._stalls_told.discard(hook)
        self._journal.write(
            "hook_answered" if hook.stalled == 0 else "hook_gone",
            process=self._slot_of(hook),
            pid=hook.pid,
            seconds=round(seconds, 1),
        )
        self._wake.set()

    def _slot_of(self, hook: Hook) -> str:
        slots = (process.slot for process in self._state.processes if process.sample.id.pid == hook.pid)
        return next(slots, "other")

    async def _tick(self) -> None:
        """Read everything once."""
        state = self._state
        await self._follow()
        root = state.root
        collected = await asyncio.get_running_loop().run_in_executor(
            self._worker, self._collector.collect, root
        )
        if root is not state.root:
            self._wake.set()  # another target meanwhile: what was read is of the old one
            return
        tree = collected.tree.value
        processes = tree.processes if tree is not None else ()
        self._reader.update(collected.cgroup, collected.source, collected.machine.value, processes)
        snapshot = Snapshot(
            at=time.monotonic(),
            time=state.clock.now(),
            target=state.target,
            tree=collected.tree,
            cgroup=collected.cgroup,
            events=collected.events,
            pressure=collected.pressure,
            throttling=collected.throttling,
            machine=collected.machine,
            hooks=Reading(Status.ABSENT, reason="not asked yet"),
            own=collected.own,
        )
        if tree is not None and state.level is None:
            state.snapshot = snapshot  # the first tick names processes and sizes, too
            self._fast.hurry()
            self._first_level()
        slots = {process.sample.id.pid: process.slot for process in processes}
        hooks = await self._hooks.read_all(slots, HOOK_PATIENCE)
        state.snapshot = dataclasses.replace(snapshot, hooks=hooks)
        self.seconds = collected.seconds
        self._counters.add(m.TICKS, "slow")
        self._notice(collected)
        self._store.write(state.snapshot.time, self._slot())
        self._written()

    def _notice(self, collected: Collected) -> None:
        """What a slow tick shows that someone should be told."""
        self._notice_children(collected.tree, self.notice_kills(collected.events))
        root = self._state.root
        waited = time.monotonic() - self._state.root_since
        if root is None or self._said_no_hook or waited <= HOOK_GRACE:
            return
        self._said_no_hook = True
        if not self._hooks.connected:
            LOGGER.warning(
                "no hook has connected: memory is watched, caches, gc and trim can't be had",
                extra=fields(reason=no_hook_cause(self._proc, root.pid, watched=self._watched)),
            )

    def _notice_children(self, tree: Reading[Tree], kills: int) -> None:
        """Tell children that the kernel shot from those that ended: its counter rose while they went."""
        # The kernel counts first; its victim goes when its memory is torn down and its parent has waited for it.
        self._unmatched = [*self._unmatched, kills][-UNMATCHED_TICKS:]
        if tree.value is None:
            return
        exited = tree.value.exited_total
        new = exited - self._exited if self._exited is not None else 0
        self._exited = exited
        shot = min(new, sum(self._unmatched))
        if shot > 0:
            self._forget_kills(shot)
            self._counters.add(m.CHILD_EXITS, OOM_KILL, by=shot)
            self._journal.write("child_killed", count=shot)
        if new > shot:
            self._counters.add(m.CHILD_EXITS, UNKNOWN, by=new - shot)

    def _forget_kills(self, matched: int) -> None:
        for index, kills in enumerate(self._unmatched):
            taken = min(kills, matched)
            self._unmatched[index] -= taken
            matched -= taken
