"""MEMORY_CLEANUP=1: every so often, where more than a threshold is resident, what costs the application nothing.

Expired cache entries, a collection, a trim. For those who want no thresholds; beside a sidecar it does no harm.
"""

from __future__ import annotations

from oomguard.hook.parts import resident
from oomguard.hook.telling import megabytes, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from oomguard.hook.parts import Core, Released

_ON = ("1", "true", "yes", "on")
_INTERVAL = 60.0
_THRESHOLD = 100.0
_LEAST = 1.0
"""Seconds. Collections more often than that would be all that the process does."""
_MOST = 1e9


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether the environment asks for it."""
    return environ.get("MEMORY_CLEANUP", "").strip().lower() in _ON


class Interval:
    """Made once, in the application's thread; says so in one line of the log.

    `MEMORY_CLEANUP_INTERVAL` is seconds (60), `MEMORY_CLEANUP_THRESHOLD_MB` units of 2^20 bytes (100); what is
    neither is told in the log, and the default holds. `expire` drops expired entries and returns how
    many went; None: no cache has such.
    """

    def __init__(self, core: Core, expire: Callable[[], int | None]) -> None:
        self._core = core
        self._expire = expire
        self.every = self._number("MEMORY_CLEANUP_INTERVAL", _INTERVAL, _LEAST, "seconds, for example 60")
        self.above = int(
            self._number("MEMORY_CLEANUP_THRESHOLD_MB", _THRESHOLD, 0.0, "megabytes, for example 100")
            * (1 << 20)
        )
        self.forked()
        tell(
            "info",
            f"memory cleanup every {self.every:g} s when more than {megabytes(self.above)} are resident",
        )
        core.chores.add(self.run)

    def forked(self) -> None:
        """Begin anew in a forked child: its first cleanup is one interval away."""
        self._begun = False

    def run(self, now: float) -> float:  # noqa: ARG002 (one face for all chores)
        """Clean up, but not in the first moment; seconds until the next time."""
        if not self._begun:
            self._begun = True
            return self.every
        before = resident()
        if before is not None and before > self.above:
            expired = self._expire()
            released = self._core.release()
            after = resident()
            if after is not None:
                tell("info", _line(before, after, expired, released), ours=True)
        return self.every

    def _number(self, name: str, default: float, least: float, expected: str) -> float:
        given = self._core.environ.get(name, "").strip()
        if not given:
            return default
        try:
            number = float(given)
        except ValueError:
            number = -1.0
        if least <= number <= _MOST:
            return number
        text = f"{name}={given[:40]!r} is not a number from {least:g} on: it is in {expected}; {default:g} is used"
        self._core.warn(text)
        tell("warning", text)
        return default


def _line(before: int, after: int, expired: int | None, released: Released) -> str:
    collected = "gc not run" if released.collected is None else f"gc collected {released.collected} objects"
    entries = (
        "no cache with expiring entries" if expired is None else f"{expired} expired cache entries dropped"
    )
    trim = "malloc_trim called" if released.trims else "no malloc_trim here"
    freed = f"{megabytes(max(0, before - after))} freed, from {megabytes(before)} to {megabytes(after)}"
    return f"memory cleanup: {freed}; {collected}, {entries}, {trim}"
