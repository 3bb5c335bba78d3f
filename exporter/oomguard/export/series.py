"""From records to series: which metric each field of a snapshot feeds. Unknown fields feed none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from oomguard import metrics as m
from oomguard.model import (
    CgroupEvents,
    CgroupMemory,
    CpuThrottling,
    Level,
    LimitOrigin,
    MachineMemory,
    Pressure,
    Process,
    Snapshot,
    Status,
    Tree,
    UsedKind,
)
from oomguard.store import Sample
from oomguard.thresholds import Thresholds

Pairs = Iterator[tuple[m.Metric, tuple[str, ...], float | None]]


def fast_samples(level: Level, target: str, in_force: Thresholds) -> tuple[Sample, ...]:
    """The level, as every fast tick refreshes it (`oomguard.metrics.FAST`)."""
    origin, kind, limit = level.origin, level.kind, level.limit
    assert isinstance(origin, LimitOrigin)
    assert isinstance(kind, UsedKind)
    return (
        Sample(m.MEMORY_USED, (target, kind.value), level.used),
        Sample(m.MEMORY_LIMIT, (target, origin.value), limit),
        Sample(m.MEMORY_RATIO, (target,), level.ratio),
        Sample(m.MEMORY_RATE, (target,), level.rate),
        Sample(m.MEMORY_THRESHOLD_RATIO, (target, "high"), in_force.high / limit),
        Sample(m.MEMORY_THRESHOLD_RATIO, (target, "critical"), in_force.critical / limit),
        Sample(m.MEMORY_THRESHOLD_RATIO, (target, "goal"), in_force.goal / limit),
    )


def threshold_samples(thresholds: Thresholds, target: str) -> Iterator[Sample]:
    """The thresholds as configured, in bytes."""
    yield Sample(m.MEMORY_THRESHOLD, (target, "high"), thresholds.high)
    yield Sample(m.MEMORY_THRESHOLD, (target, "critical"), thresholds.critical)
    yield Sample(m.MEMORY_THRESHOLD, (target, "goal"), thresholds.goal)


def snapshot_samples(snapshot: Snapshot) -> Iterator[Sample]:
    """Everything that a slow tick saw, but for the hooks (`oomguard.export.hook_series`)."""
    target = snapshot.target
    for source, reading in snapshot.sources().items():
        for status in Status:
            yield Sample(m.SOURCE_STATUS, (target, source, status.value), float(reading.status is status))
        yield Sample(m.SOURCE_SECONDS, (target, source), reading.seconds)
    for pairs in (
        _cgroup(snapshot.cgroup.value),
        _events(snapshot.events.value),
        _pressure(snapshot.pressure.value),
        _throttling(snapshot.throttling.value),
        _machine(snapshot.machine.value),
        _tree(snapshot.tree.value),
        _summed(_processes(snapshot.tree.value)),
    ):
        for metric, labels, value in pairs:
            if value is not None:
                yield Sample(metric, (target, *labels), float(value))
    own = snapshot.own.value
    if own is not None:
        pairs_own: tuple[tuple[m.Metric, float | None], ...] = (
            (m.OWN_RSS, own.rss),
            (m.OWN_VMS, own.vms),
            (m.OWN_CPU, own.user_seconds + own.system_seconds),
            (m.OWN_FDS, own.open_fds),
            (m.OWN_START, own.start_time),
        )
        for metric, value in pairs_own:
            if value is not None:
                yield Sample(metric, (), float(value))


def _cgroup(memory: CgroupMemory | None) -> Pairs:
    if memory is None:
        return
    yield m.CGROUP_USAGE, (), memory.usage
    yield m.CGROUP_LIMIT, (), memory.limit
    yield m.CGROUP_WORKING_SET, (), memory.working_set
    yield m.CGROUP_RECLAIMABLE, (), memory.reclaimable
    for part in ("anon", "file", "shmem", "kernel"):
        yield m.CGROUP_PART, (part,), getattr(memory, part)
    yield m.CGROUP_SWAP, (), memory.swap
    yield m.CGROUP_PEAK, (), memory.peak
    yield m.CGROUP_REFAULTS, (), memory.refaults_file


def _events(events: CgroupEvents | None) -> Pairs:
    if events is not None:
        for event in ("oom", "oom_kill", "high", "max", "failcnt"):
            yield m.CGROUP_EVENTS, (event,), getattr(events, event)


def _pressure(pressure: Pressure | None) -> Pairs:
    if pressure is not None:
        yield m.PRESSURE, (pressure.scope, "some"), pressure.some_seconds
        yield m.PRESSURE, (pressure.scope, "full"), pressure.full_seconds


def _throttling(throttling: CpuThrottling | None) -> Pairs:
    if throttling is not None:
        yield m.THROTTLED, (), throttling.throttled_seconds
        yield m.THROTTLED_PERIODS, (), throttling.throttled_periods


def _machine(machine: MachineMemory | None) -> Pairs:
    if machine is not None:
        yield m.MACHINE_TOTAL, (), machine.total
        yield m.MACHINE_AVAILABLE, (), machine.available
        yield m.MACHINE_SWAP, ("total",), machine.swap_total
        yield m.MACHINE_SWAP, ("free",), machine.swap_free


def _tree(tree: Tree | None) -> Pairs:
    yield m.TARGET_UP, (), float(tree is not None)
    if tree is not None:
        yield m.PROCESSES, (), len(tree.processes)
        yield m.PROCESSES_STARTED, (), tree.started_total
        yield m.PROCESSES_EXITED, (), tree.exited_total


def _processes(tree: Tree | None) -> Pairs:
    for process in tree.processes if tree is not None else ():
        yield from _process(process)


def _process(process: Process) -> Pairs:
    slot, sample = process.slot, process.sample
    yield m.PROCESS_RSS, (slot,), sample.rss
    yield m.PROCESS_VMS, (slot,), sample.vms
    yield m.PROCESS_PART, (slot, "anon"), sample.rss_anon
    yield m.PROCESS_PART, (slot, "file"), sample.rss_file
    yield m.PROCESS_PART, (slot, "shmem"), sample.rss_shmem
    yield m.PROCESS_SWAP, (slot,), sample.swap
    yield m.PROCESS_CPU, (slot, "user"), sample.user_seconds
    yield m.PROCESS_CPU, (slot, "system"), sample.system_seconds
    yield m.PROCESS_THREADS, (slot,), sample.threads
    yield m.PROCESS_FDS, (slot,), sample.open_fds
    yield m.PROCESS_FAULTS, (slot, "minor"), sample.minor_faults
    yield m.PROCESS_FAULTS, (slot, "major"), sample.major_faults
    if slot != "other":
        yield m.PROCESS_START, (slot,), sample.start_time
    if (memory := process.memory.value) is not None:
        yield m.PROCESS_PSS, (slot,), memory.pss
        yield m.PROCESS_USS, (slot,), memory.uss
    if (mappings := process.mappings.value) is not None:
        for kind in ("heap", "anonymous", "file", "shared", "stack", "other"):
            yield m.PROCESS_MAPPINGS, (slot, kind), getattr(mappings, kind)


def _summed(pairs: Pairs) -> Pairs:
    """Processes beyond the bound share the slot ``other``: their values are added."""
    sums: dict[tuple[m.Metric, tuple[str, ...]], float] = defaultdict(float)
    for metric, labels, value in pairs:
        if value is not None:
            sums[metric, labels] += value
    for (metric, labels), value in sums.items():
        yield metric, labels, value
