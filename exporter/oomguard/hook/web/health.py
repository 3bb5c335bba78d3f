"""What `/health` says: how much memory is used, and whether that is well. Always a whole answer, of JSON's types."""

from __future__ import annotations

import os

from oomguard.hook.admin import level
from oomguard.hook.admin.level import Level
from oomguard.hook.admin.size import Goal, parse_goal, parse_limit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MIB = 1 << 20
_HIGH, _CRITICAL = Goal(ratio=0.8), Goal(ratio=0.9)
"""The sidecar's defaults."""


class Health:
    """Call it for the answer. `more` adds what other parts know (models loaded, streams open).

    `environ` is looked at anew each time, as the mounted /admin does it.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        more: Callable[[], Mapping[str, object]] = dict,
        *,
        look: Callable[[int | None], Level] = level.read,
        machine: Callable[[], int | None] | None = None,
    ) -> None:
        self._environ = environ
        self._more = more
        self._look = look
        self._machine = machine or _machine

    def __call__(self) -> dict[str, object]:
        """The same fields as the sidecar's ``/health``; MB are of 2^20 bytes. Takes 0.1 ms, never raises.

        `status` is ``healthy``, ``degraded`` from OOMGUARD_HIGH (80 %) on, ``critical`` from
        OOMGUARD_CRITICAL (90 %) on, ``unknown`` where memory can't be read.
        """
        environ = self._environ
        told: dict[str, object] = {
            "status": "unknown",
            "target": environ.get("OOMGUARD_TARGET") or os.uname().nodename,
        }
        own = parse_limit(environ.get("OOMGUARD_LIMIT"), environ.get("MEMORY_LIMIT_MB"))
        found = self._look(own)
        used, limit = found.used, found.limit
        origin = "configured" if own is not None and limit == own else "cgroup"
        if limit is None:
            limit, origin = self._machine(), "machine"
        if used is not None:
            told["memory_mb"] = round(used / _MIB, 1)
            if limit:
                told["status"] = self._status(used, limit)
                told["memory_percent"] = round(100 * used / limit, 1)
                told["memory_limit_mb"] = round(limit / _MIB, 1)
                told["memory_available_mb"] = round(max(0, limit - used) / _MIB, 1)
                told["limit_origin"] = origin
            told["memory_of"] = found.origin.value
        try:
            told.update(self._more())
        except Exception as error:  # noqa: BLE001 (who asks for the health is told what is known)
            told["error"] = f"{type(error).__name__}: {error}"[:200]
        return told

    def _status(self, used: int, limit: int) -> str:
        for name, default, status in (
            ("OOMGUARD_CRITICAL", _CRITICAL, "critical"),
            ("OOMGUARD_HIGH", _HIGH, "degraded"),
        ):
            try:
                from_here = parse_goal(self._environ.get(name) or default.ratio or 0)
            except ValueError:
                from_here = default
            size = from_here.of(limit)
            if size is not None and used >= size:
                return status
        return "healthy"


def _machine() -> int | None:
    """The machine's memory in bytes: what the sidecar takes where nothing else limits."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
