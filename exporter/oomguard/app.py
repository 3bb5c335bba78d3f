"""Wires everything: one event loop, one worker thread, one target."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiohttp import web

from oomguard import __version__
from oomguard import metrics as m
from oomguard.alerting import Alerting, loading
from oomguard.alerting.keeper import Keeper
from oomguard.alerting.loading import Loaded
from oomguard.alerting.reloading import Reloader
from oomguard.attach import Follower
from oomguard.broker.inbox import Inbox
from oomguard.broker.restraint import Restraint
from oomguard.collect import Collector, in_tree, lives, process_tree, rss_reader
from oomguard.config import Settings
from oomguard.control import ControlPipe
from oomguard.counters import Counters
from oomguard.errors import ConfigError, Problem, UserError
from oomguard.guardian import Guardian
from oomguard.journal import Journal
from oomguard.level import LevelReader
from oomguard.log import LOGGER, fields, timestamp
from oomguard.model import LimitOrigin, ProcessId
from oomguard.recording import Recorder
from oomguard.routes.deliver import Deliverer, Outcome
from oomguard.routes.groups import Notification
from oomguard.rules.engine import Lane
from oomguard.runtime import RuntimeDir
from oomguard.sizes import format_size
from oomguard.slow import SlowLane
from oomguard.sources.hook_watch import HookWatch
from oomguard.sources.hooks import Hooks
from oomguard.sources.procfs import oom_score_adj, read_stat
from oomguard.state import State
from oomguard.store import Store
from oomguard.view import SidecarView
from oomguard.web import listening, server


class Sidecar:
    """One sidecar, of a supervisor (`control_fd`, `ready_fd`) or on its own (`follower`)."""

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
        self._settings = settings
        self._runtime = runtime
        self._control_fd = control_fd
        self._ready_fd = ready_fd
        self._follower = follower
        self._proc = proc
        self._adopted_by = os.getppid() if control_fd is not None else None
        self._stop = asyncio.Event()
        self._failure: UserError | None = None
        self._found_once = False
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="slow")
        self._state = State(settings.target or socket.gethostname(), settings)
        self._store = Store()
        self._counters = Counters(self._state.target)
        path = Path(settings.journal) if settings.journal else runtime.journal_path
        self._syncing: Future[None] | None = None
        self._journal = Journal(path, sync=self._sync_soon)
        tree = process_tree(proc, adopted_by=self._adopted_by, excluded=frozenset({os.getpid()}))
        self._collector = Collector(tree, proc=proc)
        self._reader = LevelReader(self._state, rss_reader(proc))
        self._hooks = Hooks(runtime.socket_address, self._belongs, gid=_gid())
        self._keeper = Keeper(runtime.alerts_path, self._worker)
        self._settings, loaded, problems = _load(settings, self._keeper.saved)
        self._state.settings = self._settings
        LOGGER.setLevel(self._settings.log_level.upper())
        self._store.keep_long(loaded.long_names)
        self._deliverer: Deliverer | None = None
        self._alerting = Alerting(
            loaded, self._store, self._counters, self._journal, target=self._state.target,
            send=self._send, changed=self._keeper.soon, write=self._store.live, clock=time.perf_counter,
        )  # fmt: skip
        self._guardian = Guardian(
            self._state, self._reader, self._hooks, self._journal, self._counters, self._store, self._alerting,
            lives=lambda root: lives(proc, root), kills=self._collector.kills,
        )  # fmt: skip
        self._reloader = Reloader(
            self._state, self._alerting, self._store, self._journal, self._worker, problems
        )
        self._recorder = (
            Recorder(Path(settings.record), self._state.target, time.time()) if settings.record else None
        )
        self._guardian.recorder = self._recorder
        inbox = Inbox(
            self._guardian.broker, self._journal, self._counters, target=self._state.target,
            silenced=lambda labels: self._alerting.silenced(labels, self._state.clock.milliseconds()),
        )  # fmt: skip
        self._view = SidecarView(
            self._state, self._guardian, self._alerting, self._reloader, inbox, self._hooks, self._journal,
            self._counters, self._store, slow_seconds=lambda: self._slow.seconds, looked=self._looked,
            receivers=lambda: self._deliverer.status() if self._deliverer is not None else [],
            kept=self._keeper.now,
        )  # fmt: skip
        self._slow = SlowLane(
            self._state, self._collector, self._reader, self._hooks, self._guardian.lane, self._store,
            self._counters, self._journal, self._worker,
            follow=self._follow, first_level=self._first_level, slot=self._view.slot, written=self._written,
            watched=runtime.variable if follower else "", proc=proc,
        )  # fmt: skip

        self._hooks.thresholds = self._state.told_hooks
        self._hook_watch = HookWatch(self._hooks.members, self._slow.hook_stalled, self._slow.hook_answered)
        self._guardian.broker.ended = self._slow.wake

    # -- life ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Guard until told to stop. Raises UserError for what the user can mend."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        runner = await self._open()
        slow = loop.create_task(self._slow.run(self._stop))
        self._guardian.lane.start()
        self._hook_watch.start()
        if self._ready_fd is not None:
            os.write(self._ready_fd, b"ready\n")
            os.close(self._ready_fd)
        gc.collect()
        gc.freeze()  # what start-up left is there to stay: no later collection has to walk it
        await self._stop.wait()
        self._guardian.lane.stop()
        self._hook_watch.stop()
        self._slow.wake()
        await slow
        await self._guardian.broker.close()
        if self._deliverer is not None:
            await self._deliverer.stop()
        self._journal.write("sidecar_stop", pid=os.getpid())
        LOGGER.info("oomguard stopped", extra=fields(**self._guardian.sizes()))
        await self._hooks.close()
        await runner.cleanup()
        self._keeper.close()
        self._worker.shutdown(wait=True)
        if self._recorder is not None:
            self._recorder.close()
        self._journal.close()
        self._reader.close()
        if self._failure is not None:
            raise self._failure

    async def _open(self) -> web.AppRunner:
        """Socket, HTTP, control pipe; says that we are there."""
        settings, journal = self._settings, self._journal
        try:
            await self._hooks.start()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UserError(
                f"socket in {self._runtime.variable}: {reason}; name another directory with --runtime-dir"
            ) from None
        app = server.build(self._view, self._runtime.token(), loopback=listening.is_loopback(settings.listen))
        runner, url = await listening.serve(app, settings.listen)
        with contextlib.suppress(OSError):  # oomguard status then needs --url
            self._runtime.describe(os.getpid(), url)
        if self._control_fd is not None:
            ControlPipe(self._control_fd, self).open()
        self._alerting.engine.external_url = url
        self._deliverer = Deliverer(external_url=url, wanted=self._wanted, report=self._reported)
        self._alerting.restore(
            self._keeper.saved, self._state.clock.milliseconds(), alive_until=self._keeper.alive_until
        )
        self._keeper.start(self._kept)
        lost = journal.lost()
        if lost is not None:
            journal.write("sidecar_lost", **lost)
            LOGGER.warning(
                "the sidecar before this one was killed, or its machine was", extra=fields(**_readable(lost))
            )
        journal.write("sidecar_start", version=__version__, pid=os.getpid())
        LOGGER.info(
            "oomguard started",
            extra=fields(
                version=__version__,
                url=url,
                target=self._state.target,
                journal=journal.path,
                acts=settings.act,
                high=str(settings.high),
                critical=str(settings.critical),
                goal=None if settings.goal is None else str(settings.goal),
            ),
        )
        if journal.error:
            LOGGER.warning("actions go on without a journal", extra=fields(reason=journal.error))
        return runner

    def _send(self, notifications: Sequence[Notification]) -> None:
        for notification in notifications:
            if self._deliverer is not None:
                self._deliverer.submit(notification)

    def _wanted(self, notification: Notification) -> bool:
        return self._alerting.dispatcher.wanted(notification)

    def _reported(self, notification: Notification, outcome: Outcome) -> None:
        self._alerting.reported(notification, outcome, self._state.clock.milliseconds())

    def _kept(self) -> dict[str, Any]:
        """What a new sidecar goes on with."""
        now = self._state.clock.milliseconds()
        texts, settings = self._alerting.loaded.texts, self._state.settings.to_json()
        return {"texts": texts, "settings": settings, **self._alerting.dump(now)}

    # -- the target ---------------------------------------------------------------------------

    def _first_level(self) -> None:
        level, root = self._state.level, self._state.root
        if level is None or root is None:
            return
        LOGGER.info(
            "guarding",
            extra=fields(
                pid=root.pid,
                limit=format_size(level.limit),
                origin=level.origin.value,
                used=format_size(level.used),
                counted=level.kind.value,
                oom_score_adj=oom_score_adj(self._proc, root.pid),
                **self._guardian.sizes(),
            ),
        )
        snapshot = self._state.snapshot
        if snapshot is not None and snapshot.cgroup.value is not None and snapshot.cgroup.value.kills_all:
            LOGGER.warning(
                "memory.oom.group is set: where memory runs out, the kernel kills every process of the group at once",
                extra=fields(group=snapshot.cgroup.value.path),
            )
        if self._follower is not None and level.used > level.limit and level.origin is LimitOrigin.CONFIGURED:
            self._failure = UserError(
                f"--limit {format_size(level.limit)} lies below the {format_size(level.used)} that process "
                f"{root.pid} uses already; give a larger limit"
            )
            self._stop.set()

    def target_started(self, root: ProcessId) -> None:
        """The main process is known, for the first time or again."""
        self._found_once = True
        self._state.root = root
        self._state.root_since = time.monotonic()
        self._slow.target_started()
        known = self._journal.latest.get("target_start", {})
        if (known.get("pid"), known.get("start_ticks")) != (root.pid, root.start_ticks):
            self._journal.write("target_start", pid=root.pid, start_ticks=root.start_ticks)
            self._counters.add(m.TARGET_STARTS)
            # What was learned of one process says nothing of the next.
            self._guardian.broker.restraint = Restraint()
        LOGGER.info("target found", extra=fields(pid=root.pid))
        self._slow.wake()

    def target_ended(self, code: int | None = None) -> None:
        """The main process has ended; `code` as a shell tells it, where that is known."""
        root = self._state.root
        if root is None:
            return
        self._slow.notice_kills(self._collector.last_events())
        self._journal.write("target_exit", pid=root.pid, code=code)
        LOGGER.info("target ended", extra=fields(pid=root.pid, code=code))
        self._state.root = None
        self._state.level = None
        self._slow.wake()

    def gave_up(self) -> None:
        """No other target will come."""
        self._state.gone = True

    def supervisor_ended(self) -> None:
        """There is nothing left to guard, or nobody to tell of it."""
        self._stop.set()

    def _sync_soon(self, descriptor: int) -> None:
        """Have the journal synced; a sync that waits its turn covers all records before it."""
        if self._syncing is None or self._syncing.running() or self._syncing.done():
            self._syncing = self._worker.submit(_sync, descriptor)

    def _belongs(self, pid: int) -> bool:
        """Whether a PID is in the target's tree, for hooks that connect before the next slow tick."""
        if any(process.sample.id.pid == pid for process in self._state.processes):
            return True
        root = self._adopted_by or (self._state.root.pid if self._state.root is not None else None)
        return root is not None and in_tree(self._parent, pid, root)

    def _parent(self, pid: int) -> int | None:
        with contextlib.suppress(OSError, ValueError):
            stat = read_stat(self._proc, pid)
            return stat.ppid if stat is not None else None
        return None

    def _looked(self) -> None:
        self._slow.looked()

    def _written(self) -> None:
        """A slot is full: what reads no fast-lane series is evaluated now."""
        now = self._state.clock.milliseconds()
        self._alerting.evaluate(Lane.ALL, now)
        self._guardian.broker.refreshed()
        self._keeper.alive()
        if self._recorder is not None:
            self._recorder.slot(self._store.latest(), now)

    async def _follow(self) -> None:
        """Find the target of `oomguard watch`, and find it again when it has gone."""
        state, follower = self._state, self._follower
        if follower is None:
            return
        if state.root is not None and state.snapshot is not None and state.snapshot.tree.ok:
            return
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._worker, follower.find)
        except UserError as error:
            if self._found_once:
                LOGGER.error(str(error))  # it worked before: the user can mend it meanwhile
                return
            self._failure = error
            self._stop.set()
            return
        if found != state.root:
            if state.root is not None:
                self.target_ended()
                state.gone = follower.ends_with_it
            if found is not None:
                self.target_started(found)


