"""Imports aiohttp.web, waits for --seconds and says what it holds: what does the hook add to it?"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import aiohttp.web
from ping import say, serve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8)
    arguments = parser.parse_args()

    serve()
    time.sleep(arguments.seconds)
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            say(private_dirty=int(line.split()[1]) * 1024, aiohttp=aiohttp.__version__)


if __name__ == "__main__":
    main()
