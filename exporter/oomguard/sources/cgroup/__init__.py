"""The target's cgroup: memory, events, pressure, CPU throttling; v1, v2 and hybrid.

`Cgroup` finds it again whenever /proc/PID/cgroup says something else or a directory went, so a process may
be moved while it runs; limits are read at every call, since they can be changed in place.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from oomguard.model import CgroupEvents, CgroupMemory, CpuThrottling, Pressure, Reading
from oomguard.sources.cgroup import files, v1, v2
from oomguard.sources.cgroup.fast import FastMemory
from oomguard.sources.cgroup.locate import Place, find_place, parse_cgroup
from oomguard.sources.cgroup.pressure import read_pressure
from oomguard.sources.cgroup.throttling import read_throttling
from oomguard.sources.reading import Absent, Failed, Unsupported, read

__all__ = ["Cgroup", "FastMemory"]

T = TypeVar("T")


class Cgroup:
    """The cgroup that limits one process. No method raises; `fast` may be called beside the others.

    `own_pid` is whose mounts are tried before the target's; `root` stands before their mount points.
    """

    def __init__(
        self, pid: int, proc: Path | str = "/proc", own_pid: int | str = "self", root: Path | str = "/"
    ) -> None:
        self._pid = pid
        self._proc = Path(proc)
        self._own_pid = own_pid
        self._root = Path(root)
        self._seen = b""
        self._paths: dict[str, str] = {}
        self._places: dict[str, Place] = {}

    def memory(self) -> Reading[CgroupMemory]:
        """The limiting cgroup's memory, its `limit` None without one; ABSENT without a memory controller."""
        return self._reading("memory", lambda place: _controller(place).memory(place))

    def events(self) -> Reading[CgroupEvents]:
        """The limiting cgroup's counters."""
        return self._reading("memory", lambda place: _controller(place).events(place))

    def last_events(self) -> Reading[CgroupEvents]:
        """The counters where the process was seen last: after its end /proc does not tell where that was."""

        def events() -> CgroupEvents:
            place = self._places.get("memory")
            if place is None:
                raise Absent(f"the cgroup of process {self._pid} was never found")
            found: CgroupEvents = _controller(place).events(place)
            return found

        return read(events)

    def throttling(self) -> Reading[CpuThrottling]:
        """What the tightest CPU quota did; ABSENT without one."""
        return self._reading("cpu", read_throttling)

    def pressure(self) -> Reading[Pressure]:
        """Memory pressure of the v2 cgroup, which a hybrid system has too; else the machine's."""

        def pressure() -> Pressure:
            place = None
            with contextlib.suppress(Absent, Failed, OSError, ValueError):
                place = self._place("")
            return read_pressure(place, self._proc)

        return read(pressure)

    def fast(self) -> FastMemory | None:
        """A reader of the limiting cgroup for the fast lane; None where it can't be read.

        `memory` says why. Open a new one when `FastMemory.path` and `CgroupMemory.path` differ.
        """
        try:
            place = self._place("memory")
            controller = _controller(place)
            directory, _ = controller.limiting(place)
            return FastMemory(directory, controller.USAGE, controller.RECLAIMABLE, controller.INACTIVE_FILE)
        except (Absent, Failed, Unsupported, OSError, ValueError):
            return None

    def _reading(self, controller: str, fn: Callable[[Place], T]) -> Reading[T]:
        reading = read(lambda: fn(self._place(controller)))
        place = self._places.get(controller)
        if not reading.ok and place is not None and not place.directory.exists():
            # It has gone under us: find it again at the next call.
            self._places.pop(controller, None)
        return reading

    def _place(self, controller: str) -> Place:
        try:
            said = files.content(self._proc / str(self._pid) / "cgroup")
        except ProcessLookupError:
            said = None
        if said is None:
            raise Absent(f"process {self._pid} has gone")
        if said != self._seen:
            self._seen, self._paths = said, parse_cgroup(said)
            self._places.clear()
        place = self._places.get(controller)
        if place is None:
            place = self._places[controller] = find_place(
                self._paths,
                controller,
                pid=self._pid,
                proc=self._proc,
                own_pid=self._own_pid,
                root=self._root,
            )
        return place


def _controller(place: Place) -> ModuleType:
    return v1 if place.version == 1 else v2
