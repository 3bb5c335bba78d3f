"""Alerts and rules in the forms of Prometheus' HTTP API (web/api/v1/api.go)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from oomguard.routes.payload import rfc3339
from oomguard.rules.alerts import ActiveAlert, AlertState
from oomguard.rules.rule import AlertRule, Group
from oomguard.rules.running import RunningRule


def alert_json(alert: ActiveAlert) -> dict[str, Any]:
    """One of /api/v1/alerts."""
    return {
        "labels": dict(alert.labels),
        "annotations": dict(alert.annotations),
        "state": alert.state.value,
        "activeAt": rfc3339(alert.active_at / 1000),
        "value": _scientific(alert.value),
    }


def _scientific(value: float) -> str:
    """The shortest text with an exponent that reads as this value (Go's strconv.FormatFloat, 'e', -1)."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
    digits = repr(abs(value)).partition("e")[0].replace(".", "").strip("0")
    return f"{value:.{max(len(digits) - 1, 0)}e}"


def groups_json(rules: Sequence[RunningRule]) -> list[dict[str, Any]]:
    """The groups of /api/v1/rules."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for running in rules:
        group: Group = running.group
        told = groups.setdefault(
            (group.file, group.name),
            {"name": group.name, "file": group.file, "interval": (group.interval or 0) / 1000, "rules": []},
        )
        told["rules"].append(_rule(running))
    return list(groups.values())


def _rule(running: RunningRule) -> dict[str, Any]:
    rule = running.rule
    told: dict[str, Any] = {
        "name": rule.name,
        "query": rule.expression.text,
        "health": running.health.value,
        "lastError": running.last_error,
        "lane": running.lane.value,
    }
    if running.last_evaluation is not None:
        told["lastEvaluation"] = rfc3339(running.last_evaluation / 1000)
    if isinstance(rule, AlertRule) and running.alerts is not None:
        alerts = [alert for alert in running.alerts.all() if alert.state is not AlertState.INACTIVE]
        states = {alert.state for alert in alerts}
        state = next((state for state in (AlertState.FIRING, AlertState.PENDING) if state in states), None)
        told |= {
            "type": "alerting",
            "state": state.value if state else AlertState.INACTIVE.value,
            "duration": rule.hold / 1000,
            "keepFiringFor": rule.keep_firing / 1000,
            "labels": {name: template.text for name, template in rule.labels},
            "annotations": {name: template.text for name, template in rule.annotations},
            "alerts": [alert_json(alert) for alert in alerts],
        }
    else:
        told |= {"type": "recording", "labels": {}}
    return told
