"""How late an asyncio event loop is: a beat every half second in the loop itself, read from the hook's thread.

No lock is shared between the two: the loop writes into a ring of fixed length, whoever reads copies it. A beat
costs the loop a timer and a microsecond.
"""

from __future__ import annotations

import sys
import weakref
from time import monotonic, perf_counter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Callable
    from typing import Any

    from oomguard.hook.parts import Core

    Count = Callable[[AbstractEventLoop], set[Task[Any]]]
    GoesOn = Callable[[AbstractEventLoop, "_Beat"], bool]

INTERVAL = 0.5
"""Seconds between two beats; a delay is seen to that much less than it was."""
_RING = 120
"""Beats that are kept: a reader that asks once a minute misses none."""
_COUNT_SHARE = 1000
"""Counting 10,000 tasks takes 4 ms in the loop: what took t is not repeated before 1000·t."""


class LoopLag:
    """All loops of the process that were seen."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.forked()

    def forked(self) -> None:
        """Begin anew in a forked child; a beat of the parent's that goes on there ends by itself."""
        self._beats: dict[int, _Beat] = {}
        self._readers: dict[str, float] = {}
        self._strange = False

    def watch(self, loop: AbstractEventLoop) -> None:
        """Watch this loop from now on; called in it, as often as one likes (0.2 microseconds when it is known)."""
        beat = self._beats.get(id(loop))
        if beat is not None and beat.loop() is loop:
            return
        if self._strange:
            return
        from asyncio import all_tasks  # noqa: PLC0415 (who has a loop has it)

        try:
            made = _Beat(loop, all_tasks, self._goes_on)
            self._beats[id(loop)] = made
            made.start(loop)
        except Exception as error:  # noqa: BLE001 (not asyncio's, nor made after it: a request must not fail)
            self._strange = True
            self._core.warn(f"the event loop {type(loop).__name__} can't be watched: {error}")

    def watch_running(self) -> None:
        """Watch the loop that runs in this thread, if one does."""
        events = sys.modules.get("asyncio.events")
        loop = None if events is None else events._get_running_loop()  # noqa: SLF001 (public but in its name: it raises not)
        if loop is not None:
            self.watch(loop)

    def peek(self) -> dict[str, object]:
        """Tell the same as `reading` without being a reader: for people who look."""
        return self._told(self._readers.get("sidecar", float("-inf")))

    def reading(self, reader: str = "sidecar") -> dict[str, object]:
        """Tell the longest delay since this `reader` last asked (seconds), and the number of unfinished tasks.

        Of several loops the worst counts, and the sum. What asks under a name of its own disturbs nobody else.
        """
        since = self._readers.get(reader, float("-inf"))
        self._readers[reader] = monotonic()
        return self._told(since)

    def _told(self, since: float) -> dict[str, object]:
        now = monotonic()
        lag, tasks = None, 0
        for key, beat in list(self._beats.items()):
            loop = beat.loop()
            if loop is None or loop.is_closed():
                if self._beats.get(key) is beat:
                    del self._beats[key]
                continue
            lag = max(lag or 0.0, beat.worst(since, now, running=loop.is_running()))
            tasks += beat.tasks
        if lag is None:
            return {"status": "absent", "reason": "no request has come by an event loop yet"}
        return {"status": "ok", "lag": lag, "tasks": tasks}

    def _goes_on(self, loop: AbstractEventLoop, beat: _Beat) -> bool:
        return self._beats.get(id(loop)) is beat


class _Beat:
    """One loop's. Holds it weakly: a loop that nobody closed can still be collected."""

    def __init__(self, loop: AbstractEventLoop, count: Count, goes_on: GoesOn) -> None:
        self.loop = weakref.ref(loop)
        self.tasks = 0
        self._count = count
        self._goes_on = goes_on
        self._ring = [(0.0, 0.0)] * _RING
        """(when, by how much late)"""
        self._next = 0
        self._due = 0.0
        self._count_at = 0.0
        self._paused = False
        """The loop was seen not to run: the beat that comes next is late for no fault of anybody's."""

    def start(self, loop: AbstractEventLoop) -> None:
        """In the loop's thread."""
        self._due = monotonic() + INTERVAL
        loop.call_later(INTERVAL, self._beat)

    def _beat(self) -> None:
        loop = self.loop()
        if loop is None or not self._goes_on(loop, self):
            return
        now = monotonic()
        late = 0.0 if self._paused else max(0.0, now - self._due)
        self._paused = False
        self._ring[self._next % _RING] = (now, late)
        self._next += 1
        if now >= self._count_at:
            began = perf_counter()
            self.tasks = len(self._count(loop))
            self._count_at = now + _COUNT_SHARE * (perf_counter() - began)
        self.start(loop)

    def worst(self, since: float, now: float, *, running: bool) -> float:
        """Longest delay of the beats since then, and of the one that is to come: the loop may be blocked now."""
        if not running:
            self._paused = True
        pending = 0.0 if self._paused else max(0.0, now - self._due)
        return max([pending, *(late for at, late in self._ring[:] if at > since)])
