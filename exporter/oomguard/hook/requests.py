"""The requests that are being answered: how many, and by how much memory grew while one was alone."""

from __future__ import annotations

from time import monotonic

from oomguard.hook import unpatched
from oomguard.hook.histogram import Histogram
from oomguard.hook.parts import Core, resident

_SAMPLING = 0.1
"""Seconds between two requests that are measured: looking at memory twice takes 20 microseconds."""
_KIB, _MIB = 1 << 10, 1 << 20
_BOUNDS = (0, 64 * _KIB, 256 * _KIB, _MIB, 4 * _MIB, 16 * _MIB, 64 * _MIB, 256 * _MIB)
"""Bytes."""

Mark = tuple[int, int]
"""A request that is measured: resident bytes at its begin, and how many had begun with it."""


class Requests:
    """Requests in flight, of all mounts of the process. A stream is one only until it is noticed."""

    def __init__(self, core: Core) -> None:  # noqa: ARG002 (every part is made with it)
        self._growth = Histogram(_BOUNDS)
        self.forked()

    def forked(self) -> None:
        """Begin anew in a forked child."""
        self._lock = unpatched.allocate_lock()
        self._begun = 0
        self._in_flight = 0
        self._total = 0
        self._next = 0.0
        self._growth.forked()

    def begin(self) -> Mark | None:
        """Count one that begins; what is returned goes to `end`."""
        with self._lock:
            self._begun += 1
            self._in_flight += 1
            if self._in_flight > 1:
                return None
            begun = self._begun
        now = monotonic()
        if now < self._next:
            return None
        self._next = now + _SAMPLING
        before = resident()
        return None if before is None else (before, begun)

    def end(self, mark: Mark | None, every: int | None) -> bool:
        """Count one that was answered; whether it is an `every`th one.

        Memory that fell counts as growth of 0: a sum has to rise.
        """
        with self._lock:
            self._in_flight -= 1
            self._total = total = self._total + 1
            alone = mark is not None and mark[1] == self._begun
        if alone:
            after = resident()
            if after is not None:
                assert mark is not None
                self._growth.observe(max(0, after - mark[0]))
        return every is not None and total % every == 0

    def leave(self) -> None:
        """Take back one that turned out to be a stream, or was refused as one."""
        with self._lock:
            self._in_flight -= 1

    def reading(self) -> dict[str, object]:
        """How many are being answered and were, and the histogram of growth in bytes."""
        with self._lock:
            in_flight, total = self._in_flight, self._total
        # Below 0 where the ones that fork parted from their parent are answered in the child.
        return {"in_flight": max(0, in_flight), "total": total, "growth": self._growth.reading()}
