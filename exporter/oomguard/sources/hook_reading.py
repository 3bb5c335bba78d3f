"""A reading of a hook's, from JSON to records (docs/hook-protocol.md); no input or output here.

Strict, and bounded: a process may be out of its mind. What a hook of an earlier version does not tell stays
unknown; what only a later one tells is ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, TypeVar

from oomguard.hookmodel import (
    STREAM_ENDS,
    AllocatorStats,
    AloneStats,
    AppStats,
    BudgetState,
    BudgetStats,
    CacheStats,
    ChildStats,
    ConstructionStats,
    Distribution,
    GcStats,
    HeapSpace,
    HeapStats,
    LimitStats,
    LoopStats,
    ModelState,
    ModelStats,
    RequestStats,
    ShedStats,
    StreamStats,
)
from oomguard.model import Reading, Status

MOST: Final = 100
"""Entries of a list that are read; the rest is left out."""
LONGEST_NAME: Final = 100
LONGEST_TEXT: Final = 200
CHILD_ENDS: Final = ("oom_kill", "unknown")
V8_KINDS: Final = ("minor", "major", "incremental", "weakcb")

T = TypeVar("T")
E = TypeVar("E", bound=Enum)
Told = Mapping[str, Any]


def gc_reading(answer: Told) -> Reading[GcStats]:
    """The collector of a Python process. Raises ValueError or TypeError for what the protocol does not allow."""
    if "kinds" in _mapping(answer.get("gc"), "gc"):
        return Reading(Status.UNSUPPORTED, reason="V8 has no generations as Python's")
    return _part(answer, "gc", _gc)


def allocator_reading(answer: Told) -> Reading[AllocatorStats]:
    """malloc; raises as `gc_reading`."""
    return _part(answer, "allocator", _allocator)


def caches(answer: Told) -> tuple[CacheStats, ...]:
    """The registered caches; raises as `gc_reading`."""
    return _list(answer, "caches", _cache)


def app_stats(answer: Told) -> AppStats:
    """Everything that the application's parts tell; raises as `gc_reading`."""
    return AppStats(
        models=_list(answer, "models", _model),
        constructions=_list(answer, "constructions", _construction),
        children=_list(answer, "children", _child),
        streams=_object(answer, "streams", _streams),
        requests=_object(answer, "requests", _requests),
        shed=_object(answer, "shed", _shed),
        budgets=_list(answer, "budgets", _budget),
        limits=_list(answer, "limits", _limit),
        loop=_object(answer, "loop", _loop),
        alone=_object(answer, "alone", _alone),
        heap=_object(answer, "heap", _heap),
        v8_pauses=_v8_pauses(_mapping(answer.get("gc"), "gc")),
        warnings=tuple(_text(text, LONGEST_TEXT) for text in _entries(answer.get("warnings"), "warnings")),
    )


# -- shapes


def _part(answer: Told, name: str, parse: Callable[[Told], T]) -> Reading[T]:
    part = answer.get(name)
    if not isinstance(part, Mapping):
        return Reading(Status.UNSUPPORTED, reason=f"this hook does not tell {name}")
    status = Status(part.get("status", "ok"))
    seconds = _number(part.get("seconds")) or 0.0
    if status is not Status.OK:
        return Reading(status, reason=_text(part.get("reason"), LONGEST_TEXT), seconds=seconds)
    return Reading(Status.OK, parse(part), seconds=seconds)


def _object(answer: Told, name: str, parse: Callable[[Told], T]) -> T | None:
    """An object that may be missing, or may say that there is nothing to tell."""
    part = _mapping(answer.get(name), name)
    return parse(part) if part and part.get("status", "ok") == Status.OK.value else None


def _list(answer: Told, name: str, parse: Callable[[Told], T]) -> tuple[T, ...]:
    found = []
    for entry in _entries(answer.get(name), name):
        if not isinstance(entry, Mapping):
            raise TypeError(f"{name} holds something that is not an object")
        found.append(parse(entry))
    return tuple(found)


