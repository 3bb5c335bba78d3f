"""Reaction: from memory's crossing the threshold until the hook receives the request.

How it is measured without disturbing it. The workload (tests/workloads/spinner.py) fills a registered cache
in pieces of 256 KiB that are memory of their own, at a random rate of 50 to 400 MB/s (200 to 800 beside a
limit of 8 GB), and reckons from its own progress what its cgroup holds; the cgroup is read at both ends of
a round, never within one. A crossing is dated *before* the piece that made it: the figure is too long by up
to one piece, never too short. The arrival is dated by the cache's ``clear``, called in the hook's thread:
with the wait for the GIL, and with the few microseconds after the request was read. Both clocks are
CLOCK_MONOTONIC of one machine. "Drift" is the median error of the reckoning as time, at the round's rate.

The threshold is 80 % of the limit. oomguard lowers its thresholds by growth times lateness of its own
timer, so many orders come before 80 % is crossed. Counting those as 0 would flatter it: each is reckoned
from the threshold that was in force, which the journal tells (``run_start``). How many were early is a
column of its own.

The baseline (bare_loop.py) sends a datagram to a thread of the same workload; it knows neither lateness nor
a journal. The workload's allocating thread is a Python thread that sleeps most of the time; the spinners
are beside it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.boxes import MIB, BoxV1
from tests.support.guarded import Guarded, Program, workload

from bench.baseline import bare_loop
from bench.table import milliseconds, percentile, table

HIGH = 0.8
BASELINE = 0.68
"""Of the limit, in use before the first round: below the goal, and a round is then a second long, not ten."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One line of the table."""

    limit: int
    spinners: int
    cpus: float | None = None

    @property
    def name(self) -> str:
        """For people."""
        quota = f", {self.cpus} of a core" if self.cpus is not None else ""
        return f"{self.limit // MIB} MB, {self.spinners} spinning{quota}"


CELLS = (
    *(Cell(512 * MIB, spinners) for spinners in (0, 1, 4, 8)),
    *(Cell(8192 * MIB, spinners) for spinners in (0, 1)),
    Cell(512 * MIB, 0, cpus=0.5),
    Cell(512 * MIB, 1, cpus=0.5),
)


@dataclass(frozen=True, slots=True)
class Reactions:
    """What the rounds of one cell gave, in seconds."""

    seconds: list[float]
    early: int
    """Orders that came before 80 % was crossed."""
    drift: float
    """Median error of the reckoning of memory, as time."""
    died: bool


def _spinner(cell: Cell, box: BoxV1, rounds: int) -> list[str]:
    slowest, fastest = (50, 400) if cell.limit < 1 << 30 else (200, 800)
    return workload(
        "spinner", "--slowest", slowest, "--fastest", fastest, "--cgroup", box.path, "--rounds", rounds,
        "--spinners", cell.spinners, "--baseline", int(BASELINE * cell.limit),
    )  # fmt: skip


def _crossed(one: dict[str, Any], threshold: float) -> float | None:
    """When memory passed the threshold; what the reckoning was wrong by has grown with it."""
    return next((at for at, used in one["trail"] if used + one["drift"] > threshold), None)


def _reckon(
    rounds: Sequence[dict[str, Any]], thresholds: Sequence[float], nominal: float, *, died: bool
) -> Reactions:
    seconds = []
    for one, threshold in zip(rounds, thresholds, strict=True):
        crossed = _crossed(one, threshold)
        # None: the order came while the crossing was still within the reckoning's error.
        seconds.append(max(0.0, one["arrived"] - crossed) if crossed is not None else 0.0)
    early = sum(_crossed(one, nominal) is None for one in rounds)
    drifts = [abs(one["drift"]) / one["rate"] for one in rounds]
    return Reactions(seconds, early, percentile(drifts, 0.5) if drifts else 0.0, died)


def _rounds(program: Program, box: BoxV1, count: int) -> tuple[list[dict[str, Any]], bool]:
    rounds: list[dict[str, Any]] = []
    with contextlib.suppress(EOFError):
        program.port()
        while len(rounds) < count:
            rounds.append(program.next_line(120))
    return rounds, box.oom_kills() > 0


def oomguard(cell: Cell, count: int) -> Reactions:
    """The cell with everything on."""
    with BoxV1(cell.limit, cpus=cell.cpus) as box, Guarded(box, _spinner(cell, box, count)) as program:
        rounds, died = _rounds(program, box, count)
        # The journal keeps wall-clock time, to the millisecond.
        offset = time.time() - time.monotonic()
        starts = program.journal("run_start") if rounds else []
    thresholds = []
    for one in rounds:
        before = [start for start in starts if start["time"] <= one["arrived"] + offset + 0.002]
        thresholds.append(before[-1]["threshold"])
    return _reckon(rounds, thresholds, HIGH * cell.limit, died=died)


def bare(cell: Cell, count: int) -> Reactions:
    """The cell with the bare loop instead."""
    threshold = int(HIGH * cell.limit)
    with (
        BoxV1(cell.limit, cpus=cell.cpus) as box,
        bare_loop(box, _spinner(cell, box, count), threshold) as program,
    ):
        rounds, died = _rounds(program, box, count)
    return _reckon(rounds, [threshold] * len(rounds), threshold, died=died)


def _figures(reactions: Reactions) -> list[str]:
    if not reactions.seconds:
        return ["died", "", ""]
    taken = reactions.seconds
    worst = milliseconds(max(taken)) + (" then died" if reactions.died else "")
    return [milliseconds(percentile(taken, 0.5)), milliseconds(percentile(taken, 0.99)), worst]


def measure(rounds: int) -> str:
    """The section for RESULTS.md."""
    rows = []
    for cell in CELLS:
        # A round beside a limit of 8 GB lasts longer.
        count = rounds if cell.limit < 1 << 30 else max(10, rounds // 2)
        ours, theirs = oomguard(cell, count), bare(cell, count)
        ratio = "-"
        if ours.seconds and theirs.seconds and percentile(theirs.seconds, 0.5) > 0:
            ratio = f"{percentile(ours.seconds, 0.5) / percentile(theirs.seconds, 0.5):.1f}"
        row = [cell.name, len(ours.seconds), *_figures(ours), ours.early, milliseconds(ours.drift)]
        rows.append([*row, *_figures(theirs), ratio])
        print(rows[-1], flush=True)
    head = ["limit, threads", "n", "p50", "p99", "max", "early", "drift"]
    head += ["bare p50", "bare p99", "bare max", "ratio of p50"]
    return "\n".join(["## Reaction", "", (__doc__ or "").strip(), "", table(head, rows), ""])
