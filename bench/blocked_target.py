"""An asyncio service whose event loop is blocked on order: ``blocked_target.py``, with lines on stdin.

``sleep N``    the loop sleeps for N seconds in a handler that should have awaited
``io N``       it waits for a peer that answers after N seconds, by a blocking read of a socket
``compute N``  it computes in Python for N seconds

It says a line when it begins and one when the loop goes on. Ends with stdin.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time

from oomguard import hook


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def io(seconds: float) -> None:
    ours, theirs = socket.socketpair()
    peer = threading.Timer(seconds, theirs.sendall, [b"at last"])
    peer.start()
    ours.recv(100)
    peer.join()
    ours.close()
    theirs.close()


def compute(seconds: float) -> None:
    until = time.monotonic() + seconds
    total = 0
    while time.monotonic() < until:
        total += sum(range(100))


async def work() -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        name, seconds = line.split()
        print("began", flush=True)
        {"sleep": sleep, "io": io, "compute": compute}[name](float(seconds))
        print("ended", flush=True)


if __name__ == "__main__":
    hook.start()
    asyncio.run(work())
