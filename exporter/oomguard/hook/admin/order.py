"""What a body asks for: an Alertmanager webhook payload of version 4, or ``{"steps": […], "goal": …}``.

The payload's fields are those of Alertmanager's documentation ("webhook_config") and of its
notify/webhook/webhook.go; unknown ones are accepted.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, NamedTuple, NoReturn

from oomguard.hook.admin.size import Goal, parse_goal

LADDER = ("caches", "gc", "trim", "streams", "models", "shed", "restart")
"""The steps that there are, in the order in which they are taken. A `restart` is the sidecar's: unsupported here."""
NAMED = ("caches", "streams", "models", "shed")
"""Steps that a name restricts: ``caches:bulk``, ``models:jina``, ``streams:mcp``; ``shed:off`` ends it."""
CLEANUP = ("caches", "gc", "trim")
"""What a body that names no steps asks for."""
UNLOAD = ("models",)
"""What an alert with ``action: unload`` asks for; each unload is followed by a collection and a trim of its own."""
ACTIONS = ("cleanup", "unload", "restart", "notify")
"""Values of an alert's label `action`; the hook follows the first two."""
_VERSION = "4"
_ALL = "all"
_EXAMPLE = '{"steps": ["caches", "gc"], "goal": 0.7}'
_SHOWN = 60
_DEEPEST = 64
_TEXTS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
"""Texts of JSON, the last one whether it ends or not: so a search never goes back, and stays linear."""
_NESTING = re.compile(r"[][{}]")


class RefusedError(Exception):
    """The body is answered with an error, and nothing is done; `status` is HTTP's."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Stop(Enum):
    """Where the steps end, when the body names no goal."""

    AFTER_ALL = "after_all"
    """Steps were named: they are taken at any level."""
    AT_DEFAULT = "at_default"
    """At the goal of the sidecar's own cleanups."""


class Declined(Enum):
    """Why an alert asks for nothing here, as the sidecar has it."""

    RESOLVED = "resolved"
    OTHER_TARGET = "other_target"
    NOTIFY = "notify"
    NOT_ALLOWED = "not_allowed"
    """A restart is never taken because of an alert alone."""


_DECLINED = {
    "restart": Declined.NOT_ALLOWED,
    "notify": Declined.NOTIFY,
}


class Order(NamedTuple):
    """Steps and where they may stop; without steps nothing is to be done."""

    steps: frozenset[str]
    goals: frozenset[Goal | Stop]
    declined: Mapping[Declined, int] | None = None
    """Number of alerts of a payload by why they were left out; None for the short form."""


def parse(body: bytes, target: str) -> Order:
    """Read a body; an empty one asks for every step. `target` is ours, empty where it is not known.

    Raises RefusedError.
    """
    try:
        text = body.decode() or "{}"
        if _too_deep(text):
            _refuse(400, f"the body is nested more than {_DEEPEST} deep")
        given = json.loads(text)
    except (ValueError, RecursionError):
        _refuse(400, f"the body is not JSON; send an Alertmanager payload or for example {_EXAMPLE}")
    if not isinstance(given, dict):
        _refuse(400, f"the body is {_kind(given)}; send an Alertmanager payload or for example {_EXAMPLE}")
    if "alerts" in given or "version" in given:
        return _payload(given, target)
    return _short(given)


def _too_deep(text: str) -> bool:
    """Whether lists and objects stand in one another beyond reason.

    Asked before the parser is: in a thread with a stack of 1 MB, as ours has, json.loads of 9,000 nested lists
    ends CPython 3.13.0 with a segmentation fault (3.10, 3.11 and 3.12 raise RecursionError).
    """
    depth = 0
    for bracket in _NESTING.findall(_TEXTS.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > _DEEPEST:
            return True
    return False


def _short(given: dict[str, Any]) -> Order:
    steps, goal = given.get("steps"), given.get("goal")
    if steps is not None and not (isinstance(steps, list) and all(isinstance(step, str) for step in steps)):
        _refuse(400, f"steps is {_show(steps)}; send a list of names, for example {_EXAMPLE}")
    return Order(_known(steps), frozenset([_goal(goal, Stop.AFTER_ALL if steps else Stop.AT_DEFAULT)]))


def _payload(given: dict[str, Any], target: str) -> Order:
    version, alerts = given.get("version"), given.get("alerts")
    if version != _VERSION:
        _refuse(400, f'version is {_show(version)}; only Alertmanager\'s payload version "4" is understood')
    if not isinstance(alerts, list):
        _refuse(400, f"alerts is {_kind(alerts)}; it must be a list of objects")
    steps: set[str] = set()
    goals: set[Goal | Stop] = set()
    declined: Counter[Declined] = Counter()
    for index, alert in enumerate(alerts):
        asked = _asked(alert, f"alerts[{index}]", target)
        if isinstance(asked, Declined):
            declined[asked] += 1
        else:
            steps |= asked[0]
            goals.add(asked[1])
    return Order(frozenset(steps), frozenset(goals), declined)


def _asked(alert: object, place: str, target: str) -> tuple[frozenset[str], Goal | Stop] | Declined:
    """Steps and goal that one alert asks for; one without an action asks for what the path is called."""
    if not isinstance(alert, dict):
        _refuse(400, f"{place} is {_kind(alert)}; it must be an object")
    status, labels = alert.get("status", "firing"), alert.get("labels") or {}
    if status not in ("firing", "resolved"):
        _refuse(400, f'{place}: status is {_show(status)}; it must be "firing" or "resolved"')
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        _refuse(400, f"{place}: labels is {_show(labels)}; it must be an object of texts")
    if target and labels.get("target", target) != target:
        return Declined.OTHER_TARGET
    action = labels.get("action") or "cleanup"
    if action not in ACTIONS:
        _refuse(422, f"{place}: unknown action {_show(action)}; there are {', '.join(ACTIONS)}")
    names = labels.get("steps", "").replace(",", " ").split()
    usual = UNLOAD if action == "unload" else CLEANUP
    steps = _known(LADDER[:-1] if names == [_ALL] else names, usual)
    asked = steps, _goal(labels.get("goal") or None, Stop.AT_DEFAULT)
    return Declined.RESOLVED if status == "resolved" else _DECLINED.get(action, asked)


def _known(names: Iterable[str] | None, usual: tuple[str, ...] = CLEANUP) -> frozenset[str]:
    """Return these steps, or the usual ones where none is named; ``caches:bulk`` is one cache."""
    names = tuple(names or ())
    for name in names:
        step, colon, part = name.partition(":")
        if step not in LADDER:
            _refuse(422, f"unknown step {_show(step)}; there are {', '.join(LADDER)}")
        if colon and (step not in NAMED or not part):
            _refuse(
                422, f"{_show(name)}: a name stands behind {', '.join(NAMED)} only, for example caches:bulk"
            )
    return frozenset(names or usual)


def _goal(given: object, otherwise: Stop) -> Goal | Stop:
    if given is None:
        return otherwise
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        _refuse(400, f"goal is {_kind(given)}; send a ratio, a percentage or a size")
    try:
        return parse_goal(given)
    except ValueError as error:
        _refuse(422, str(error))


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "missing"}
    return kinds.get(type(value), "a number")


def _show(value: object) -> str:
    text = json.dumps(value) if isinstance(value, str | int | float | None) else _kind(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _refuse(status: int, text: str) -> NoReturn:
    raise RefusedError(status, text) from None
