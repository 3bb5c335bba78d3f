"""The records that flow through oomguard, from the sources to every sink; standard library only.

Sizes are bytes, durations and CPU times are seconds, ratios lie in 0..1. Wall-clock times are Unix
seconds; anything that is compared or subtracted uses the monotonic clock and says so. A field
that can't be known is None, never 0.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from oomguard.hookmodel import AllocatorStats, AppStats, CacheStats, GcStats

T_co = TypeVar("T_co", covariant=True)


class Status(enum.Enum):
    """What came of reading a source."""

    OK = "ok"
    ABSENT = "absent"
    """It works here, but there is nothing to read now: no cgroup limit, no hook connected."""
    UNSUPPORTED = "unsupported"
    """It can't be had on this kernel, libc or system."""
    FAILED = "failed"
    """It should have worked; the reason says why it did not."""


@dataclass(frozen=True, slots=True)
class Reading(Generic[T_co]):
    """What one source said: a value when `status` is OK, else a reason of one line."""

    status: Status
    value: T_co | None = None
    reason: str = ""
    seconds: float = 0.0
    """How long the read took."""

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return self.status is Status.OK


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process. A PID alone is used again by the kernel; with the start time it is unique."""

    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat: clock ticks since boot (proc_pid_stat(5))."""


@dataclass(frozen=True, slots=True)
class ProcessSample:
    """One process as /proc showed it at one moment (proc_pid_stat(5), proc_pid_status(5))."""

    id: ProcessId
    ppid: int
    pgrp: int
    state: str
    """One letter: R, S, D, Z, T, …"""
    name: str
    """comm, at most 15 bytes; it may hold spaces and parentheses."""
    rss: int | None
    """None for a zombie and for an exited leader: their size 0 is not 0 bytes."""
    rss_anon: int | None
    rss_file: int | None
    rss_shmem: int | None
    vms: int | None
    swap: int | None
    threads: int
    user_seconds: float
    system_seconds: float
    minor_faults: int
    major_faults: int
    start_time: float
    """Unix seconds."""
    open_fds: int | None
    """None where /proc/PID/fd may not be listed."""


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """What a process's mappings hold (smaps_rollup; kernel's Documentation/filesystems/proc.rst)."""

    rss: int
    pss: int
    uss: int
    """Private_Clean + Private_Dirty: what would come back if this process alone ended."""
    private_dirty: int
    swap_pss: int | None


@dataclass(frozen=True, slots=True)
class ProcessMappings:
    """PSS of a process by the kind of its mappings; the fields add up to its PSS."""

    heap: int
    anonymous: int
    file: int
    """Mapped files: code, and the weights of a memory-mapped model."""
    shared: int
    """Shared anonymous memory, memfd, /dev/shm, SysV."""
    stack: int
    other: int


@dataclass(frozen=True, slots=True)
class Process:
    """One process of the target's tree, with its stable name and the costly readings as last taken."""

    slot: str
    """``main``, ``worker-1``, ``child-1``, …: never a PID; ``other`` beyond the bound."""
    sample: ProcessSample
    cmdline: tuple[str, ...]
    memory: Reading[ProcessMemory]
    mappings: Reading[ProcessMappings]


@dataclass(frozen=True, slots=True)
class Tree:
    """The target's tree of processes; the root comes first."""

    root: ProcessId
    processes: tuple[Process, ...]
    started_total: int
    """Processes seen to come, the root included, since the sidecar began to look."""
    exited_total: int


@dataclass(frozen=True, slots=True)
class CgroupMemory:
    """The memory controller's view of the limiting cgroup: the ancestor with the tightest limit."""

    version: int
    """1 or 2: the hierarchy that holds the memory controller."""
    path: str
    """Directory that is read, as the sidecar sees it."""
    limit: int | None
    """memory.max / memory.limit_in_bytes, the tightest of the ancestors; None: no limit."""
    usage: int
    anon: int | None
    file: int | None
    shmem: int | None
    active_file: int
    inactive_file: int
    slab_reclaimable: int | None
    """cgroup v1 does not say."""
    kernel: int | None
    swap: int | None
    peak: int | None
    """memory.peak (Linux 5.19) / memory.max_usage_in_bytes."""
    refaults_file: int | None
    """workingset_refault_file: pages read again after they had been reclaimed."""
    high: int | None = None
    """memory.high of the same cgroup (v2): where the kernel throttles; None: none set."""
    kills_all: bool = False
    """memory.oom.group (v2): the OOM killer ends every process of the cgroup at once."""

    @property
    def reclaimable(self) -> int:
        """What the kernel can drop without killing: file cache and reclaimable slab."""
        return self.active_file + self.inactive_file + (self.slab_reclaimable or 0)

    @property
    def used(self) -> int:
        """What the kernel would kill for: usage less the reclaimable part."""
        return max(0, self.usage - self.reclaimable)

    @property
    def working_set(self) -> int:
        """Usage less inactive file, as cAdvisor and the kubelet count it."""
        return max(0, self.usage - self.inactive_file)