def _readable(lost: Mapping[str, object]) -> dict[str, object]:
    """What is known of a lost sidecar, its time as log lines have theirs."""
    seen = lost.get("last_seen")
    return {**lost, "last_seen": timestamp(seen)} if isinstance(seen, int | float) else dict(lost)


def _sync(descriptor: int) -> None:
    with contextlib.suppress(OSError):  # rotated or closed meanwhile: the kernel writes it all the same
        os.fsync(descriptor)


def _load(settings: Settings, saved: Mapping[str, Any]) -> tuple[Settings, Loaded, Sequence[Problem]]:
    """Settings, rules and routes; where the files are broken, those that were in force before, with what is wrong.

    The settings are read again: a reload may have changed them since the command read them, and the supervisor gives
    every sidecar the same.

    The command has checked the files, so that they broke since: a target must not lose its guard for that. Raises
    ConfigError where there are no older ones.
    """
    try:
        settings = settings.reloaded()
        return settings, loading.load(settings), ()
    except ConfigError as error:
        if "texts" not in saved:
            raise
        LOGGER.error(
            "settings, rules and routes can't be read: those that were in force go on",
            extra=fields(problems="; ".join(str(problem) for problem in error.problems)),
        )
        with contextlib.suppress(
            LookupError, TypeError, ValueError
        ):  # of another version: those of the start
            settings = settings.taking_over(Settings.from_json(saved["settings"]))
        return settings, loading.load_kept(saved["texts"]), error.problems


def _gid() -> int | None:
    text = os.environ.get("OOMGUARD_GID", "")
    return int(text) if text.isdecimal() else None


def guard(
    settings: Settings,
    runtime: RuntimeDir,
    *,
    control_fd: int | None = None,
    ready_fd: int | None = None,
    follower: Follower | None = None,
) -> int:
    """Run a sidecar to its end; returns the exit code. Raises UserError."""
    sys.setswitchinterval(0.001)  # the worker thread parses: the fast lane must not wait 5 ms for it

    async def run() -> None:
        await Sidecar(settings, runtime, control_fd=control_fd, ready_fd=ready_fd, follower=follower).run()

    asyncio.run(run())
    return 0
