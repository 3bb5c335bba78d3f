"""The memory controller of cgroup v2: kernel's Documentation/admin-guide/cgroup-v2.rst."""

from __future__ import annotations

from pathlib import Path

from oomguard.model import CgroupEvents, CgroupMemory
from oomguard.sources.cgroup import files
from oomguard.sources.cgroup.locate import Place
from oomguard.sources.reading import Absent

USAGE = "memory.current"
RECLAIMABLE = (b"active_file", b"inactive_file", b"slab_reclaimable")
INACTIVE_FILE = b"inactive_file"


def limiting(place: Place) -> tuple[Path, int | None]:
    """The cgroup with the tightest memory.max and that limit, ties to the outermost.

    Without a limit the innermost cgroup that has the controller (a leaf may lack it: it is
    handed down by cgroup.subtree_control), and None. Absent where none has it.
    """
    directory: Path | None = None
    tightest: int | None = None
    for path in place.lineage:
        data = files.content(path / "memory.max")
        if data is None:
            continue
        limit = files.parse_limit(data)
        if directory is None or (limit is not None and (tightest is None or limit <= tightest)):
            directory, tightest = path, limit
    if directory is None:
        raise Absent(f"no memory controller in {place.directory} and above")
    return directory, tightest


def memory(place: Place) -> CgroupMemory:
    """What the limiting cgroup and its descendants hold."""
    directory, limit = limiting(place)
    stat = files.parse_flat(files.needed(directory / "memory.stat"))
    if "inactive_file" not in stat or "active_file" not in stat:
        raise ValueError(f"{directory / 'memory.stat'} does not count file cache")
    return CgroupMemory(
        version=2,
        path=str(directory),
        limit=limit,
        usage=int(files.needed(directory / USAGE)),
        anon=stat.get("anon"),
        file=stat.get("file"),
        shmem=stat.get("shmem"),
        active_file=stat["active_file"],
        inactive_file=stat["inactive_file"],
        slab_reclaimable=stat.get("slab_reclaimable"),
        kernel=stat.get("kernel"),
        swap=files.number(directory / "memory.swap.current"),
        peak=files.number(directory / "memory.peak"),
        # Before Linux 5.9 one counter, of files alone, had the name without the suffix.
        refaults_file=stat.get("workingset_refault_file", stat.get("workingset_refault")),
        high=files.limit(directory / "memory.high"),
        kills_all=any(
            files.number(path / "memory.oom.group") == 1
            for path in place.lineage
            if path.is_relative_to(directory)
        ),
    )


def events(place: Place) -> CgroupEvents:
    """memory.events of the limiting cgroup; the kernel adds up its descendants'."""
    directory, _ = limiting(place)
    counts = files.parse_flat(files.needed(directory / "memory.events"))
    return CgroupEvents(
        oom=counts.get("oom"),
        oom_kill=counts.get("oom_kill"),
        high=counts.get("high"),
        max=counts.get("max"),
        failcnt=None,
    )
