"""A cache of 60 MB whose clear callback takes memory without end, in this process or in a forked worker.

``hungry_cache.py main|worker``. Says ``{"pid": …}`` of the process that has it. Ends by a signal; a worker that the
kernel has killed it outlives.
"""

from __future__ import annotations

import os
import signal
import sys

from ping import MB, say

from oomguard import hook


def hungry() -> None:
    held = [bytearray(b"\x01" * (60 * MB))]

    def eat() -> None:
        while True:
            held.append(bytearray(b"\x01" * MB))

    hook.start().cache("hungry", eat, lambda: sum(map(len, held)))
    say(pid=os.getpid())
    signal.pause()


def main() -> None:
    if sys.argv[1] == "main" or (worker := os.fork()) == 0:
        hungry()
    else:
        # Cleared once the worker has gone: this one has done its part of the step, and the other has not.
        hook.start().cache("small", lambda: os.waitpid(worker, 0))
        signal.pause()


if __name__ == "__main__":
    main()
