"""What hooks answered to a step of a run, in a few words, summed over processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from oomguard.actions.step import split
from oomguard.cli.options import printable

MOST_NAMED: Final = 5
"""Caches or models that are named; the rest are counted."""
_LONGEST: Final = 60
Said = list[Mapping[str, Any]]


def summary(turn: str, hooks: object) -> str:
    """What was done, for example ``unloaded jina-v3 in 2 processes, busy: bge``; empty where nobody told.

    `hooks` is the record's: what each process said, by slot. Another version may have written it.
    """
    step = split(turn)[0]
    if step not in _TOLD or not isinstance(hooks, Mapping):
        return ""
    return ", ".join(_TOLD[step]([said for said in hooks.values() if isinstance(said, Mapping)]))


def unknown_name(record: Mapping[str, Any]) -> str:
    """The cache or model that a step was restricted to and that no process has; empty where one has it."""
    name = split(str(record.get("step", "")))[1]
    hooks = record.get("hooks")
    if name is None or record.get("outcome") != "skipped" or not isinstance(hooks, Mapping) or not hooks:
        return ""
    return name if all(isinstance(said, Mapping) and _has_none(said) for said in hooks.values()) else ""


def _has_none(said: Mapping[str, Any]) -> bool:
    """Whether a process has nothing of that name. Of a model that is there and not loaded it says more than this."""
    nothing = said.get("reason") == "nothing_registered" and said.keys() <= {"status", "reason", "missing"}
    return nothing or said.get("status") == "unsupported"


def _caches(said: Said) -> Iterator[str]:
    yield from _named("cleared", said, ("cleared",))
    if expired := _sum(said, "expired"):
        yield f"{expired:,} entries had expired"


def _gc(said: Said) -> Iterator[str]:
    if collected := _sum(said, "collected"):
        yield f"{collected:,} objects"


def _streams(said: Said) -> Iterator[str]:
    if any("closed" in one for one in said):
        yield f"closed {_sum(said, 'closed'):,}"
    if left := _sum(said, "left"):
        yield f"{left:,} left"


def _models(said: Said) -> Iterator[str]:
    yield from _named("unloaded", said, ("unloaded",))
    yield from _named("busy:", said, ("busy",))
    yield from _named("loaded too lately:", said, ("fresh", "young"))


_TOLD: Final[Mapping[str, Callable[[Said], Iterator[str]]]] = {
    "caches": _caches,
    "gc": _gc,
    "streams": _streams,
    "models": _models,
}


def _sum(said: Said, key: str) -> int:
    numbers = (one.get(key) for one in said)
    return sum(number for number in numbers if isinstance(number, int) and not isinstance(number, bool))


def _named(verb: str, said: Said, keys: Iterable[str]) -> Iterator[str]:
    """Names that stand under one of the keys (a list, or an object by name), with in how many processes."""
    found: Counter[str] = Counter()
    for one in said:
        for key in keys:
            names = one.get(key)
            if isinstance(names, list | Mapping):
                found.update(dict.fromkeys(map(str, names), 1))
    if not found:
        return
    texts = [
        printable(name)[:_LONGEST] + (f" in {count} processes" if count > 1 else "")
        for name, count in found.most_common(MOST_NAMED)
    ]
    if len(found) > MOST_NAMED:
        texts.append(f"{len(found) - MOST_NAMED} more")
    yield f"{verb} {', '.join(texts)}"
