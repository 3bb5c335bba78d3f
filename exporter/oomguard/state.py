"""What is known of the target at this moment: the one mutable record that the lanes and the views share.

It is written and read on the event loop alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from oomguard.clock import UnixClock
from oomguard.config import Settings
from oomguard.model import Level, Process, ProcessId, Snapshot


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

    @property
    def processes(self) -> tuple[Process, ...]:
        """The tree's processes at the last slow tick."""
        tree = self.snapshot.tree.value if self.snapshot is not None else None
        return tree.processes if tree is not None else ()
