"""The records of what a hook tells of its process: the parts of a reading; standard library only.

Sizes are bytes, times seconds. A field that can't be known is None, never 0; so is a part that the hook does
not tell. Counts are the process's own, from 0 at its start.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

RUNTIME_NODE = "node"


@dataclass(frozen=True, slots=True)
class Distribution:
    """Observations by size."""

    bounds: tuple[float, ...]
    """Upper bounds of the buckets, ascending, without +Inf."""
    counts: tuple[int, ...]
    """Observations in each bucket, not cumulative; one more than bounds, the last is +Inf."""
    sum: float


@dataclass(frozen=True, slots=True)
class GcStats:
    """The garbage collector of one Python process, generations 0 to 2."""

    collections: tuple[int, ...]
    collected: tuple[int, ...]
    uncollectable: tuple[int, ...]
    pauses: Distribution
    """In seconds."""
    pause_last_full: float | None
    """How long the last full collection held the process; None before the first."""
    frozen: bool
    """gc.freeze() has put the bulk of the heap out of a collection's reach."""


@dataclass(frozen=True, slots=True)
class AllocatorStats:
    """malloc of one process; a field that this libc does not tell is None."""

    name: str
    """``glibc``, ``jemalloc``, ``tcmalloc``, ``musl`` or ``unknown``."""
    in_use: int | None
    free: int | None
    mmapped: int | None
    retained: int | None
    """What a trim is expected to give back."""
    arenas: int | None = None
    """How many heaps threads have been given."""


@dataclass(frozen=True, slots=True)
class CacheStats:
    """One registered cache of the application."""

    name: str
    bytes: int | None
    entries: int | None
    evictions: int | None = None
    expired: int | None = None
    """Entries dropped because their time was over."""
    max_bytes: int | None = None


class ModelState(enum.Enum):
    """What a model is in."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    LOADED = "loaded"
    UNLOADING = "unloading"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ModelStats:
    """One registered model."""

    name: str
    state: ModelState
    bytes: int | None
    """Gained when it was loaded last; None where it is not loaded."""
    load_seconds: float | None
    """How long the last load took."""
    idle: float | None
    """Since the last use ended."""
    uses: int | None
    in_use: int | None
    loads: int | None
    failures: int | None
    unloads: int | None
    busy: int | None
    """Unloads that were given up because it was in use."""
    returned: int | None
    """Bytes that its unloads really gave back."""
    isolated: bool
    """It lives in a process of its own."""


@dataclass(frozen=True, slots=True)
class ConstructionStats:
    """A known class of models: objects of it that the application made by itself."""

    cls: str
    made: int | None
    live: int | None
    bytes: int | None
    """Gained while they were made."""


@dataclass(frozen=True, slots=True)
class ChildStats:
    """A child process that the application has given into the guard's hands."""

    name: str
    alive: bool | None
    starts: int | None
    exits: Mapping[str, int]
    """By reason: ``oom_kill``, ``unknown``."""


STREAM_ENDS = ("client", "server", "evicted", "error")
"""Why a stream was closed."""


@dataclass(frozen=True, slots=True)
class StreamStats:
    """SSE responses, websockets and others that stay open."""

    open: int | None
    limit: int | None
    opened: int | None
    closed: Mapping[str, int]
    """By reason (`STREAM_ENDS`)."""
    rejected: int | None
    oldest_age: float | None
    duration: Distribution | None


@dataclass(frozen=True, slots=True)
class RequestStats:
    """Requests that the middleware saw, without streams."""

    in_flight: int | None
    total: int | None
    growth: Distribution | None
    """Bytes by which resident memory grew in a request that ran alone."""


@dataclass(frozen=True, slots=True)
class ShedStats:
    """Whether new requests are turned away."""

    on: bool | None
    refused: int | None


class BudgetState(enum.Enum):
    """How much of a budget is reserved: from 80 % warning, from 90 % critical."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class BudgetStats:
    """A budget in bytes."""

    name: str
    limit: int | None
    reserved: int | None
    refused: int | None
    state: BudgetState | None


@dataclass(frozen=True, slots=True)
class LimitStats:
    """How many may do something at once."""

    name: str
    limit: int | None
    in_use: int | None
    waiting: int | None
    waited: int | None


@dataclass(frozen=True, slots=True)
class LoopStats:
    """The event loop of a process."""

    lag: float | None
    """The longest that it was late since the reading before."""
    tasks: int | None


@dataclass(frozen=True, slots=True)
class AloneStats:
    """The hook as its own guard, where no sidecar reads it."""

    on: bool | None
    reason: str
    runs: int | None
    freed: int | None


@dataclass(frozen=True, slots=True)
class HeapSpace:
    """One space of V8's heap."""

    name: str
    used: int | None
    size: int | None


@dataclass(frozen=True, slots=True)
class HeapStats:
    """V8's heap (v8.getHeapStatistics, process.memoryUsage)."""

    used: int | None
    size: int | None
    limit: int | None
    """heap_size_limit: where a Node process ends itself."""
    external: int | None
    array_buffers: int | None
    spaces: tuple[HeapSpace, ...] = ()


@dataclass(frozen=True, slots=True)
class AppStats:
    """What the application's parts tell; each is empty or None where it has none."""

    models: tuple[ModelStats, ...] = ()
    constructions: tuple[ConstructionStats, ...] = ()
    children: tuple[ChildStats, ...] = ()
    streams: StreamStats | None = None
    requests: RequestStats | None = None
    shed: ShedStats | None = None
    budgets: tuple[BudgetStats, ...] = ()
    limits: tuple[LimitStats, ...] = ()
    loop: LoopStats | None = None
    alone: AloneStats | None = None
    heap: HeapStats | None = None
    v8_pauses: Mapping[str, Distribution] = field(default_factory=dict)
    """V8's collections in seconds, by kind: minor, major, incremental, weakcb."""
    warnings: tuple[str, ...] = ()
    """What the developer should know."""
