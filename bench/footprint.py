"""Footprint and cost: what the guard itself takes beside an idle target of four processes with the hook.

Memory is private dirty (smaps_rollup): what would come back if the process were not there. It is read at
the end of --minutes in which /metrics is scraped every 5 s and the live page is open (the three requests a
second that the page's script makes). CPU time is that of the kernel's accounting (/proc/PID/stat, ticks of
10 ms) over a minute: before anybody asks for anything, and in the last minute with scraper and page. Scrape
latency is what the scraper saw, connection included.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.boxes import MIB, BoxV1
from tests.support.client import read
from tests.support.guarded import Guarded, workload

from bench.table import megabytes, milliseconds, percentile, table

LIMIT = 512 * MIB
PROCESSES = 4
IDLE_SECONDS = 60
SCRAPE_SECONDS = 5.0
PAGE = ("/api/v1/status", "/api/v1/history?since={since}", "/api/v1/journal?limit=40")


def private_dirty(pid: int) -> int:
    """Bytes (kernel's Documentation/filesystems/proc.rst)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no Private_Dirty in /proc/{pid}/smaps_rollup")


def cpu_seconds(pid: int) -> float:
    """User and system time so far (proc_pid_stat(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass
class Visitor:
    """Asks for paths at an interval, in a thread, until it is stopped; keeps how long each took."""

    port: int
    paths: tuple[str, ...]
    interval: float
    seconds: list[float] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Come back when stopped."""
        while not self.stop.wait(self.interval):
            for path in self.paths:
                began = time.perf_counter()
                read(self.port, path.format(since=time.time() - 2))
                self.seconds.append(time.perf_counter() - began)


def _share(pids: dict[str, int], seconds: float) -> dict[str, float]:
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    began = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    return {name: (cpu_seconds(pid) - before[name]) / took for name, pid in pids.items()}


def measure(minutes: float) -> str:
    """The section for RESULTS.md."""
    argv = workload("idle_tree", "--processes", PROCESSES, "--seconds", IDLE_SECONDS + 60 * minutes + 120)
    with BoxV1(LIMIT) as box, Guarded(box, argv) as program:
        program.port()
        program.wait_until_guarding(hooks=PROCESSES)
        time.sleep(5)
        pids = {"supervisor": program.process.pid, "sidecar": program.journal("sidecar_start")[-1]["pid"]}
        at_first = {name: private_dirty(pid) for name, pid in pids.items()}
        idle = _share(pids, IDLE_SECONDS)
        scraper = Visitor(program.listen_port, ("/metrics",), SCRAPE_SECONDS)
        page = Visitor(program.listen_port, PAGE, 1.0)
        threads = [threading.Thread(target=visitor.run) for visitor in (scraper, page)]
        for thread in threads:
            thread.start()
        time.sleep(max(0.0, 60 * (minutes - 1)))
        busy = _share(pids, min(60.0, 60 * minutes))
        at_last = {name: private_dirty(pid) for name, pid in pids.items()}
        for visitor, thread in zip((scraper, page), threads, strict=True):
            visitor.stop.set()
            thread.join()
        lines = len(program.metrics().splitlines())
    rows = [
        [
            name,
            megabytes(at_first[name]),
            megabytes(at_last[name]),
            f"{idle[name]:.2%}",
            f"{busy[name]:.2%}",
        ]
        for name in pids
    ]
    head = [
        "process",
        "private dirty at first",
        f"after {minutes:g} min",
        "CPU, idle",
        "CPU, scraper and page",
    ]
    latency = (
        f"A scrape of {lines} lines: median {milliseconds(percentile(scraper.seconds, 0.5))}, slowest "
        f"{milliseconds(max(scraper.seconds))} of {len(scraper.seconds)}."
    )
    return "\n".join(
        ["## Footprint and cost", "", (__doc__ or "").strip(), "", table(head, rows), "", latency, ""]
    )
