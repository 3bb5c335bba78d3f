"""What a plain request asks, and nothing else: whether anything wants it to be looked at more closely."""

from __future__ import annotations

from oomguard.hook import unpatched

NEVER = float("inf")


class Gate:
    """Shared by what looks at requests: each says from when on (monotonic seconds) it wants to see one.

    Two attributes, so that the clock is read only where somebody wants it: a request is looked at if ``gate.up and
    monotonic() >= gate.due``.
    """

    __slots__ = ("_lock", "_wanted", "due", "up")

    def __init__(self) -> None:
        self._wanted: dict[str, float] = {}
        self.up = False
        self.due = NEVER
        self.forked()

    def forked(self) -> None:
        """Have a lock of its own in a forked child; what is wanted stays until it is said anew."""
        self._lock = unpatched.allocate_rlock()

    def want(self, who: str, since: float) -> None:
        """Let `who` see the first request at or after this time and those that follow; `NEVER`: none.

        From any thread: the latest word of each counts.
        """
        with self._lock:
            self._wanted[who] = since
            self.due = min(self._wanted.values())
            self.up = self.due != NEVER
