"""The clock of everything: when to look, how fast memory grows, how late we are.

The fast lane sleeps for the time in which memory could climb from here to the next threshold at the
fastest rate this machine can allocate, between `FASTEST` and `SLOWEST`. A timer that comes late
(a CPU quota of half a core made 5 ms timers 79 ms late at p99) is measured, and thresholds are
lowered by growth times lateness, so that a throttled sidecar acts as early as it must.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import time
from collections import deque
from collections.abc import Callable

from oomguard.log import LOGGER

FASTEST = 0.005
"""Seconds. A tick costs 40 µs here, so that 200 a second are 1 % of a core; at 2 GB/s it is 10 MB."""
SLOWEST = 1.0
LATE = 0.010
"""Seconds after which a tick counts as late: twice the fastest interval."""
NOT_LATE = 0.001
"""Seconds: an event loop's timers have no finer grain."""
RATE_WINDOW = 0.050
"""Seconds over which growth is measured: ten of the fastest ticks."""
LATENESS_HALF_LIFE = 30.0
"""Seconds in which the remembered lateness halves."""

_MIN_FILL_RATE = 1 << 30
_MAX_FILL_RATE = 16 << 30


def measure_fill_rate() -> float:
    """Bytes per second at which this machine's programs can fill memory, all processors together.

    Measured by writing to 4 MiB that were never touched: page faults and the kernel's zeroing limit any
    program. The fastest of five runs counts, since the machine may be busy. What can't be measured is taken as
    6 GB/s, earlyoom's figure.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    chunk = bytes(1 << 20)
    took = []
    try:
        for _ in range(5):
            with mmap.mmap(-1, 4 * len(chunk)) as block:
                began = time.perf_counter()
                for _ in range(4):
                    block.write(chunk)
                took.append(time.perf_counter() - began)
    except OSError:
        return 6e9
    return min(_MAX_FILL_RATE, max(_MIN_FILL_RATE, cpus * 4 * len(chunk) / min(took)))


def interval(used: int, thresholds: tuple[int, ...], fill_rate: float) -> float:
    """Seconds until the next fast tick: the least time in which the next threshold could be reached.

    Above the last threshold every tick is the fastest.
    """
    way = min([threshold - used for threshold in thresholds if threshold > used], default=0)
    return min(SLOWEST, max(FASTEST, way / fill_rate))


class Growth:
    """Growth of memory over the last `RATE_WINDOW` seconds (or the last two ticks, if they lie further apart)."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, int]] = deque()

    def add(self, at: float, used: int) -> float:
        """Take a measurement and return bytes per second; 0 before the second one."""
        points = self._points
        while len(points) > 1 and at - points[1][0] >= RATE_WINDOW:
            points.popleft()
        points.append((at, used))
        first_at, first_used = points[0]
        return (used - first_used) / (at - first_at) if at > first_at else 0.0


class Lateness:
    """How late ticks come: a maximum that decays, so that one bad second is not held against the machine for ever."""

    def __init__(self) -> None:
        self._worst = 0.0
        self._at = 0.0

    def add(self, at: float, late: float) -> None:
        """Take one tick's lateness, in seconds."""
        if late > NOT_LATE and late > self.now(at):
            self._worst = late
            self._at = at

    def now(self, at: float) -> float:
        """The remembered lateness at this time."""
        return float(self._worst * 0.5 ** ((at - self._at) / LATENESS_HALF_LIFE))


class FastLane:
    """Calls `tick` when memory could have come to a threshold; runs on the event loop.

    `tick(at)` reads memory and returns (used, thresholds), or None when nothing could be read.
    """

    def __init__(
        self,
        tick: Callable[[float], tuple[int, tuple[int, ...]] | None],
        fill_rate: float,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fill_rate = fill_rate
        self.lateness = Lateness()
        self.ticks = 0
        self.late = 0
        self.interval = FASTEST
        self._tick = tick
        self._clock = clock
        self._due = 0.0
        self._handle: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Tick now, and on from there. Called on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._due = self._clock()
        self._run()

    def stop(self) -> None:
        """No tick after this."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def hurry(self) -> None:
        """Tick at once: something is known to have changed."""
        if self._handle is not None:
            self._handle.cancel()
            self._due = self._clock()
            self._run()

    def _run(self) -> None:
        began = self._clock()
        late = began - self._due
        self.ticks += 1
        if late > NOT_LATE:
            self.late += late > LATE
            self.lateness.add(began, late)
        try:
            seen = self._tick(began)
        except Exception:  # noqa: BLE001 - the fast lane is what saves the target: the next tick comes
            LOGGER.exception("fast tick failed")
            seen = None
        self.interval = interval(*seen, self.fill_rate) if seen is not None else 0.1
        self._due = self._clock() + self.interval
        assert self._loop is not None
        self._handle = self._loop.call_later(self.interval, self._run)
