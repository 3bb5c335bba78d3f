"""The state of alerts as JSON-able data, so that it survives a restart of the sidecar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from oomguard.model import Alert
from oomguard.rules.alerts import ActiveAlert, AlertState
from oomguard.rules.goformat import general
from oomguard.rules.rule import AlertRule

VERSION: Final = 1
_MOMENTS: Final = ("active_at", "fired_at", "resolved_at", "keep_firing_since")


@dataclass(frozen=True, slots=True)
class SavedRule:
    """A rule of the saved state."""

    identity: tuple[str, ...]
    expression: str
    alerts: Sequence[Any]
    """Of `dump_alert`."""


def dump_alert(alert: ActiveAlert) -> dict[str, Any]:
    """One alert; its annotations are read only if its rule is gone when it is loaded."""
    return {
        "state": alert.state.value,
        "labels": dict(alert.labels),
        "source": dict(alert.source),
        "annotations": dict(alert.annotations),
        "value": general(alert.value),
        **{name: getattr(alert, name) for name in _MOMENTS},
    }


def load_alert(data: Any, rule: AlertRule, elapsed: int) -> ActiveAlert:
    """The alert of `dump_alert`, `elapsed` milliseconds later; ValueError where the data is not what it wrote.

    Time in which nobody looked does not count as pending (rules/group.go, RestoreForState). Where the clock was
    set back meanwhile, `elapsed` is negative, and all times go back with it.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"a saved alert must be an object, not {data!r}")  # noqa: TRY004 - it is data
    moments = {name: data.get(name) for name in _MOMENTS}
    if not all(moment is None or type(moment) is int for moment in moments.values()):
        raise ValueError(f"a saved alert's times must be whole milliseconds: {moments}")
    if moments["active_at"] is None:
        raise ValueError("a saved alert lacks active_at")
    alert = ActiveAlert(
        rule=rule,
        labels=_labels(data.get("labels")),
        source=_labels(data.get("source")),
        value=float(str(data.get("value"))),
        active_at=moments["active_at"],
        state=AlertState(data.get("state")),
        fired_at=moments["fired_at"],
        resolved_at=moments["resolved_at"],
        keep_firing_since=moments["keep_firing_since"],
    )
    if elapsed < 0:
        for name in _MOMENTS:
            if (moment := moments[name]) is not None:
                setattr(alert, name, moment + elapsed)
    elif alert.state is AlertState.PENDING:
        alert.active_at += elapsed
    return alert


def ended_alert(data: Any, generator_url: str, time: int) -> Alert | None:
    """A saved alert whose rule is gone, as resolved at Unix milliseconds `time`; None unless it was firing."""
    if not isinstance(data, Mapping) or data.get("state") != AlertState.FIRING.value:
        return None
    fired_at = data.get("fired_at")
    return Alert(
        labels=_labels(data.get("labels")),
        annotations=_labels(data.get("annotations")),
        starts_at=(fired_at if type(fired_at) is int else time) / 1000,
        ends_at=time / 1000,
        generator_url=generator_url,
    )


def saved_rules(data: Any) -> tuple[int, Sequence[SavedRule]]:
    """When it was saved, and the alerts of each rule under its identity; ValueError where the data is another's."""
    if not isinstance(data, Mapping) or data.get("version") != VERSION:
        raise ValueError(f"the saved state of alerts is not of version {VERSION}")
    rules, time = data.get("rules"), data.get("time")
    if type(time) is not int or not isinstance(rules, list):
        raise ValueError("the saved state of alerts lacks its time or its rules")
    found = []
    for rule in rules:
        if not isinstance(rule, Mapping):
            raise ValueError(f"a saved rule must be an object, not {rule!r}")  # noqa: TRY004 - it is data
        identity, alerts = rule.get("rule"), rule.get("alerts")
        if not isinstance(identity, list) or not isinstance(alerts, list):
            raise ValueError("a saved rule lacks its identity or its alerts")  # noqa: TRY004
        found.append(SavedRule(tuple(map(str, identity)), str(rule.get("expr", "")), alerts))
    return time, found


def _labels(data: Any) -> dict[str, str]:
    if not isinstance(data, Mapping) or not all(
        isinstance(part, str) for pair in data.items() for part in pair
    ):
        raise ValueError(f"labels must be texts: {data!r}")
    return dict(data)
