"""The process tree and the machine's memory by psutil, for systems without /proc (macOS).

The same interfaces as `tree`, `machine` and `fast_rss`. What psutil can't give there is None or
UNSUPPORTED. Where there is /proc, use the other modules: they are several times faster and know more.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from oomguard.model import MachineMemory, Process, ProcessId, ProcessSample, Reading, Status, Tree, UsedKind
from oomguard.sources.reading import Absent, Failed, read
from oomguard.sources.slots import Kind, Slots

if TYPE_CHECKING:
    import psutil

_TICKS = 100
_STATES = {"running": "R", "sleeping": "S", "disk-sleep": "D", "stopped": "T", "zombie": "Z", "idle": "I"}
_UNSUPPORTED = "mappings need Linux's /proc/PID/smaps"


def process_id(pid: int) -> ProcessId | None:
    """Pid and start time of a process (in hundredths of a second since 1970); None when there is none."""
    import psutil  # noqa: PLC0415 - an optional dependency of the systems that need it

    try:
        return _identity(psutil.Process(pid))
    except psutil.Error:
        return None


def _open(process: ProcessId) -> psutil.Process | None:
    """Look at a process through psutil; None when it has gone."""
    import psutil  # noqa: PLC0415 - as above

    try:
        found = psutil.Process(process.pid)
        return found if _identity(found) == process else None
    except psutil.Error:
        return None


def read_machine() -> Reading[MachineMemory]:
    """The machine's memory; never raises."""

    def machine() -> MachineMemory:
        import psutil  # noqa: PLC0415 - as above

        memory, swap = psutil.virtual_memory(), psutil.swap_memory()
        return MachineMemory(memory.total, memory.available, swap.total, swap.free, shmem=None)

    return read(machine)


class ProcessTree:
    """The descendants of a root, those that were and are orphans now, and those of `adopted_by`."""

    def __init__(
        self, adopted_by: int | None = None, excluded: frozenset[int] = frozenset(), *, named: int = 16
    ) -> None:
        self._adopted_by = adopted_by
        self._excluded = excluded
        self._slots = Slots(named)
        self._root: ProcessId | None = None
        self._known: frozenset[ProcessId] = frozenset()
        self._started = 0
        self._exited = 0

    def sample(self, root: ProcessId) -> Reading[Tree]:
        """Sample the tree under `root`; ABSENT when that has gone. Never raises."""
        import psutil  # noqa: PLC0415 - as above

        def sample() -> Tree:
            try:
                return self._sample(root)
            except psutil.NoSuchProcess:
                raise Absent(f"process {root.pid} has gone") from None
            except psutil.AccessDenied as error:
                raise Failed(f"process {error.pid} may not be read; run oomguard as its user") from None

        return read(sample)

    def _sample(self, root: ProcessId) -> Tree:
        import psutil  # noqa: PLC0415 - as above

        main = _open(root)
        if main is None or main.status() == psutil.STATUS_ZOMBIE:
            raise Absent(f"process {root.pid} has gone")
        orphans = self._known if root == self._root else frozenset[ProcessId]()
        found = self._descendants(main, orphans)
        if root != self._root:
            self._root = root
            self._slots.keep(frozenset())
        samples = {}
        for process in found:
            sample = _sample(process)
            if sample is not None:
                samples[sample.id] = (sample, _cmdline(process))
        alive = frozenset(samples)
        if root not in alive:
            raise Absent(f"process {root.pid} has gone")
        self._started += len(alive - self._known)
        self._exited += len(self._known - alive)
        self._known = alive
        self._slots.keep(alive)
        return Tree(root, tuple(self._processes(root, samples)), self._started, self._exited)

    def _descendants(self, main: psutil.Process, known: frozenset[ProcessId]) -> list[psutil.Process]:
        import psutil  # noqa: PLC0415 - as above

        tops: list[psutil.Process] = [main]
        with contextlib.suppress(psutil.NoSuchProcess):
            tops += psutil.Process(self._adopted_by).children() if self._adopted_by else []
        tops += filter(None, map(_open, known))
        found: dict[int, psutil.Process] = {}
        for top in tops:
            if top.pid not in self._excluded and top.pid not in found:
                found[top.pid] = top
                with contextlib.suppress(psutil.NoSuchProcess):
                    found.update((process.pid, process) for process in top.children(recursive=True))
        return list(found.values())

    def _processes(
        self, root: ProcessId, samples: dict[ProcessId, tuple[ProcessSample, tuple[str, ...]]]
    ) -> list[Process]:
        cmdlines = {process.pid: cmdline for process, (_, cmdline) in samples.items()}
        processes = []
        for process, (sample, cmdline) in sorted(
            samples.items(), key=lambda item: (item[0] != root, item[0].start_ticks, item[0].pid)
        ):
            if self._slots.name(process) is None:
                if process == root:
                    self._slots.assign_main(process)
                else:
                    same = bool(cmdline) and cmdline == cmdlines.get(sample.ppid)
                    self._slots.assign(process, Kind.WORKER if same else Kind.CHILD)
            processes.append(
                Process(
                    slot=self._slots.name(process) or "",
                    sample=sample,
                    cmdline=cmdline,
                    memory=Reading(Status.UNSUPPORTED, reason=_UNSUPPORTED),
                    mappings=Reading(Status.UNSUPPORTED, reason=_UNSUPPORTED),
                )
            )
        return processes


