"""Memory against the limit, at this moment: the figure that every decision is made on.

What counts as used is what the kernel would kill for. In a limited cgroup that is its usage less what can be
reclaimed. Without a limit of the kernel's, or with a smaller one of the user's, it is the PSS of the
target's tree: a limit that someone wrote down is meant for their service alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from oomguard.config import Settings
from oomguard.model import CgroupMemory, Level, LimitOrigin, MachineMemory, Process, Reading, Status, UsedKind
from oomguard.sampler import Growth
from oomguard.sources.cgroup import Cgroup, FastMemory
from oomguard.sources.fast_rss import FastRss
from oomguard.state import State

if TYPE_CHECKING:
    from oomguard.sources import portable


def choose_limit(
    settings: Settings, cgroup: CgroupMemory | None, machine: MachineMemory | None
) -> tuple[int, LimitOrigin] | None:
    """The limit in force and where it comes from; None when nothing tells one."""
    own = cgroup.limit if cgroup is not None else None
    total = machine.total if machine is not None else None
    if settings.limit_ratio is not None and (base := own or total) is not None:
        origin = LimitOrigin.CGROUP if own is not None else LimitOrigin.MACHINE
        return int(base * settings.limit_ratio), origin
    if settings.limit is not None and (own is None or settings.limit < own):
        return settings.limit, LimitOrigin.CONFIGURED
    if own is not None:
        return own, LimitOrigin.CGROUP
    return (total, LimitOrigin.MACHINE) if total is not None else None


class LevelReader:
    """Reads used memory through kept-open descriptors; the slow lane tells it what to read.

    `read` is called on the event loop, `update` and `close` too.
    """

    def __init__(self, state: State, rss: FastRss | portable.FastRss) -> None:
        self.limit: tuple[int, LimitOrigin] | None = None
        self._state = state
        self._growth = Growth()
        self._rate = 0.0
        self._fast: FastMemory | None = None
        self._rss = rss
        self._kind = UsedKind.PSS

    def update(
        self,
        cgroup: Reading[CgroupMemory],
        source: Cgroup | None,
        machine: MachineMemory | None,
        processes: Sequence[Process],
    ) -> None:
        """Take what the slow lane saw: limits may have been resized, processes come and gone."""
        self._rss.update(tuple(processes))
        if cgroup.status is Status.FAILED and self._fast is not None:
            return  # a full box refuses an open(2) (ENOMEM, EMFILE): what was known of it still holds
        settings = self._state.settings
        self.limit = choose_limit(settings, cgroup.value, machine)
        before = self._kind
        in_cgroup = (
            cgroup.value is not None and self.limit is not None and self.limit[1] is LimitOrigin.CGROUP
        )
        if settings.used == "rss":
            self._kind = UsedKind.RSS
        elif not in_cgroup:
            self._kind = UsedKind.PSS
        elif settings.used == "working_set":
            self._kind = UsedKind.WORKING_SET
        else:
            self._kind = UsedKind.CGROUP
        path = cgroup.value.path if in_cgroup and cgroup.value is not None else None
        if self._fast is not None and self._fast.path != path:
            self._fast.close()
            self._fast = None
        if self._fast is None and path is not None and source is not None:
            self._fast = source.fast()
        if self._kind is not before:
            self._growth = Growth()  # figures of two kinds have no difference

    def read(self, at: float, *, tick: bool = False) -> Level | None:
        """Memory now; None when it can't be known. `tick` marks a reading that growth is measured by."""
        if self.limit is None:
            return None
        used = self._used()
        if used is None:
            return None
        if tick:
            self._rate = self._growth.add(at, used)
        limit, origin = self.limit
        return Level(at, used, limit, origin, self._kind, self._rate)

    def resident(self) -> int | None:
        """RSS of the whole tree now; None where it can't be read."""
        try:
            return self._rss.read(kind=UsedKind.RSS)
        except OSError:
            return None

    def close(self) -> None:
        """Close every descriptor."""
        if self._fast is not None:
            self._fast.close()
            self._fast = None
        self._rss.close()

    def _used(self) -> int | None:
        try:
            if self._kind is UsedKind.RSS:
                return self._rss.read(kind=UsedKind.RSS) or None
            if self._kind is UsedKind.PSS:
                return self._rss.read() or None
            if self._fast is None:
                return None
            usage, reclaimable, inactive_file = self._fast.read()
        except OSError:
            return None  # the cgroup or the processes have gone; the slow lane finds out
        return max(0, usage - (inactive_file if self._kind is UsedKind.WORKING_SET else reclaimable))
