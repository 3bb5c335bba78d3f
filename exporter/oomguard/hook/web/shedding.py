"""Refusing new requests while memory is short: on order of the step `shed`, or above a level of memory."""

from __future__ import annotations

from time import monotonic

from oomguard.hook import unpatched
from oomguard.hook.admin import level
from oomguard.hook.admin.size import Goal, parse_goal, parse_limit
from oomguard.hook.parts import Core, answer
from oomguard.hook.web.gate import NEVER, Gate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from oomguard.hook.admin.level import Level

LASTS = 30.0
"""Seconds that an order lasts; the sidecar renews it for as long as it wants."""
_LOOK = 0.1
"""Seconds between two looks at memory, of 60 microseconds each."""
_BACK = 0.95
"""Part of the level below which memory has to fall until requests are served again."""
_OFF = "off"


class Shedding:
    """Decides whether new requests are refused. `armed` False says no without a call.

    To the gate it says when the answer may be another one than no: at once under an order or above the level, at
    the next look while memory is below it.
    """

    def __init__(
        self,
        core: Core,
        gate: Gate | None = None,
        *,
        look: Callable[[int | None], Level] = level.read,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._core = core
        self._gate = gate or Gate()
        self._look = look
        self._clock = clock
        self._above: Goal | None = None
        self.forked()

    def forked(self) -> None:
        """Begin anew in a forked child; the level stays, an order was the parent's."""
        self._lock = unpatched.allocate_rlock()
        self._gate.forked()
        self._until = 0.0
        self._looked = float("-inf")
        self._high = False
        self._refused = 0
        self._arm(0.0 if self._above is not None else NEVER)

    def above(self, given: float | str) -> None:
        """Refuse requests while memory is above this: a ratio (0.9), a percentage or a size.

        A part of a limit that is not known sheds nothing, and is warned about. Raises ValueError.
        """
        try:
            self._above = parse_goal(given)
        except ValueError as error:
            raise ValueError(str(error).replace("goal", "shed_above", 1)) from None
        with self._lock:
            self._arm(0.0)

    def take(self, name: str | None, within: float) -> dict[str, object]:  # noqa: ARG002 (it takes no time)
        """Take the step `shed`: refuse for `LASTS` seconds from now; the name ``off`` ends it."""
        if name == _OFF:
            self._until = 0.0
            return answer("done", details={"on": self.on()})
        with self._lock:
            self._until = self._clock() + LASTS
            self._arm(0.0)
        return answer("done", details={"on": True, "seconds": LASTS})

    def on(self) -> bool:
        """Whether new requests are refused now; at most every `_LOOK` seconds memory is looked at."""
        now = self._clock()
        if now < self._until:
            return True
        above = self._above
        if above is not None:
            if now - self._looked < _LOOK:
                return self._high
            self._looked = now
            self._high = self._is_high(above)
        with self._lock:
            if now < self._until:  # an order has come in between
                return True
            if above is None:
                self._arm(NEVER if self._above is None else 0.0)
                return False
            self._arm(0.0 if self._high else now + _LOOK)
        return self._high

    def refuse(self) -> None:
        """Count one request that was refused."""
        with self._lock:
            self._refused += 1

    def reading(self) -> dict[str, object]:
        """Whether it is on, and how many requests were refused."""
        return {"on": self.on(), "refused": self._refused}

    def _is_high(self, above: Goal) -> bool:
        environ = self._core.environ
        found = self._look(parse_limit(environ.get("OOMGUARD_LIMIT"), environ.get("MEMORY_LIMIT_MB")))
        most = above.of(found.limit)
        if most is None:
            self._core.warn(
                "shed_above is a part of a limit that is not known: set OOMGUARD_LIMIT, or give a size"
            )
            return False
        if found.used is None:
            return False
        return found.used > (most * _BACK if self._high else most)

    def _arm(self, since: float) -> None:
        """Ask for requests from this time on."""
        self.armed = since != NEVER
        self._gate.want("shedding", since)
