"""The fast lane's reader for a target without a cgroup limit: memory of the whole tree from kept-open statm.

PSS is too costly to read every few milliseconds, and RSS counts pages that processes share once for
each of them. So a process counts with its last PSS, advanced by what it has gained since in pages of its own:
resident less shared of /proc/PID/statm (proc_pid_statm(5)), 1.4 µs a process.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from oomguard.model import Process, ProcessId, ProcessMemory, Reading, UsedKind

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MAX_OPEN = 64


@dataclass(slots=True)
class _Open:
    """One process whose statm is open."""

    descriptor: int
    pss: int | None = None
    own_at_pss: int = 0
    """Bytes resident less shared when that PSS was taken."""
    taken: Reading[ProcessMemory] | None = None


class FastRss:
    """Sums up the memory of a tree.

    `update` takes every new sample, `read` sums up; never call both at the same time from two threads. At
    most `bound` descriptors are held open, for the largest processes; the others count as last sampled.
    """

    def __init__(self, proc: Path | str = "/proc", *, bound: int = _MAX_OPEN) -> None:
        self._proc = proc
        self._bound = bound
        self._open: dict[ProcessId, _Open] = {}
        self._rest: tuple[Process, ...] = ()

    def update(self, processes: tuple[Process, ...]) -> None:
        """Take in the processes of the last sample; those without a size (zombies) do not count."""
        sized = sorted(
            (process for process in processes if process.sample.rss is not None),
            key=lambda process: process.sample.rss or 0,
            reverse=True,
        )
        followed = sized[: self._bound]
        for gone in self._open.keys() - {process.sample.id for process in followed}:
            self._drop(gone)
        for process in followed:
            self._follow(process)
        self._rest = tuple(sized[self._bound :])

    def read(self, *, kind: UsedKind = UsedKind.PSS) -> int:
        """Bytes now, as PSS (advanced as above) or as RSS; ProcessLookupError when no process is left.

        A process that has ended drops out. One without a PSS reading counts with its RSS.
        """
        in_pss = kind is UsedKind.PSS
        total = 0
        for process, entry in tuple(self._open.items()):
            resident, shared = _statm(entry.descriptor)
            if resident == 0:
                self._drop(process)
            elif in_pss and entry.pss is not None:
                total += max(0, entry.pss + resident - shared - entry.own_at_pss)
            else:
                total += resident
        if not self._open and not self._rest:
            raise ProcessLookupError("no process of the target is left")
        return total + sum([_sampled(process, in_pss) for process in self._rest])

    def close(self) -> None:
        """Close every descriptor; more than once is allowed."""
        for process in tuple(self._open):
            self._drop(process)
        self._rest = ()

    def _follow(self, process: Process) -> None:
        entry = self._open.get(process.sample.id)
        if entry is None:
            with contextlib.suppress(OSError):
                path = f"{self._proc}/{process.sample.id.pid}/statm"
                entry = self._open[process.sample.id] = _Open(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        if entry is None or entry.taken is process.memory or process.memory.value is None:
            return
        # The sample was taken just before the PSS: what came between counts twice until the next
        # reading, where a later figure would hide it.
        own = process.sample.rss_anon
        if own is None:
            resident, shared = _statm(entry.descriptor)
            own = resident - shared
        entry.taken, entry.pss, entry.own_at_pss = process.memory, process.memory.value.pss, own

    def _drop(self, process: ProcessId) -> None:
        with contextlib.suppress(OSError):
            os.close(self._open.pop(process).descriptor)


def _statm(descriptor: int) -> tuple[int, int]:
    """Resident and shared bytes; zeros once the process has ended (a zombie's statm reads so itself)."""
    try:
        fields = os.pread(descriptor, 128, 0).split()
    except ProcessLookupError:
        return 0, 0
    return int(fields[1]) * _PAGE, int(fields[2]) * _PAGE


def _sampled(process: Process, in_pss: bool) -> int:
    if in_pss and process.memory.value is not None:
        return process.memory.value.pss
    return process.sample.rss or 0
