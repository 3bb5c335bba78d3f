"""Does what stdin says, one order a line, and answers each with a JSON line; ends with stdin.

It never mentions oomguard unless it is told to register its cache:

``register``    tell the hook of the cache
``cache N``     put N MB into the cache
``hold N``      map and touch N MB beside malloc: only the end of the process gives them back
``scatter N``   allocate N MB in objects of 4 to 64 KB, and one small object after them
``drop``        free the scattered objects but the last: malloc keeps what they held
``fork N``      fork N children that do nothing
``exit CODE``   end
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import sys
import time

from ping import MB, register, say

PIECE = 1 << 20
PAGE = b"\x02" * mmap.PAGESIZE


class Obedient:
    """One method an order; each takes the order's number."""

    def __init__(self) -> None:
        self.cached: list[bytes] = []
        self.held: list[mmap.mmap] = []
        self.scattered: list[bytes] = []
        self.children: list[int] = []
        self.sizes = random.Random(7)

    def register(self, _: int) -> None:
        register("pieces", self.cached.clear, lambda: len(self.cached) * PIECE, self.cached.__len__)

    def cache(self, amount: int) -> None:
        self.cached.extend(b"\x01" * PIECE for _ in range(amount * MB // PIECE))

    def hold(self, amount: int) -> None:
        block = mmap.mmap(-1, amount * MB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for _ in range(amount * MB // len(PAGE)):
            block.write(PAGE)
        self.held.append(block)

    def scatter(self, amount: int) -> None:
        size = 0
        while size < amount * MB:
            self.scattered.append(b"\x03" * self.sizes.randrange(4_000, 64_000))
            size += len(self.scattered[-1])

    def drop(self, _: int) -> None:
        del self.scattered[:-1]

    def fork(self, amount: int) -> None:
        for _ in range(amount):
            if (child := os.fork()) == 0:
                time.sleep(600)
                os._exit(0)
            self.children.append(child)

    def end(self) -> None:
        for child in self.children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def main() -> None:
    service = Obedient()
    say(pid=os.getpid())
    for line in sys.stdin:
        order, *rest = line.split()
        amount = int(rest[0]) if rest else 0
        if order == "exit":
            service.end()
            sys.exit(amount)
        getattr(service, order)(amount)
        say(did=order, children=service.children)
    service.end()


if __name__ == "__main__":
    main()
