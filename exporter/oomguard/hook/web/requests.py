"""The requests that are being answered: how many, and by how much memory grew while one was alone."""

from __future__ import annotations

from oomguard.hook import unpatched
from oomguard.hook.parts import Core, resident
from oomguard.hook.web.gate import NEVER, Gate
from oomguard.hook.web.histogram import Histogram

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SAMPLES = 10
"""Requests that are measured between two readings: looking at memory twice takes 20 microseconds."""
_ATTEMPTS = 100
"""Requests that are looked at for it: in a service that never answers one alone, each would pay for nothing."""
_KIB, _MIB = 1 << 10, 1 << 20
_BOUNDS = (0, 64 * _KIB, 256 * _KIB, _MIB, 4 * _MIB, 16 * _MIB, 64 * _MIB, 256 * _MIB)
"""Bytes."""


class Tally:
    """What one mount has counted. An asyncio mount adds to it without a lock: a lock costs as much as all the rest.

    Its loop's thread alone does so; where several loops share a mount, the interpreter's lock keeps the sums right,
    and a free-threaded one may lose some.
    """

    __slots__ = ("answered", "begun", "left", "lock")

    def __init__(self) -> None:
        self.forked()

    def forked(self) -> None:
        """Begin at zero, with a lock of its own."""
        self.lock = unpatched.allocate_rlock()
        """For mounts whose requests are answered by many threads."""
        self.begun = 0
        self.answered = 0
        self.left = 0
        """Those that turned out to be streams."""

    @property
    def in_flight(self) -> int:
        """How many are being answered; streams are not."""
        # Below 0 where one that forks parts from its parent in the midst of it and is answered in the child.
        return max(0, self.begun - self.answered - self.left)


class Requests:
    """Requests of all mounts of the process."""

    def __init__(self, core: Core, gate: Gate | None = None) -> None:  # noqa: ARG002 (every part is made with it)
        self._gate = gate or Gate()
        self._tallies: list[Tally] = []
        self._growth = Histogram(_BOUNDS)
        self.samples = 0
        """How many requests are still to be measured: nobody looks at a histogram that is not read."""
        self._attempts = 0
        self._ask(1)
        self.sampled: Callable[[], None] = _nothing
        """Called for a request that is looked at more closely."""

    def forked(self) -> None:
        """Begin anew in a forked child."""
        self._gate.forked()
        for tally in self._tallies:
            tally.forked()
        self._growth.forked()

    def tally(self) -> Tally:
        """Make one more, for a mount."""
        made = Tally()
        self._tallies.append(made)
        return made

    def look(self, tally: Tally, every: int | None, collect: Callable[[], None]) -> Callable[[], None]:
        """Look at a request before it has been counted; what is returned is to be called when it is answered.

        After `every` requests of the tally it calls `collect`.
        """
        mark = self.measure() if self.samples > 0 else None

        def answered() -> None:
            if mark is not None:
                self.grown(mark)
            if every is not None and tally.answered % every == 0:
                collect()

        return answered

    def measure(self) -> tuple[int, int] | None:
        """Look at memory before a request has been counted as begun; None where others are being answered.

        Call it while there are `samples` to take, and give what is returned to `grown`.
        """
        self.sampled()
        self._attempts -= 1
        mark = self._mark()
        if mark is not None:
            self.samples -= 1
        if self._attempts <= 0:
            self.samples = 0
        if self.samples <= 0:
            self._gate.want("requests", NEVER)
        return mark

    def _mark(self) -> tuple[int, int] | None:
        if any(tally.in_flight for tally in self._tallies):
            return None
        before = resident()
        return None if before is None else (before, self._begun())

    def grown(self, mark: tuple[int, int]) -> None:
        """Look again when that request is answered; one that was not alone meanwhile does not count.

        Memory that fell counts as growth of 0: a sum has to rise.
        """
        before, begun = mark
        if self._begun() == begun + 1:
            after = resident()
            if after is not None:
                self._growth.observe(max(0, after - before))

    def reading(self) -> dict[str, object]:
        """How many are being answered and were, and the histogram of growth in bytes."""
        self._ask(_SAMPLES)
        tallies = list(self._tallies)
        return {
            "in_flight": sum(tally.in_flight for tally in tallies),
            "total": sum(tally.answered for tally in tallies),
            "growth": self._growth.reading(),
        }

    def _ask(self, samples: int) -> None:
        self._attempts = _ATTEMPTS
        self.samples = samples
        self._gate.want("requests", 0.0)

    def _begun(self) -> int:
        return sum(tally.begun for tally in self._tallies)


def _nothing() -> None:
    pass
