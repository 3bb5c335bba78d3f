"""Bodies that come to ``/admin``: an Alertmanager payload (version 4) or the short form. Pure."""

from __future__ import annotations

import calendar
import json
import re
from dataclasses import dataclass
from typing import Any, Final

from oomguard.actions.shed import ENDS
from oomguard.broker.wishes import CLEANUP_STEPS, UNLOAD_STEPS, Action, ordered
from oomguard.errors import OomguardError, UserError
from oomguard.model import Alert
from oomguard.sizes import Threshold, parse_threshold

EXAMPLE: Final = '{"steps": ["caches", "gc"], "goal": 0.7}, or an Alertmanager payload of version "4"'
MOST_ALERTS: Final = 10_000
"""A payload of Alertmanager has 5,000 in the 1 MiB that is read. Empty objects would be 350,000, and keep the fast lane
waiting for 2 s."""
_TIME: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")


class MalformedError(OomguardError):
    """A body that is neither a payload nor the short form."""


@dataclass(frozen=True, slots=True)
class Order:
    """The short form: what a person, or a script of theirs, asks for."""

    steps: tuple[str, ...]
    goal: Threshold | None
    unconditional: bool
    """Steps were named and no goal: they are taken at any level."""


@dataclass(frozen=True, slots=True)
class Payload:
    """An Alertmanager payload."""

    receiver: str
    alerts: tuple[Alert, ...]


def parse(body: bytes, default: Action) -> Order | Payload:
    """The meaning of a body; raises MalformedError, and UserError for steps and goals that there are not."""
    try:
        told = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise MalformedError(f"the body is not JSON; send for example {EXAMPLE}") from None
    if not isinstance(told, dict):
        raise MalformedError(f"the body is not an object; send for example {EXAMPLE}")
    return _payload(told) if "alerts" in told or "version" in told else _order(told, default)


def _order(told: dict[str, Any], default: Action) -> Order:
    if told and not told.keys() & {"steps", "goal"}:
        raise MalformedError(f"the body names neither steps nor goal; send for example {EXAMPLE}")
    steps, goal = told.get("steps"), told.get("goal")
    if steps is not None and not (isinstance(steps, list) and all(isinstance(step, str) for step in steps)):
        raise MalformedError(f"steps is {_short(steps)}; send a list of names, for example {EXAMPLE}")
    if isinstance(goal, bool) or not isinstance(goal, int | float | str | None):
        raise MalformedError(f"goal is {_short(goal)}; send a ratio, a percentage or a size")
    try:
        threshold = parse_threshold(goal) if goal is not None else None
    except ValueError as error:
        raise UserError(f"goal: {error}") from None
    usual = UNLOAD_STEPS if default is Action.UNLOAD else CLEANUP_STEPS
    named = ordered(steps, also=(ENDS,)) if steps else usual
    return Order(named, threshold, threshold is None and (bool(steps) or default is Action.UNLOAD))


def _payload(told: dict[str, Any]) -> Payload:
    version, alerts = told.get("version"), told.get("alerts")
    if version != "4":
        raise MalformedError(f'version is {_short(version)}; Alertmanager sends "4"')
    if not isinstance(alerts, list):
        raise MalformedError(f"alerts is {_short(alerts)}; Alertmanager sends a list")
    if len(alerts) > MOST_ALERTS:
        raise MalformedError(f"alerts holds {len(alerts)}; at most {MOST_ALERTS} are read: set max_alerts")
    receiver = told.get("receiver")
    return Payload(
        receiver[:100] if isinstance(receiver, str) else "",
        tuple(_alert(alert, index) for index, alert in enumerate(alerts)),
    )


def _alert(told: Any, index: int) -> Alert:
    place = f"alerts[{index}]"
    if not isinstance(told, dict):
        raise MalformedError(f"{place} is {_short(told)}; Alertmanager sends an object")
    status = told.get("status", "firing")
    if status not in ("firing", "resolved"):
        raise MalformedError(f"{place}.status is {_short(status)}; it is firing or resolved")
    starts_at = _time(told.get("startsAt"), f"{place}.startsAt") or 0.0
    ends_at = _time(told.get("endsAt"), f"{place}.endsAt") or starts_at
    generator = told.get("generatorURL")
    return Alert(
        labels=_texts(told.get("labels"), f"{place}.labels"),
        annotations=_texts(told.get("annotations"), f"{place}.annotations"),
        starts_at=starts_at,
        ends_at=ends_at if status == "resolved" else None,
        generator_url=generator if isinstance(generator, str) else "",
    )


def _texts(told: Any, place: str) -> dict[str, str]:
    if told is None:
        return {}
    if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
        raise MalformedError(f"{place} is {_short(told)}; Alertmanager sends an object of strings")
    return told


def _time(told: Any, place: str) -> float | None:
    """Unix seconds of a time as RFC 3339 has it; None where there is none."""
    if told is None or told == "":
        return None
    match = _TIME.fullmatch(told) if isinstance(told, str) else None
    try:
        if match is not None:
            return _seconds(match)
    except ValueError:  # a month 13
        pass
    raise MalformedError(f"{place} is {_short(told)}; Alertmanager sends for example 2026-01-31T12:00:00.5Z")


def _seconds(match: re.Match[str]) -> float:
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    zone = match[8]
    offset = (
        0 if zone == "Z" else (1 if zone[0] == "+" else -1) * (int(zone[1:3]) * 3600 + int(zone[4:6]) * 60)
    )
    seconds = calendar.timegm((year, month, day, hour, minute, second)) - offset
    return seconds + float(match[7] or 0)


def _short(value: Any) -> str:
    text = (
        json.dumps(value, default=str) if not isinstance(value, dict | list) else f"a {type(value).__name__}"
    )
    return text if len(text) <= 60 else text[:57] + "…"  # noqa: PLR2004 - a line's worth
