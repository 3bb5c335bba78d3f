"""The threads, locks and polls of the interpreter itself, even where gevent has replaced them.

gevent's patched thread is a greenlet: served by one, a hook answers only when the host's loop turns,
which is just when nobody needs it. What is captured here at import stays what it was, however the
host patches its modules later; where gevent was quicker, it is asked for what it put aside.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C module: signal would bring enum along
import _thread
import select
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "allocate_lock",
    "allocate_rlock",
    "get_ident",
    "get_native_id",
    "patched",
    "poll",
    "sleep",
    "start_thread",
]

_STACK = 1 << 20
"""Bytes. Only touched pages are resident, but a kernel before 6.7 that gives huge pages to everyone backs
an 8 MB stack with 2 MB at once; one that can't hold an aligned 2 MB is spared."""

_FAULTS = (_signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL)
"""The kernel sends these to the thread that caused them; blocked, faulthandler could say nothing."""


def _original(module: str, name: str) -> Callable[..., object]:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and hasattr(monkey, "get_original"):
        original: Callable[..., object] = monkey.get_original(module, name)
        return original
    found: Callable[..., object] = getattr(sys.modules[module], name)
    return found


# The modules are named so that the type checker knows the signatures; at run time they may be patched.
if TYPE_CHECKING:
    _start_new_thread = _thread.start_new_thread
    allocate_lock = _thread.allocate_lock
    allocate_rlock = _thread.RLock
    get_ident = _thread.get_ident
    poll = select.poll
    sleep = time.sleep
else:
    _start_new_thread = _original("_thread", "start_new_thread")
    allocate_lock = _original("_thread", "allocate_lock")
    allocate_rlock = _original("_thread", "RLock")
    get_ident = _original("_thread", "get_ident")
    poll = _original("select", "poll")
    sleep = _original("time", "sleep")
get_native_id = _thread.get_native_id
_threads = _thread._count  # noqa: SLF001 (the only count that includes threads unknown to threading)


def patched() -> bool:
    """Whether threads of the application's are greenlets by now: one that waits for another must not block them all."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def start_thread(run: Callable[[], None]) -> None:
    """Start a daemon thread that takes no signals; raises RuntimeError where no thread can be had.

    The signals are blocked in the caller for the moment of the start, since a new thread inherits the
    mask: one that came between its start and its own blocking would not interrupt the main thread.
    """
    blocked = _signal.valid_signals().difference(_FAULTS)
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, blocked)
    try:
        # The size is the interpreter's, not the thread's: it is changed only while no other thread
        # could start one of its own in between and get a stack that is too small for it.
        alone = _threads() == 0
        before = _thread.stack_size(_STACK) if alone else None
        try:
            _start_new_thread(run, ())
        finally:
            if before is not None:
                _thread.stack_size(before)
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
