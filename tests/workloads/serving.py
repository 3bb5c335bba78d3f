"""What the services of the framework tests have in common: the guard, a cache of 1 MiB, a way to block a worker."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from oomguard import hook

TICK = "data: tick\n\n"
PAUSE = 0.02
"""Seconds between two events of a stream."""

guard = hook.start()
store = [bytearray(1 << 20)]
guard.cache("store", store.clear, size=lambda: sum(map(len, store)), entries=lambda: len(store))


def block(flag: str) -> None:
    """Hold the thread that calls, and no greenlet gets its turn, until the file `flag` is there."""
    monkey = sys.modules.get("gevent.monkey")
    sleep = time.sleep if monkey is None else monkey.get_original("time", "sleep")
    Path(f"{flag}.blocked").touch()
    while not os.path.exists(flag):  # noqa: PTH110 (it is asked a hundred times a second)
        sleep(0.01)


def left(path: str) -> None:
    """Note in a file that a stream's handler came to its end."""
    Path(path).touch()


def facts() -> dict[str, object]:
    """Who answers, and what it holds."""
    return {"pid": os.getpid(), "store": len(store)}
