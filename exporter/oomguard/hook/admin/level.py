"""One look at memory, for answers: what is used here, and of how much (see `oomguard.hook.gauge`)."""

from __future__ import annotations

from enum import Enum

from oomguard.hook.gauge import Gauge


class Origin(Enum):
    """What `used` is that of."""

    CGROUP = "cgroup"
    PROCESS = "process"


class Level:
    """One look; sizes in bytes, None where they are not known."""

    __slots__ = ("limit", "origin", "rss", "used")

    def __init__(self, rss: int | None, used: int | None, limit: int | None, origin: Origin) -> None:
        self.rss = rss
        self.used = used
        self.limit = limit
        self.origin = origin

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Level) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"Level{self._key()}"

    def _key(self) -> tuple[int | None, int | None, int | None, Origin]:
        return self.rss, self.used, self.limit, self.origin


def read(own_limit: int | None, *, proc: str = "/proc", cgroups: str = "/sys/fs/cgroup") -> Level:
    """Look now (0.1 ms); `own_limit` is the one that the environment gives. Never raises.

    The files are opened each time, so that a forked worker reads its own.
    """
    gauge = Gauge(proc, cgroups)
    try:
        gauge.find()
        rss = gauge.resident()
        used, limit = gauge.look()
    finally:
        gauge.close()
    if limit is None:
        return Level(rss, used, own_limit, Origin.PROCESS)
    return Level(rss, used, limit if own_limit is None else min(limit, own_limit), Origin.CGROUP)
