"""Inhibition: alerts that are muted while others fire (Alertmanager, inhibit/inhibit.go)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from oomguard.routes.matchers import Matchers, matches


@dataclass(frozen=True, slots=True)
class InhibitRule:
    """While a source fires, targets with equal values of some labels are muted."""

    source: Matchers
    target: Matchers
    equal: tuple[str, ...] = ()

    def values(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """What must be equal; a label that is not there counts as empty."""
        return tuple(labels.get(name, "") for name in self.equal)


class Inhibitor:
    """What the firing alerts inhibit."""

    def __init__(self, rules: Iterable[InhibitRule]) -> None:
        self._sources: list[tuple[InhibitRule, dict[tuple[str, ...], bool]]] = [(rule, {}) for rule in rules]

    def look(self, firing: Iterable[Mapping[str, str]]) -> None:
        """Take note of the labels of all alerts that fire now, muted ones too."""
        if not self._sources:
            return
        alerts = list(firing)
        for rule, sources in self._sources:
            sources.clear()
            for labels in alerts:
                if matches(rule.source, labels):
                    key = rule.values(labels)
                    # Whether one of them is no target itself: only such a one mutes what matches both sides.
                    sources[key] = sources.get(key, False) or not matches(rule.target, labels)

    def inhibits(self, labels: Mapping[str, str]) -> bool:
        """Whether an alert with these labels is muted."""
        for rule, sources in self._sources:
            one_sided = sources.get(rule.values(labels))
            if one_sided is None or not matches(rule.target, labels):
                continue
            if one_sided or not matches(rule.source, labels):
                return True
        return False