class FastRss:
    """The sum of the processes' RSS, since macOS tells no PSS; the interface of `fast_rss.FastRss`."""

    def __init__(self) -> None:
        self._processes: tuple[psutil.Process, ...] = ()

    def update(self, processes: tuple[Process, ...]) -> None:
        """Take in the processes of the last sample."""
        sized = (process.sample.id for process in processes if process.sample.rss is not None)
        self._processes = tuple(filter(None, map(_open, sized)))

    def read(self, *, kind: UsedKind = UsedKind.RSS) -> int:  # noqa: ARG002 - the interface of the other one
        """Bytes of RSS now, whatever `kind` asks for; ProcessLookupError when no process is left."""
        sizes = [size for size in map(_rss, self._processes) if size]
        if not sizes:
            raise ProcessLookupError("no process of the target is left")
        return sum(sizes)

    def close(self) -> None:
        """Forget the processes."""
        self._processes = ()


def _identity(process: psutil.Process) -> ProcessId:
    return ProcessId(process.pid, round(process.create_time() * _TICKS))


def _rss(process: psutil.Process) -> int | None:
    import psutil  # noqa: PLC0415 - as above

    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return None


def _cmdline(process: psutil.Process) -> tuple[str, ...]:
    import psutil  # noqa: PLC0415 - as above

    try:
        return tuple(process.cmdline())
    except psutil.Error:
        return ()


def _sample(process: psutil.Process) -> ProcessSample | None:
    """One process; None when it has gone. What may not be read of another user's process is None."""
    import psutil  # noqa: PLC0415 - as above

    try:
        with process.oneshot():
            seen = process.as_dict(
                [
                    "ppid",
                    "status",
                    "name",
                    "memory_info",
                    "num_threads",
                    "cpu_times",
                    "num_fds",
                    "create_time",
                ]
            )
            group = os.getpgid(process.pid)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return None
    except PermissionError:
        group = 0
    memory, times = seen["memory_info"], seen["cpu_times"]
    size = memory.rss if memory and memory.rss else None
    return ProcessSample(
        id=_identity(process),
        ppid=seen["ppid"] or 0,
        pgrp=group,
        state=_STATES.get(seen["status"], "S"),
        name=seen["name"] or "",
        rss=size,
        rss_anon=None,
        rss_file=None,
        rss_shmem=None,
        vms=memory.vms if size else None,
        swap=None,
        threads=seen["num_threads"] or 0,
        user_seconds=times.user if times else 0.0,
        system_seconds=times.system if times else 0.0,
        minor_faults=getattr(memory, "pfaults", 0),
        major_faults=getattr(memory, "pageins", 0),
        start_time=seen["create_time"],
        open_fds=seen["num_fds"],
    )
