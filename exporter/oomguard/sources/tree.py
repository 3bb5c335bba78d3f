"""The target's tree of processes, with stable names and the costly readings within their budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from oomguard.model import (
    Process,
    ProcessId,
    ProcessMappings,
    ProcessMemory,
    ProcessSample,
    Reading,
    Status,
    Tree,
)
from oomguard.sources.budget import Budget
from oomguard.sources.procfs import Stat, complete, read_cmdline
from oomguard.sources.reading import Absent, read
from oomguard.sources.scan import ROTATION, Scanner
from oomguard.sources.slots import Kind, Slots
from oomguard.sources.smaps import read_mappings, read_memory

# Together 1/200 of the time. PSS decides where there is no cgroup, the kinds of mappings are for
# people and cost four times as much, so they get less. The shortest periods keep an idle target of
# four small processes under 0.05 % of a core, where the share alone would allow a read at every tick.
_MEMORY_SHARE, _MEMORY_PERIOD = 1 / 300, 5.0
_MAPPINGS_SHARE, _MAPPINGS_PERIOD = 1 / 600, 30.0


@dataclass(slots=True)
class _Member:
    """What is remembered of a process between two samples."""

    start_stack: int
    cmdline: tuple[str, ...]
    memory: Reading[ProcessMemory]
    mappings: Reading[ProcessMappings]


class ProcessTree:
    """Samples the tree of one target; see `scan.Scanner` for who belongs to it.

    `named` bounds how many processes get a slot of their own. `clock` is monotonic seconds and
    spaces out smaps_rollup and smaps: between two reads the last reading stands.
    """

    def __init__(
        self,
        proc: Path | str = "/proc",
        adopted_by: int | None = None,
        excluded: frozenset[int] = frozenset(),
        *,
        named: int = 16,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._proc = proc
        self._clock = clock
        self._scanner = Scanner(proc, adopted_by, excluded)
        self._slots = Slots(named)
        self._memory_budget: Budget[ProcessId] = Budget(_MEMORY_SHARE, _MEMORY_PERIOD)
        self._mappings_budget: Budget[ProcessId] = Budget(_MAPPINGS_SHARE, _MAPPINGS_PERIOD)
        self._root: ProcessId | None = None
        self._members: dict[ProcessId, _Member] = {}
        self._round = 0
        self._started = 0
        self._exited = 0

    def sample(self, root: ProcessId) -> Reading[Tree]:
        """Sample the tree under `root`; ABSENT when that has gone. Never raises.

        A new root starts with new slots; the totals go on.
        """
        return read(lambda: self._sample(root))

    def _sample(self, root: ProcessId) -> Tree:
        stats = self._scanner.scan(root)
        main = stats.get(root.pid)
        if main is None or main.id != root or main.gone:
            raise Absent(f"process {root.pid} has gone")
        if root != self._root:
            self._root = root
            self._slots.keep(frozenset())
        samples: list[tuple[Stat, ProcessSample]] = []
        for stat in sorted(
            stats.values(), key=lambda stat: (stat.id != root, stat.id.start_ticks, stat.id.pid)
        ):
            sample = complete(self._proc, stat)
            if sample is not None:
                samples.append((stat, sample))
        if not samples or samples[0][1].id != root:
            raise Absent(f"process {root.pid} has gone")
        self._round += 1
        self._remember({stat.id: stat for stat, _ in samples})
        for stat, _ in samples:
            self._name(stat, stats)
        return Tree(
            root=root,
            processes=tuple(self._process(sample) for _, sample in samples),
            started_total=self._started,
            exited_total=self._exited,
        )

    def _remember(self, stats: dict[ProcessId, Stat]) -> None:
        """Take in who came, executed another program or went."""
        alive = frozenset(stats)
        self._exited += len(self._members.keys() - alive)
        self._started += len(alive - self._members.keys())
        changed = {process for process, stat in stats.items() if self._executed(stat)}
        self._slots.keep(alive - changed)
        self._memory_budget.keep(alive - changed)
        self._mappings_budget.keep(alive - changed)
        self._members = {process: self._member(stat, process in changed) for process, stat in stats.items()}

    def _executed(self, stat: Stat) -> bool:
        """Whether a known process has executed a program since the last sample."""
        member = self._members.get(stat.id)
        # A zombie has no stack; its last program is still what it was.
        return member is not None and stat.start_stack not in (0, member.start_stack)

    def _member(self, stat: Stat, changed: bool) -> _Member:
        member = self._members.get(stat.id)
        if member is None:
            cmdline = read_cmdline(self._proc, stat.id.pid)
            none: Reading[ProcessMemory] = Reading(Status.ABSENT)
            return _Member(stat.start_stack, cmdline, none, Reading(Status.ABSENT))
        if changed or (self._round + stat.id.pid) % ROTATION == 0:
            # Programs rename themselves (setproctitle) without executing anything.
            member.cmdline = read_cmdline(self._proc, stat.id.pid) or member.cmdline
            member.start_stack = stat.start_stack or member.start_stack
        return member

    def _name(self, stat: Stat, stats: dict[int, Stat]) -> None:
        if self._slots.name(stat.id) is not None:
            return
        if stat.id == self._root:
            self._slots.assign_main(stat.id)
            return
        parent = stats.get(stat.ppid)
        other = self._members.get(parent.id) if parent else None
        self._slots.assign(stat.id, _kind(self._members[stat.id], other))

    def _process(self, sample: ProcessSample) -> Process:
        member = self._members[sample.id]
        if self._memory_budget.due(sample.id, self._clock()):
            member.memory = read_memory(self._proc, sample.id.pid)
            self._memory_budget.spent(sample.id, self._clock(), member.memory.seconds)
        if self._mappings_budget.due(sample.id, self._clock()):
            member.mappings = read_mappings(self._proc, sample.id.pid)
            self._mappings_budget.spent(sample.id, self._clock(), member.mappings.seconds)
        slot = self._slots.name(sample.id)
        assert slot is not None, "every sampled process has been named"
        return Process(slot, sample, member.cmdline, member.memory, member.mappings)


def _kind(member: _Member, parent: _Member | None) -> Kind:
    """A fork keeps the place of its parent's stack, which every exec chooses anew (28 random bits).

    That holds for workers that change their title, too. Without the permission to know it
    (ptrace(2)) it reads 0, and the command line decides.
    """
    if parent is None:
        return Kind.CHILD
    forked = member.start_stack != 0 and member.start_stack == parent.start_stack
    same = bool(member.cmdline) and member.cmdline == parent.cmdline
    return Kind.WORKER if forked or same else Kind.CHILD
