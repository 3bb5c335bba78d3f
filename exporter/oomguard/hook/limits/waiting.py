"""Waiting for another thread, greenlet or task of the application's.

A native lock would stop all greenlets of a thread, the one that is waited for among them; gevent's own are not made
for being woken from another thread. So a greenlet looks again and again, through the `sleep` that gevent patched.
"""

from __future__ import annotations

import _thread
import time

from oomguard.hook import unpatched

_FIRST, _LONGEST = 0.001, 0.05
"""Seconds between two looks of a greenlet's: doubled from the first to the longest."""


class ThreadWaiter:
    """One thread or greenlet that waits; made by it, woken at most once, from anywhere."""

    __slots__ = ("_lock", "_woken", "by", "granted")

    def __init__(self) -> None:
        self.by = _thread.get_ident()
        """The thread or, where gevent has patched, the greenlet."""
        self.granted = False
        """For the one who wakes: whether something was handed over that must not be lost."""
        self._woken = False
        self._lock = unpatched.allocate_lock()
        self._lock.acquire()

    def wake(self) -> bool:
        """Let it go on; whether it is still there to do so."""
        self._woken = True
        self._lock.release()
        return True

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for that long at most; whether it was woken. A signal's handler may raise out of it."""
        if not unpatched.patched():
            return self._lock.acquire(True, -1 if seconds is None else seconds)
        until = float("inf") if seconds is None else time.monotonic() + seconds
        pause = _FIRST
        while not self._woken and time.monotonic() < until:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)
        return self._woken


class TaskWaiter:
    """One asyncio task that waits; made by it, woken at most once, from any thread."""

    __slots__ = ("_future", "_loop", "by", "granted")

    def __init__(self) -> None:
        import asyncio  # noqa: PLC0415 (whoever runs a task has it)

        self.by = _thread.get_ident()
        self.granted = False
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[None] = self._loop.create_future()

    def wake(self) -> bool:
        """Let it go on; False where its loop is closed, so that it never will."""
        try:
            self._loop.call_soon_threadsafe(self._set)
        except RuntimeError:
            return False
        return True

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait for that long at most; whether it was woken. May be cancelled."""
        import asyncio  # noqa: PLC0415 (as above)

        await asyncio.wait({self._future}, timeout=seconds)
        return self._future.done()

    def _set(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


Waiter = ThreadWaiter | TaskWaiter
