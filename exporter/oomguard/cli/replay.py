"""``oomguard replay RECORDING``: which alerts would have fired, when, and which actions would have run."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from oomguard import recording
from oomguard.alerting import loading
from oomguard.alerting.replay import Event, Replay
from oomguard.cli.options import needs_sidecar
from oomguard.config import Settings
from oomguard.errors import UserError
from oomguard.log import LOGGER
from oomguard.recording import Moment


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``replay``."""
    parser.add_argument(
        "recording", metavar="RECORDING", help="made with --record FILE, or OpenMetrics text with timestamps"
    )
    parser.add_argument(
        "--rules", help="rule files, paths or patterns separated by commas (default: those that ship)"
    )
    parser.add_argument(
        "--routes", metavar="FILE", help="routes in Alertmanager's format (default: those that ship)"
    )
    parser.add_argument("--target", help="the target that actions are for (default: the recording's)")


def run(options: argparse.Namespace) -> int:
    """Print every event as it would have come."""
    needs_sidecar()
    LOGGER.disabled = True  # what a sidecar would log is printed as events
    settings = dataclasses.replace(Settings(), rules=options.rules, routes=options.routes)
    loaded = loading.load(settings)
    path = Path(options.recording)
    target = options.target or _target(recording.read(path))
    counts = {"firing": 0, "action": 0, "notification": 0}
    span: list[int] = []
    for event in Replay(loaded, target).events(_timed(recording.read(path), span)):
        print(_line(event))
        if event.kind in counts:
            counts[event.kind] += 1
    if not span:
        raise UserError(f"{path}: holds no samples")
    seconds = (span[-1] - span[0]) / 1000
    print(
        f"{seconds:.0f} s of {target or 'an unnamed target'}: {counts['firing']} alerts fired, "
        f"{counts['action']} actions would have run, {counts['notification']} notifications would have gone out"
    )
    return 0


def _timed(moments: Iterable[Moment], span: list[int]) -> Iterator[Moment]:
    """The moments, one at a time (half a day would not fit into a small box); their first and last go to `span`."""
    for moment in moments:
        span[bool(span) :] = [moment.time]
        yield moment


def _target(moments: Iterable[Moment]) -> str:
    """The label ``target`` of the recorded memory."""
    return next(
        (
            dict(labels).get("target", "")
            for moment in moments
            for labels in moment.values
            if ("__name__", "oomguard_memory_used_bytes") in labels
        ),
        "",
    )


def _line(event: Event) -> str:
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time / 1000))
    return f"{stamp}.{event.time % 1000:03d}  {event.kind:<13}{event.text}"
