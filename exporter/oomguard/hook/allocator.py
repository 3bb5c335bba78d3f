"""What malloc holds: in use, free, mapped on its own, and what a trim is expected to give back.

All is asked through ctypes, which lets other threads run during the call.

Free is not what a trim returns: pages that were already handed back may still count as free (glibc). Resident
are only those that make the process's anonymous memory larger than what malloc has given out:

    slack    = RSS - shared - in use - mapped on its own
    retained = min(reclaimable, max(0, slack - slack after the last trim))

The slack that no trim removes is the interpreter's own (pymalloc's arenas, stacks, relocated libraries).
Before the first trim the slack at the hook's start stands for it; where a lower one was seen since, that
one does, because what is not malloc's can shrink too.

Of 200 MB on glibc 2.36, predicted and returned, in MB: blocks of 16 KB, one of 50 kept, 196.3 and 195.8;
of 2 KB, one of 50 kept, 197.6 and 189.3; of 2 KB, one of 4 kept, 143.7 and 48.9. So it is an upper bound
where living blocks are strewn about: a page with one of them stays.
"""

from __future__ import annotations

import ctypes
from time import perf_counter, thread_time

from oomguard.hook.allocators import find
from oomguard.hook.statm import Statm

TYPE_CHECKING = False
if TYPE_CHECKING:
    from oomguard.hook.allocators.account import Account

_COSTLY = 0.002
"""Seconds. On fragmented heaps mallinfo2 took 3 to 8 ms with every arena locked in turn; from here on a
step takes the last reading as its 'before'."""


class Allocator:
    """The malloc of this process. Made and asked by one thread at a time."""

    def __init__(self, statm: Statm, library: ctypes.CDLL | None = None) -> None:
        self._statm = statm
        self._malloc = find(ctypes.CDLL(None) if library is None else library)
        self.name = self._malloc.name
        """``glibc``, ``jemalloc``, ``tcmalloc``, ``musl``, ``macos`` or ``unknown``."""
        self._baseline: int | None = None
        self._last: tuple[float, int] | None = None
        self._trim_rate: float | None = None

    @property
    def trims(self) -> bool:
        """Whether there is a way to make it give memory back."""
        return self._malloc.trims

    @property
    def reason(self) -> str:
        """Why it tells nothing, or can't be trimmed; empty where it does both."""
        return self._malloc.reason

    def reading(self) -> dict[str, object]:
        """Take the `allocator` part of a reading; the slack seen on the way may lower the baseline."""
        account, seconds = self._account()
        if account is None:
            return {"status": "unsupported", "name": self.name, "reason": self.reason}
        anonymous = self._statm.anonymous()
        retained = None
        if anonymous is not None:
            slack = anonymous - account.in_use - account.mmapped
            self._baseline = slack if self._baseline is None else min(self._baseline, slack)
            retained = min(account.reclaimable, slack - self._baseline)
        return {
            "status": "ok",
            "name": self.name,
            "in_use": account.in_use,
            "free": account.free,
            "mmapped": account.mmapped,
            "retained": retained,
            "seconds": seconds,
            **self._malloc.details(),
        }

    def free_before(self) -> int | None:
        """Free bytes inside malloc, from the last reading where a fresh one would hold the host up."""
        if self._last is not None and self._last[0] > _COSTLY:
            return self._last[1]
        return self.free_now()

    def free_now(self) -> int | None:
        """Free bytes inside malloc; None where it does not tell."""
        account, _ = self._account()
        return None if account is None else account.free

    def trim_expected(self) -> float:
        """Seconds that a trim may take: as long as the last one for each byte resident, else 0.1 s per GB."""
        resident = self._statm.anonymous() or 0
        return resident * (self._trim_rate if self._trim_rate is not None else 0.1 / 1e9)

    def trim(self) -> tuple[float, int | None]:
        """Give free pages back: the seconds that the call took, and by how much resident memory fell.

        Only where `trims` says so. Raises OSError where the allocator refuses.
        """
        before = self._statm.anonymous()
        started, cpu = perf_counter(), thread_time()
        self._malloc.release()
        seconds, work = perf_counter() - started, thread_time() - cpu
        after = self._statm.anonymous()
        if before is None or after is None:
            return seconds, None
        # Beside busy threads most of the time may be waiting for the interpreter: that is not what a trim takes.
        self._trim_rate = work / max(before, 1)
        account, _ = self._account()
        if account is not None:
            self._baseline = after - account.in_use - account.mmapped
        return seconds, before - after

    def _account(self) -> tuple[Account | None, float]:
        started = perf_counter()
        account = self._malloc.account()
        seconds = perf_counter() - started
        if account is not None:
            self._last = (seconds, account.free)
        return account, seconds
