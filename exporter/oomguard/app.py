"""Wires everything: one event loop, one worker thread, one target."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import platform
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from oomguard import __version__, policy
from oomguard.actions import LADDER, STEP_NAMES
from oomguard.actions.ladder import Ladder
from oomguard.actions.step import Worker
from oomguard.attach import Follower
from oomguard.broker import RISE, Broker
from oomguard.collect import Collected, Collector, in_tree
from oomguard.config import Settings
from oomguard.counters import Counters
from oomguard.errors import UserError
from oomguard.export import status as told
from oomguard.export.prometheus import Exporter
from oomguard.export.series import level_samples, snapshot_samples
from oomguard.inject import no_hook_cause
from oomguard.journal import Journal
from oomguard.level import LevelReader
from oomguard.log import LOGGER, fields
from oomguard import metrics as m
from oomguard.model import Level, LimitOrigin, ProcessId, Snapshot, StepOutcome
from oomguard.policy import Wish
from oomguard.runtime import RuntimeDir
from oomguard.sampler import FastLane, measure_fill_rate
from oomguard.sizes import Threshold, format_size, megabytes, parse_threshold
from oomguard.sources.fast_rss import FastRss
from oomguard.sources.hooks import Hooks
from oomguard.sources.procfs import read_stat
from oomguard.sources.tree import ProcessTree
from oomguard.store import Sample, Store
from oomguard.web import server

SLOW_INTERVAL: Final = 1.0
SLOWEST_INTERVAL: Final = 10.0
BUDGET: Final = 200
"""A slow tick that took t is not repeated before 200·t has passed: half a percent of a core."""
HOOK_PATIENCE: Final = 0.8
"""Seconds a hook is given for a reading: less than a slow tick, so that a stalled one delays none."""
HOOK_GRACE: Final = 10.0
"""Seconds after a target's start before its missing hook is mentioned."""
SAY_AGAIN: Final = 1.0
"""Seconds for which an alert that flaps is not logged again."""


