"""Throughput and latency of a service under wrk, with the hook and the middleware, against without.

Four processes of one service, each on the same core and wrk with 32 connections on the other one: without the hook,
without it once more (the difference between these two is the measurement's own error), with the hook alone, and with
the middleware mounted as well (max_streams, shed_above, health), while a stand-in for the sidecar asks for a reading
every second. They take turns of a second, in an order that changes, and each turn is compared with that of the plain
one in the same round; the processes are started anew every 10 rounds, since one may lie better in the caches than
another. Ratios are medians of those of the rounds; in brackets the interval that holds the true median with 95 %
(of the order statistics), and the quartiles. CPU is the processor time of the service for one request (schedstat): what
throughput tells too, but less disturbed by what else runs on the machine. The service does nothing but say hello: a
real one has more to do for a request, and the ratio comes nearer to one.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import mount_alone
from bench.service import Service, kept_to, two_cores
from bench.table import percentile, table

KINDS = {"starlette": "Starlette on uvicorn (uvloop, httptools)", "aiohttp": "aiohttp"}
WAYS = (
    ("plain", "without"),
    ("plain", "without, once more"),
    ("hook", "hook"),
    ("mounted", "hook and middleware"),
)
CONNECTIONS = 32
TURN = 1
"""Seconds; wrk takes whole ones."""
BATCH = 10
"""Rounds between two starts."""
THROUGHPUT, P99 = 0.98, 1.02
_REPORT = Path(__file__).with_name("wrk_report.lua")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn gave."""

    throughput: float
    """Requests a second."""
    p50: float
    p99: float
    """Microseconds, as `cpu`."""
    cpu: float


def measure(rounds: int) -> str:
    """The section for RESULTS.md."""
    if shutil.which("wrk") is None:
        raise RuntimeError("wrk is missing: apt-get install wrk")
    texts = ["## Web", "", (__doc__ or "").strip(), ""]
    for kind, name in KINDS.items():
        texts += [f"### {name}", "", _section(_rounds(kind, rounds)), ""]
    alone = ["### The mount alone", "", (mount_alone.__doc__ or "").strip(), "", mount_alone.measure(), ""]
    return "\n".join([*texts, *alone])


def _rounds(kind: str, count: int) -> list[list[Turn]]:
    """For each round the turns of `WAYS`."""
    rounds: list[list[Turn]] = []
    service_core, load_core = two_cores()
    with kept_to(load_core):
        while len(rounds) < count:
            with contextlib.ExitStack() as stack:
                # Who is started first changes, too.
                services = {
                    index: stack.enter_context(Service(kind, WAYS[index][0], core=service_core))
                    for index in random.sample(range(len(WAYS)), len(WAYS))
                }
                for service in services.values():
                    service.awake.clear()
                    _turn(service, 2)  # it is warm from here on
                for _ in range(min(BATCH, count - len(rounds))):
                    order = random.sample(range(len(WAYS)), len(WAYS))
                    turns = {index: _turn(services[index], TURN) for index in order}
                    rounds.append([turns[index] for index in range(len(WAYS))])
    return rounds


def _turn(service: Service, seconds: int) -> Turn:
    url = f"http://127.0.0.1:{service.port}{service.path}"
    argv = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(_REPORT), url]
    service.awake.set()
    before = service.cpu_seconds()
    said = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    cpu = service.cpu_seconds() - before
    service.awake.clear()
    told = json.loads(said.splitlines()[-1])
    if told["errors"]:
        raise RuntimeError(f"{told['errors']} requests failed under wrk: {said}")
    requests = told["requests"]
    return Turn(requests / told["duration"] * 1e6, told["p50"], told["p99"], cpu / requests * 1e6)


def _section(rounds: Sequence[Sequence[Turn]]) -> str:
    rows = []
    for index, (_, name) in enumerate(WAYS):
        turns = [one[index] for one in rounds]
        row = [name]
        for what, unit in (("throughput", "/s"), ("p50", " µs"), ("p99", " µs"), ("cpu", " µs")):
            middle = percentile([getattr(turn, what) for turn in turns], 0.5)
            row.append(f"{middle:.{1 if what == 'cpu' else 0}f}{unit}")
        row += [str(ratio(rounds, index, what)) if index else "1" for what in ("throughput", "p99", "cpu")]
        rows.append(row)
    head = ["", "requests", "p50", "p99", "CPU a request"]
    head += ["ratio of throughput", "ratio of p99", "ratio of CPU"]
    throughput, p99, cpu = (
        ratio(rounds, len(WAYS) - 1, what).median for what in ("throughput", "p99", "cpu")
    )
    verdict = (
        f"Targets: throughput at least {THROUGHPUT} ({_met(throughput >= THROUGHPUT)}: {throughput:.3f}; by processor "
        f"time it would be {1 / cpu:.3f}), p99 at most {P99} ({_met(p99 <= P99)}: {p99:.3f}), in {len(rounds)} rounds."
    )
    return "\n".join([table(head, rows), "", verdict])


def _met(reached: object) -> str:
    return "met" if reached else "missed"


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of what a way gave to what the first gave, in the same round."""

    median: float
    low: float
    high: float
    """Between them lies the true median, with 95 %."""
    lower_quartile: float
    upper_quartile: float

    def __str__(self) -> str:
        interval, quartiles = (self.low, self.high), (self.lower_quartile, self.upper_quartile)
        first, second = (f"{one:.3f}, {other:.3f}" for one, other in (interval, quartiles))
        return f"{self.median:.3f} [{first}] ({second})"


def ratio(rounds: Sequence[Sequence[Turn]], way: int, what: str) -> Ratio:
    """Compare `what` (an attribute of Turn) of a way with that of the first, round by round."""
    ratios = sorted(getattr(one[way], what) / getattr(one[0], what) for one in rounds)
    count = len(ratios)
    # The rank of the median among n has a spread of half the root of n.
    reach = 1.96 * math.sqrt(count) / 2
    return Ratio(
        percentile(ratios, 0.5),
        ratios[max(0, math.floor(count / 2 - reach))],
        ratios[min(count - 1, math.ceil(count / 2 + reach))],
        percentile(ratios, 0.25),
        percentile(ratios, 0.75),
    )
