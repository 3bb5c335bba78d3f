"""The first process of ``oomguard run``, and how the command becomes it.

The command calls `become_subreaper` and `hold_signals`, then ``os.execv(python, command(…))``: it keeps its
PID, and what it had imported is gone from memory. The supervisor imports this file too, so what it needs is
imported where it is used (ctypes alone is 0.5 MB of private dirty memory).
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # typing would cost 2 MB; type checkers know the name
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h"""


def command(
    *,
    python: str,
    target: Sequence[str],
    sidecar: Sequence[str],
    restart: bool,
    max_restarts: int,
    oom_adj: bool,
    ready_timeout: float = 10.0,
    mask: Collection[int] = (),
    first_backoff: float = 1.0,
) -> list[str]:
    """Build the argument vector that turns this process into the supervisor.

    `python` is an interpreter of 3.10 or later; `target` and `sidecar` are whole argument vectors.
    `max_restarts` is per hour. `ready_timeout` and `first_backoff` are seconds: how long the target waits
    for the sidecar, and the delay before its first restart. `mask` are the signals that the target
    starts with blocked: what `hold_signals` returned.
    """
    settings = {
        "restart": int(restart),
        "max_restarts": max_restarts,
        "oom_adj": int(oom_adj),
        "ready_timeout": ready_timeout,
        "backoff": first_backoff,
        "mask": ",".join(str(int(number)) for number in sorted(mask)),
        "sidecar": len(sidecar),
    }
    script = os.path.join(os.path.dirname(__file__), "main.py")  # noqa: PTH118, PTH120 - see above
    pairs = [f"{name}={value}" for name, value in settings.items()]
    return [python, "-I", "-S", script, *pairs, "--", *sidecar, *target]


def become_subreaper() -> None:
    """Adopt the target's orphans (prctl(2)); survives execve. Does nothing where there is no such thing."""
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415 - see above

    try:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    except (OSError, AttributeError):
        return


def hold_signals() -> set[int]:
    """Block all signals until the supervisor looks at them; return the mask that was in force.

    Without it a signal between execv and the supervisor's first lines would be lost for PID 1, to
    which the kernel sends nothing that it does not handle. The mask and pending signals survive execve.
    """
    import signal  # noqa: PLC0415 - see above

    return {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())}
