"""Importing this starts the hook: what the wheel's .pth file and the start-up directory do.

It stands in front of every Python program in the target, so it says nothing and raises nothing.
``OOMGUARD_INJECT=0`` (``oomguard run --no-inject``) leaves the start to the application.
"""

from __future__ import annotations

import os
import sys

_TRACKERS = ("resource_tracker", "semaphore_tracker")
_FORK_SERVER = "multiprocessing.forkserver"


def helper_code(orig_argv: list[str]) -> str:
    """Return the code of `python -c`, by which multiprocessing starts its helpers; else an empty text."""
    for position, word in enumerate(orig_argv[1:-1], start=1):
        if word == "-c":
            return orig_argv[position + 1]
        if not word.startswith("-"):
            break
    return ""


def run(orig_argv: list[str]) -> None:
    """Start the hook, unless this process only keeps house for another."""
    if os.environ.get("OOMGUARD_INJECT") == "0" or os.environ.get("OOMGUARD_HOOK") == "0":
        return
    code = helper_code(orig_argv)
    if code.startswith("from ") and any(tracker in code for tracker in _TRACKERS):
        return  # it must outlive its parent to clean up, and holds nothing
    from oomguard import hook  # noqa: PLC0415 (not before it is clear that this process wants it)

    if code.startswith("from ") and _FORK_SERVER in code:
        hook.start_in_children()  # it holds nothing, its children are the workers
    else:
        hook.start()


try:  # noqa: SIM105 (contextlib would be imported by every Python of the target)
    run(sys.orig_argv)
except Exception:  # noqa: BLE001, S110 (a hook that can't start must not be noticed)
    pass
