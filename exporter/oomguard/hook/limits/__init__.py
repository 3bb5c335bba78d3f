"""Limits: at most so many at once, in the order in which they came; the rest wait and are counted.

Threads, gevent's greenlets and asyncio tasks may share one limit. A slot is handed over to the one who waited
longest by whoever gives it back: it is never free in between for one that came later. Nobody waits for a lock.
"""

from __future__ import annotations

import _thread
import sys
from collections import OrderedDict

from oomguard.hook import unpatched
from oomguard.hook.limits.waiting import TaskWaiter, ThreadWaiter, Waiter
from oomguard.hook.sizes import check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from oomguard.hook.parts import Core

VARIABLE = "MAX_CONCURRENT_AGENTS"


class Limit:
    """One limit, used by ``with`` and ``async with``; a nested use by the same task takes a second slot.

    A task uses ``async with``. With a plain ``with`` it could only wait by stopping its loop, and whoever has the slot
    may be a task of the same loop: so it is let in above the limit, counted as one that waited, with a warning.

    Made by `Limits.get`. `most` is None where nobody has said how many: then all are let in, and counted.
    """

    def __init__(self, name: str, most: int | None, core: Core) -> None:
        self.name = name
        self.most = most
        self._core = core
        self._in_use = 0
        self._waited = 0
        self._queue: OrderedDict[Waiter, None] = OrderedDict()
        self._held: dict[int, int] = {}
        """Slots in use, by the thread or greenlet that took them."""
        self._inherited: dict[int, int] = {}
        """In a forked child those that were taken before: whoever leaves them gives nothing back here."""
        # A signal handler may leave or enter in any line.
        self._lock = unpatched.allocate_rlock()

    def __enter__(self) -> Limit:  # noqa: PYI034 (typing.Self needs Python 3.11)
        waiter = ThreadWaiter()
        try:
            if not self._enter(waiter):
                if _in_a_task():
                    self._let_in(waiter)
                else:
                    waiter.wait()
        except BaseException:  # KeyboardInterrupt, GreenletExit, what a signal's handler raises
            self._give_up(waiter)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    async def __aenter__(self) -> Limit:  # noqa: PYI034 (as above)
        waiter = TaskWaiter()
        try:
            if not self._enter(waiter):
                await waiter.wait()
        except BaseException:  # it was cancelled
            self._give_up(waiter)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def reading(self) -> dict[str, object]:
        """What the sidecar is told; `waited` counts those who had to, from the start of the process."""
        return {
            "name": self.name,
            "limit": self.most,
            "in_use": self._in_use,
            "waiting": len(self._queue),
            "waited": self._waited,
        }

    def change(self, most: int | None) -> None:
        """Let in that many from now on; those who are in stay."""
        with self._lock:
            self.most = most
            self._hand_on()

    def forked(self) -> None:
        """Begin anew in a forked child: nothing in use, nobody waits."""
        self._lock = unpatched.allocate_rlock()
        for thread, count in self._held.items():
            self._inherited[thread] = self._inherited.get(thread, 0) + count
        self._held = {}
        self._in_use = self._waited = 0
        self._queue = OrderedDict()

    # -- slots

    def _enter(self, waiter: Waiter) -> bool:
        """Take a slot if one is free; else let `waiter` stand in the queue."""
        with self._lock:
            if self._free():  # then nobody waits: a slot that gets free is handed on at once
                self._grant(waiter)
                return True
            self._queue[waiter] = None
            self._waited += 1
            return False

    def _let_in(self, waiter: Waiter) -> None:
        """Grant a slot that there is not, to one who must not wait."""
        with self._lock:
            if self._queue.pop(waiter, self) is None:  # else it was handed one just now
                self._grant(waiter)
        self._core.warn(
            f"limit {self.name!r}: a task would have to wait in `with` and was let in above the limit: "
            "use `async with`"
        )

    def _grant(self, waiter: Waiter) -> None:
        self._held[waiter.by] = self._held.get(waiter.by, 0) + 1
        self._in_use += 1
        waiter.granted = True

    def _leave(self) -> None:
        thread = _thread.get_ident()
        with self._lock:
            if not _take_off(self._held, thread):
                if _take_off(self._inherited, thread):
                    return
                _take_off(
                    self._held, next(iter(self._held), thread)
                )  # a generator that another thread closes
            self._in_use = max(0, self._in_use - 1)
            self._hand_on()

    def _give_up(self, waiter: Waiter) -> None:
        with self._lock:
            self._queue.pop(waiter, None)
            granted, waiter.granted = waiter.granted, False
        if granted:
            self._leave()  # the slot had been handed over just before

    def _free(self) -> bool:
        return self.most is None or self._in_use < self.most

    def _hand_on(self) -> None:
        while self._queue and self._free():
            waiter, _ = self._queue.popitem(last=False)
            if waiter.wake():  # else its event loop is closed
                self._grant(waiter)


class Limits:
    """All of them, by name."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._limits: dict[str, Limit] = {}
        self._lock = unpatched.allocate_rlock()

    def get(self, name: str, most: int | None = None) -> Limit:
        """The limit of this name, made when it is first asked for; None: what ``MAX_CONCURRENT_AGENTS`` says.

        A handler may ask for it with every request. Another number than before counts from now on, with a warning;
        None changes nothing. Raises TypeError or ValueError for a name or a number that can't be one.
        """
        check_name("limit", name)
        if most is not None and (type(most) is not int or most < 1):
            raise ValueError(f"limit {name!r}: must be a number above 0, not {most!r}")
        with self._lock:
            limit = self._limits.get(name)
            if limit is None:
                at_most = most if most is not None else self._default(name)
                limit = self._limits[name] = Limit(name, at_most, self._core)
        if most is not None and limit.most != most:
            self._core.warn(f"limit {name!r} was given another number, {most}: the later one counts")
            limit.change(most)
        return limit

    def reading(self) -> list[dict[str, object]]:
        """The part `limits` of a reading."""
        return [limit.reading() for limit in list(self._limits.values())]

    def forked(self) -> None:
        """Begin anew in a forked child."""
        self._lock = unpatched.allocate_rlock()
        for limit in self._limits.values():
            limit.forked()

    def _default(self, name: str) -> int | None:
        text = self._core.environ.get(VARIABLE, "")
        if text.isascii() and text.strip().isdigit() and int(text) > 0:
            return int(text)
        said = f"{VARIABLE}={text[:20]!r} is no number above 0" if text else f"{VARIABLE} is not set"
        self._core.warn(f"limit {name!r}: no number was given and {said}: all are let in")
        return None


def _take_off(counts: dict[int, int], thread: int) -> bool:
    """Count one less for a thread; whether it had any."""
    count = counts.pop(thread, 0)
    if count > 1:
        counts[thread] = count - 1
    return count > 0


def _in_a_task() -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001 (documented, and cheap)
