"""A load or an unload under way, and waiting for its end."""

from __future__ import annotations

import _thread
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

_SHORTEST, _LONGEST = 0.001, 0.02
"""Seconds between two looks; a load takes seconds, so that the last look comes late by 1 % at most."""
HANGS = 10.0
"""Seconds that a caller waits for an unload to end before it is told that it hangs."""


class Turn:
    """Only those who wait for it hold it for longer: its error would keep the frames of the load alive."""

    __slots__ = ("begun", "by", "done", "error", "raised_at", "since", "unloads")

    def __init__(self, *, unloads: bool) -> None:
        self.by = _thread.get_ident()  # of a greenlet, where gevent has patched
        self.since = monotonic()
        self.unloads = unloads
        self.begun = False
        """Whether somebody sees to it that it gets done."""
        self.done = False
        self.error: BaseException | None = None
        self.raised_at: TracebackType | None = None
        """Its traceback, as it was then."""

    def mine(self) -> bool:
        """Whether the caller's own thread, or greenlet, is to end it: it can't wait for itself."""
        return not self.done and self.by == _thread.get_ident()

    def looks(self) -> Iterator[float]:
        """Seconds to sleep before each further look, until it is over, or was found to hang."""
        seconds = _SHORTEST
        while not self.done and not (self.unloads and monotonic() > self.since + HANGS):
            yield seconds
            seconds = min(seconds * 2, _LONGEST)
