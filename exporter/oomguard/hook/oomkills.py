"""Whether the kernel's OOM killer was here: the counter of this process's own cgroup.

Version 2 keeps it in memory.events (cgroup-v2.rst: "the number of processes belonging to this cgroup killed by any
kind of OOM killer", those below it included), version 1 in memory.oom_control. Without either, /proc/vmstat counts
for the whole machine (proc_vmstat(5), since Linux 4.13).
"""

from __future__ import annotations

import os

_LARGEST = 1 << 16
"""Bytes read of a file of the kernel's; vmstat, the longest, has about 4,000."""
_V1, _V2 = "memory.oom_control", "memory.events"


class OomKills:
    """Opens its files each time (20 to 40 microseconds): a process may be moved, and a fork is in the same group."""

    def __init__(self, *, proc: str = "/proc", cgroups: str = "/sys/fs/cgroup") -> None:
        self._proc = proc
        self._cgroups = cgroups

    def count(self) -> int | None:
        """How many processes it has killed here so far; None where the kernel does not tell. Never raises.

        The counter has risen before the parent of the process that was killed can learn of its end: the kernel
        counts, and then sends the signal.
        """
        _, place, version = self._place()
        for file in (f"{place}/{version}", f"{self._proc}/vmstat"):
            for line in _read(file).splitlines():
                name, _, value = line.partition(b" ")
                if name == b"oom_kill" and value.strip().isdigit():
                    return int(value)
        return None

    def group_kill(self) -> bool | None:
        """Whether the kernel kills the whole cgroup at once (memory.oom.group, of it or of one above it).

        None where that can't be known. Version 1 always kills one process.
        """
        base, place, version = self._place()
        if version != _V2:
            return False
        known = False
        while True:
            flag = _read(f"{place}/memory.oom.group").strip()
            if flag == b"1":
                return True
            known = known or flag == b"0"
            if place == base:
                return False if known else None
            place = os.path.dirname(place)  # noqa: PTH120 (pathlib costs 3 ms)

    def _place(self) -> tuple[str, str, str]:
        """The mount, this process's directory below it, and the file that counts."""
        base, path, version = self._cgroups, "", _V2
        for line in os.fsdecode(_read(f"{self._proc}/self/cgroup")).splitlines():
            _, _, rest = line.partition(":")
            controllers, _, where = rest.partition(":")
            if "memory" in controllers.split(","):
                base, path, version = f"{self._cgroups}/memory", where, _V1
                break
            if not controllers:
                path = where
        place = f"{base}/{path.strip('/')}".rstrip("/")
        if ".." in path.split("/") or not os.path.isdir(place):  # noqa: PTH112 (as above)
            place = base  # of a container that sees its own cgroup as the root, and the host's path for it
        return base, place, version


def _read(file: str) -> bytes:
    try:
        number = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(number, _LARGEST)
    except OSError:
        return b""
    finally:
        os.close(number)
