"""A heap of --size MB of small Python objects, shared copy-on-write by --children forked children.

The children leave it alone. Added up, their RSS is far above the box; what the box holds is little more
than one heap.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import signal
import time

from ping import MB, register, say, serve

OBJECT = 200  # bytes of a short string, its place in the list and malloc's share of both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=float, default=150, help="MB")
    parser.add_argument("--children", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()

    heap = [f"{number:0140d}" for number in range(int(arguments.size * MB / OBJECT))]
    register("nothing", lambda: None, lambda: 0, lambda: 0)
    gc.collect()
    children = []
    for _ in range(arguments.children):
        pid = os.fork()
        if pid == 0:
            time.sleep(arguments.seconds + 60)
            os._exit(0)
        children.append(pid)
    serve()
    time.sleep(arguments.seconds)
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        os.waitpid(pid, 0)
    say(objects=len(heap), children=len(children))


if __name__ == "__main__":
    main()
