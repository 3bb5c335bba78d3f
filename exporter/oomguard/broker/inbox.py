"""What comes to ``/admin``, from request to receipt.

A payload is a set of wishes that are looked at once: alerts that are resolved, silenced or meant for another
target are left out one by one, the rest follow the same rules as the sidecar's own.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from oomguard.broker import Broker
from oomguard.broker.requests import Order, Payload
from oomguard.broker.wishes import LONGEST_NAME, Action, Declined, Wish, asks_to_shed, wish_of
from oomguard.counters import Counters
from oomguard.journal import Journal
from oomguard.metrics import ADMIN_REQUESTS
from oomguard.model import Alert, Level
from oomguard.thresholds import Thresholds

_NAMED: Final = 10
"""Alert names of a payload that are journaled; a storm has a thousand of the same."""


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
            names = list(dict.fromkeys(alert.name[:LONGEST_NAME] for alert in request.alerts))
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
            if isinstance(wish, Wish) and self._silenced(
                {**alert.labels, "action": alert.labels.get("action") or default.value}
            ):
                wish = Declined.SILENCED
            if wish is not Declined.OTHER_TARGET and asks_to_shed(alert, default):
                self._shed(alert, level, wanted=isinstance(wish, Wish) and act)
            if isinstance(wish, Wish):
                wishes[wish] = None
            else:
                declined[wish.value] = declined.get(wish.value, 0) + 1
        outcome, run, reason = self._follow(tuple(wishes), level, thresholds, act=act)
        goal = self._broker.active.goal if run is not None and self._broker.active is not None else None
        return Receipt(self._broker.take_id(), outcome, run, level.used, goal, declined, reason)

    def _shed(self, alert: Alert, level: Level, *, wanted: bool) -> None:
        if wanted:
            self._broker.shedding.asked(alert.fingerprint, level.at)
        else:
            self._broker.shedding.resolved(alert.fingerprint)

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
