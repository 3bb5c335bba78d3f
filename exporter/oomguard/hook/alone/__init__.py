"""The guard alone: the ladder, climbed by the hook itself where no sidecar watches.

The thresholds are the sidecar's: from `high` on caches, gc and trim, from `critical` on every step there is but
restart, until memory is below the goal. Memory is measured again after each step.
"""

from __future__ import annotations

from time import monotonic

from oomguard.hook import unpatched
from oomguard.hook.alone.restraint import RISE, Restraint, noise
from oomguard.hook.alone.thresholds import Thresholds, machine, turned_off
from oomguard.hook.gauge import Gauge
from oomguard.hook.telling import megabytes, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from oomguard.hook.parts import Core

    Take = Callable[[str, str | None, float], dict[str, object]]
    """Takes a step: its name, what restricts it, and how many seconds it may be expected to take."""

QUIET = 10.0
"""Seconds without a question of the sidecar's after which it is taken for gone. It asks about once a second."""
_GRACE = 1.0
"""Seconds that it has to ask after a pause of ours, once."""
_FIND = 60.0
"""Seconds between two looks at where our cgroup is, and at the environment."""
_FASTEST = 0.010
_SLOWEST = 1.0
_FILL = 4e9
"""Bytes per second at which memory fills at most: page faults and the kernel's zeroing, twice what one thread reaches
here."""
_NEAR = 0.020
_BURST = 0.040
"""Seconds. Where the next look is `_NEAR`, the chore stays for so long: between two chores the hook's thread gives
the interpreter up several times, and beside a thread that computes waits 5 ms each time to have it back."""
_UNREADABLE = 0.1
"""Seconds until the next look after one that failed."""
_TOLD = 10.0
"""Seconds between two lines about runs."""
_FIRST_STEPS = ("caches", "gc", "trim")
_LAST_STEPS = ("streams", "models", "gc", "trim", "shed")


