"""Where the guard alone begins and stops, and whether it may act at all.

As the last sidecar said it with its questions, for it knows flags, its file and what was reloaded; before there was
one, as the environment has it.
"""

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
    """The thresholds; what can't be read in the environment is warned about.

    `told` is what a sidecar said (docs/hook-protocol.md, "reading"): it goes before the environment.
    """

    def __init__(self, core: Core, told: Mapping[str, object] | None = None) -> None:
        self._core = core
        if told is not None:
            self._high = _ratio(told.get("high")) or Goal(ratio=0.8)
            self._critical = _ratio(told.get("critical")) or Goal(ratio=0.9)
            self._goal = _ratio(told.get("goal"))
            limit = told.get("limit")
            self.own_limit = limit if isinstance(limit, int) and limit > 0 else None
            return
        environ = core.environ
        self._high = self._given("OOMGUARD_HIGH") or Goal(ratio=0.8)
        self._critical = self._given("OOMGUARD_CRITICAL") or Goal(ratio=0.9)
        self._goal = self._given("OOMGUARD_GOAL")
        self.own_limit = parse_limit(environ.get("OOMGUARD_LIMIT"), environ.get("MEMORY_LIMIT_MB"))

    def of(self, limit: int) -> tuple[int, int, int]:
        """High, critical and goal in bytes: each at most the next higher."""
        critical = self._critical.of(limit) or limit
        high = min(self._high.of(limit) or limit, critical)
        goal = self._goal.of(limit) if self._goal is not None else None
        return high, critical, min(high, goal) if goal is not None else min(int(0.7 * limit), high * 7 // 8)

    def _given(self, name: str) -> Goal | None:
        text = self._core.environ.get(name)
        if not text:
            return None
        try:
            return parse_goal(text)
        except ValueError as error:
            self._core.warn(f"{name}: {error}")
            return None


def _ratio(told: object) -> Goal | None:
    return Goal(ratio=float(told)) if isinstance(told, int | float) and 0 < told <= 1 else None


def turned_off(environ: Mapping[str, str], told: Mapping[str, object] | None = None) -> str:
    """What turns automatic actions off; empty where nothing does."""
    if told is not None and told.get("act") is False:
        return "the sidecar was not to act either"
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
