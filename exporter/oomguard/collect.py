"""The slow lane's work: everything that is read once a second or less, in one worker thread.

It never runs on the event loop and shares nothing with it but what it returns.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from oomguard.model import (
    CgroupEvents,
    CgroupMemory,
    CpuThrottling,
    MachineMemory,
    Pressure,
    ProcessId,
    ProcessSample,
    Reading,
    Status,
    Tree,
)
from oomguard.sources.cgroup import Cgroup
from oomguard.sources.fast_rss import FastRss
from oomguard.sources.machine import read_machine
from oomguard.sources.procfs import read_process, read_stat
from oomguard.sources.reading import Absent, read
from oomguard.sources.tree import ProcessTree

PORTABLE = sys.platform != "linux"
"""No /proc and no cgroups: what psutil gives has to do."""

if TYPE_CHECKING:
    from oomguard.sources import portable


def process_tree(
    proc: str, *, adopted_by: int | None, excluded: frozenset[int]
) -> ProcessTree | portable.ProcessTree:
    """The source of the target's tree on this system."""
    if PORTABLE:
        from oomguard.sources import portable  # noqa: PLC0415 - brings psutil, which Linux does without

        return portable.ProcessTree(adopted_by=adopted_by, excluded=excluded)
    return ProcessTree(proc, adopted_by=adopted_by, excluded=excluded)


def rss_reader(proc: str) -> FastRss | portable.FastRss:
    """The fast lane's reader for a target without a cgroup limit, on this system."""
    if PORTABLE:
        from oomguard.sources import portable  # noqa: PLC0415 - as above

        return portable.FastRss()
    return FastRss(proc)


@dataclass(frozen=True, slots=True)
class Collected:
    """What one slow tick read, and the cgroup source that a fast reader can be opened from."""

    tree: Reading[Tree]
    cgroup: Reading[CgroupMemory]
    events: Reading[CgroupEvents]
    pressure: Reading[Pressure]
    throttling: Reading[CpuThrottling]
    machine: Reading[MachineMemory]
    own: Reading[ProcessSample]
    source: Cgroup | None
    seconds: float
    """How long it took."""


class Collector:
    """Reads all sources of one target. Used by one thread at a time."""

    def __init__(self, tree: ProcessTree | portable.ProcessTree, *, proc: str = "/proc") -> None:
        self._tree = tree
        self._proc = proc
        self._source: Cgroup | None = None
        self._root: ProcessId | None = None

    def collect(self, root: ProcessId | None) -> Collected:
        """Read everything there is about the target whose main process is `root`."""
        began = time.perf_counter()
        if root != self._root:
            self._root = root
            self._source = Cgroup(root.pid, self._proc) if root is not None and not PORTABLE else None
        gone = "no target is running"
        none: Reading[object] = Reading(Status.ABSENT, reason=gone)
        source = self._source
        return Collected(
            tree=self._tree.sample(root) if root is not None else none,  # type: ignore[arg-type]
            cgroup=source.memory() if source is not None else none,  # type: ignore[arg-type]
            events=source.events() if source is not None else none,  # type: ignore[arg-type]
            pressure=source.pressure() if source is not None else none,  # type: ignore[arg-type]
            throttling=source.throttling() if source is not None else none,  # type: ignore[arg-type]
            machine=self._machine(),
            own=read(self._own),
            source=source,
            seconds=time.perf_counter() - began,
        )

    def last_events(self) -> Reading[CgroupEvents]:
        """The cgroup's counters once its process has gone: whether the kernel killed it."""
        return self._source.last_events() if self._source is not None else Reading(Status.ABSENT)

    def kills(self) -> int | None:
        """How often the kernel's OOM killer has struck in the target's cgroup; may be asked beside `collect`."""
        events = self.last_events().value
        return events.oom_kill if events is not None else None

    def _machine(self) -> Reading[MachineMemory]:
        if PORTABLE:
            from oomguard.sources.portable import read_machine as read_portable  # noqa: PLC0415 - psutil, macOS only

            return read_portable()
        return read_machine(self._proc)

    def _own(self) -> ProcessSample:
        if PORTABLE:
            raise Absent("the sidecar measures itself on Linux only")
        sample = read_process(self._proc, os.getpid())
        if sample is None:
            raise Absent("the sidecar is not in this /proc")
        return sample


def lives(proc: str, process: ProcessId) -> bool:
    """Whether a process is still there and no zombie; what can't be read is taken for alive."""
    if PORTABLE:
        from oomguard.sources import portable  # noqa: PLC0415 - as above

        return portable.process_id(process.pid) == process
    try:
        stat = read_stat(proc, process.pid)
    except (OSError, ValueError):
        return True
    return stat is not None and stat.id == process and not stat.gone


def in_tree(parent: Callable[[int], int | None], pid: int, root: int) -> bool:
    """Whether `pid` is `root` or descends from it; `parent` gives a process's parent, None for a gone one."""
    for _ in range(64):  # deeper trees are a fork bomb
        if pid == root:
            return True
        up = parent(pid)
        if up is None or up <= 1:
            return up == root
        pid = up
    return False
