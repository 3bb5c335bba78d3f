"""Lines of ``oomguard status`` about the application's parts, summed over processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from oomguard.cli.options import printable
from oomguard.hookmodel import BudgetState, ModelState
from oomguard.sizes import format_size

MOST_NAMED: Final = 10
"""Names of each kind that have a line; the rest are counted."""
MOST_WARNINGS: Final = 5
_STATES: Final = [state.value for state in BudgetState]
Hooks = list[dict[str, Any]]
Parts = list[dict[str, Any]]


def lines(hooks: Hooks) -> Iterator[str]:
    """Lines of the parts that there are; `hooks` is that of /api/v1/status."""
    yield from _by_name("models", hooks, _model)
    yield from _streams([hook["streams"] for hook in hooks if hook.get("streams")])
    shedding = [hook["process"] for hook in hooks if hook.get("shed", {}).get("on")]
    if shedding:
        shedding.sort(key=lambda slot: (len(slot), slot))  # worker-2 before worker-10
        yield f"shedding {_list(shedding, MOST_NAMED)}"
    yield from _by_name("budgets", hooks, _budget)
    yield from _by_name("limits", hooks, _limit)
    yield from _by_name("children", hooks, _child)
    warnings = dict.fromkeys(printable(str(text)) for hook in hooks for text in hook.get("warnings", ()))
    for text in list(warnings)[:MOST_WARNINGS]:
        yield f"hook     {text}"


def _by_name(kind: str, hooks: Hooks, told: Callable[[Parts], str]) -> Iterator[str]:
    """A line a name, of what all processes say of it."""
    named: dict[str, Parts] = {}
    for hook in hooks:
        for part in hook.get(kind, ()):
            named.setdefault(part["name"], []).append(part)
    for name in list(named)[:MOST_NAMED]:
        yield f"{kind:<9}{printable(name)} {told(named[name])}"
    if len(named) > MOST_NAMED:
        yield f"{kind:<9}and {len(named) - MOST_NAMED} more"


def _model(parts: Parts) -> str:
    loaded = [part for part in parts if part["state"] == ModelState.LOADED.value]
    text = f"loaded in {len(loaded)} of {_processes(len(parts))}"
    if loaded:
        text += f", {format_size(_sum(loaded, 'bytes'))}"
        idle = [part["idle"] for part in loaded if part["idle"] is not None]
        if in_use := sum(1 for part in loaded if part["in_use"]):
            text += f", in use in {in_use}"
        elif idle:
            text += f", idle {_time(min(idle))}"
    if failed := sum(1 for part in parts if part["state"] == ModelState.FAILED.value):
        text += f", failed in {failed}"
    return text


def _streams(parts: Parts) -> Iterator[str]:
    if not parts:
        return
    limit = f" (limit {_sum(parts, 'limit'):,})" if all(part["limit"] is not None for part in parts) else ""
    ages = [part["oldest_age"] for part in parts if part["oldest_age"] is not None]
    oldest = f", oldest {_time(max(ages))}" if ages else ""
    yield f"streams  {_sum(parts, 'open'):,} open{limit}{oldest}"


def _budget(parts: Parts) -> str:
    states = [_STATES.index(part["state"]) for part in parts if part["state"] in _STATES]
    worst = max(states, default=0)
    state = f" ({_STATES[worst]})" if worst else ""
    return f"{format_size(_sum(parts, 'reserved'))} of {format_size(_sum(parts, 'limit'))}{state}"


def _limit(parts: Parts) -> str:
    waiting = _sum(parts, "waiting")
    return f"{_sum(parts, 'in_use'):,} of {_sum(parts, 'limit'):,}" + (
        f", {waiting:,} waiting" if waiting else ""
    )


def _child(parts: Parts) -> str:
    running = sum(1 for part in parts if part["alive"])
    text = "running" if running == len(parts) else f"running in {running} of {_processes(len(parts))}"
    # The first start of each is no restart.
    if (restarts := sum(max(0, (part["starts"] or 0) - 1) for part in parts)) > 0:
        text += f", restarted {_times(restarts)}"
    exits: dict[str, int] = {}
    for part in parts:
        for reason, count in part["exits"].items():
            exits[reason] = exits.get(reason, 0) + count
    reasons = [f"{reason} {count}" for reason, count in exits.items() if count]
    return text + (f" ({', '.join(reasons)})" if reasons else "")


def _sum(parts: Iterable[Mapping[str, Any]], key: str) -> int:
    return sum(part[key] or 0 for part in parts)


def _list(names: list[str], most: int) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _processes(count: int) -> str:
    return f"{count} process" if count == 1 else f"{count} processes"


def _times(count: int) -> str:
    return {1: "once", 2: "twice"}.get(count, f"{count:,} times")


def _time(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"
