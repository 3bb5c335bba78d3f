"""``oomguard cleanup``: order a cleanup now."""

from __future__ import annotations

import argparse

from oomguard.cli.client import add_where, call, running
from oomguard.sizes import format_size


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``cleanup``."""
    add_where(parser)
    parser.add_argument("--steps", metavar="A,B", help="only these steps (default: all there are)")
    parser.add_argument(
        "--goal", help="stop there: a ratio, a percentage or a size (default: the goal in force)"
    )


def run(options: argparse.Namespace) -> int:
    """Order it; the journal tells the outcome."""
    url, token = running(options)
    body: dict[str, object] = {}
    if options.steps:
        body["steps"] = [step.strip() for step in options.steps.split(",") if step.strip()]
    if options.goal:
        body["goal"] = options.goal
    ordered = call(url, "/admin/cleanup", token=token, body=body)
    print(
        f"run {ordered['run']} ordered: {format_size(ordered['used'])} used, goal {format_size(ordered['goal'])}; see oomguard journal"
    )
    return 0
