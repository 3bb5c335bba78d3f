"""Fills a cache, and notes when memory crossed which level and when the order to clear it arrived.

It grows in small pieces at a random rate from --slowest to --fastest MB a second. What is in use is read from the
cgroup before each round and reckoned from there, piece by piece, while it grows: a thread that reads a file
after each piece gives up the GIL for a microsecond each time and takes it back before a waiting thread can
wake, so that the hook's thread would starve (seen: 0.3 to 0.9 s). malloc is told to map each piece on its own, so
that a piece is new memory and a cleared one is given back. The usage is read once more when the order arrives:
``drift`` is by how much the reckoning was wrong.

The time kept for a piece is the one *before* it was allocated, so that a reaction reckoned from it is never too
short. The cache's ``clear`` notes the arrival. All times are CLOCK_MONOTONIC.

A line for each round: ``{"arrived": s, "rate": bytes/s, "drift": bytes, "trail": [[s, bytes], ...]}``; the
trail holds the last pieces before the arrival: when each began, and what was in use after it.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import threading
import time
from collections import deque
from pathlib import Path

from ping import MB, Pace, register, say, serve

PIECE = 1 << 18  # at 400 MB/s one every 0.7 ms
HELD = PIECE + 4096  # bytes: the headers of malloc and of the object take it over a page's edge
TRAIL = 2000  # pieces: 500 MB, more than a threshold is ever lowered by
M_MMAP_THRESHOLD = -3  # mallopt(3)


class Usage:
    """What the box holds and can't reclaim, read through kept-open files: usage less file cache."""

    def __init__(self, folder: Path) -> None:
        self._usage = os.open(folder / "memory.usage_in_bytes", os.O_RDONLY)
        self._stat = os.open(folder / "memory.stat", os.O_RDONLY)
        self.file = 0

    def settle(self) -> None:
        """Read the slow half, the file cache: it hardly moves within a round."""
        fields = dict(line.split() for line in os.pread(self._stat, 8192, 0).splitlines())
        self.file = int(fields[b"total_active_file"]) + int(fields[b"total_inactive_file"])

    def used(self) -> int:
        return int(os.pread(self._usage, 32, 0)) - self.file


class Round:
    """One filling of the cache, until the order to clear it arrives."""

    def __init__(self, usage: Usage) -> None:
        self.pieces: list[bytes] = []
        self.trail: deque[tuple[float, int]] = deque(maxlen=TRAIL)
        self.used = usage.used()
        self.drift = 0
        self.arrived: float | None = None
        self._usage = usage

    def clear(self) -> None:
        if self.arrived is None:
            self.arrived = time.monotonic()
            self.drift = self._usage.used() - self.used
        self.pieces.clear()

    def grow(self, rate: float) -> float:
        """Fill until the order arrives; returns when it did."""
        pace = Pace(rate, slack=0.002)
        while self.arrived is None:
            before = time.monotonic()
            self.pieces.append(b"\x01" * PIECE)
            self.used += HELD
            self.trail.append((before, self.used))
            pace.wait(HELD)
        return self.arrived


def spin() -> None:
    number = 0
    while True:
        number = (number * 31 + 7) % 1_000_003


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cgroup", type=Path, required=True, help="the box's folder (cgroup v1)")
    parser.add_argument("--baseline", type=int, default=0, help="bytes in use before the first round")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--spinners", type=int, default=0)
    parser.add_argument("--slowest", type=float, default=50, help="MB a second")
    parser.add_argument("--fastest", type=float, default=400, help="MB a second")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, PIECE // 2)
    usage = Usage(arguments.cgroup)
    baseline = []
    while usage.used() < arguments.baseline:
        baseline.append(b"\x02" * (1 << 20))
        usage.settle()
    this = Round(usage)

    def clear() -> None:
        this.clear()

    register("rounds", clear, lambda: len(this.pieces) * PIECE, lambda: len(this.pieces))
    for _ in range(arguments.spinners):
        threading.Thread(target=spin, daemon=True).start()
    serve()
    time.sleep(3)  # the hook connects, the first slow tick has passed

    numbers = random.Random(arguments.seed)
    for _ in range(arguments.rounds):
        usage.settle()
        rate = numbers.uniform(arguments.slowest, arguments.fastest) * MB
        this = Round(usage)
        arrived = this.grow(rate)
        say(arrived=arrived, rate=round(rate), drift=this.drift, trail=list(this.trail))
        # The run of the ladder ends (gc, trim, settling) before the next one is provoked; a random rest, so
        # that rounds don't fall into step with the sidecar's own clock.
        time.sleep(numbers.uniform(0.6, 1.1))
    say(rounds=arguments.rounds, baseline=len(baseline) << 20)


if __name__ == "__main__":
    main()
