"""Two forked workers with a model, two caches, a stream, a budget and a mounted application; ends with stdin.

Orders of stdin, one a line, each answered with a JSON line when it is done:

``use N``   worker N (0, 1) uses its model once
``end N``   worker N ends
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack

from ping import MB, say

from oomguard import hook

WORKERS = 2


def nothing(environ: object, start_response: Callable[..., object]) -> list[bytes]:
    start_response("200 OK", [])
    return []


def work(orders: int, done: int) -> None:
    guard = hook.start()
    bulk, small = [bytearray(20 * MB)], [bytearray(MB)]
    for name, cache in (("bulk", bulk), ("small", small)):
        guard.cache(name, cache.clear, lambda cache=cache: sum(map(len, cache)))  # type: ignore[misc]
    model = guard.model("jina", lambda: bytearray(os.urandom(1024) * 30_000), min_residency=0.0)
    guard.wsgi(nothing)
    with open(orders) as lines, ExitStack() as held:
        held.enter_context(guard.stream("mcp"))
        held.enter_context(guard.budget("weights", 100 * MB).reserve(60 * MB))
        for line in lines:
            if line.startswith("end"):
                os._exit(0)
            with model:
                os.write(done, b"x")


def main() -> None:
    told, done = os.pipe()
    workers = []
    for _ in range(WORKERS):
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(write)
            work(read, done)
            os._exit(0)
        os.close(read)
        workers.append((pid, write))
    say(workers=[pid for pid, _ in workers])
    for line in sys.stdin:
        order, number = line.split()
        pid, orders = workers[int(number)]
        os.write(orders, line.encode())
        if order == "end":
            os.waitpid(pid, 0)
        else:
            os.read(told, 1)
        say(did=order)


if __name__ == "__main__":
    main()
