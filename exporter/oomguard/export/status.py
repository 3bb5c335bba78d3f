"""What the sidecar knows, as JSON for ``/api/v1/status``, ``/health`` and ``oomguard status``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Final

from oomguard.hookmodel import AppStats
from oomguard.model import HookReading, Level, Process, Reading, Snapshot, Status

_MB: Final = 1 << 20


def health(
    level: Level | None, thresholds: Mapping[str, int], target: str, hooks: Sequence[HookReading] = ()
) -> dict[str, Any]:
    """The body of ``/health``; MB are of 2^20 bytes. `status` is ``unknown`` where memory can't be read.

    `shedding`: some process turns new requests away.
    """
    shedding = any(hook.app.shed is not None and hook.app.shed.on is True for hook in hooks)
    if level is None:
        return {"status": "unknown", "target": target, "shedding": shedding}
    status = "healthy"
    if level.used >= thresholds["critical"]:
        status = "critical"
    elif level.used >= thresholds["high"]:
        status = "degraded"
    return {
        "status": status,
        "target": target,
        "memory_mb": round(level.used / _MB, 1),
        "memory_percent": round(100 * level.ratio, 1),
        "memory_limit_mb": round(level.limit / _MB, 1),
        "memory_available_mb": round(max(0, level.limit - level.used) / _MB, 1),
        "limit_origin": level.origin.value,
        "shedding": shedding,
    }


def level_json(level: Level | None) -> dict[str, Any] | None:
    """The level, in bytes."""
    if level is None:
        return None
    return {
        "used": level.used,
        "limit": level.limit,
        "ratio": round(level.ratio, 4),
        "rate": round(level.rate),
        "kind": level.kind.value,
        "origin": level.origin.value,
    }


def snapshot_json(snapshot: Snapshot, *, command_lines: bool) -> dict[str, Any]:
    """Sources, processes and hooks; command lines may hold secrets and are shown on request only."""
    tree = snapshot.tree.value
    return {
        "time": snapshot.time,
        "sources": {name: reading_json(reading) for name, reading in snapshot.sources().items()},
        "processes": [
            _process(process, command_lines=command_lines) for process in (tree.processes if tree else ())
        ],
        "hooks": [_hook(hook) for hook in snapshot.hooks.value or ()],
    }


def reading_json(reading: Reading[Any]) -> dict[str, Any]:
    """A source's status, with the reason where there is no value."""
    told: dict[str, Any] = {"status": reading.status.value, "seconds": round(reading.seconds, 6)}
    if reading.status is not Status.OK:
        told["reason"] = reading.reason
    return told


def _process(process: Process, *, command_lines: bool) -> dict[str, Any]:
    sample, memory = process.sample, process.memory.value
    told = {
        "process": process.slot,
        "pid": sample.id.pid,
        "name": sample.name,
        "state": sample.state,
        "rss": sample.rss,
        "pss": memory.pss if memory else None,
        "uss": memory.uss if memory else None,
        "vms": sample.vms,
        "swap": sample.swap,
        "threads": sample.threads,
        "open_fds": sample.open_fds,
        "cpu_seconds": round(sample.user_seconds + sample.system_seconds, 2),
        "start_time": sample.start_time,
    }
    if command_lines:
        told["command"] = " ".join(process.cmdline)
    return told


def _hook(hook: HookReading) -> dict[str, Any]:
    allocator, gc = hook.allocator.value, hook.gc.value
    return {
        "process": hook.slot,
        "pid": hook.pid,
        "runtime": f"{hook.runtime} {hook.runtime_version}",
        "version": hook.hook_version,
        "forked": hook.forked,
        "allocator": {
            "name": allocator.name,
            "in_use": allocator.in_use,
            "free": allocator.free,
            "mmapped": allocator.mmapped,
            "retained": allocator.retained,
        }
        if allocator
        else reading_json(hook.allocator),
        "gc": {"collections": list(gc.collections), "pause_last_full": gc.pause_last_full}
        if gc
        else reading_json(hook.gc),
        "caches": [
            {"name": cache.name, "bytes": cache.bytes, "entries": cache.entries} for cache in hook.caches
        ],
        **_app(hook.app),
    }


def _app(app: AppStats) -> dict[str, Any]:
    """What the application's parts told; those that it has not are left out."""
    told = json_of(app)
    assert isinstance(told, dict)
    return {name: part for name, part in told.items() if part}


def json_of(value: object) -> object:
    """A record as JSON: fields by name, enums by value."""
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value):
        return {field.name: json_of(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: json_of(one) for key, one in value.items()}
    return [json_of(one) for one in value] if isinstance(value, tuple) else value
