"""Reads --file over and over: with a file larger than the box, the page cache stands at the limit."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ping import say, serve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()

    serve()
    buffer, read = bytearray(1 << 20), 0
    end = time.monotonic() + arguments.seconds
    while time.monotonic() < end:
        with arguments.file.open("rb", buffering=0) as file:
            while (size := file.readinto(buffer)) and time.monotonic() < end:
                read += size
    say(read=read)


if __name__ == "__main__":
    main()
