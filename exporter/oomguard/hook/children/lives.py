"""One life of a child process: what its start returned, whether it runs, and when it last was known to."""

from __future__ import annotations

import os
from contextlib import suppress
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LAG = 10.0
"""Seconds. A process that is being killed still looks alive while it lets go of its memory; by then it is gone."""
_GONE = 0


class Life:
    """What one start returned, until it is gone. `kills` is the kernel's counter when it last was known to live."""

    __slots__ = ("_older", "_seen", "_started", "buried", "handle", "kills", "pid", "reason")

    def __init__(self, handle: Any, kills: int | None) -> None:
        self.handle = handle
        self.kills = kills
        self.pid = _pid(handle)
        self.reason: str | None = None
        """Why it ended; None while it is not known to have ended."""
        self.buried = False
        """Whether nobody will be given it any more."""
        self._started = None if self.pid is None else _start_time(self.pid)
        self._older = self._seen = (monotonic(), kills)

    def __del__(self) -> None:
        # The last call that used it has ended. What could not be written any more would be tried once more by the
        # pipe's own finalizer, which prints the failure from Python 3.13 on.
        if getattr(self, "buried", False):
            _drop_unwritten(self.handle)

    def answered(self, kills: int | None) -> None:
        """It has done something since the counter stood there."""
        if kills is not None and (self.kills is None or kills > self.kills):
            self.kills = kills

    def runs(self) -> bool:
        """Whether it is not known to be gone; without a PID or /proc nobody knows before it is called."""
        if self.reason is not None or self._started == _GONE:
            return False
        if self.pid is None or self._started is None:
            return True
        return _start_time(self.pid) in (self._started, None)

    def look(self, now: float, kills: int | None) -> None:
        """It runs, as far as can be seen: what the counter said `_LAG` ago was before its end, whenever that is."""
        if now - self._seen[0] >= _LAG:
            self.answered(self._older[1])
            self._older, self._seen = self._seen, (now, kills)


def kill(handle: object) -> None:
    """Kill a process that still runs, and reap it if it is dead (subprocess.Popen); what has no PID is none."""
    if _pid(handle) is not None:
        _try(handle, "kill")
        _try(handle, "poll")


def _try(handle: object, name: str) -> None:
    with suppress(Exception):  # it is gone already, or the application's own class
        method = getattr(handle, name, None)
        result = method() if callable(method) else None
        if hasattr(type(result), "__await__"):
            result.close()  # type: ignore[union-attr]  # else Python warns that it was never awaited


def _drop_unwritten(handle: object) -> None:
    """Close the pipe to a dead child (subprocess.Popen), whatever is left in its buffer; never waits."""
    try:
        pipe: Any = getattr(handle, "stdin", None)
        # A process that the child has left behind may hold the other end, and read nothing.
        os.set_blocking(pipe.fileno(), False)
        pipe.close()
    except Exception:  # noqa: BLE001, S110 (that it is broken is known; or asyncio's, which has no number)
        pass


def _pid(handle: object) -> int | None:
    try:
        pid = getattr(handle, "pid", None)
    except Exception:  # noqa: BLE001 (the application's own class)
        return None
    return pid if type(pid) is int and pid > 0 else None


def _start_time(pid: int) -> int | None:
    """When a process that runs began (proc_pid_stat(5), field 22); `_GONE`, or None where that can't be known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 (pathlib costs 3 ms)
            fields = file.read().rpartition(b")")[2].split()
        return _GONE if fields[0] in b"ZX" else int(fields[19])
    except (FileNotFoundError, ProcessLookupError):
        return _GONE
    except (OSError, ValueError, IndexError):
        return None
