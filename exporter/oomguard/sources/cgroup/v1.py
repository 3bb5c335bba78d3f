"""The memory controller of cgroup v1: kernel's Documentation/admin-guide/cgroup-v1/memory.rst."""

from __future__ import annotations

from pathlib import Path

from oomguard.model import CgroupEvents, CgroupMemory
from oomguard.sources.cgroup import files
from oomguard.sources.cgroup.locate import Place

USAGE = "memory.usage_in_bytes"
RECLAIMABLE = (b"total_active_file", b"total_inactive_file")
INACTIVE_FILE = b"total_inactive_file"


def limiting(place: Place) -> tuple[Path, int | None]:
    """The cgroup with the tightest limit and that limit; the target's own and None without one.

    Ties go to the outermost, where the usage is the largest. hierarchical_memory_limit may be
    tighter than all that is visible (a container sees no ancestors): then the outermost visible
    cgroup is the nearest to the one that limits.
    """
    directory, tightest = place.directory, None
    for path in place.lineage:
        limit = files.limit(path / "memory.limit_in_bytes")
        if limit is not None and (tightest is None or limit <= tightest):
            directory, tightest = path, limit
    hidden = files.parse_limit(b"%d" % _stat(place.directory).get("hierarchical_memory_limit", 1 << 63))
    if hidden is not None and (tightest is None or hidden < tightest):
        return place.top, hidden
    return directory, tightest


def memory(place: Place) -> CgroupMemory:
    """What the limiting cgroup holds; the ``total_`` counters include its descendants."""
    directory, limit = limiting(place)
    stat = _stat(directory)
    return CgroupMemory(
        version=1,
        path=str(directory),
        limit=limit,
        usage=int(files.needed(directory / USAGE)),
        anon=stat.get("total_rss"),
        file=stat.get("total_cache"),
        shmem=stat.get("total_shmem"),
        active_file=stat["total_active_file"],
        inactive_file=stat["total_inactive_file"],
        slab_reclaimable=None,
        kernel=files.number(directory / "memory.kmem.usage_in_bytes"),
        swap=stat.get("total_swap"),
        peak=files.number(directory / "memory.max_usage_in_bytes"),
        refaults_file=stat.get("total_workingset_refault_file"),
    )


def events(place: Place) -> CgroupEvents:
    """OOM kills and hits of the limit.

    The kernel counts a kill where the victim lived, not in its ancestors (seen: a box whose parent
    was full), so the counters from the target's cgroup up to the limiting one are added up. failcnt
    stands still where memory.memsw.limit_in_bytes is as low as the limit (seen on Linux 6.18).
    """
    limiting_path, _ = limiting(place)
    kills: list[int] = []
    for path in place.lineage:
        found = files.flat(path / "memory.oom_control").get("oom_kill")
        if found is not None:
            kills.append(found)
        if path == limiting_path:
            break
    return CgroupEvents(
        oom=None,
        oom_kill=sum(kills) if kills else None,
        high=None,
        max=None,
        failcnt=files.number(limiting_path / "memory.failcnt"),
    )


def _stat(directory: Path) -> dict[str, int]:
    stat = files.parse_flat(files.needed(directory / "memory.stat"))
    if "total_inactive_file" not in stat or "total_active_file" not in stat:
        raise ValueError(f"{directory / 'memory.stat'} does not count file cache")
    return stat