def _entries(value: object, name: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise TypeError(f"{name} is not a list")
    return value[:MOST]


def _mapping(value: object, name: str) -> Told:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is not an object")
    return value


# -- the parts


def _gc(part: Told) -> GcStats:
    return GcStats(
        collections=_counts(part["collections"]),
        collected=_counts(part["collected"]),
        uncollectable=_counts(part["uncollectable"]),
        pauses=_distribution(
            {"bounds": part["pause_bounds"], "counts": part["pause_counts"], "sum": part["pause_sum"]}
        ),
        pause_last_full=_number(part.get("pause_last_full")),
        frozen=part.get("frozen") is True,
    )


def _v8_pauses(part: Told) -> dict[str, Distribution]:
    kinds = _mapping(part.get("kinds"), "gc kinds")
    return {
        kind: _distribution({"bounds": part["pause_bounds"], **_mapping(kinds[kind], kind)})
        for kind in V8_KINDS
        if kind in kinds
    }


def _allocator(part: Told) -> AllocatorStats:
    return AllocatorStats(
        name=_text(part.get("name", "unknown"), 32),
        in_use=_size(part.get("in_use")),
        free=_size(part.get("free")),
        mmapped=_size(part.get("mmapped")),
        retained=_size(part.get("retained")),
        arenas=_size(part.get("arenas")),
    )


def _cache(cache: Told) -> CacheStats:
    return CacheStats(
        name=_name(cache),
        bytes=_size(cache.get("bytes")),
        entries=_size(cache.get("entries")),
        evictions=_size(cache.get("evictions")),
        expired=_size(cache.get("expired")),
        max_bytes=_size(cache.get("max_bytes")),
    )


def _model(model: Told) -> ModelStats:
    return ModelStats(
        name=_name(model),
        state=ModelState(model.get("state")),
        bytes=_size(model.get("bytes")),
        load_seconds=_number(model.get("load_seconds")),
        idle=_number(model.get("idle")),
        uses=_size(model.get("uses")),
        in_use=_size(model.get("in_use")),
        loads=_size(model.get("loads")),
        failures=_size(model.get("failures")),
        unloads=_size(model.get("unloads")),
        busy=_size(model.get("busy")),
        returned=_size(model.get("returned")),
        isolated=model.get("isolated") is True,
    )


def _construction(made: Told) -> ConstructionStats:
    return ConstructionStats(
        cls=_text(made.get("class"), LONGEST_NAME),
        made=_size(made.get("made")),
        live=_size(made.get("live")),
        bytes=_size(made.get("bytes")),
    )


def _child(child: Told) -> ChildStats:
    alive = child.get("alive")
    return ChildStats(
        name=_name(child),
        alive=alive if isinstance(alive, bool) else None,
        starts=_size(child.get("starts")),
        exits=_by_reason(child.get("exits"), CHILD_ENDS),
    )


def _streams(part: Told) -> StreamStats:
    return StreamStats(
        open=_size(part.get("open")),
        limit=_size(part.get("limit")),
        opened=_size(part.get("opened")),
        closed=_by_reason(part.get("closed"), STREAM_ENDS),
        rejected=_size(part.get("rejected")),
        oldest_age=_number(part.get("oldest_age")),
        duration=_some_distribution(part.get("duration")),
    )


def _requests(part: Told) -> RequestStats:
    return RequestStats(
        in_flight=_size(part.get("in_flight")),
        total=_size(part.get("total")),
        growth=_some_distribution(part.get("growth")),
    )


def _shed(part: Told) -> ShedStats:
    on = part.get("on")
    return ShedStats(on=on if isinstance(on, bool) else None, refused=_size(part.get("refused")))


def _budget(budget: Told) -> BudgetStats:
    state = budget.get("state")
    return BudgetStats(
        name=_name(budget),
        limit=_size(budget.get("limit")),
        reserved=_size(budget.get("reserved")),
        refused=_size(budget.get("refused")),
        state=None if state is None else BudgetState(state),
    )


def _limit(limit: Told) -> LimitStats:
    return LimitStats(
        name=_name(limit),
        limit=_size(limit.get("limit")),
        in_use=_size(limit.get("in_use")),
        waiting=_size(limit.get("waiting")),
        waited=_size(limit.get("waited")),
    )


def _loop(part: Told) -> LoopStats:
    return LoopStats(lag=_number(part.get("lag")), tasks=_size(part.get("tasks")))


def _alone(part: Told) -> AloneStats:
    on = part.get("on")
    return AloneStats(
        on=on if isinstance(on, bool) else None,
        reason=_text(part.get("reason"), LONGEST_TEXT),
        runs=_size(part.get("runs")),
        freed=_size(part.get("freed")),
    )


def _heap(part: Told) -> HeapStats:
    return HeapStats(
        used=_size(part.get("used")),
        size=_size(part.get("size")),
        limit=_size(part.get("limit")),
        external=_size(part.get("external")),
        array_buffers=_size(part.get("array_buffers")),
        spaces=_list(part, "spaces", _space),
    )


def _space(space: Told) -> HeapSpace:
    return HeapSpace(_name(space), _size(space.get("used")), _size(space.get("size")))


# -- values


def _name(entry: Told) -> str:
    name = entry.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("an entry has no name")
    return _text(name, LONGEST_NAME)


def _text(value: object, longest: int) -> str:
    """Text, for labels and lines: without lone surrogates, which no sink could encode."""
    text = value if isinstance(value, str) else "" if value is None else str(value)[:longest]
    return text[:longest].encode("utf-8", "replace").decode()


def _by_reason(value: object, reasons: tuple[str, ...]) -> dict[str, int]:
    counts = {reason: _size(_mapping(value, "counts by reason").get(reason)) for reason in reasons}
    return {reason: count for reason, count in counts.items() if count is not None}


def _some_distribution(value: object) -> Distribution | None:
    return None if value is None else _distribution(_mapping(value, "a distribution"))


def _distribution(value: Told) -> Distribution:
    bounds = value["bounds"]
    if not isinstance(bounds, list) or len(bounds) > MOST:
        raise ValueError("bounds is not a list of some")
    ascending = tuple(_finite(bound) for bound in bounds)
    counts = _counts(value["counts"])
    if len(counts) != len(ascending) + 1 or list(ascending) != sorted(set(ascending)):
        raise ValueError("the counts of a distribution do not fit its bounds")
    total = _number(value["sum"])
    if total is None:
        raise ValueError("a distribution has no sum")
    return Distribution(ascending, counts, total)


def _counts(values: object) -> tuple[int, ...]:
    if not isinstance(values, list) or len(values) > MOST + 1 or any(_size(one) != one for one in values):
        raise ValueError("a list of counts is expected")
    return tuple(values)


def _number(value: object) -> float | None:
    """A number of seconds, None where it is unknown."""
    if value is None:
        return None
    number = _finite(value)
    if number < 0:
        raise ValueError(f"{value!r} is negative")
    return number


def _finite(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{str(value)[:40]!r} is not a number")
    return float(value)


def _size(value: object) -> int | None:
    """A size or a count, None where it is unknown; a negative or non-numeric one is against the protocol."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 63:
        raise ValueError(f"{str(value)[:40]!r} is not a size")
    return int(value)
