"""How a CPU quota held the target back: cpu.stat of v1 and v2 (kernel's scheduler/sched-bwc.rst)."""

from __future__ import annotations

from pathlib import Path

from oomguard.model import CpuThrottling
from oomguard.sources.cgroup import files
from oomguard.sources.cgroup.locate import Place
from oomguard.sources.reading import Absent


def read_throttling(place: Place) -> CpuThrottling:
    """cpu.stat of the cgroup with the tightest quota, ties to the outermost: throttling is counted where
    the quota is set, not below. Absent without a quota.
    """
    tightest: tuple[float, Path] | None = None
    for path in place.lineage:
        cores = _quota(path, place.version)
        if cores is not None and (tightest is None or cores <= tightest[0]):
            tightest = (cores, path)
    if tightest is None:
        raise Absent("no CPU quota is set")
    stat = files.parse_flat(files.needed(tightest[1] / "cpu.stat"))
    name, unit = ("throttled_time", 1e9) if place.version == 1 else ("throttled_usec", 1e6)
    if not stat.keys() >= {"nr_periods", "nr_throttled", name}:
        raise ValueError(f"{tightest[1] / 'cpu.stat'} does not count throttling")
    return CpuThrottling(stat["nr_periods"], stat["nr_throttled"], stat[name] / unit)


def _quota(path: Path, version: int) -> float | None:
    """The quota in cores; None for none."""
    if version == 1:
        quota = files.number(path / "cpu.cfs_quota_us")
        if quota is None or quota < 0:
            return None
        return quota / int(files.needed(path / "cpu.cfs_period_us"))
    most, length = (files.content(path / "cpu.max") or b"max 100000").split()
    return None if most == b"max" else int(most) / int(length)
