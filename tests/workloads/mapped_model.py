"""Maps --file, as a loader of weights does, and reads every page of it over and over."""

from __future__ import annotations

import argparse
import mmap
import time
from pathlib import Path

from ping import say, serve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()

    serve()
    passes = 0
    end = time.monotonic() + arguments.seconds
    with arguments.file.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as weights:
        while time.monotonic() < end:
            total = 0
            for offset in range(0, len(weights), mmap.PAGESIZE):
                total += weights[offset]
            passes += 1
    say(passes=passes)


if __name__ == "__main__":
    main()
