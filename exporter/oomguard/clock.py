"""Unix time that never goes back: what rules, samples and alerts are stamped with."""

from __future__ import annotations

import time
from collections.abc import Callable


class UnixClock:
    """The wall clock while it moves forward; where it is set back, the monotonic clock carries on.

    A `for` of five minutes must not take an hour because a container's clock was mended.
    """

    def __init__(
        self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._last = wall()
        self._at = monotonic()

    def now(self) -> float:
        """Unix seconds."""
        at = self._monotonic()
        self._last = max(self._wall(), self._last + (at - self._at))
        self._at = at
        return self._last

    def milliseconds(self) -> int:
        """Unix milliseconds, as Prometheus counts."""
        return round(1000 * self.now())