class Alone:
    """A chore and a part. `take` takes a step. `autonomous`: on from the start, unless a sidecar asks."""

    def __init__(
        self,
        core: Core,
        take: Take,
        *,
        autonomous: bool = False,
        gauge: Callable[[], Gauge] = Gauge,
        clock: Callable[[], float] = monotonic,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._core = core
        self._take = take
        self._autonomous = autonomous
        self._make_gauge = gauge
        self._clock = clock
        self._sleep = _sleep if sleep is None else sleep
        self._gauge = gauge()
        self._announced = False
        self._told: dict[str, object] | None = None
        self.forked()
        core.chores.add(self.run)

    def forked(self) -> None:
        """Begin anew in a forked child: it has a sidecar to wait for, and files of its own."""
        self._gauge.close()
        self._gauge = self._make_gauge()
        self._asked_at = float("-inf") if self._autonomous else self._clock()
        self._graced = float("-inf")
        self._due: float | None = None
        self._on = False
        self._reason = ""
        self._runs = 0
        self._freed = 0
        self._found_at = float("-inf")
        self._told_at = float("-inf")
        self._restraint = Restraint()
        self._levels = Thresholds(self._core, self._told)
        self._last: tuple[float, int] | None = None
        self._little = 0
        """Bytes of usage below which nothing depends on how much of it is file cache: the goal."""

    def note_read(self, told: object = None) -> None:
        """A sidecar asks for a reading: it guards. `told` is what it says of its thresholds."""
        self._asked_at = self._clock()
        if isinstance(told, dict) and told != self._told:
            self._told = told
            self._levels = Thresholds(self._core, told)
        if self._on:
            self._stand_down("a sidecar reads")

    def reading(self) -> dict[str, object]:
        """Tell whether it is `on` and the `reason`, the number of `runs`, and the bytes they `freed`."""
        return {"on": self._on, "reason": self._reason, "runs": self._runs, "freed": self._freed}

    def run(self, now: float) -> float:
        """Look, and act if it must be; seconds until the next look."""
        if self._due is not None and now - self._due > _GRACE and self._asked_at != self._graced:
            # The process was stopped, or a callback of the application's hung: the sidecar could not ask either.
            self._asked_at = self._graced = max(self._asked_at, now - QUIET + _GRACE)
        until = now + _BURST
        pause = self._looked(now)
        while self._on and pause <= _NEAR and self._clock() + pause < until:
            self._sleep(pause)
            now = self._clock()
            pause = self._looked(now)
        self._due = now + pause
        return pause

    def _looked(self, now: float) -> float:
        try:
            return self._tick(now)
        except Exception:  # noqa: BLE001 (MemoryError is not unlikely: the box may be full)
            return _UNREADABLE

    def _tick(self, now: float) -> float:
        left = QUIET - (now - self._asked_at)
        if left > 0:
            if self._on:
                self._stand_down("a sidecar reads")
            return left
        if now - self._found_at >= _FIND:
            off = turned_off(self._core.environ, self._told)
            if off:
                self._stand_down(off)
                return QUIET
            self._found_at = now
            self._gauge.find()
            self._levels = Thresholds(self._core, self._told)
        if not self._on:
            self._take_over()
        return self._guard(now)

    def _take_over(self) -> None:
        self._on = True
        if self._asked_at == float("-inf"):
            self._reason, level = "autonomous", "info"
            if self._announced:
                return  # by the process that this one was forked from
        else:
            self._reason, level = f"no sidecar has asked for {QUIET:g} s", "warning"
        self._announced = True
        tell(level, f"guarding memory alone: {self._reason}", ours=True)

    def _stand_down(self, reason: str) -> None:
        if self._on:
            tell("info", f"guarding memory no longer: {reason}", ours=True)
        self._on, self._reason = False, reason
        self._gauge.close()
        self._found_at = float("-inf")
        self._restraint = Restraint()
        self._last = None

    def _guard(self, now: float) -> float:
        used, limit = self._look()
        if used is None or limit is None:
            return _SLOWEST
        high, critical, goal = self._levels.of(limit)
        if used <= goal:
            self._restraint.relax()
        self._restraint.fell(used)
        if used >= high and not self._restraint.holds(now, used, limit, critical):
            used = self._climb(now, used, limit)
        self._last = (self._clock(), used)
        self._little = goal
        marks = [high, critical, limit, self._restraint.next_level(limit)]
        way = min([mark - used for mark in marks if mark > used], default=0)
        # A threshold may be passed unseen as long as half of the way to the limit is left.
        return min(_SLOWEST, max(_FASTEST, way / _FILL, (limit - used) / 2 / _FILL))

    def _look(self) -> tuple[int | None, int | None]:
        used, limit = self._gauge.look(self._little)
        if limit is None and self._gauge.in_cgroup:
            self._found_at = float("-inf")  # it has gone, or its limit has: look anew
        own = self._levels.own_limit
        limits = [size for size in (limit, own) if size is not None]
        return used, min(limits) if limits else machine()

    # -- a run

    def _climb(self, now: float, first: int, limit: int) -> int:
        """Take steps until memory is below the goal; what is used then."""
        _, critical, goal = self._levels.of(limit)
        rate = self._rate(now, first)
        used, taken = first, []
        steps, later = list(_FIRST_STEPS), list(_LAST_STEPS)
        while used > goal:
            if not steps and used >= critical:
                steps, later = later, []
            if not steps:
                break
            step = steps.pop(0)
            within = max(0, limit - used) / rate if rate > 0 else float("inf")
            answer = self._take(step, None, within)
            if answer["status"] == "done":
                taken.append(step)
            elif step == "models":
                steps = ["shed"]  # nothing was unloaded that a second collection could find
            kept = answer.get("freed_in_allocator")
            if isinstance(kept, int) and kept >= noise(limit) and "trim" in steps:
                # At once: the application refills what malloc kept at the speed of memcpy.
                steps.remove("trim")
                steps.insert(0, "trim")
            after, _ = self._look()
            if after is None:
                break
            used = after
        self._runs += 1
        self._freed += max(0, first - used)
        ended = self._clock()
        if used <= goal:
            self._restraint.relax()
        elif first - used < RISE * limit:
            self._restraint.in_vain(ended, ended - now, used)
        self._report(now, first, used, limit, taken)
        return used

    def _rate(self, now: float, used: int) -> float:
        """Bytes per second since the last look; 0 where that is not known."""
        if self._last is None or now <= self._last[0]:
            return 0.0
        return (used - self._last[1]) / (now - self._last[0])

    def _report(self, now: float, first: int, used: int, limit: int, taken: list[str]) -> None:
        if now - self._told_at < _TOLD:
            return
        self._told_at = now
        share = f"{100 * first / limit:.0f} % of {megabytes(limit)} used"
        steps = ", ".join(taken) or "no step could be taken"
        tell("warning", f"{share}: {steps}; now {100 * used / limit:.0f} % (run {self._runs})", ours=True)


def _sleep(seconds: float) -> None:
    unpatched.poll().poll(seconds * 1000)
