"""The part of oomguard that runs inside the guarded application; standard library only.

::

    from oomguard import hook

    guard = hook.start()
    guard.cache("bulk", clear=bulk.clear, size=bulk.nbytes, entries=lambda: len(bulk))
    guard.stop()

The environment configures it: ``OOMGUARD_RUNTIME_DIR`` says where the sidecar listens (without it the hook
starts no thread), ``OOMGUARD_TARGET`` which target this is, and ``OOMGUARD_HOOK=0`` turns it off. Under
``oomguard run`` it is started before the application's first line, so that `start()` only returns the guard.
"""

from __future__ import annotations

from oomguard.hook.guard import Guard

__all__ = ["Guard", "start"]

_guard = Guard()


def start(*, autonomous: bool = False) -> Guard:
    """Start the hook, once, and return the guard of this process; never raises.

    The guard works where no sidecar is, too: `Guard.status` says what became of the start. `autonomous`: it also
    acts by itself when memory is short.
    """
    _guard.begin(autonomous=autonomous)
    return _guard


def start_in_children() -> Guard:
    """Like `start`, but only in the processes that are forked from this one: it holds nothing itself."""
    _guard.begin(here=False)
    return _guard
