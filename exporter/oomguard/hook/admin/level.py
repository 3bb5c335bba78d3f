"""How much memory is used here, and of how much: of this process's cgroup, else of the process alone.

Used is what the kernel would kill for. In a cgroup that is its usage less the file cache that can be
reclaimed (cgroup-v2.rst, "memory.stat"; v1: memory.txt, 5.2); without a limit there it is this process's RSS.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_NO_LIMIT = 1 << 60
"""Bytes. cgroup v1 says "no limit" with the largest multiple of a page, 2^63 less one of them."""


class Origin(Enum):
    """What `used` is that of."""

    CGROUP = "cgroup"
    PROCESS = "process"


@dataclass(frozen=True, slots=True)
class Level:
    """One look; sizes in bytes, None where they are not known."""

    rss: int | None
    used: int | None
    limit: int | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class _Version:
    """Where one version of the cgroup interface keeps what."""

    usage: str
    limit: str
    cache: tuple[bytes, ...]


_V2 = _Version("memory.current", "memory.max", (b"active_file", b"inactive_file", b"slab_reclaimable"))
_V1 = _Version(
    "memory.usage_in_bytes", "memory.limit_in_bytes", (b"total_active_file", b"total_inactive_file")
)


def read(own_limit: int | None, *, proc: str = "/proc", cgroups: str = "/sys/fs/cgroup") -> Level:
    """Look now (60 microseconds); `own_limit` is the one that the environment gives. Never raises."""
    rss = _rss(proc)
    try:
        found = _cgroup(Path(proc), Path(cgroups))
    except (OSError, ValueError, IndexError):
        found = None
    if found is None:
        return Level(rss, rss, own_limit, Origin.PROCESS)
    used, limit = found
    return Level(rss, used, limit if own_limit is None else min(limit, own_limit), Origin.CGROUP)


def _rss(proc: str) -> int | None:
    """Resident bytes (proc_pid_statm(5)); opened each time, so that a forked worker reads its own."""
    try:
        return int(Path(proc, "self/statm").read_bytes().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return None


def _cgroup(proc: Path, cgroups: Path) -> tuple[int, int] | None:
    """Used and limit of the nearest cgroup that has a limit; None where none of ours has one."""
    base, path, version = cgroups, "", _V2
    for line in os.fsdecode((proc / "self/cgroup").read_bytes()).splitlines():
        _, controllers, where = line.split(":", 2)
        if "memory" in controllers.split(","):
            base, path, version = cgroups / "memory", where, _V1
            break
        if not controllers:
            path = where
    place = base / path.lstrip("/")
    if ".." in place.parts or not place.is_dir():
        place = base  # of a container that sees its own cgroup as the root, and the host's path for it
    while True:
        limit = _limit(place / version.limit)
        if limit is not None:
            return _used(place, version), limit
        if place == base:
            return None
        place = place.parent


def _limit(file: Path) -> int | None:
    try:
        text = file.read_bytes().strip()
    except FileNotFoundError:
        return None  # a root cgroup, or one without the controller
    return int(text) if text != b"max" and int(text) < _NO_LIMIT else None


def _used(place: Path, version: _Version) -> int:
    used = int((place / version.usage).read_bytes())
    for line in (place / "memory.stat").read_bytes().splitlines():
        name, _, value = line.partition(b" ")
        if name in version.cache:
            used -= int(value)
    return max(used, 0)
