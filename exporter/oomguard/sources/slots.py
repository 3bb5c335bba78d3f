"""Stable names for the processes of a tree, since a PID must not become a label. Pure."""

from __future__ import annotations

import enum

from oomguard.model import ProcessId

MAIN = "main"
OTHER = "other"


class Kind(enum.Enum):
    """What a process is to its parent."""

    WORKER = "worker"
    """The same program: forked, and nothing else executed."""
    CHILD = "child"
    """Another program."""


class Slots:
    """Who has which name: ``main``, ``worker-N``, ``child-N``, and ``other`` for all beyond the bound.

    N is the lowest that is free; it is free again when its process has been released. A process
    keeps its name, ``other`` too, until it goes: a name that moved between living processes would
    join two curves into one.
    """

    def __init__(self, bound: int = 16) -> None:
        self._bound = bound
        self._names: dict[ProcessId, str] = {}

    def name(self, process: ProcessId) -> str | None:
        """The name that a process has; None before `assign`."""
        return self._names.get(process)

    def assign_main(self, process: ProcessId) -> None:
        """Call the root of the tree ``main``; it counts towards the bound."""
        self._names[process] = MAIN

    def assign(self, process: ProcessId, kind: Kind) -> str:
        """Name a process; one that had a name of another kind (it has executed a program) gets a new one."""
        self._names.pop(process, None)
        taken = set(self._names.values())
        if len(taken - {OTHER}) >= self._bound:
            name = OTHER
        else:
            number = 1
            while (name := f"{kind.value}-{number}") in taken:
                number += 1
        self._names[process] = name
        return name

    def keep(self, processes: frozenset[ProcessId]) -> None:
        """Release the names of all but these."""
        for process in self._names.keys() - processes:
            del self._names[process]
