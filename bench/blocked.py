"""A service that stands still: how long a reading takes to come, and how soon the sidecar says `stalled`.

The first table: a reading asked over the hook's socket every 20 ms while the event loop is blocked for 10 s, by a
sleep, by a read of a socket, by Python that computes; and while it is free, for comparison. The computing thread holds
the interpreter for 5 ms at a time (sys.getswitchinterval), and a reading needs it several times.

The second: a regular expression that backtracks holds the interpreter for some seconds, in one call into C. Nothing in
the process can run then. The time is from the call until the journal of a real sidecar has its `hook_stalled`, by the
wall clock of one machine (the journal keeps milliseconds).
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time

from tests.support.command import Running
from tests.support.fake_sidecar import FakeSidecar
from tests.support.guarded import workload

from bench.service import ROOT, environment
from bench.table import percentile, table
from oomguard.slow import STALL_QUIET

BLOCKED = 10.0
"""Seconds."""
PAUSE = 0.02
HELD = 3
"""Seconds that the regular expression takes, about."""
LEAST = 1.5
"""Seconds: it must take longer than it may take to be said."""
TIMES = 10
READING, STALLED = 0.1, 1.0
_WAYS = {
    "": "free",
    "sleep": "blocked by a sleep",
    "io": "blocked by I/O",
    "compute": "blocked by Python",
}


def measure() -> str:
    """The section for RESULTS.md."""
    readings = _readings()
    rows = [[_WAYS[how], len(seconds), *_figures(seconds)] for how, seconds in readings.items()]
    worst = max(percentile(seconds, 0.99) for seconds in readings.values())
    stalls = _stalls()
    return "\n".join(
        [
            "## A service that stands still",
            "",
            (__doc__ or "").strip(),
            "",
            table(["event loop", "readings", "p50", "p99", "max"], rows),
            "",
            f"Target: within {READING * 1e3:.0f} ms ({_met(worst <= READING)} at p99).",
            "",
            table(
                ["interpreter", "times", "p50", "p99", "max"], [["held in C", len(stalls), *_figures(stalls)]]
            ),
            "",
            f"Target: `stalled` within {STALLED:.0f} s ({_met(max(stalls) <= STALLED)}).",
            "",
        ]
    )


def _met(reached: object) -> str:
    return "met" if reached else "missed"


def _figures(seconds: list[float]) -> list[str]:
    return [
        f"{value * 1e3:.1f} ms"
        for value in (percentile(seconds, 0.5), percentile(seconds, 0.99), max(seconds))
    ]


def _readings() -> dict[str, list[float]]:
    """Seconds of each reading, by the way in which the loop is blocked."""
    with contextlib.ExitStack() as stack:
        sidecar = stack.enter_context(FakeSidecar(stack.enter_context(tempfile.TemporaryDirectory())))
        target = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "bench.blocked_target"], cwd=ROOT, text=True,
                env={**environment(), **sidecar.environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )
        )  # fmt: skip
        stack.callback(target.kill)
        assert target.stdin is not None
        assert target.stdout is not None
        hook = sidecar.accept_pid(target.pid)
        taken: dict[str, list[float]] = {}
        for how in _WAYS:
            taken[how] = []
            if how:
                target.stdin.write(f"{how} {BLOCKED}\n")
                target.stdin.flush()
                target.stdout.readline()
            until = time.monotonic() + BLOCKED - 0.5
            while time.monotonic() < until:
                began = time.perf_counter()
                hook.reading()
                taken[how].append(time.perf_counter() - began)
                time.sleep(PAUSE)
            if how:
                target.stdout.readline()
        return taken


def _stalls() -> list[float]:
    """Seconds until each was said."""
    seconds: list[float] = []
    with Running("run", target=workload("stalls")) as running:
        running.answer()
        running.until_guarding(hooks=2)
        while len(seconds) < TIMES:
            running.tell(f"regex {HELD}")
            began, ended = running.answer()["began"], running.answer()["ended"]
            if ended - began < LEAST:
                continue  # how long it will take is guessed, on a busy machine badly
            (said,) = (one for one in running.until_journal("hook_stalled") if one["time"] >= began)
            seconds.append(said["time"] - began)
            time.sleep(STALL_QUIET)  # sooner, the journal would not have it again
    return seconds
