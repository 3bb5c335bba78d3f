"""What comes to ``/admin``: an Alertmanager payload (version 4) or the short form, from body to receipt.

Pure but for the journal. A payload is a set of wishes that are looked at once: alerts that are resolved, silenced
or meant for another target are left out one by one, the rest follow the same rules as the sidecar's own.
"""

from __future__ import annotations

import calendar
import enum
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from oomguard.broker import Broker
from oomguard.counters import Counters
from oomguard.errors import OomguardError, UserError
from oomguard.journal import Journal
from oomguard.metrics import ADMIN_REQUESTS
from oomguard.model import Alert, Level
from oomguard.sizes import Threshold, parse_threshold
from oomguard.thresholds import Thresholds
from oomguard.wishes import CLEANUP_STEPS, UNLOAD_STEPS, Action, Declined, Wish, ordered, wish_of

EXAMPLE: Final = '{"steps": ["caches", "gc"], "goal": 0.7}, or an Alertmanager payload of version "4"'
_NAMED: Final = 10
"""Alert names of a payload that are journaled; a storm has a thousand of the same."""
_TIME: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")


class MalformedError(OomguardError):
    """A body that is neither a payload nor the short form."""


class Outcome(enum.Enum):
    """What became of a request (label ``outcome`` of `ADMIN_REQUESTS`)."""

    STARTED = "started"
    JOINED = "joined"
    """The run under way serves it."""
    NOT_NEEDED = "not_needed"
    """Memory is below the goal already."""
    HELD = "held"
    """What was learned from earlier runs holds it back."""
    NOTHING_ASKED = "nothing_asked"
    """No alert in it asks this target for anything now."""
    OFF = "off"
    """Automatic actions are turned off; a person's order would be followed."""
    MALFORMED = "malformed"
    UNAUTHORIZED = "unauthorized"
    NO_TARGET = "no_target"


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


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a request, once it is journaled."""

    id: int
    outcome: Outcome
    run: int | None
    used: int
    goal: int | None
    declined: Mapping[str, int] = field(default_factory=dict)
    """Number of alerts by why they were left out."""
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Body of the answer."""
        return {
            "id": self.id,
            "outcome": self.outcome.value,
            "run": self.run,
            "used": self.used,
            "goal": self.goal,
            "declined": dict(self.declined),
            "reason": self.reason,
        }


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
    named = ordered(steps) if steps else usual
    return Order(named, threshold, threshold is None and (bool(steps) or default is Action.UNLOAD))


def _payload(told: dict[str, Any]) -> Payload:
    version, alerts = told.get("version"), told.get("alerts")
    if version != "4":
        raise MalformedError(f'version is {_short(version)}; Alertmanager sends "4"')
    if not isinstance(alerts, list):
        raise MalformedError(f"alerts is {_short(alerts)}; Alertmanager sends a list")
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


class Inbox:
    """Takes parsed requests to the broker, and journals each with what became of it."""

    def __init__(
        self,
        broker: Broker,
        journal: Journal,
        counters: Counters,
        *,
        target: str,
        silenced: Callable[[Mapping[str, str]], bool],
    ) -> None:
        self._broker = broker
        self._journal = journal
        self._counters = counters
        self._target = target
        self._silenced = silenced
        for outcome in Outcome:
            counters.add(ADMIN_REQUESTS, outcome.value, by=0)

    def refused(self, outcome: Outcome) -> None:
        """Count a request that came to nothing before it was understood."""
        self._counters.add(ADMIN_REQUESTS, outcome.value)

    def take(
        self, request: Order | Payload, default: Action, level: Level, thresholds: Thresholds, *, act: bool
    ) -> Receipt:
        """Follow a request at this level; `act` False: automatic actions are off.

        Raises UserError for an alert that asks for a step, an action or a goal that there is not.
        """
        if isinstance(request, Order):
            receipt = self._person(request, level, thresholds)
            self._journaled(receipt, steps=list(request.steps))
        else:
            receipt = self._alerts(request, default, level, thresholds, act=act)
            names = list(dict.fromkeys(alert.name for alert in request.alerts))
            self._journaled(
                receipt, receiver=request.receiver, alerts=names[:_NAMED], count=len(request.alerts)
            )
        return receipt

    def _person(self, order: Order, level: Level, thresholds: Thresholds) -> Receipt:
        goal = order.goal.of(level.limit) if order.goal is not None else thresholds.goal
        joined = self._broker.active is not None
        run = self._broker.order("manual", order.steps, None if order.unconditional else goal, level)
        outcome = Outcome.JOINED if joined else Outcome.STARTED
        return Receipt(self._broker.take_id(), outcome, run.id, level.used, run.goal)

    def _alerts(
        self, payload: Payload, default: Action, level: Level, thresholds: Thresholds, *, act: bool
    ) -> Receipt:
        wishes: dict[Wish, None] = {}
        declined: dict[str, int] = {}
        for alert in payload.alerts:
            wish = wish_of(alert, self._target, default)
            if isinstance(wish, Wish) and self._silenced({"action": default.value, **alert.labels}):
                wish = Declined.SILENCED
            if isinstance(wish, Wish):
                wishes[wish] = None
            else:
                declined[wish.value] = declined.get(wish.value, 0) + 1
        outcome, run, reason = self._follow(tuple(wishes), level, thresholds, act=act)
        goal = self._broker.active.goal if run is not None and self._broker.active is not None else None
        return Receipt(self._broker.take_id(), outcome, run, level.used, goal, declined, reason)

    def _follow(
        self, wishes: Sequence[Wish], level: Level, thresholds: Thresholds, *, act: bool
    ) -> tuple[Outcome, int | None, str]:
        if not wishes:
            return Outcome.NOTHING_ASKED, None, ""
        if not act:
            return Outcome.OFF, None, "automatic actions are turned off (act: false, MEMORY_CLEANUP=0)"
        joined = self._broker.active is not None
        run = self._broker.consider(wishes, level, thresholds)
        if run is not None:
            return (Outcome.JOINED if joined else Outcome.STARTED), run.id, ""
        held = self._broker.held
        return (Outcome.NOT_NEEDED if held == "not_needed" else Outcome.HELD), None, held

    def _journaled(self, receipt: Receipt, **told: object) -> None:
        self._counters.add(ADMIN_REQUESTS, receipt.outcome.value)
        self._journal.write(
            "request",
            id=receipt.id,
            outcome=receipt.outcome.value,
            run=receipt.run,
            used=receipt.used,
            **told,
            declined=dict(receipt.declined),
            reason=receipt.reason,
        )
