"""What a part of the hook needs, without a guard: chores that the test runs itself."""

from __future__ import annotations

import gc

from oomguard.hook import parts, unpatched
from oomguard.hook.chores import Chores


def released() -> parts.Released:
    return parts.Released(gc.collect(), None, 0.0, trims=False)


def make_core() -> parts.Core:
    """A core whose chores run when the test calls `core.chores.run(now)`."""
    return parts.Core({}, Chores(lambda: None, lambda: None), unpatched.allocate_rlock(), released)
