"""Spaces out costly reads, so that all of them together take a bounded share of the time.

Pure: it is told the time and what a read took. With the last costs t_j of all keys, key i comes due

    period_i = √t_i · Σ_j √t_j / share

after its last read. The shares t_i / period_i add up to `share` whatever the costs are, and
period_i is never shorter than t_i / share. The square root is the rule that minimises the sum of the
readings' ages under a total cost: one process of 41 ms beside three of 0.2 ms is read every 10 s
and they every 0.7 s (a share of 1/200), where equal shares would make it wait 33 s and a plain
queue would make them wait 8 s each.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Budget(Generic[K]):
    """When each of several costly reads may be repeated.

    `share` is the part of the time that all repeated reads may take together; first reads come on top,
    since a new key is always due. `at_least` is the shortest period, in seconds, however cheap a
    read is.
    """

    def __init__(self, share: float, at_least: float = 0.0) -> None:
        self._share = share
        self._at_least = at_least
        self._roots: dict[K, float] = {}
        self._last: dict[K, float] = {}

    def due(self, key: K, now: float) -> bool:
        """Whether the read may be made now (monotonic seconds)."""
        last = self._last.get(key)
        return last is None or now - last >= self.period(key)

    def period(self, key: K) -> float:
        """Seconds from the end of the last read of a known key to its next one."""
        return max(self._at_least, self._roots[key] * math.fsum(self._roots.values()) / self._share)

    def spent(self, key: K, now: float, seconds: float) -> None:
        """A read of `key` ended at `now` and took `seconds`."""
        self._last[key] = now
        self._roots[key] = math.sqrt(max(0.0, seconds))

    def keep(self, keys: frozenset[K]) -> None:
        """Forget every key but these."""
        for key in self._last.keys() - keys:
            del self._last[key], self._roots[key]
