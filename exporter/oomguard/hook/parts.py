"""What the guard is made of: parts, each with a reading, and what a part may use of the hook (`Core`).

A part knows no other. The guard makes it when the application first asks for it, so that an application pays
for what it uses; from then on the sidecar finds its reading under its name.
"""

from __future__ import annotations

import os
from time import perf_counter, thread_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import RLock as Lock
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from oomguard.hook.chores import Chores

    Take = Callable[[str | None, float], dict[str, object]]
    """Takes a step: the name that restricts it, and how many seconds it may be expected to take."""

    class Part(Protocol):
        """One of the guard's parts."""

        def reading(self) -> object:
            """What goes into a reading, of JSON's types; asked in the hook's thread, so it imports nothing."""

        def forked(self) -> None:
            """Begin anew in a forked child: locks of its own, counters at zero, nothing in use; never raises."""


_WARNINGS = 20
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Released:
    """What a gc and a trim gave back: bytes by which resident memory fell (None: can't be known), and objects."""

    __slots__ = ("collected", "returned", "seconds", "trims")

    def __init__(self, collected: int | None, returned: int | None, seconds: float, *, trims: bool) -> None:
        self.collected = collected
        self.returned = returned
        self.seconds = seconds
        self.trims = trims
        """Whether this malloc can be trimmed at all."""


class Core:
    """What parts may use. `environ` is the environment at the start; `work` is held for a step or a reading.

    `work` can be taken again by the thread that holds it, and is another one in a forked child. Readings, steps and
    chores have it already.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        chores: Chores,
        work: Lock,
        release: Callable[[], Released],
        retained: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.environ = environ
        self.chores = chores
        self.work = work
        self.release = release
        """Collect garbage, unless that would harm (a shared heap, long pauses), and trim; with `work` held."""
        self.retained = retained
        """Bytes that a trim would give back now; None where malloc does not tell. With `work` held."""
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        """Note what the developer should know; it goes to the status and the sidecar, once each."""
        if text not in self.warnings and len(self.warnings) < _WARNINGS:
            self.warnings.append(text[:200])


def resident() -> int | None:
    """Bytes resident in this process (proc_pid_statm(5)); None where that can't be read. About 10 microseconds."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 (pathlib costs 3 ms)
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return None


def answer(
    status: str,
    reason: str = "",
    seconds: float = 0.0,
    stall: float = 0.0,
    *,
    freed: int | None = None,
    details: dict[str, object] | None = None,
) -> dict[str, object]:
    """The answer to a step, as docs/hook-protocol.md has it; `status` is done, skipped, unsupported or failed."""
    return {
        "status": status,
        "reason": reason,
        "seconds": seconds,
        "stall": stall,
        "freed_in_allocator": freed,
        "details": details or {},
    }


class Stopwatch:
    """Seconds since it was made, and how many of them this thread computed rather than waited."""

    __slots__ = ("_cpu", "_started")

    def __init__(self) -> None:
        self._started, self._cpu = perf_counter(), thread_time()

    def read(self) -> tuple[float, float]:
        """(seconds, of these computed in this thread)."""
        seconds = perf_counter() - self._started
        return seconds, min(seconds, thread_time() - self._cpu)
