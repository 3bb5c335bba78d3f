"""Waiting for signals, all of which stay blocked in the supervisor.

The ``signal`` that other modules take from here is the C module: the one of the standard library wraps it
in enums, which costs 0.7 MB of private dirty memory.
"""

import os
import time

TYPE_CHECKING = False  # typing would cost 2 MB; type checkers know the name
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal

__all__ = ["ALL", "next_signal", "prepare", "signal"]

ALL = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
_POLL = 0.01


def prepare() -> None:
    """Block all signals, and undo what Python or our parent did to their dispositions."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ALL)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, children would reap themselves
    if not hasattr(signal, "sigtimedwait"):  # macOS drops what is ignored by default even while blocked
        for number in (signal.SIGCHLD, signal.SIGCONT, signal.SIGWINCH, signal.SIGURG, signal.SIGIO):
            signal.signal(number, lambda *_: None)


def next_signal(timeout: float | None) -> int:
    """Wait for one of the blocked signals; 0 when none came within `timeout` seconds."""
    if not hasattr(signal, "sigtimedwait"):  # macOS
        time.sleep(_POLL if timeout is None else min(timeout, _POLL))
        pending = signal.sigpending() - {signal.SIGPIPE}
        return signal.sigwait(pending) if pending else signal.SIGCHLD
    info = signal.sigwaitinfo(ALL) if timeout is None else signal.sigtimedwait(ALL, max(0.0, timeout))
    # A write of ours to a broken pipe leaves a SIGPIPE pending, since it is blocked: not for the target.
    if info is None or (info.si_signo in (signal.SIGPIPE, signal.SIGXFSZ) and info.si_pid == os.getpid()):
        return 0
    return info.si_signo
