"""Survival: does the target live in a box of 512 MB, and at which rate did it really allocate?

The workloads are those of tests/e2e/test_survival.py, with the supervisor, the sidecar and the target in
the box. Unguarded each of them is killed by the kernel; the bare loop (bare_loop.py) is the least that
could save them, started in the same box. The rates are those that the workload reached, on average and in
its fastest tenth of a second: a machine that can't allocate as fast as asked shows it here.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tests.support.boxes import MIB, BoxV1
from tests.support.client import Pinger
from tests.support.files import drop_from_cache, large_file
from tests.support.guarded import Guarded, Program, workload

from bench.baseline import bare_loop
from bench.table import table

LIMIT = 512 * MIB
HIGH = 0.8
SECONDS = 15
RATES = (200, 1000, 3000)


def _run(name: str, how: str, box: BoxV1, running: AbstractContextManager[Program]) -> list[object]:
    with running as program:
        pings = "-"
        result: dict[str, float] | None = None
        with contextlib.suppress(EOFError):
            with Pinger(program.port()) as pinger, contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(SECONDS - 2)
            result = program.next_line(120)
            sent = len(pinger.seconds) + len(pinger.failures)
            pings = f"{len(pinger.seconds)} of {sent}, {max(pinger.seconds) * 1e3:.0f} ms"
        if result is None or box.oom_kills():
            return [name, how, "killed", "-", "-", "-", "-"]
        rates = [f"{result[rate] / 1e6:.0f}" for rate in ("rate", "fastest_rate")]
        return [name, how, "lives", *rates, result["cleared"], pings]


def _three_ways(name: str, argv: Sequence[str], file: Path | None = None) -> list[list[object]]:
    ways: dict[str, Callable[[BoxV1], AbstractContextManager[Program]]] = {
        "nobody": lambda box: Program(box, argv),
        "bare loop": lambda box: bare_loop(box, argv, int(HIGH * LIMIT)),
        "oomguard": lambda box: Guarded(box, argv),
    }
    rows = []
    for how, guard in ways.items():
        if file is not None:
            drop_from_cache(file)
        with BoxV1(LIMIT) as box:
            rows.append(_run(name, how, box, guard(box)))
        print(rows[-1], flush=True)
    return rows


def measure() -> str:
    """The section for RESULTS.md."""
    rows = []
    for rate in RATES:
        argv = workload("clearable_cache", "--rate", rate, "--seconds", SECONDS)
        rows += _three_ways(f"{rate} MB/s, pieces of 1 MiB", argv)
    with large_file(2 * LIMIT) as file:
        baseline = 0.6 * LIMIT / 1e6
        argv = workload(
            "fragmenting_cache", "--rate", 200, "--seconds", SECONDS, "--baseline", baseline, "--file", file
        )
        rows += _three_ways("200 MB/s, 4 to 64 KB from 8 threads, 60 % baseline, full page cache", argv, file)
    head = ["asked for", "guarded by", "end", "MB/s", "fastest MB/s", "cleared", "requests answered, slowest"]
    return "\n".join(["## Survival", "", (__doc__ or "").strip(), "", table(head, rows), ""])
