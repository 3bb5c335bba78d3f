"""``oomguard journal``: what was done to the target, and what it gave back."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from oomguard.cli.answers import summary
from oomguard.cli.client import add_where, call, running
from oomguard.cli.options import number, printable
from oomguard.errors import UserError
from oomguard.journal import Record, read_tail
from oomguard.log import quoted
from oomguard.model import StepOutcome
from oomguard.sizes import format_size

_HIDDEN = frozenset({"time", "event", "run", "hooks"})


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``journal``."""
    add_where(parser)
    parser.add_argument("--file", metavar="FILE", help="read this file, instead of asking a running sidecar")
    parser.add_argument("--json", action="store_true", help="print the records as they are")
    parser.add_argument("-n", type=number, default=50, metavar="N", help="the last N records (default 50)")


def run(options: argparse.Namespace) -> int:
    """Print the last records."""
    if options.file:
        records: list[dict[str, Any]] = list(_tail(Path(options.file), options.n))
    else:
        url, token = running(options)
        records = call(url, f"/api/v1/journal?limit={options.n}", token=token)["records"]
    for record in records:
        print(json.dumps(record) if options.json else _line(record))
    return 0


def _tail(file: Path, limit: int) -> Sequence[Record]:
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise UserError(
            f"--file {file}: {(error.strerror or str(error)).lower()}; give a journal that can be read"
        ) from None
    return read_tail(file, limit)


def _line(record: Mapping[str, Any]) -> str:
    stamp = _stamp(record.get("time", 0))
    of = f"run {record['run']}" if record.get("run") is not None else ""
    return printable(f"{stamp}  {of:<8}{record['event'].replace('_', ' '):<15}{told(record)}".rstrip())


def _stamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def told(record: Mapping[str, Any]) -> str:
    """What a record says, for people; one of an unknown kind as key=value."""
    try:
        return _TOLD[record["event"]](record)
    except (LookupError, TypeError, AttributeError):  # of an unknown kind, or written by another version
        return " ".join(
            f"{key}={quoted(value)}"
            for key, value in record.items()
            if key not in _HIDDEN and value not in (None, "")
        )


def _run_start(record: Mapping[str, Any]) -> str:
    goal = "no goal" if record["goal"] is None else f"goal {format_size(record['goal'])}"
    return (
        f"{', '.join(record['alerts'])}: {format_size(record['used'])} of {format_size(record['limit'])} used, "
        f"{goal}, steps {', '.join(record['steps'])}"
    )


def _run_end(record: Mapping[str, Any]) -> str:
    if "used_before" not in record:
        return f"{_outcome(record)}: its sidecar died"
    return f"{_outcome(record)}: freed {format_size(record['freed'])}{_change(record)}"


def _step_start(record: Mapping[str, Any]) -> str:
    return f"{record['step']}, {format_size(record['used'])} used"


def _step_skipped(record: Mapping[str, Any]) -> str:
    return f"{record['step']} skipped: {record['reason'].replace('_', ' ')}"


def _step_end(record: Mapping[str, Any]) -> str:
    line = (
        f"{record['step']} freed {format_size(record['freed'])}{_change(record)} "
        f"in {1000 * record['seconds']:.0f} ms: {_outcome(record)}"
    )
    if record["outcome"] == StepOutcome.RETAINED.value:
        line += f", {format_size(record['retained'])} are free inside malloc"
    if done := summary(record["step"], record.get("hooks")):
        line += f", {done}"
    return line + (f" ({record['reason']})" if record.get("reason") else "")


def _request(record: Mapping[str, Any]) -> str:
    if "alerts" not in record:
        return f"by hand: {_outcome(record)}"
    names = ", ".join(record["alerts"])
    more = f" ({record['count']} alerts)" if record["count"] > len(record["alerts"]) else ""
    why = f": {record['reason']}" if record.get("reason") not in (None, "", record["outcome"]) else ""
    return f"{names}{more} from {record['receiver'] or 'somebody'}: {_outcome(record)}{why}"


def _alert(record: Mapping[str, Any]) -> str:
    return f"{record['alert']} ({record['severity']}): {record['summary']}"


def _silence(record: Mapping[str, Any]) -> str:
    return f"until {_stamp(record['until'])} by {record['by']}"


def _hook_stalled(record: Mapping[str, Any]) -> str:
    return f"{record['process']} (process {record['pid']}) does not answer"


def _hook_answered(record: Mapping[str, Any]) -> str:
    return f"{record['process']} (process {record['pid']}) answers again after {record['seconds']:.1f} s"


_TOLD: Final[Mapping[str, Callable[[Mapping[str, Any]], str]]] = {
    "run_start": _run_start,
    "run_end": _run_end,
    "request": _request,
    "silence": _silence,
    "alert_firing": _alert,
    "alert_resolved": _alert,
    "step_start": _step_start,
    "step_skipped": _step_skipped,
    "step_end": _step_end,
    "hook_stalled": _hook_stalled,
    "hook_answered": _hook_answered,
}


def _outcome(record: Mapping[str, Any]) -> str:
    return str(record["outcome"]).replace("_", " ")


def _change(record: Mapping[str, Any]) -> str:
    after = record.get("used_after")
    return "" if after is None else f" ({format_size(record['used_before'])} -> {format_size(after)})"
