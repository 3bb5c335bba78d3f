"""What the hook's thread does by the clock: unloading what is idle, looking at memory where no sidecar does."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[[float], float]
    """Called with the time (monotonic seconds); returns in how many seconds it wants to be called again."""

NEVER = float("inf")
_SHORTEST = 0.005
_AFTER_FAILURE = 10.0
"""Seconds until a chore that raised has its next turn."""


class _Chore:
    __slots__ = ("due", "run")

    def __init__(self, run: Run) -> None:
        self.run = run
        self.due = 0.0


class Chores:
    """All of them. `begun` is called when there is one, from the thread that added it: somebody must run them.

    `woken` is called when one is due earlier than it had said. Both may be called from any thread.
    """

    def __init__(self, begun: Callable[[], None], woken: Callable[[], None]) -> None:
        self._begun = begun
        self._woken = woken
        self._chores: list[_Chore] = []

    def __len__(self) -> int:
        return len(self._chores)

    def add(self, run: Run) -> None:
        """Call `run` from now on; it is due at once. Adding it again makes it due at once."""
        if not self.hurry(run):
            self._chores.append(_Chore(run))
            self._begun()
            self._woken()

    def hurry(self, run: Run) -> bool:
        """Make a chore due now; whether there is such a one."""
        for chore in list(self._chores):
            if chore.run == run:
                chore.due = 0.0
                self._woken()
                return True
        return False

    def remove(self, run: Run) -> None:
        """Call it no more."""
        self._chores[:] = [chore for chore in self._chores if chore.run != run]

    def run(self, now: float) -> float:
        """Run those that are due; seconds until the next one is (`NEVER`: none is)."""
        soonest = NEVER
        for chore in list(self._chores):
            if chore.due <= now:
                chore.due = NEVER
                try:
                    wanted = now + max(_SHORTEST, chore.run(now))
                    chore.due = min(chore.due, wanted)  # whoever hurried it meanwhile has its way
                except BaseException:  # noqa: BLE001 (SystemExit of a callback of the application's, too)
                    chore.due = now + _AFTER_FAILURE
            soonest = min(soonest, chore.due - now)
        return soonest
