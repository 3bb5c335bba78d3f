"""The harder survival: small objects from many threads, on a full page cache, above a high baseline.

First --file is read whole (it should be twice the box and not in the page cache), then plain memory is
held until the process has --baseline MB of its own, then --threads threads put objects of 4 to 64 KB into one
cache at --rate MB a second together. Clearing it leaves holes all over malloc's arenas.
"""

from __future__ import annotations

import argparse
import random
import threading
import time
from pathlib import Path

from ping import MB, Meter, Pace, register, say, serve

PIECE = 1 << 20


def read_whole(path: Path) -> None:
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(PIECE)
        while file.readinto(buffer):
            pass


def own_memory() -> int:
    """RssAnon in bytes (proc_pid_status(5))."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no RssAnon in /proc/self/status")


class Cache:
    """Objects by number; counts what it holds under a lock, as its eight writers need."""

    def __init__(self) -> None:
        self.items: dict[int, bytes] = {}
        self.size = 0
        self.cleared = 0
        self.meter = Meter()
        self._lock = threading.Lock()

    def put(self, key: int, value: bytes) -> None:
        with self._lock:
            self.items[key] = value
            self.size += len(value)
            self.meter.add(len(value))

    def clear(self) -> None:
        with self._lock:
            old, self.items, self.size = self.items, {}, 0
            self.cleared += 1
        old.clear()  # outside the lock: freeing takes its time


def fill(cache: Cache, number: int, rate: float, end: float) -> None:
    pace, sizes, key = Pace(rate), random.Random(number), number
    while time.monotonic() < end:
        value = b"\x01" * sizes.randrange(4_000, 64_000)
        cache.put(key, value)
        key += 1_000  # keys of different threads never meet: there are fewer than a thousand
        pace.wait(len(value))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=200, help="MB a second, all threads together")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--baseline", type=float, default=307, help="MB of its own before the cache grows")
    parser.add_argument("--file", type=Path, required=True, help="read once, to fill the page cache")
    arguments = parser.parse_args()

    read_whole(arguments.file)
    baseline: list[bytes] = []
    while own_memory() < arguments.baseline * MB:
        baseline.append(b"\x02" * PIECE)
    cache = Cache()
    register("objects", cache.clear, lambda: cache.size, lambda: len(cache.items))
    serve()
    end = time.monotonic() + arguments.seconds
    share = arguments.rate * MB / arguments.threads
    threads = [
        threading.Thread(target=fill, args=(cache, number, share, end)) for number in range(arguments.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    say(**cache.meter.result(), cleared=cache.cleared, baseline=len(baseline) * PIECE)


if __name__ == "__main__":
    main()
