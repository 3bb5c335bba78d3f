"""The part of oomguard that runs inside the guarded application; standard library only.

::

    from oomguard import hook

    guard = hook.start()
    jina = guard.model("jina-v3", load=load_jina, idle_timeout=300)
    app = guard.asgi(app, max_streams=5)

See docs/hook.md for all of it. The environment configures it: ``OOMGUARD_RUNTIME_DIR`` says where the sidecar listens
(without it the hook starts no thread but for what is due by the clock), ``OOMGUARD_TARGET`` which target this is, and
``OOMGUARD_HOOK=0`` turns it off. Under ``oomguard run`` it is started before the application's first line, so that
`start()` only returns the guard.

What an application may want to catch, all of it raised by what it asked for itself::

    MemoryError
     └─ BudgetExceeded
    OSError
     ├─ ChildDied
     └─ ModelProcessDied
    RuntimeError
     └─ ModelUnavailable
"""

from __future__ import annotations

from oomguard.hook.guard import Guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from oomguard.hook.children import ChildDied
    from oomguard.hook.limits.budgets import Budget, BudgetExceeded
    from oomguard.hook.models.errors import ModelProcessDied, ModelUnavailable

__all__ = [
    "BudgetExceeded",
    "ChildDied",
    "Guard",
    "ModelProcessDied",
    "ModelUnavailable",
    "read_chunks",
    "start",
]

_LATE = {
    "BudgetExceeded": "limits.budgets",
    "ChildDied": "children",
    "ModelProcessDied": "models.errors",
    "ModelUnavailable": "models.errors",
}
"""What is imported when somebody asks for it, and where it is."""

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


def read_chunks(
    path: str | os.PathLike[str], size: int = 65_536, *, budget: Budget | None = None
) -> Iterator[bytes]:
    """Iterate over a file in chunks of `size` bytes; of the `budget`, one chunk is reserved at a time.

    Raises ValueError for a size below 1; the iteration raises OSError, and BudgetExceeded.
    """
    from oomguard.hook.limits import chunks  # noqa: PLC0415 (only for those who use it)

    return chunks.read_chunks(path, size, budget=budget)


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 (as above)

    return getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
