"""oomguard keeps memory-hungry services alive inside small containers.

An application imports the hook and nothing else::

    from oomguard import hook

    guard = hook.start()
    guard.cache("vectors", clear=vectors.clear)

Everything beside :mod:`oomguard.hook` belongs to the sidecar and needs ``oomguard[sidecar]``.
This file is read by the start-up directory in any target's interpreter: it imports nothing.
"""

__version__ = "0.1.0"
