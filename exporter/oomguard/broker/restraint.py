"""What holds a run back: what was learned from the last one. Pure state, no clock, no I/O.

See docs/decisions/0003-restraint-follows-the-level.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from oomguard.actions.ladder import Run
from oomguard.actions.step import Step, noise, split, uncovered
from oomguard.model import Level, RunOutcome, StepOutcome, StepReport

RISE: Final = 0.05
"""Part of the limit by which memory must exceed what a run (or a step) left before it is tried again."""
_IN_VAIN: Final = (RunOutcome.GOAL_NOT_REACHED, RunOutcome.DRY_RUN)
FIRST_BACKOFF: Final = 1.0
LAST_BACKOFF: Final = 60.0


@dataclass(frozen=True, slots=True)
class Cooldown:
    """A step that was ineffective, when and where."""

    until: float
    used: int


def risen(used: int, limit: int) -> int:
    """Bytes at which memory is at another level than at `used`: more by `RISE` of the limit.

    Below the limit halfway to it is enough, for the whole of it may never come; at or above it (a limit of
    the user's own, where nothing kills) half of what is left would be nothing.
    """
    rise = int(RISE * limit)
    if used < limit:
        rise = max(noise(limit), min(rise, (limit - used) // 2))
    return used + rise


class Restraint:
    """What earlier runs taught: pure state, no clock, no I/O.

    A run that missed its goal and freed less than `RISE` of the limit leaves a floor, and an exponential back-off. No
    further run starts until memory has `risen` from the floor; the back-off is waived at a
    critical level: what can be tried in the last tenth is tried. A run that freed something, even if malloc kept it,
    may repeat at once: the application is filling what was emptied, and would go on beyond it.
    """

    def __init__(
        self, *, floor: int | None = None, failures: int = 0, tried: frozenset[str] = frozenset()
    ) -> None:
        self.floor = floor
        self.failures = failures
        self.not_before = 0.0
        self._tried = tried
        self._cooldowns: dict[str, Cooldown] = {}

    def holds(self, steps: frozenset[str], level: Level, critical: int) -> str:
        """Why no run may start at this level, or an empty string."""
        if self.floor is None or uncovered(steps, self._tried):
            return ""
        if level.used < self.next_level(level.limit):
            return "floor"
        if level.at < self.not_before and level.used < critical:
            return "backoff"
        return ""

    def next_level(self, limit: int) -> int:
        """Bytes from which on a run may start again."""
        return risen(self.floor or 0, limit)

    def holds_step(self, turn: str, level: Level) -> bool:
        """Whether a turn is in its cooldown: it, or all of its step, proved ineffective lately, at about this level."""
        cooldowns = (self._cooldowns.get(name) for name in (turn, split(turn)[0]))
        return any(
            cooldown is not None
            and level.at < cooldown.until
            and level.used < risen(cooldown.used, level.limit)
            for cooldown in cooldowns
        )

    def step_ended(self, step: Step, report: StepReport, level: Level) -> None:
        """Learn from one step."""
        if report.outcome in (StepOutcome.INEFFECTIVE, StepOutcome.INCONCLUSIVE, StepOutcome.FAILED):
            self._cooldowns[report.step] = Cooldown(level.at + step.cooldown, report.used_before)
        elif report.outcome in (StepOutcome.EFFECTIVE, StepOutcome.RETAINED):
            self._cooldowns.pop(report.step, None)

    def run_ended(self, run: Run, outcome: RunOutcome, level: Level) -> None:
        """Learn from a whole run."""
        if outcome is RunOutcome.GOAL_REACHED:
            self.relax()
        elif outcome in _IN_VAIN and run.freed < RISE * level.limit:
            self.floor = level.used
            self._tried = run.steps
            self.not_before = level.at + min(LAST_BACKOFF, FIRST_BACKOFF * 2 ** min(self.failures, 10))
            self.failures += 1

    def fell(self, used: int) -> None:
        """Memory fell by itself: what it climbs back with is not what was tried in vain."""
        if self.floor is not None:
            self.floor = min(self.floor, used)

    def forget(self) -> None:
        """The situation is a new one: there is something to free that was not there."""
        self.relax()
        self._cooldowns.clear()

    def relax(self) -> None:
        """Memory is below the goal: nothing that was learned holds any more."""
        self.floor = None
        self.failures = 0
        self.not_before = 0.0
