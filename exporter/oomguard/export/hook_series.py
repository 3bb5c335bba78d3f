"""From the hooks' readings to series: what each field feeds, and how many processes become one series.

Counts and sizes are added up, a lag is the longest, an idle time the shortest. Counters are kept in `HookTotals`:
a process that goes, or does not answer for a while, must not make a sum of counters fall.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, chain
from typing import Final

from oomguard import metrics as m
from oomguard.hookmodel import BudgetState, Distribution, ModelState
from oomguard.model import HookReading
from oomguard.store import Sample

Pairs = Iterator[tuple[m.Metric, tuple[str, ...], float | None]]
Key = tuple[m.Metric, tuple[str, ...], str]
"""Metric, labels without ``target``, suffix."""

MOST_GONE: Final = 16
"""Processes without a connection whose counts are still known apart: one that connects again goes on where it was.
Those of the others are a sum."""

_GREATEST = frozenset({
    m.ALLOCATOR_INFO, m.EVENT_LOOP_LAG, m.STREAM_OLDEST, m.MODEL_LOAD_SECONDS, m.HOOK_ROUND_TRIP, m.HOOK_ALONE,
    m.SHEDDING,
})  # fmt: skip
_LEAST = frozenset({m.MODEL_IDLE})


def health_samples(target: str, stalled: Iterable[tuple[str, float]]) -> Iterator[Sample]:
    """Whether the hooks answer: a slot, and the seconds for which its hook has not (0: it does)."""
    worst: dict[str, float] = {}
    for slot, seconds in stalled:
        worst[slot] = max(seconds, worst.get(slot, 0.0))
    for slot, seconds in worst.items():
        yield Sample(m.HOOK_CONNECTED, (target, slot), float(seconds == 0))
        yield Sample(m.HOOK_STALLED, (target, slot), seconds)


class HookTotals:
    """Everything that hooks have counted since the sidecar began, whoever has gone meanwhile."""

    def __init__(self) -> None:
        self._last: dict[tuple[object, ...], dict[Key, float]] = {}
        """What each process told last, by its identity; the ones that told longest ago come first."""
        self._base: dict[Key, float] = {}
        """What those told that are not known apart any more."""

    def samples(self, target: str, hooks: Iterable[HookReading]) -> Iterator[Sample]:
        """All series of these readings, and of what was counted before them."""
        present = 0
        gauges: dict[Key, float] = {}
        for hook in hooks:
            present += 1
            counts = dict(_histograms(hook))
            for metric, labels, value in chain.from_iterable(part(hook) for part in _PARTS):
                key = (metric, labels, "")
                if value is not None and metric.kind == m.COUNTER:
                    counts[key] = counts.get(key, 0.0) + value
                elif value is not None:
                    gauges[key] = _joined(metric, gauges.get(key), float(value))
            self._count(hook.identity or (hook.pid,), counts)
        while len(self._last) > present + MOST_GONE:
            self._fold(self._last.pop(next(iter(self._last))))
        for (metric, labels, _), value in gauges.items():
            yield Sample(metric, (target, *labels), value)
        totals = dict(self._base)
        for counts in self._last.values():
            _add(totals, counts)
        for (metric, labels, suffix), value in totals.items():
            yield Sample(metric, (target, *labels), value, suffix)

    def _count(self, identity: tuple[object, ...], counts: dict[Key, float]) -> None:
        before = self._last.pop(identity, {})
        # One that counts less than before has begun anew: an exec, or a part that was made again.
        self._fold({key: value for key, value in before.items() if counts.get(key, value) < value})
        # What it does not tell this time (a line has its bound) has not been uncounted. But a new process that is
        # called ``other`` until the tree has been seen once counts under its own name from then on.
        kept = {key: value for key, value in before.items() if "process" not in key[0].labels}
        self._last[identity] = {**kept, **counts}

    def _fold(self, counts: Mapping[Key, float]) -> None:
        _add(self._base, counts)


def _add(totals: dict[Key, float], counts: Mapping[Key, float]) -> None:
    for key, value in counts.items():
        totals[key] = totals.get(key, 0.0) + value


def _joined(metric: m.Metric, known: float | None, value: float) -> float:
    """What several processes of one slot or name have in common."""
    if known is None:
        return value
    if metric in _GREATEST:
        return max(known, value)
    return min(known, value) if metric in _LEAST else known + value


# -- what each part of a reading feeds; a counter or a gauge, as the metric says


def _process(hook: HookReading) -> Pairs:
    yield m.HOOK_ROUND_TRIP, (hook.slot,), hook.round_trip
    if (loop := hook.app.loop) is not None:
        yield m.EVENT_LOOP_LAG, (hook.slot,), loop.lag
        yield m.EVENT_LOOP_TASKS, (hook.slot,), loop.tasks
    if (alone := hook.app.alone) is not None:
        yield m.HOOK_ALONE, (hook.slot,), alone.on
        yield m.ALONE_RUNS, (hook.slot,), alone.runs
        yield m.ALONE_FREED, (hook.slot,), alone.freed


def _collector(hook: HookReading) -> Pairs:
    if (gc := hook.gc.value) is None:
        return
    for metric, counts in (
        (m.GC_COLLECTIONS, gc.collections),
        (m.GC_COLLECTED, gc.collected),
        (m.GC_UNCOLLECTABLE, gc.uncollectable),
    ):
        for generation, count in enumerate(counts):
            yield metric, (hook.slot, str(generation)), count


def _allocator(hook: HookReading) -> Pairs:
    if (allocator := hook.allocator.value) is not None:
        for state in ("in_use", "free", "mmapped", "retained"):
            yield m.ALLOCATOR, (hook.slot, state), getattr(allocator, state)
        yield m.ALLOCATOR_ARENAS, (hook.slot,), allocator.arenas
        yield m.ALLOCATOR_INFO, (hook.slot, allocator.name), 1


def _caches(hook: HookReading) -> Pairs:
    for cache in hook.caches:
        yield m.CACHE_BYTES, (cache.name,), cache.bytes
        yield m.CACHE_ENTRIES, (cache.name,), cache.entries
        yield m.CACHE_MAX, (cache.name,), cache.max_bytes
        yield m.CACHE_EVICTIONS, (cache.name,), cache.evictions
        yield m.CACHE_EXPIRED, (cache.name,), cache.expired


def _models(hook: HookReading) -> Pairs:
    for model in hook.app.models:
        name = (model.name,)
        for state in ModelState:
            yield m.MODEL_STATE, (model.name, state.value), model.state is state
        if model.state is ModelState.LOADED:
            yield m.MODEL_IDLE, name, model.idle
        yield m.MODEL_BYTES, name, model.bytes
        yield m.MODEL_IN_USE, name, model.in_use
        yield m.MODEL_LOAD_SECONDS, name, model.load_seconds
        yield m.MODEL_LOADS, name, model.loads
        yield m.MODEL_USES, name, model.uses
        yield m.MODEL_FAILURES, name, model.failures
        yield m.MODEL_UNLOADS, name, model.unloads
        yield m.MODEL_BUSY, name, model.busy
        yield m.MODEL_RETURNED, name, model.returned
    for made in hook.app.constructions:
        yield m.CONSTRUCTED, (made.cls,), made.made
        yield m.CONSTRUCTED_LIVE, (made.cls,), made.live
        yield m.CONSTRUCTED_BYTES, (made.cls,), made.bytes


def _children(hook: HookReading) -> Pairs:
    for child in hook.app.children:
        yield m.CHILD_UP, (child.name,), child.alive
        yield m.CHILD_STARTS, (child.name,), child.starts
        for reason, count in child.exits.items():
            yield m.NAMED_CHILD_EXITS, (child.name, reason), count


def _bounds(hook: HookReading) -> Pairs:
    for budget in hook.app.budgets:
        yield m.BUDGET_LIMIT, (budget.name,), budget.limit
        yield m.BUDGET_RESERVED, (budget.name,), budget.reserved
        yield m.BUDGET_REFUSED, (budget.name,), budget.refused
        for state in BudgetState if budget.state is not None else ():
            yield m.BUDGET_STATE, (budget.name, state.value), budget.state is state
    for limit in hook.app.limits:
        yield m.LIMIT_SLOTS, (limit.name,), limit.limit
        yield m.LIMIT_IN_USE, (limit.name,), limit.in_use
        yield m.LIMIT_WAITING, (limit.name,), limit.waiting
        yield m.LIMIT_WAITED, (limit.name,), limit.waited


def _streams(hook: HookReading) -> Pairs:
    slot = hook.slot
    if (streams := hook.app.streams) is not None:
        yield m.STREAMS_OPEN, (slot,), streams.open
        yield m.STREAMS_LIMIT, (slot,), streams.limit
        yield m.STREAM_OLDEST, (slot,), streams.oldest_age
        yield m.STREAMS_OPENED, (slot,), streams.opened
        yield m.STREAMS_REJECTED, (slot,), streams.rejected
        for reason, count in streams.closed.items():
            yield m.STREAMS_CLOSED, (slot, reason), count


def _requests(hook: HookReading) -> Pairs:
    if (requests := hook.app.requests) is not None:
        yield m.REQUESTS_IN_FLIGHT, (hook.slot,), requests.in_flight
        yield m.REQUESTS, (hook.slot,), requests.total
    if (shed := hook.app.shed) is not None:
        yield m.SHEDDING, (hook.slot,), shed.on
        yield m.SHED_REQUESTS, (hook.slot,), shed.refused


def _heap(hook: HookReading) -> Pairs:
    slot = hook.slot
    if (heap := hook.app.heap) is None:
        return
    yield m.NODE_HEAP_USED, (slot,), heap.used
    yield m.NODE_HEAP_SIZE, (slot,), heap.size
    yield m.NODE_HEAP_LIMIT, (slot,), heap.limit
    yield m.NODE_EXTERNAL, (slot,), heap.external
    yield m.NODE_ARRAY_BUFFERS, (slot,), heap.array_buffers
    for space in heap.spaces:
        yield m.NODE_HEAP_SPACE, (slot, space.name, "used"), space.used
        yield m.NODE_HEAP_SPACE, (slot, space.name, "size"), space.size


_PARTS = (
    _process, _collector, _allocator, _caches, _models, _children, _bounds, _streams, _requests, _heap,
)  # fmt: skip


# -- histograms


def _histograms(hook: HookReading) -> Iterator[tuple[Key, float]]:
    slot, app, gc = hook.slot, hook.app, hook.gc.value
    if gc is not None:
        yield from _histogram(m.GC_PAUSE, (slot,), gc.pauses)
    for kind, pauses in app.v8_pauses.items():
        yield from _histogram(m.NODE_GC_PAUSE, (slot, kind), pauses)
    if app.streams is not None:
        yield from _histogram(m.STREAM_DURATION, (), app.streams.duration)
    if app.requests is not None:
        yield from _histogram(m.REQUEST_GROWTH, (), app.requests.growth)


def _histogram(
    metric: m.Metric, labels: tuple[str, ...], seen: Distribution | None
) -> Iterator[tuple[Key, float]]:
    """A classic histogram: cumulative buckets, sum and count."""
    if seen is None:
        return
    totals = list(accumulate(seen.counts))
    for bound, total in zip((*map(str, seen.bounds), "+Inf"), totals, strict=True):
        yield (metric, (*labels, bound), "_bucket"), total
    yield (metric, labels, "_sum"), seen.sum
    yield (metric, labels, "_count"), totals[-1]
