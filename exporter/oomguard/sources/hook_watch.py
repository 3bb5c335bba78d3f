"""Notices within a second that a hook does not answer: the GIL held in C, a blocked Node loop, a callback that hangs.

A hook that owes nothing is asked a `ping` every `INTERVAL`; any question that stays unanswered for longer than it may
makes the hook stalled. Measured: see docs/hook-protocol.md, "Stalled".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from oomguard.log import LOGGER
from oomguard.sources.hooks import Hook

INTERVAL: Final = 0.4
"""Seconds between two pings. With `hooks.STALLED` it makes less than the second that is promised."""
LATE: Final = 0.1
"""Seconds by which a look may come late and still judge."""
BREATH: Final = 0.01
"""Seconds in which the event loop reads what has come."""


class HookWatch:
    """Pings the hooks that `members` returns; runs on the event loop.

    `began` is called when one stalls, `ended` when it has answered (or gone), with the seconds that it took.
    """

    def __init__(
        self,
        members: Callable[[], Sequence[Hook]],
        began: Callable[[Hook], None],
        ended: Callable[[Hook, float], None],
    ) -> None:
        self._members = members
        self._began = began
        self._ended = ended
        self._since: dict[Hook, float] = {}
        """Those that are stalled, with the monotonic time of what they have not answered."""
        self._ping_due = 0.0
        self._look_due = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to look. Called on the event loop."""
        self._plan(0.0)

    def stop(self) -> None:
        """Look no more."""
        if self._handle is not None:
            self._handle.cancel()

    def _plan(self, pause: float) -> None:
        # A timer and no task: this runs for ever, and a task that waits costs three times as much.
        loop = asyncio.get_running_loop()
        self._look_due = time.monotonic() + pause
        self._handle = loop.call_later(pause, self._wake)

    def _wake(self) -> None:
        pause = INTERVAL
        try:
            late = time.monotonic() - self._look_due > LATE
            # Answers may lie there that nobody has read: a sidecar that slept must not blame the hooks.
            pause = BREATH if late else self.look()
        except Exception:  # noqa: BLE001 - whatever fails once, the next look comes
            LOGGER.exception("looking after the hooks failed")
        self._plan(pause)

    def look(self) -> float:
        """Ping who is due, say who is stalled and who is not any more; seconds until the next look."""
        now = time.monotonic()
        hooks = self._members()
        for hook in hooks:
            if (seconds := hook.stalled) > 0 and hook not in self._since:
                self._since[hook] = now - seconds
                self._began(hook)
        for hook in [hook for hook in self._since if hook.stalled == 0 or hook not in hooks]:
            self._ended(hook, now - self._since.pop(hook))
        if now >= self._ping_due:
            self._ping_due = now + INTERVAL
            for hook in hooks:
                if hook.idle:
                    hook.ping()
        ahead = [hook.due for hook in hooks if hook not in self._since]
        return max(BREATH, min([self._ping_due, *(due for due in ahead if due is not None)]) - now)
