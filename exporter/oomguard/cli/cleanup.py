"""``oomguard cleanup``: order a cleanup now, and tell what came of it."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from oomguard.broker.wishes import CLEANUP_STEPS
from oomguard.cli.answers import unknown_name
from oomguard.cli.client import add_where, call, running
from oomguard.cli.journal import told
from oomguard.errors import UserError
from oomguard.model import RunOutcome
from oomguard.sizes import format_size

PATIENCE = 60.0
"""Seconds for which the end of a run is waited for; most take less than one."""
LOOK = 0.1
"""Seconds between two looks at the journal."""
_REGISTERED = "oomguard status --hook PID tells what a process has"
_STEPS = (
    f"only these steps (default: {','.join(CLEANUP_STEPS)}); caches:NAME and models:NAME are one of them, "
    "shed:off lets requests in again"
)
_GOOD = (RunOutcome.GOAL_REACHED.value, RunOutcome.NOT_NEEDED.value, RunOutcome.DONE.value)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``cleanup``."""
    add_where(parser)
    parser.add_argument("--steps", metavar="A,B", help=_STEPS)
    parser.add_argument(
        "--goal", help="stop there: a ratio, a percentage or a size (default: the goal in force)"
    )


def run(options: argparse.Namespace) -> int:
    """Order it, wait for its end and print its steps; 1 where the goal was not reached, or a name is not known."""
    url, token = running(options)
    body: dict[str, object] = {}
    if options.steps is not None:
        body["steps"] = [step.strip() for step in options.steps.split(",") if step.strip()]
        if not body["steps"]:
            raise UserError(f"--steps {options.steps!r} names no step; write for example --steps caches,gc")
    if options.goal is not None:
        body["goal"] = options.goal
    ordered = call(url, "/admin/cleanup", token=token, body=body)
    goal = ordered["goal"]
    until = "no goal" if goal is None else f"goal {format_size(goal)}"
    print(f"run {ordered['run']}: {format_size(ordered['used'])} used, {until}")
    records = _finished(url, token, ordered["run"])
    for record in records:
        if record["event"] in ("step_end", "step_skipped", "run_end"):
            print(f"  {told(record)}")
    if unknown := [record["step"] for record in records if unknown_name(record)]:
        print(f"oomguard: no process has registered {', '.join(unknown)}; {_REGISTERED}", file=sys.stderr)
        return 1
    return 0 if records[-1].get("outcome") in _GOOD else 1


def _finished(url: str, token: str, run: int) -> list[dict[str, Any]]:
    """The records of a run that has ended; raises UserError when it does not end."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        records = call(url, "/api/v1/journal?limit=200", token=token)["records"]
        mine = [record for record in records if record.get("run") == run]
        if mine and mine[-1]["event"] == "run_end":
            return mine
        time.sleep(LOOK)
    raise UserError(
        f"{url}: run {run} has not ended within {PATIENCE:.0f} s; oomguard journal tells how it goes on"
    )
