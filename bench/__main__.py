"""``python -m bench``: measure, print, and write bench/RESULTS.md; a part measured alone replaces its own section."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

from bench import admin_memory, alerting, blocked, footprint, hook_cost, reaction, streams, survival, web

RESULTS = Path(__file__).with_name("RESULTS.md")
_HEAD = "# Measurements\n\nMade by `make bench`; do not edit.\n"


def main() -> int:
    """Run the parts asked for; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        help="survival, reaction, alerting, footprint, hook, web, streams, admin, blocked (default: all of them)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=100,
        help="rounds of each line of the tables of reaction, crossing and web",
    )
    parser.add_argument("--minutes", type=float, default=10, help="after which the footprint is read")
    arguments = parser.parse_args()

    parts: dict[str, Callable[[], str]] = {
        "survival": survival.measure,
        "reaction": lambda: reaction.measure(arguments.rounds),
        "alerting": lambda: alerting.measure(arguments.rounds),
        "footprint": lambda: footprint.measure(arguments.minutes),
        "hook": hook_cost.measure,
        "web": lambda: web.measure(arguments.rounds),
        "streams": streams.measure,
        "admin": admin_memory.measure,
        "blocked": blocked.measure,
    }
    unknown = [part for part in arguments.parts if part not in parts]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; the parts are {', '.join(parts)}")
    if os.geteuid() != 0 or not Path("/sys/fs/cgroup/memory").is_dir():
        parser.error("real boxes are needed: root, and cgroup v1 at /sys/fs/cgroup/memory")

    for part in arguments.parts or parts:
        section = parts[part]()
        print(f"\n{section}", flush=True)
        _keep(part, list(parts), f"{section.rstrip()}\n\n{_machine()}\n")
    print(f"written to {RESULTS}")
    return 0


def _keep(part: str, order: list[str], section: str) -> None:
    """Write RESULTS.md with this part's section in the place of its last one."""
    kept: dict[str, str] = {}
    if RESULTS.exists():
        for text in RESULTS.read_text().split("<!-- ")[1:]:
            name, _, body = text.partition(" -->\n")
            kept[name] = body
    kept[part] = section
    sections = [f"<!-- {name} -->\n{kept[name].strip()}\n" for name in order if name in kept]
    RESULTS.write_text("\n".join([_HEAD, *sections]))


def _machine() -> str:
    return (
        f"Measured {time.strftime('%Y-%m-%d')}: {os.cpu_count()} processors, {platform.system()} "
        f"{platform.release()}, Python {platform.python_version()}."
    )


if __name__ == "__main__":
    raise SystemExit(main())
