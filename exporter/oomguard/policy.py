"""The first policy: which alerts fire at a level, and what they ask for. Pure functions.

A decision is a function of the level, the settings and how late the sampler's ticks come. An alert
fires exactly while memory stands at or above its threshold; what happens then is the broker's.
"""

from __future__ import annotations

from dataclasses import dataclass

from oomguard.config import Settings
from oomguard.model import Level
from oomguard.sizes import Threshold

HIGH_STEPS = ("caches", "gc", "trim")


@dataclass(frozen=True, slots=True)
class Rule:
    """An alert that asks for action: where it fires, which steps it wishes for."""

    alertname: str
    severity: str
    threshold: Threshold
    steps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """What asks for a cleanup: an alert that fires, or a person."""

    alertname: str
    steps: tuple[str, ...]
    goal: int
    """Bytes of used memory at which there is nothing left to wish for."""
    threshold: int
    """Bytes at which it began to wish: the rule's threshold, lowered as `lowered` says."""


def rules(settings: Settings, all_steps: tuple[str, ...]) -> tuple[Rule, ...]:
    """The rules of these settings; `all_steps` is every step there is (never ``restart``)."""
    return (
        Rule("MemoryHigh", "warning", settings.high, HIGH_STEPS),
        Rule("MemoryCritical", "critical", settings.critical, all_steps),
    )


def lowered(threshold: int, goal: int, rate: float, lateness: float) -> int:
    """The threshold less what memory can grow by before a late tick sees it; never below halfway to the goal.

    `rate` is bytes per second, `lateness` seconds. The floor keeps a badly throttled sidecar from
    cleaning up at every tick of a normal climb.
    """
    return max((threshold + goal) // 2, threshold - int(max(0.0, rate) * lateness))


def firing(level: Level, ruleset: tuple[Rule, ...], goal: int, lateness: float) -> dict[Rule, int]:
    """The rules that fire at this level, with the lowered threshold that each has passed."""
    thresholds = {
        rule: lowered(rule.threshold.of(level.limit), goal, level.rate, lateness) for rule in ruleset
    }
    return {rule: threshold for rule, threshold in thresholds.items() if level.used >= threshold}
