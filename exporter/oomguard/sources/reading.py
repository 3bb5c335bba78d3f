"""Turns one call of a source into a `Reading`: status, one-line reason, duration.

A source raises `Absent`, `Unsupported` or `Failed` for what it expects, and lets OSError and
ValueError pass for what it does not; `read` maps them all, so that no source ever raises.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from oomguard.model import Reading, Status

T = TypeVar("T")

PTRACE_FIX = "run oomguard with the target's uid and gid, or give it CAP_SYS_PTRACE"
"""What mends a refusal of /proc/PID/smaps and /proc/PID/root (ptrace(2), access mode checking)."""


class Absent(Exception):  # noqa: N818 - named like the status that it becomes
    """It works here, but there is nothing to read now."""


class Unsupported(Exception):  # noqa: N818 - named like the status that it becomes
    """This kernel or system does not have it."""


class Failed(Exception):  # noqa: N818 - named like the status that it becomes
    """It should have worked; the text says why it did not and what mends it."""


def read(fn: Callable[[], T], *, clock: Callable[[], float] = time.perf_counter) -> Reading[T]:
    """Call a source and put what came of it into a Reading; raises none of OSError and ValueError."""
    started = clock()
    try:
        value = fn()
    except Absent as error:
        return Reading(Status.ABSENT, reason=str(error), seconds=clock() - started)
    except Unsupported as error:
        return Reading(Status.UNSUPPORTED, reason=str(error), seconds=clock() - started)
    except Failed as error:
        return Reading(Status.FAILED, reason=str(error), seconds=clock() - started)
    except OSError as error:
        return Reading(Status.FAILED, reason=os_reason(error), seconds=clock() - started)
    except ValueError as error:
        reason = " ".join(str(error).split()) or "malformed data"
        return Reading(Status.FAILED, reason=reason, seconds=clock() - started)
    return Reading(Status.OK, value, seconds=clock() - started)


def os_reason(error: OSError, fix: str = "") -> str:
    """One lower-case line for an OSError: the path, the kernel's text, the fix."""
    text = (error.strerror or str(error) or type(error).__name__).lower()
    path = error.filename
    if isinstance(path, bytes):
        path = path.decode(errors="replace")
    line = f"can't read {path}: {text}" if path else text
    return " ".join(f"{line}; {fix}".split()) if fix else " ".join(line.split())
