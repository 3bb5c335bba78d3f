"""What a rule file holds, ready to be evaluated. Durations and times are milliseconds, as in promql."""

from __future__ import annotations

from dataclasses import dataclass, field

from oomguard.promql import Expression
from oomguard.rules.template import Template


@dataclass(frozen=True, slots=True)
class AlertRule:
    """An alerting rule; Prometheus' documentation, Alerting rules."""

    name: str
    expression: Expression
    hold: int = 0
    """``for``: how long a condition must last before the alert fires."""
    keep_firing: int = 0
    """``keep_firing_for``: how long an alert fires on without its condition."""
    labels: tuple[tuple[str, Template], ...] = ()
    annotations: tuple[tuple[str, Template], ...] = ()
    where: str = field(default="", compare=False)
    """``file:line``."""

    @property
    def identity(self) -> tuple[str, ...]:
        """What makes it the same rule after a reload or a restart: name and labels (rules/group.go, nameAndLabels)."""
        return (
            "alert",
            self.name,
            *(part for name, template in self.labels for part in (name, template.text)),
        )


@dataclass(frozen=True, slots=True)
class RecordingRule:
    """A rule that writes what its expression gives as a new series."""

    name: str
    expression: Expression
    labels: tuple[tuple[str, str], ...] = ()
    where: str = field(default="", compare=False)

    @property
    def identity(self) -> tuple[str, ...]:
        """As of `AlertRule`."""
        return ("record", self.name, *(part for pair in self.labels for part in pair))


Rule = AlertRule | RecordingRule


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated one after the other."""

    name: str
    file: str
    rules: tuple[Rule, ...]
    interval: int | None = None
    """None: the engine's own."""
    limit: int = 0
    """The most alerts or series that one of its rules may make; 0: any number."""
