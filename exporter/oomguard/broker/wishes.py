"""From an alert to a wish: what its labels ask for. Pure; the same for alerts of both engines.

Labels that count: ``action`` (``cleanup``, ``unload``, ``restart`` or ``notify``), ``steps`` (names separated by
commas, ``caches:NAME`` and ``models:NAME`` for one of them, or ``all``), ``goal`` (a ratio, a percentage or a size;
default: the goal in force), ``target``, and ``model`` of an alert that asks to unload.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from oomguard.actions import NAMED, STEP_NAMES, in_order
from oomguard.actions.step import split
from oomguard.errors import UserError
from oomguard.model import Alert
from oomguard.sizes import Threshold, parse_threshold

CLEANUP_STEPS: Final = ("caches", "gc", "trim")
UNLOAD_STEPS: Final = ("models",)
ALL_STEPS: Final = "all"
LONGEST_NAME: Final = 100
"""Characters of an alert's name that are kept: anybody may send a payload, and the journal is to stay readable."""


class Action(enum.Enum):
    """What an alert asks for."""

    CLEANUP = "cleanup"
    UNLOAD = "unload"
    RESTART = "restart"
    NOTIFY = "notify"


class Declined(enum.Enum):
    """Why an alert asks for nothing here."""

    RESOLVED = "resolved"
    OTHER_TARGET = "other_target"
    NOTIFY = "notify"
    SILENCED = "silenced"
    NOT_ALLOWED = "not_allowed"
    """A restart is never taken because of an alert alone."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What asks for a run of the ladder."""

    alertname: str
    steps: tuple[str, ...]
    goal: Threshold | None = None
    """Where there is nothing left to wish for; None: the goal in force."""
    instant: bool = True
    """What it rests on is read at every fast tick. If not, it is followed once after each slow reading: what was seen
    seconds ago may have been dealt with since."""


def wish_of(alert: Alert, target: str, default: Action = Action.CLEANUP) -> Wish | Declined:
    """What an alert asks of this target; `default` is the action of one that names none.

    Raises UserError for an action, a step or a goal that there is not.
    """
    labels = alert.labels
    if labels.get("target", target) != target:
        return Declined.OTHER_TARGET
    action, steps, goal = read_labels(labels, default)
    if alert.ends_at is not None:
        return Declined.RESOLVED
    if action is Action.NOTIFY:
        return Declined.NOTIFY
    if action is Action.RESTART:
        return Declined.NOT_ALLOWED
    return Wish(alert.name[:LONGEST_NAME] or "unnamed", _restricted(steps, action, labels), goal)


def asks_to_shed(alert: Alert, default: Action = Action.CLEANUP) -> bool:
    """Whether ``shed`` is among the steps of an alert, resolved or not; raises UserError as `wish_of`."""
    action, steps, _ = read_labels(alert.labels, default)
    return action is Action.CLEANUP and "shed" in steps


def _restricted(steps: tuple[str, ...], action: Action, labels: Mapping[str, str]) -> tuple[str, ...]:
    """Steps of an alert; one that asks to unload and is about one model asks for that model alone."""
    model = labels.get("model", "")
    if action is Action.UNLOAD and steps == UNLOAD_STEPS and 0 < len(model) <= LONGEST_NAME:
        return (f"models:{model}",)
    return steps


def read_labels(
    labels: Mapping[str, str], default: Action
) -> tuple[Action, tuple[str, ...], Threshold | None]:
    """Action, steps and goal of labels; raises UserError for what there is not."""
    name = labels.get("action") or default.value
    try:
        action = Action(name)
    except ValueError:
        known = ", ".join(action.value for action in Action)
        raise UserError(f"unknown action {name!r}; the actions are {known}") from None
    steps = parse_steps(labels["steps"]) if labels.get("steps") else ()
    try:
        goal = parse_threshold(labels["goal"]) if labels.get("goal") else None
    except ValueError as error:
        raise UserError(f"goal: {error}") from None
    return action, steps or (UNLOAD_STEPS if action is Action.UNLOAD else CLEANUP_STEPS), goal


def parse_steps(text: str) -> tuple[str, ...]:
    """Turns in the order of the ladder; raises UserError for an unknown one."""
    names = [name for name in text.replace(",", " ").split() if name]
    return STEP_NAMES if names == [ALL_STEPS] else ordered(names)


def ordered(names: list[str], *, also: tuple[str, ...] = ()) -> tuple[str, ...]:
    """These turns in the order of the ladder; raises UserError for an unknown one.

    `also` are turns that nobody but a person may ask for.
    """
    for turn in names:
        step, name = split(turn)
        if turn in also:
            continue
        if step not in STEP_NAMES:
            raise UserError(f"unknown step {step[:40]!r}; the steps are {', '.join(STEP_NAMES)}")
        if name is not None and (step not in NAMED or not 0 < len(name) <= LONGEST_NAME):
            example = ", ".join((*(f"{kind}:NAME" for kind in NAMED), *also))
            raise UserError(f"unknown step {turn[:40]!r}; only {example} are restricted to one by its name")
    return in_order(names)
