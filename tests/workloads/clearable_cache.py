"""Allocates --rate MB a second into a cache that can be cleared, in pieces of 1 MiB that are really touched.

Its last line says what it allocated, how fast, and how often it was cleared; a killed one prints none.
"""

from __future__ import annotations

import argparse
import time

from ping import MB, Meter, Pace, register, say, serve

PIECE = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=200, help="MB a second")
    parser.add_argument("--seconds", type=float, default=30)
    arguments = parser.parse_args()

    cache: list[bytes] = []
    cleared = 0

    def clear() -> None:
        nonlocal cleared
        cleared += 1
        cache.clear()

    register("pieces", clear, lambda: len(cache) * PIECE, cache.__len__)
    serve()
    pace, meter = Pace(arguments.rate * MB), Meter()
    end = time.monotonic() + arguments.seconds
    while time.monotonic() < end:
        cache.append(b"\x01" * PIECE)
        meter.add(PIECE)
        pace.wait(PIECE)
    say(**meter.result(), cleared=cleared)


if __name__ == "__main__":
    main()