@dataclass(frozen=True, slots=True)
class CgroupEvents:
    """Counters of the limiting cgroup since it was made; None where this kernel has no such counter."""

    oom: int | None
    oom_kill: int | None
    high: int | None
    max: int | None
    failcnt: int | None
    """cgroup v1: how often usage hit the limit."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """Pressure stall information (kernel's Documentation/accounting/psi.rst)."""

    scope: str
    """``cgroup`` or ``machine``."""
    some_seconds: float
    """Total time in which at least one task waited for memory."""
    full_seconds: float | None
    some_avg10: float
    """Ratio, 0..1."""
    full_avg10: float | None


@dataclass(frozen=True, slots=True)
class CpuThrottling:
    """cpu.stat of the target's cgroup: how its CPU quota held it back."""

    periods: int
    throttled_periods: int
    throttled_seconds: float


@dataclass(frozen=True, slots=True)
class MachineMemory:
    """/proc/meminfo, in bytes."""

    total: int
    available: int
    swap_total: int
    swap_free: int
    shmem: int | None


@dataclass(frozen=True, slots=True)
class HookReading:
    """What one process's hook said of itself."""

    slot: str
    pid: int
    """As the sidecar sees it."""
    runtime: str
    """``python`` or ``node``."""
    runtime_version: str
    hook_version: str
    forked: bool
    """It shares its heap with the process it was forked from."""
    gc: Reading[GcStats]
    allocator: Reading[AllocatorStats]
    caches: tuple[CacheStats, ...]
    round_trip: float
    """Seconds from question to answer."""
    identity: tuple[object, ...] = ()
    """Tells its process from every other, one that has its PID later included."""
    app: AppStats = field(default_factory=AppStats)


class LimitOrigin(enum.Enum):
    """Where the limit in force comes from."""

    CGROUP = "cgroup"
    CONFIGURED = "configured"
    MACHINE = "machine"


class UsedKind(enum.Enum):
    """How `used` was computed."""

    CGROUP = "cgroup"
    WORKING_SET = "working_set"
    PSS = "pss"
    RSS = "rss"


@dataclass(frozen=True, slots=True)
class Level:
    """The one figure that decisions are made on: memory against the limit at one moment."""

    at: float
    """Monotonic seconds."""
    used: int
    limit: int
    origin: LimitOrigin
    kind: UsedKind
    rate: float
    """Growth in bytes per second over the last ticks; negative when memory falls."""

    @property
    def ratio(self) -> float:
        """Used by limit."""
        return self.used / self.limit

    @property
    def seconds_left(self) -> float:
        """Until the limit is reached at the present rate; infinite when memory does not grow.

        Infinite too beyond a limit that is not the kernel's: nothing kills there, and it has been passed.
        """
        left = self.limit - self.used
        if self.rate <= 0 or (left < 0 and self.origin is not LimitOrigin.CGROUP):
            return float("inf")
        return max(0, left) / self.rate


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the slow lane saw in one tick."""

    at: float
    """Monotonic seconds."""
    time: float
    """Unix seconds."""
    target: str
    tree: Reading[Tree]
    cgroup: Reading[CgroupMemory]
    events: Reading[CgroupEvents]
    pressure: Reading[Pressure]
    throttling: Reading[CpuThrottling]
    machine: Reading[MachineMemory]
    hooks: Reading[tuple[HookReading, ...]]
    own: Reading[ProcessSample]
    """The sidecar itself."""

    def sources(self) -> Mapping[str, Reading[object]]:
        """Name and reading of every source, for status and duration metrics."""
        return {
            "processes": self.tree,
            "mappings": self._mappings(),
            "cgroup": self.cgroup,
            "events": self.events,
            "pressure": self.pressure,
            "throttling": self.throttling,
            "machine": self.machine,
            "hook": self.hooks,
        }

    def _mappings(self) -> Reading[object]:
        """PSS and the mapping kinds of all processes as one source; what failed for one speaks for it."""
        if self.tree.value is None:
            return self.tree
        readings = [process.memory for process in self.tree.value.processes]
        seconds = sum(reading.seconds for reading in readings)
        for status in (Status.FAILED, Status.UNSUPPORTED):
            for reading in readings:
                if reading.status is status:
                    return Reading(status, reason=reading.reason, seconds=seconds)
        return Reading(Status.OK, True, seconds=seconds)


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert as routes and receivers see it, whichever engine made it."""

    labels: Mapping[str, str]
    """``alertname`` among them."""
    annotations: Mapping[str, str]
    starts_at: float
    """Unix seconds at which it began to fire."""
    ends_at: float | None = None
    """Unix seconds at which it was resolved; None while it fires."""
    generator_url: str = ""

    @property
    def name(self) -> str:
        """Its ``alertname``."""
        return self.labels.get("alertname", "")

    @property
    def fingerprint(self) -> str:
        """Its identity: 16 hexadecimal digits of the labels, as Alertmanager computes it."""
        return fingerprint(self.labels)


def fingerprint(labels: Mapping[str, str]) -> str:
    """FNV-1a (64 bits) over the sorted labels (prometheus/common, model/signature.go, labelSetToFingerprint)."""
    value = 0xCBF29CE484222325
    for name in sorted(labels):
        for byte in (*name.encode(), 0xFF, *labels[name].encode(), 0xFF):
            value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


class StepOutcome(enum.Enum):
    """What a step of the ladder came to."""

    EFFECTIVE = "effective"
    """Memory fell."""
    RETAINED = "retained"
    """Memory was freed inside malloc, the kernel has not seen it yet: a trim may return it."""
    INEFFECTIVE = "ineffective"
    INCONCLUSIVE = "inconclusive"
    """It could not be measured, or memory rose meanwhile; counts as a failure."""
    SKIPPED = "skipped"
    FAILED = "failed"


_GAVE_NOTHING = (StepOutcome.INCONCLUSIVE, StepOutcome.SKIPPED, StepOutcome.FAILED)
"""Whatever memory did meanwhile was not the step's doing, or nobody knows."""


class SkipReason(enum.Enum):
    """Why a step was not taken."""

    NO_HOOK = "no_hook"
    NOTHING_REGISTERED = "nothing_registered"
    SHARED_HEAP = "shared_heap"
    LONG_PAUSE = "long_pause"
    NO_TIME = "no_time"
    COOLDOWN = "cooldown"
    UNSUPPORTED = "unsupported"
    RESOLVED = "resolved"
    """What asked for it has been resolved meanwhile."""
    BUSY = "busy"
    """All that it could give back is in use."""
    DRY_RUN = "dry_run"


class RunOutcome(enum.Enum):
    """How a run of the ladder ended."""

    GOAL_REACHED = "goal_reached"
    GOAL_NOT_REACHED = "goal_not_reached"
    NOT_NEEDED = "not_needed"
    DONE = "done"
    """A person asked for steps and no goal: all of them were taken."""
    DRY_RUN = "dry_run"
    """No step was taken, for none may be (``--dry-run``)."""
    TARGET_GONE = "target_gone"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class StepReport:
    """One step of a run: what it was, what it gave back, what it cost."""

    step: str
    outcome: StepOutcome
    used_before: int
    used_after: int | None
    seconds: float
    reason: str = ""
    stall_seconds: float | None = None
    """How long the host's threads stood still for it."""
    retained_bytes: int | None = None
    """Freed inside malloc, not yet returned."""
    details: Mapping[str, object] = field(default_factory=dict)
    """What the hooks said, by slot."""

    @property
    def freed(self) -> int:
        """Bytes that it gave back to the system; 0 when that could not be measured, and where no process took it."""
        if self.used_after is None or self.outcome in _GAVE_NOTHING:
            return 0
        return max(0, self.used_before - self.used_after)
