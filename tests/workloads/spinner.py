"""Fills a cache, and notes when memory crossed which level and when the order to clear it arrived.

It grows in small pieces at a random rate from --slowest to --fastest MB a second and reads its cgroup's own
figures after each piece. The time kept for a piece is the one *before* it was allocated, so that a reaction
reckoned from it is never too short: not by the piece, nor by a wait for the GIL after it (beside --spinners
spinning threads that is most of it). The cache's ``clear`` notes the arrival. All times are CLOCK_MONOTONIC.

A line for each round: ``{"arrived": s, "rate": bytes/s, "trail": [[s, bytes], ...]}``; the trail holds the
last pieces before the arrival: when each began, and what was in use (usage less file cache) after it.
"""

from __future__ import annotations

import argparse
import os
import random
import threading
import time
from collections import deque
from pathlib import Path

from ping import MB, Pace, register, say, serve

TRAIL = 400  # pieces: 100 MB at least, more than a threshold is ever lowered by


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

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.trail: deque[tuple[float, int]] = deque(maxlen=TRAIL)
        self.arrived: float | None = None

    def clear(self) -> None:
        if self.arrived is None:
            self.arrived = time.monotonic()
        self.pieces.clear()


def grow(usage: Usage, this: Round, rate: float, piece: int) -> float:
    """Fill until the order arrives; returns when it did."""
    pace = Pace(rate, slack=0.002)
    while this.arrived is None:
        before = time.monotonic()
        this.pieces.append(b"\x01" * piece)
        used = usage.used()
        if this.arrived is None:
            this.trail.append((before, used))
        pace.wait(piece)
    return this.arrived


def spin() -> None:
    number = 0
    while True:
        number = (number * 31 + 7) % 1_000_003


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cgroup", type=Path, required=True, help="the box's folder (cgroup v1)")
    parser.add_argument("--baseline", type=int, default=0, help="bytes in use before the first round")
    parser.add_argument("--piece", type=int, default=1 << 18, help="bytes; at 400 MB/s one every 0.7 ms")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--spinners", type=int, default=0)
    parser.add_argument("--slowest", type=float, default=50, help="MB a second")
    parser.add_argument("--fastest", type=float, default=400, help="MB a second")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    usage = Usage(arguments.cgroup)
    baseline = []
    while usage.used() < arguments.baseline:
        baseline.append(b"\x02" * (1 << 20))
        usage.settle()
    this = Round()

    def clear() -> None:
        this.clear()

    register("rounds", clear, lambda: len(this.pieces) * arguments.piece, lambda: len(this.pieces))
    for _ in range(arguments.spinners):
        threading.Thread(target=spin, daemon=True).start()
    serve()
    time.sleep(3)  # the hook connects, the first slow tick has passed

    numbers = random.Random(arguments.seed)
    for _ in range(arguments.rounds):
        usage.settle()
        rate = numbers.uniform(arguments.slowest, arguments.fastest) * MB
        this = Round()
        arrived = grow(usage, this, rate, arguments.piece)
        say(arrived=arrived, rate=round(rate), trail=list(this.trail))
        # The run of the ladder ends (gc, trim, settling) before the next one is provoked; a random rest, so
        # that rounds don't fall into step with the sidecar's own clock.
        time.sleep(numbers.uniform(0.6, 1.1))
    say(rounds=arguments.rounds, baseline=len(baseline) << 20)


if __name__ == "__main__":
    main()
