"""What is known of the target at this moment: the one mutable record that the lanes and the views share.

It is written and read on the event loop alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from oomguard.clock import UnixClock
from oomguard.config import Settings
from oomguard.model import Level, LimitOrigin, Process, ProcessId, Snapshot


@dataclass(slots=True)
class State:
    """One target."""

    target: str
    """Value of the label ``target``."""
    settings: Settings = field(default_factory=Settings)
    """Those in force; a reload replaces them."""
    clock: UnixClock = field(default_factory=UnixClock)
    root: ProcessId | None = None
    """The main process; None while the target does not run."""
    root_since: float = 0.0
    """Monotonic seconds at which it was found."""
    gone: bool = False
    """The target has ended for good: no other will come."""
    level: Level | None = None
    """Memory at the last fast tick; None while it can't be read."""
    snapshot: Snapshot | None = None
    """What the last slow tick saw."""

    def told_hooks(self) -> dict[str, object] | None:
        """The thresholds in force, as parts of the limit, for hooks that may be left alone; None until memory is known.

        `limit` is bytes, and None where hooks find it themselves.
        """
        level = self.level
        if level is None:
            return None
        configured = level.origin is LimitOrigin.CONFIGURED
        parts = {name: size / level.limit for name, size in self.settings.thresholds(level.limit).items()}
        acts = self.settings.act and not self.settings.dry_run
        return {**parts, "limit": level.limit if configured else None, "act": acts}

    @property
    def processes(self) -> tuple[Process, ...]:
        """The tree's processes at the last slow tick."""
        tree = self.snapshot.tree.value if self.snapshot is not None else None
        return tree.processes if tree is not None else ()
