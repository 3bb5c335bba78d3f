"""The thresholds in force at this moment: what the settings say, brought nearer by growth and lateness. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from oomguard.config import Settings
from oomguard.model import Level


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Bytes of used memory."""

    high: int
    critical: int
    goal: int


def configured(settings: Settings, limit: int) -> Thresholds:
    """As the settings have them, at this limit."""
    return Thresholds(**settings.thresholds(limit))


def lowered(threshold: int, goal: int, rate: float, lateness: float) -> int:
    """The threshold less what memory can grow by before a late tick sees it; never below halfway to the goal.

    `rate` is bytes per second, `lateness` seconds. The floor keeps a badly throttled sidecar from
    cleaning up at every tick of a normal climb.
    """
    return max((threshold + goal) // 2, threshold - int(max(0.0, rate) * lateness))


def in_force(thresholds: Thresholds, level: Level, lateness: float) -> Thresholds:
    """The thresholds that hold now; `lateness` is how late the sampler's ticks come, in seconds."""
    goal = thresholds.goal
    if level.rate <= 0 or lateness <= 0:
        return thresholds
    return Thresholds(
        lowered(thresholds.high, goal, level.rate, lateness),
        lowered(thresholds.critical, goal, level.rate, lateness),
        goal,
    )
