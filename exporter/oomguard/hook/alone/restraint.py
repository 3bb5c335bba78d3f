"""What holds a run of the guard alone back after one in vain. Pure state, no clock, no I/O."""

from __future__ import annotations

RISE = 0.05
"""Part of the limit by which memory must rise after a run in vain until the next one need not wait."""
_LONGEST_BACK_OFF = 60.0
_CRITICAL_BACK_OFF = 1.0
_SHARE = 20
"""A run in vain that took t is not repeated before 20·t: a collection and a trim stall the host for most of it."""


class Restraint:
    """What holds a run back after one in vain: the sidecar's (its decision 3) without cooldowns. Pure state."""

    def __init__(self) -> None:
        self.relax()

    def relax(self) -> None:
        """Memory is below the goal: nothing that was learned holds any more."""
        self._floor: int | None = None
        self._failures = 0
        self._not_before = 0.0
        self._critical_not_before = 0.0

    def fell(self, used: int) -> None:
        """Memory fell by itself: what it climbs back with is not what was tried in vain."""
        if self._floor is not None:
            self._floor = min(self._floor, used)

    def next_level(self, limit: int) -> int:
        """Bytes from which on no run waits; near the limit half of what is left, for 5 % may never come."""
        if self._floor is None:
            return 0
        rise = int(RISE * limit)
        if self._floor < limit:
            rise = max(noise(limit), min(rise, (limit - self._floor) // 2))
        return self._floor + rise

    def holds(self, now: float, used: int, limit: int, critical: int) -> bool:
        """Whether no run may start."""
        if self._floor is None or used >= self.next_level(limit):
            return False
        return now < (self._critical_not_before if used >= critical else self._not_before)

    def in_vain(self, now: float, took: float, used: int) -> None:
        """Learn from a run that missed its goal and freed less than `RISE`; `took` is seconds.

        One that freed more may be repeated at once: the application is filling what was emptied.
        """
        wait = min(_LONGEST_BACK_OFF, 2.0 ** min(self._failures, 10))
        self._floor = used
        self._failures += 1
        self._not_before = now + max(wait, _SHARE * took)
        self._critical_not_before = now + max(min(wait, _CRITICAL_BACK_OFF), _SHARE * took)


def noise(limit: int) -> int:
    """Bytes below which a difference says nothing: a cgroup's counter is batched by 64 pages a processor."""
    return max(1 << 20, limit // 500)
