"""Forks a worker that stands still when stdin says so; each order is answered with a JSON line. Ends with stdin.

``regex N``   the worker holds the interpreter for about N seconds: a regular expression that backtracks
``loop N``    its event loop sleeps for N seconds while another thread computes in Python
``end``       it ends
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import threading
import time

from ping import say

BACKTRACKS = re.compile(r"(a+)+$")
"""Doubles its time with every letter of ``aaa…b``, in one call into C that never lets go of the interpreter."""


def backtrack(seconds: float) -> None:
    letters, took = 16, 0.0
    while took < 0.1:  # too short to be noticed
        letters += 1
        began = time.perf_counter()
        BACKTRACKS.match("a" * letters + "b")
        took = time.perf_counter() - began
        time.sleep(0.01)  # the hook has its turn between two of them
    while took < seconds:
        letters, took = letters + 1, took * 2
    time.sleep(0.3)
    say(began=time.time())
    BACKTRACKS.match("a" * letters + "b")
    say(ended=time.time())


def spin(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


async def block(seconds: float) -> None:
    threading.Thread(target=spin, args=(seconds,), daemon=True).start()
    say(began=time.time())
    time.sleep(seconds)  # noqa: ASYNC251 (that is what it is for)
    say(ended=time.time())


def work(orders: int) -> None:
    with open(orders) as lines:
        for line in lines:
            order, *rest = line.split()
            if order == "end":
                break
            if order == "regex":
                backtrack(float(rest[0]))
            else:
                asyncio.run(block(float(rest[0])))
    os._exit(0)


def main() -> None:
    orders, write = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.close(write)
        work(orders)
    os.close(orders)
    say(pid=os.getpid(), worker=worker)
    for line in sys.stdin:
        os.write(write, line.encode())
        if line.startswith("end"):
            os.waitpid(worker, 0)
            say(ended=worker)
    os.kill(worker, signal.SIGKILL)


if __name__ == "__main__":
    main()
