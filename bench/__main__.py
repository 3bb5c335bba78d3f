"""``python -m bench``: measure and print; all parts together are written to bench/RESULTS.md."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

from bench import footprint, hook_cost, reaction, survival

RESULTS = Path(__file__).with_name("RESULTS.md")


def main() -> int:
    """Run the parts asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", help="survival, reaction, footprint, hook (default: all of them)")
    parser.add_argument("--rounds", type=int, default=100, help="rounds of each line of the reaction table")
    parser.add_argument("--minutes", type=float, default=10, help="after which the footprint is read")
    arguments = parser.parse_args()

    parts: dict[str, Callable[[], str]] = {
        "survival": survival.measure,
        "reaction": lambda: reaction.measure(arguments.rounds),
        "footprint": lambda: footprint.measure(arguments.minutes),
        "hook": hook_cost.measure,
    }
    unknown = [part for part in arguments.parts if part not in parts]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; the parts are {', '.join(parts)}")
    if os.geteuid() != 0 or not Path("/sys/fs/cgroup/memory").is_dir():
        parser.error("real boxes are needed: root, and cgroup v1 at /sys/fs/cgroup/memory")

    sections = [parts[part]() for part in arguments.parts or parts]
    report = "\n".join([_machine(), *sections])
    print("\n" + report)
    if not arguments.parts:
        RESULTS.write_text(report)
        print(f"written to {RESULTS}")
    return 0


def _machine() -> str:
    return (
        "# Measurements\n\n"
        "Made by `make bench`; do not edit.\n\n"
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} processors, {platform.system()} {platform.release()}"
        f", Python {platform.python_version()}.\n"
    )


if __name__ == "__main__":
    raise SystemExit(main())
