"""``oomguard status``: what a running sidecar sees, for people or as JSON."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from typing import Any, Final

from oomguard.cli import parts
from oomguard.cli.client import add_where, call, running
from oomguard.cli.options import number, printable
from oomguard.errors import UserError
from oomguard.sizes import format_size

_HELD: Final = {
    "floor": "the last cleanup could free no more: the next waits until memory has risen by 5% of the limit",
    "backoff": "the last cleanup could free no more: the next waits, longer each time",
    "stale": "what was asked for rests on readings from before the last cleanup: the next reading decides",
    "cooldown": "every step proved ineffective a moment ago",
}
"""What `held` of the broker means, where it means that something is kept from being done."""

_HEARTBEAT: Final = "Watchdog"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``status``."""
    add_where(parser)
    parser.add_argument("--json", action="store_true", help="print /api/v1/status as it is")
    parser.add_argument("--hook", type=number, metavar="PID", help="what the hook of this process says")


def run(options: argparse.Namespace) -> int:
    """Print the status."""
    url, token = running(options)
    status = call(url, "/api/v1/status", token=token)
    if options.hook is not None:
        hooks = [hook for hook in status.get("hooks", []) if hook["pid"] == options.hook]
        if not hooks:
            known = ", ".join(str(hook["pid"]) for hook in status.get("hooks", [])) or "none"
            raise UserError(
                f"--hook {options.hook}: no hook of that process is connected (connected: {known})"
            )
        print(json.dumps(hooks[0], indent=2))
    elif options.json:
        print(json.dumps(status, indent=2))
    else:
        print("\n".join(_lines(url, status)))
    return 0


def _lines(url: str, status: dict[str, Any]) -> Iterator[str]:
    yield f"{status['target']}  {url}"
    yield _memory(status)
    for hook in status.get("stalled", ()):
        yield f"stalled  {hook['process']} (process {hook['pid']}) has not answered for {hook['seconds']:.0f} s"
    yield from parts.lines(status.get("hooks", []))
    yield from _alerts(status)
    yield from _cleanups(status)
    if status["advice"]:
        yield f"advice   {status['advice']}"
    yield ""
    yield f"{'process':<12}{'pid':>8}{'rss':>12}{'pss':>12}{'threads':>9}  command"
    for process in status.get("processes", []):
        sizes = [format_size(process[key]) if process[key] is not None else "-" for key in ("rss", "pss")]
        command = process.get("command", process["name"])
        yield (
            f"{process['process']:<12}{process['pid']:>8}{sizes[0]:>12}{sizes[1]:>12}"
            f"{process['threads']:>9}  {printable(command)[:60]}"
        )
    yield ""
    for name, source in status.get("sources", {}).items():
        yield f"{name:<12}{source['status']:<12}{source.get('reason', '')}".rstrip()
    if status["journal"]["error"]:
        yield f"journal     failed      {status['journal']['error']}"


def _memory(status: dict[str, Any]) -> str:
    level = status["level"]
    if level is None:
        why = "waiting for the target" if status["pid"] is None else "see the sources below"
        return f"memory   unknown: {why}"
    return (
        f"memory   {level['ratio']:.1%} of limit: {format_size(level['used'])} / {format_size(level['limit'])} "
        f"(limit: {level['origin']}, counted: {level['kind']}), {status['health']}"
    )


def _alerts(status: dict[str, Any]) -> Iterator[str]:
    for alert in status["alerts"]:
        labels, summary = alert["labels"], alert["annotations"].get("summary", "")
        if labels["alertname"] != _HEARTBEAT:
            held = f" ({alert['held']})" if alert["held"] else ""
            yield f"alert    {labels['alertname']} {alert['state']}{held}: {printable(summary)}"
    if not status["config"]["ok"]:
        yield f"config   not loaded, older ones go on: {'; '.join(status['config']['problems'])}"


def _cleanups(status: dict[str, Any]) -> Iterator[str]:
    last = status["cleanup"]["last"]
    if last is not None:
        yield f"cleanup  run {last['run']}: {last['outcome'].replace('_', ' ')}"
    if status["paused_until"] is not None:
        until = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status["paused_until"]))
        yield f"paused   until {until}; oomguard pause --end ends it"
    if status["dry_run"]:
        yield "cleanup  is only journaled (--dry-run)"
    if not status["acts"]:
        yield "cleanup  turned off (MEMORY_CLEANUP=0, or act: false): it watches and warns only"
    elif (held := status["cleanup"]["held"]) in _HELD:
        yield f"held     {_HELD[held]}"