class Sidecar:
    """One sidecar. Implements `oomguard.web.server.View`."""

    def __init__(
        self,
        settings: Settings,
        runtime: RuntimeDir,
        *,
        control_fd: int | None = None,
        ready_fd: int | None = None,
        follower: Follower | None = None,
        proc: str = "/proc",
    ) -> None:
        self.settings = settings
        self.target = settings.target or socket.gethostname()
        self._runtime = runtime
        self._control_fd = control_fd
        self._ready_fd = ready_fd
        self._follower = follower
        self._proc = proc
        self._adopted_by = os.getppid() if control_fd is not None else None
        self._root: ProcessId | None = None
        self._root_since = 0.0
        self._said_no_hook = False
        self._level: Level | None = None
        self._snapshot: Snapshot | None = None
        self._tree_pids: frozenset[int] = frozenset()
        self._said: dict[str, float] = {}
        self._firing: tuple[policy.Rule, ...] = ()
        self._stop = asyncio.Event()
        self._wake = asyncio.Event()
        self._failure: UserError | None = None
        self._oom_kills: int | None = None
        self._slow_seconds = 0.0
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="slow")
        self.store = Store()
        self.counters = Counters(self.target)
        self._journal = Journal(
            Path(settings.journal) if settings.journal else runtime.journal_path, sync=self._sync_soon
        )
        self._collector = Collector(
            ProcessTree(proc, adopted_by=self._adopted_by, excluded=frozenset({os.getpid()})), proc=proc
        )
        self._reader = LevelReader(settings, FastRss(proc))
        self._hooks = Hooks(runtime.socket_address, self._belongs, gid=_gid())
        self._rules = policy.rules(settings, STEP_NAMES)
        self._broker = Broker(
            LADDER,
            ladder=self._ladder,
            journal=self._journal,
            counters=self.counters,
            past=tuple(self._journal.records),
        )
        self._lane = FastLane(self._tick, measure_fill_rate())
        self._exporter = Exporter(self._samples)
        self._initial_counts()

    # -- life ---------------------------------------------------------------------------------

    async def run(self) -> int:
        """Guard until told to stop; returns the exit code. Raises UserError for what the user can mend."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        try:
            await self._hooks.start()
        except OSError as error:
            raise UserError(
                f"socket in {self._runtime.variable}: {(error.strerror or str(error)).lower()}; name another directory with --runtime-dir"
            ) from None
        runner, url = await self._listen()
        with contextlib.suppress(OSError):  # oomguard status then needs --url
            self._runtime.describe(os.getpid(), url)
        if self._control_fd is not None:
            os.set_blocking(self._control_fd, False)
            loop.add_reader(self._control_fd, self._controlled, bytearray())
        self._journal.write("sidecar_start", version=__version__, pid=os.getpid())
        LOGGER.info(
            "oomguard started",
            extra=fields(
                version=__version__,
                url=url,
                target=self.target,
                journal=self._journal.path,
                acts=self.settings.act,
                high=str(self.settings.high),
                critical=str(self.settings.critical),
                goal=str(self.settings.goal),
            ),
        )
        if self._journal.error:
            LOGGER.warning("actions go on without a journal", extra=fields(reason=self._journal.error))
        slow = loop.create_task(self._slow_lane())
        self._lane.start()
        if self._ready_fd is not None:
            os.write(self._ready_fd, b"ready\n")
            os.close(self._ready_fd)
        gc.collect()
        gc.freeze()  # what start-up left is there to stay: no later collection has to walk it
        await self._stop.wait()
        slow.cancel()
        self._lane.stop()
        await asyncio.gather(slow, return_exceptions=True)
        await self._broker.close()
        self._journal.write("sidecar_stop", pid=os.getpid())
        LOGGER.info("oomguard stopped", extra=self._memory_fields())
        await self._hooks.close()
        await runner.cleanup()
        self._worker.shutdown(wait=True)
        self._journal.close()
        self._reader.close()
        if self._failure is not None:
            raise self._failure
        return 0

    async def _listen(self) -> tuple[web.AppRunner, str]:
        host, _, port = self.settings.listen.rpartition(":")
        host = host.strip("[]")
        loopback = host in ("localhost", "::1") or host.startswith("127.")
        app = server.build(self, self._runtime.token(), loopback=loopback)
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, host, int(port))
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise UserError(
                f"--listen {self.settings.listen}: {os.strerror(error.errno).lower() if error.errno else error}; "
                "choose another address with --listen or OOMGUARD_LISTEN (port 0 takes any free one)"
            ) from None
        address = runner.addresses[0]
        shown = f"[{address[0]}]" if ":" in address[0] else address[0]
        return runner, f"http://{shown}:{address[1]}"

    def _controlled(self, buffer: bytearray) -> None:
        """Lines of the supervisor (oomguard.supervisor.main says which); end of file ends us."""
        assert self._control_fd is not None
        try:
            data = os.read(self._control_fd, 4096)
        except BlockingIOError:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(self._control_fd)
            self._stop.set()
            return
        buffer += data
        *lines, rest = bytes(buffer).split(b"\n")
        buffer[:] = rest
        for line in lines:
            words = line.decode(errors="replace").split()
            if words[:1] == ["target"]:
                self._target_started(ProcessId(int(words[1]), int(words[2])))
            elif words[:1] == ["exited"]:
                self._target_ended(code=int(words[2]))
            elif words[:1] == ["restarting"]:
                LOGGER.warning("target restarts", extra=fields(in_seconds=words[1], restart=words[2]))

    # -- the target ---------------------------------------------------------------------------

    def _target_started(self, root: ProcessId) -> None:
        self._root = root
        self._root_since = time.monotonic()
        self._said_no_hook = False
        self._oom_kills = None
        known = [record for record in self._journal.records if record["event"] == "target_start"]
        if not known or (known[-1].get("pid"), known[-1].get("start_ticks")) != (root.pid, root.start_ticks):
            self._journal.write("target_start", pid=root.pid, start_ticks=root.start_ticks)
            self.counters.add(m.TARGET_RESTARTS)
        LOGGER.info("target found", extra=fields(pid=root.pid))
        self._wake.set()

    def _target_ended(self, code: int | None = None) -> None:
        if self._root is None:
            return
        self._journal.write("target_exit", pid=self._root.pid, code=code)
        LOGGER.info("target ended", extra=fields(pid=self._root.pid, code=code))
        self._root = None
        self._level = None
        self._wake.set()

    def _belongs(self, pid: int) -> bool:
        if pid in self._tree_pids:
            return True
        root = self._adopted_by or (self._root.pid if self._root is not None else None)
        return root is not None and in_tree(self._parent, pid, root)

    def _parent(self, pid: int) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            stat = read_stat(self._proc, pid)
            return stat.ppid if stat is not None else None
        return None

    # -- the fast lane ------------------------------------------------------------------------

    def _tick(self, at: float) -> tuple[int, tuple[int, ...]] | None:
        level = self._level = self._reader.read(at, tick=True)
        if level is None:
            return None
        thresholds = self.thresholds(level)
        lateness = self._lane.lateness.now(at)
        goal, critical = thresholds["goal"], thresholds["critical"]
        firing = policy.firing(level, self._rules, goal, lateness)
        if firing != self._firing:
            self._announce(firing, level)
        broker = self._broker
        wishes = [Wish(rule.alertname, rule.steps, goal) for rule in firing] if self.settings.act else []
        broker.consider(wishes, level, goal=goal, critical=critical)
        if broker.active is not None:
            return level.used, ()
        ahead = [
            policy.lowered(thresholds[name], goal, level.rate, lateness) for name in ("high", "critical")
        ]
        if broker.held and broker.restraint.floor is not None:
            # What is held back now can start there: look for that, instead of 200 times a second at nothing new.
            ahead.append(broker.restraint.floor + int(RISE * level.limit))
        if not self.settings.act or broker.held:
            ahead.append(level.limit)
        return level.used, tuple(ahead)

    def thresholds(self, level: Level) -> dict[str, int]:
        """The thresholds in force, in bytes."""
        settings = self.settings
        return {name: getattr(settings, name).of(level.limit) for name in ("high", "critical", "goal")}

    def _announce(self, firing: tuple[policy.Rule, ...], level: Level) -> None:
        new = [rule for rule in firing if rule not in self._firing]
        self._firing = firing
        for rule in new:
            if level.at - self._said.get(rule.alertname, -SAY_AGAIN) < SAY_AGAIN:
                continue
            self._said[rule.alertname] = level.at
            say = LOGGER.error if rule.severity == "critical" else LOGGER.warning
            say(
                f"memory usage {rule.severity}: {100 * level.ratio:.1f}% of limit "
                f"({megabytes(level.used)} / {megabytes(level.limit)})",
                extra=self._memory_fields(),
            )

    def _memory_fields(self) -> dict[str, object]:
        tree = self._snapshot.tree.value if self._snapshot is not None else None
        samples = [process.sample for process in tree.processes] if tree is not None else []
        level = self._level
        return fields(
            rss=megabytes(sum(sample.rss or 0 for sample in samples)) if samples else None,
            vms=megabytes(sum(sample.vms or 0 for sample in samples)) if samples else None,
            available=megabytes(max(0, level.limit - level.used)) if level is not None else None,
        )

    def _measure(self) -> Level | None:
        return self._reader.read(time.monotonic()) if self._root is not None else None

    def _ladder(self, held: Any) -> Ladder:
        return Ladder(
            LADDER,
            measure=self._measure,
            workers=self._workers,
            held=held,
            journal=self._journal,
            counters=self.counters,
        )

    def _workers(self) -> Sequence[Worker]:
        """The target's hooks, worst process first."""
        tree = self._snapshot.tree.value if self._snapshot is not None else None
        known = {process.sample.id.pid: process for process in (tree.processes if tree is not None else ())}
        hooks = self._hooks.members()
        unfrozen = {hook.pid for hook in hooks if not _frozen(hook.last.value)}
        sharing = {known[hook.pid].sample.ppid for hook in hooks if hook.forked and hook.pid in known}
        workers = []
        for hook in hooks:
            process = known.get(hook.pid)
            memory = process.memory.value if process is not None else None
            workers.append(
                Worker(
                    hook,
                    process.slot if process is not None else "other",
                    memory.uss
                    if memory is not None
                    else (process.sample.rss_anon or 0)
                    if process is not None
                    else 0,
                    shared_heap=hook.pid in unfrozen and (hook.forked or hook.pid in sharing),
                )
            )
        return sorted(workers, key=lambda worker: -worker.weight)

    # -- the slow lane ------------------------------------------------------------------------

    async def _slow_lane(self) -> None:
        while True:
            began = time.monotonic()
            self._wake.clear()
            try:
                spent = await self._slow_tick()
            except Exception:
                LOGGER.exception("slow tick failed")
                spent = 0.0
            pause = min(SLOWEST_INTERVAL, max(SLOW_INTERVAL, BUDGET * spent)) - (time.monotonic() - began)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._wake.wait(), max(0.05, pause))

    async def _slow_tick(self) -> float:
        loop = asyncio.get_running_loop()
        if self._follower is not None:
            await self._follow(self._follower)
        root = self._root
        collected = await loop.run_in_executor(self._worker, self._collector.collect, root)
        if root is not self._root:
            self._wake.set()
            return 0.0
        tree = collected.tree.value
        processes = tree.processes if tree is not None else ()
        first = self._reader.limit is None
        self._reader.update(collected.cgroup, collected.source, collected.machine.value, processes)
        self._tree_pids = frozenset(process.sample.id.pid for process in processes)
        if tree is not None and (self._level is None or first):
            self._lane.hurry()
            self._first_level(root)
        slots = {process.sample.id.pid: process.slot for process in processes}
        hooks = await self._hooks.read_all(slots, HOOK_PATIENCE)
        self._snapshot = snapshot = Snapshot(
            at=time.monotonic(), time=time.time(), target=self.target,
            tree=collected.tree, cgroup=collected.cgroup, events=collected.events, pressure=collected.pressure,
            throttling=collected.throttling, machine=collected.machine, hooks=hooks, own=collected.own,
        )  # fmt: skip
        self._slow_seconds = collected.seconds
        self.counters.add(m.TICKS, "slow")
        self._notice(collected)
        self.store.write(snapshot.time, self._slot())
        return collected.seconds

    async def _follow(self, follower: Follower) -> None:
        if self._root is not None and self._snapshot is not None and self._snapshot.tree.ok:
            return
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._worker, follower.find)
        except UserError as error:
            if self._journal_knows_target():
                LOGGER.error(str(error))  # it worked before: guarding goes on, the user can mend it meanwhile
                return
            self._failure = error
            self._stop.set()
            return
        if found != self._root:
            if self._root is not None:
                self._target_ended()
            if found is not None:
                self._target_started(found)

    def _journal_knows_target(self) -> bool:
        return any(record["event"] == "target_start" for record in self._journal.records)

    def _first_level(self, root: ProcessId | None) -> None:
        level = self._level
        if level is None:
            return
        LOGGER.info(
            "guarding",
            extra={
                "fields": {
                    **fields(
                        pid=root.pid if root else None, limit=format_size(level.limit), origin=level.origin.value,
                        used=format_size(level.used), counted=level.kind.value,
                    )["fields"],  # type: ignore[dict-item]
                }
            },
        )  # fmt: skip
        if self._follower is not None and level.used > level.limit and level.origin is LimitOrigin.CONFIGURED:
            self._failure = UserError(
                f"--limit {format_size(level.limit)} lies below the {format_size(level.used)} that process "
                f"{root.pid if root else '?'} uses already; give a larger limit"
            )
            self._stop.set()

    def _notice(self, collected: Collected) -> None:
        """What a slow tick shows that someone should be told."""
        events = collected.events.value
        kills = events.oom_kill if events is not None else None
        if kills is not None:
            if self._oom_kills is not None and kills > self._oom_kills:
                self._journal.write("oom_kill", count=kills - self._oom_kills)
                LOGGER.error(
                    "the kernel's OOM killer struck in the target's cgroup",
                    extra=fields(kills=kills - self._oom_kills),
                )
            self._oom_kills = kills
        waited = time.monotonic() - self._root_since
        if self._root is not None and not self._said_no_hook and waited > HOOK_GRACE:
            self._said_no_hook = True
            if not self._hooks.connected:
                LOGGER.warning(
                    "no hook has connected: memory is watched, caches, gc and trim are not to be had",
                    extra=fields(reason=no_hook_cause(self._proc, self._root.pid)),
                )

    # -- what is shown ------------------------------------------------------------------------

    def _slot(self) -> list[Sample]:
        samples = list(snapshot_samples(self._snapshot)) if self._snapshot is not None else []
        return [*samples, *self._live()]

    def _live(self) -> list[Sample]:
        """What changes between slow ticks."""
        target = self.target
        samples = (
            list(level_samples(self._level, target, self.thresholds(self._level))) if self._level else []
        )
        firing = {rule.alertname for rule in self._firing}
        samples += [
            Sample(m.ALERT_FIRING, (target, rule.alertname), float(rule.alertname in firing))
            for rule in self._rules
        ]
        samples.append(Sample(m.RUN_ACTIVE, (target,), float(self._broker.active is not None)))
        if self._broker.reaction is not None:
            samples.append(Sample(m.REACTION, (target,), self._broker.reaction))
        for reason, count in self._hooks.errors.items():
            samples.append(Sample(m.HOOK_ERRORS, (target, reason.value), count))
        lane = self._lane
        samples += [
            Sample(m.BUILD_INFO, (__version__, platform.python_version()), 1.0),
            Sample(m.TICKS, ("fast",), lane.ticks),
            Sample(m.LATE_TICKS, (), lane.late),
            Sample(m.LATENESS, (), lane.lateness.now(time.monotonic())),
            Sample(m.INTERVAL, (), lane.interval),
            Sample(m.SLOW_SECONDS, (), self._slow_seconds),
            Sample(m.JOURNAL_ERRORS, (), self._journal.errors),
            Sample(m.STORE_SERIES, (), len(self.store)),
            Sample(m.STORE_REFUSED, (), self.store.refused),
        ]
        samples.extend(self.counters.samples())
        return samples

    def _samples(self) -> list[Sample]:
        """For a scrape: the last slot, with what has changed since."""
        live = self._live()
        fresh = {sample.metric for sample in live}
        return [*live, *(sample for sample in self.store.latest() if sample.metric not in fresh)]

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """Body and content type of /metrics."""
        return self._exporter.render(accept)

    def health(self) -> dict[str, Any]:
        """Body of /health."""
        thresholds = self.thresholds(self._level) if self._level is not None else {}
        return told.health(self._level, thresholds, self.target)

    def ready(self) -> str:
        """Why memory is not being read, or an empty string."""
        if self._level is not None:
            return ""
        return (
            "waiting for the target" if self._root is None else "memory can't be read yet; see /api/v1/status"
        )

    def status(self, *, command_lines: bool) -> dict[str, Any]:
        """Body of /api/v1/status."""
        broker, level, snapshot = self._broker, self._level, self._snapshot
        shown = told.snapshot_json(snapshot, command_lines=command_lines) if snapshot is not None else {}
        return {
            "version": __version__,
            "target": self.target,
            "pid": self._root.pid if self._root is not None else None,
            "acts": self.settings.act,
            "level": told.level_json(level),
            "thresholds": self.thresholds(level) if level is not None else None,
            "health": self.health()["status"],
            "advice": told.advice(snapshot) if snapshot is not None else "",
            "alerts": [rule.alertname for rule in self._firing],
            "cleanup": {
                "active": broker.active.id if broker.active is not None else None,
                "held": broker.held,
                "last": {"run": broker.last[0].id, "outcome": broker.last[1].value} if broker.last else None,
            },
            "sampler": {
                "interval": round(self._lane.interval, 4),
                "ticks": self._lane.ticks,
                "late": self._lane.late,
                "lateness": round(self._lane.lateness.now(time.monotonic()), 4),
                "fill_rate": round(self._lane.fill_rate),
            },
            "journal": {"path": str(self._journal.path or ""), "error": self._journal.error},
            **shown,
        }

    def history(self, since: float) -> dict[str, Any]:
        """Used memory and the limit over the last 15 minutes: lists of (Unix seconds, bytes)."""
        level = self._level
        if level is None:
            return {"used": [], "limit": []}
        used = self.store.history(m.MEMORY_USED.name, (self.target, level.kind.value), since)
        limit = self.store.history(m.MEMORY_LIMIT.name, (self.target, level.origin.value), since)
        return {"used": used, "limit": limit}

    def journal(self, limit: int) -> list[dict[str, Any]]:
        """The last records, oldest first."""
        return list(self._journal.records)[-limit:]

    def cleanup(self, steps: list[str] | None, goal: float | str | None) -> dict[str, Any]:
        """Order a cleanup by hand; raises UserError and LookupError."""
        unknown = [step for step in steps or () if step not in STEP_NAMES]
        if unknown:
            raise UserError(f"unknown step {unknown[0]!r}; the steps are {', '.join(STEP_NAMES)}")
        try:
            threshold: Threshold = parse_threshold(goal) if goal is not None else self.settings.goal
        except ValueError as error:
            raise UserError(f"goal: {error}") from None
        level = self._measure()
        if level is None:
            raise LookupError(self.ready() or "no target is running")
        run = self._broker.order("manual", steps or STEP_NAMES, threshold.of(level.limit), level)
        return {"run": run.id, "goal": run.goal, "used": level.used}

    def _initial_counts(self) -> None:
        for step in STEP_NAMES:
            for outcome in StepOutcome:
                self.counters.add(m.STEPS, step, outcome.value, by=0)
            for metric in (m.STEP_FREED, m.STEP_SECONDS, m.STEP_STALL):
                self.counters.add(metric, step, by=0)
        self.counters.add(m.TARGET_RESTARTS, by=0)
        for reason in m.HookErrorReason:
            self._hooks.errors[reason] += 0

    def _sync_soon(self, descriptor: int) -> None:
        self._worker.submit(_sync, descriptor)


def _sync(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # rotated or closed meanwhile; the kernel writes it all the same
        os.fsync(descriptor)


def _frozen(reading: Any) -> bool:
    stats = reading.gc.value if reading is not None else None
    return stats is not None and stats.frozen > 0


def _gid() -> int | None:
    text = os.environ.get("OOMGUARD_GID", "")
    return int(text) if text.isdecimal() else None


def guard(settings: Settings, runtime: RuntimeDir, **wiring: Any) -> int:
    """Run a sidecar to its end; returns the exit code. Raises UserError."""
    sys.setswitchinterval(0.001)  # the worker thread parses: the fast lane must not wait 5 ms for it

    async def run() -> int:
        return await Sidecar(settings, runtime, **wiring).run()

    return asyncio.run(run())
