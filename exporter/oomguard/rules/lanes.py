"""Which rules are worth evaluating at which tick: what changes only at slow ticks need not be read at fast ones."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Sequence

from oomguard.promql import Selector
from oomguard.promql.series import METRIC_NAME
from oomguard.rules.rule import RecordingRule, Rule


class Lane(enum.Enum):
    """How much is evaluated; each holds the one before it."""

    FAST = "fast"
    """Rules that read nothing but the present values of series that the fast lane refreshes."""
    LIVE = "live"
    """Rules that read a series of the fast lane in whatever way."""
    ALL = "all"


def lanes_of(rules: Sequence[Rule], fast: Collection[str]) -> list[Lane]:
    """The first lane that each rule runs in, `fast` being the names of the fast lane's metrics.

    What a recording rule makes of the fast lane's series counts as theirs.
    """
    fastest, live = set(fast), set(fast)
    while True:
        lanes = [_lane(rule, fastest, live) for rule in rules]
        made_fast = _made(rules, lanes, (Lane.FAST,)) - fastest
        made_live = _made(rules, lanes, (Lane.FAST, Lane.LIVE)) - live
        if not made_fast and not made_live:
            return lanes
        fastest |= made_fast
        live |= made_live


def _lane(rule: Rule, fast: Collection[str], live: Collection[str]) -> Lane:
    selectors = rule.expression.selectors
    if selectors and all(selector.instant and selector.name in fast for selector in selectors):
        return Lane.FAST
    return Lane.LIVE if any(may_read(selector, live) for selector in selectors) else Lane.ALL


def may_read(selector: Selector, names: Collection[str]) -> bool:
    """Whether a selector reads one of these metrics, be it by a pattern for names."""
    if selector.name is not None:
        return selector.name in names
    patterns = [matcher for matcher in selector.matchers if matcher.name == METRIC_NAME]
    return any(all(pattern.accepts(name) for pattern in patterns) for name in names)


def _made(rules: Iterable[Rule], lanes: Iterable[Lane], wanted: Collection[Lane]) -> set[str]:
    """Names that are recorded in these lanes, and by no rule outside of them."""
    inside: set[str] = set()
    outside: set[str] = set()
    for rule, lane in zip(rules, lanes, strict=True):
        if isinstance(rule, RecordingRule):
            (inside if lane in wanted else outside).add(rule.name)
    return inside - outside
