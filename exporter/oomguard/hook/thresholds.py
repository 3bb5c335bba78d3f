"""Where the guard alone begins and stops, and whether it may act at all: the environment, as the sidecar reads it."""

from __future__ import annotations

import os

from oomguard.hook.admin.size import Goal, parse_goal, parse_limit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from oomguard.hook.parts import Core

_OFF = ("0", "false", "no", "off")
_ON = ("1", "true", "yes", "on")


class Thresholds:
    """The thresholds, as the sidecar reads them from the environment; what can't be read is warned about."""

    def __init__(self, core: Core) -> None:
        self._core = core
        environ = core.environ
        megabytes_given = environ.get("MEMORY_CLEANUP_THRESHOLD_MB")
        familiar = f"{megabytes_given}MiB" if megabytes_given else ""
        self._high = self._given("OOMGUARD_HIGH", familiar) or Goal(ratio=0.8)
        self._critical = self._given("OOMGUARD_CRITICAL", "") or Goal(ratio=0.9)
        self._goal = self._given("OOMGUARD_GOAL", "")
        self.own_limit = parse_limit(environ.get("OOMGUARD_LIMIT"), environ.get("MEMORY_LIMIT_MB"))

    def of(self, limit: int) -> tuple[int, int, int]:
        """High, critical and goal in bytes: each at most the next higher."""
        critical = self._critical.of(limit) or limit
        high = min(self._high.of(limit) or limit, critical)
        goal = self._goal.of(limit) if self._goal is not None else None
        return high, critical, min(high, goal) if goal is not None else min(int(0.7 * limit), high * 7 // 8)

    def _given(self, name: str, otherwise: str) -> Goal | None:
        text = self._core.environ.get(name) or otherwise
        if not text:
            return None
        try:
            return parse_goal(text)
        except ValueError as error:
            self._core.warn(f"{name}: {error}")
            return None


def turned_off(environ: Mapping[str, str]) -> str:
    """Which variable turns automatic actions off; empty where none does."""
    name = "OOMGUARD_ACT" if environ.get("OOMGUARD_ACT") else "MEMORY_CLEANUP"
    for switch, words in ((name, _OFF), ("OOMGUARD_DRY_RUN", _ON)):
        given = environ.get(switch, "").strip().lower()
        if given in words:
            return f"{switch}={given}"
    return ""


def machine() -> int | None:
    """The machine's memory: the limit where there is no other."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
