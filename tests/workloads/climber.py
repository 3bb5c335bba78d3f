"""Climbs over a level of its box again and again, stays there, and comes down; says when it passed the level.

Nobody has to clear anything: it gives its memory back by itself after --above seconds, and stays below for --below.
How it reckons what the box holds, and why it reads no file while it climbs, is spinner.py's; a line for each round:
``{"rate": bytes/s, "drift": bytes, "left": s, "trail": [[s, bytes], ...]}``: when each piece began and what was in use
after it, and when the climber began to come down. All times are CLOCK_MONOTONIC.
"""

from __future__ import annotations

import argparse
import ctypes
import random
import time
from pathlib import Path

from ping import MB, Pace, say, serve
from spinner import HELD, M_MMAP_THRESHOLD, PIECE, Usage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cgroup", type=Path, required=True, help="the box's folder (cgroup v1)")
    parser.add_argument("--baseline", type=int, required=True, help="bytes in use between rounds")
    parser.add_argument("--top", type=int, required=True, help="bytes in use at the top of a climb")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--above", type=float, default=2.5, help="seconds at the top")
    parser.add_argument(
        "--below", type=float, default=2.5, help="seconds between two climbs, and up to one more"
    )
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
    serve()
    numbers = random.Random(arguments.seed)
    for _ in range(arguments.rounds):
        time.sleep(arguments.below + numbers.random())  # out of step with everybody's clock
        usage.settle()
        rate = numbers.uniform(arguments.slowest, arguments.fastest) * MB
        pieces, trail, used = [], [], usage.used()
        pace = Pace(rate, slack=0.002)
        while used < arguments.top:
            before = time.monotonic()
            pieces.append(b"\x01" * PIECE)
            used += HELD
            trail.append((before, used))
            pace.wait(HELD)
        drift = usage.used() - used
        time.sleep(arguments.above)
        left = time.monotonic()
        pieces.clear()
        say(rate=round(rate), drift=drift, left=left, trail=trail)
    say(rounds=arguments.rounds, baseline=len(baseline) << 20)


if __name__ == "__main__":
    main()
