"""``oomguard pause 1h``: hold automatic actions back for a while, during a deploy for example."""

from __future__ import annotations

import argparse
import getpass
import time
from typing import Any

from oomguard.alerting.silencing import PAUSE, is_pause
from oomguard.cli.client import add_where, call, running
from oomguard.errors import UserError
from oomguard.routes.payload import rfc3339
from oomguard.rules.files import parse_duration


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``pause``."""
    parser.add_argument("duration", nargs="?", metavar="TIME", help="for how long: 30m, 1h30m, 2d")
    parser.add_argument("--end", action="store_true", help="act again from now on")
    parser.add_argument("--comment", default="", help="why, for those who look at the page")
    add_where(parser)


def run(options: argparse.Namespace) -> int:
    """Set a silence over all actions, or end those that were set."""
    if options.end == bool(options.duration):
        raise UserError("write oomguard pause 1h, or oomguard pause --end")
    milliseconds = 0 if options.end else _duration(options.duration)
    url, token = running(options)
    if options.end:
        ended = _end(url, token)
        print("actions go on" if ended else "nothing was paused")
        return 0
    now = time.time()
    call(url, "/api/v2/silences", token=token, body=_silence(now, now + milliseconds / 1000, options.comment))
    until = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now + milliseconds / 1000))
    print(
        f"{url}: automatic actions are paused until {until}; oomguard cleanup still works, oomguard pause --end ends it"
    )
    return 0


def _duration(text: str) -> int:
    try:
        milliseconds = parse_duration(text)
    except ValueError as error:
        raise UserError(f"TIME {text!r}: {error}") from None
    if not milliseconds:
        raise UserError(f"TIME {text!r} is no time at all; write for example 1h")
    return milliseconds


def _silence(start: float, end: float, comment: str) -> dict[str, Any]:
    return {
        "matchers": [PAUSE],
        "startsAt": rfc3339(start),
        "endsAt": rfc3339(end),
        "createdBy": _user(),
        "comment": comment or "oomguard pause",
    }


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's uid without a name
        return "oomguard"


def _end(url: str, token: str) -> int:
    """End every pause; returns how many there were."""
    silences = call(url, "/api/v2/silences", token=token)
    live = [
        silence
        for silence in silences
        if is_pause(silence) and silence["status"]["state"] in ("active", "pending")
    ]
    for silence in live:
        call(url, f"/api/v2/silence/{silence['id']}", token=token, method="DELETE")
    return len(live)
