"""The hook's own cost in a process that imports its framework anyway: memory, and the time of the import.

Memory is private dirty (smaps_rollup) of a service of `bench.served` that has answered 200 requests: without the hook,
with the hook, which a stand-in for the sidecar asks for a reading every second, and with the middleware mounted as well
(max_streams, shed_above, health). It is read after 3 s of rest. Five processes of each, all else equal, and the least
of each is taken (what is above it is chance: the allocator's arenas, where the hook's thread finds the heap).

Time is that of `from oomguard import hook`, of `hook.start()` and of `guard.asgi(app)` in 30 fresh interpreters,
compiled files there: a bare one (-S: no site), and one that has imported Starlette and uvicorn. A mount needs asyncio,
which its users have; the bare one is not asked for it.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import time

from tests.support.fake_sidecar import FakeSidecar

from bench.footprint import private_dirty
from bench.service import ROOT, Service, environment
from bench.table import megabytes, milliseconds, percentile, table
from bench.web import KINDS

REPEATS = 5
REST = 3.0
REQUESTS = 200
MOST_MEMORY = 1.5 * (1 << 20)
IMPORTS = 30
MOST_TIME = 0.030
_HOWS = {"plain": "without", "hook": "hook", "mounted": "hook and middleware"}
_TIMED = """
import json, os, time
{imported}
os.environ["OOMGUARD_RUNTIME_DIR"] = {folder!r}  # only now: nothing is injected
began = time.perf_counter()
from oomguard import hook
imported = time.perf_counter()
guard = hook.start()
started = time.perf_counter()
if {mounts}:
    guard.asgi(print)
print(json.dumps([imported - began, started - imported, time.perf_counter() - started]))
"""


def measure() -> str:
    """The section for RESULTS.md."""
    return "\n".join(["## The hook", "", (__doc__ or "").strip(), "", _memory(), _times()])


def _memory() -> str:
    rows, most = [], 0
    for kind, name in KINDS.items():
        held: dict[str, list[int]] = {how: [] for how in _HOWS}
        for _ in range(REPEATS):
            for how in _HOWS:
                held[how].append(_held(kind, how))
        without = min(held["plain"])
        for how, what in _HOWS.items():
            least, median = min(held[how]), int(percentile(held[how], 0.5))
            more = least - without
            most = max(most, more)
            cells = [f"{name}: {what}", megabytes(least), megabytes(median)]
            rows.append([*cells, f"{more / (1 << 20):.2f} MB" if how != "plain" else "-"])
    head = ["process", "private dirty, least", "median", "the hook's"]
    verdict = f"Target: at most 1.5 MB ({'met' if most <= MOST_MEMORY else 'missed'})."
    return "\n".join([table(head, rows), "", verdict, ""])


def _held(kind: str, how: str) -> int:
    with Service(kind, how) as service:
        connection = http.client.HTTPConnection("127.0.0.1", service.port)
        for _ in range(REQUESTS):
            connection.request("GET", "/")
            connection.getresponse().read()
        time.sleep(REST)
        held = private_dirty(service.pid)
        connection.close()
        return held


def _times() -> str:
    rows = []
    bare = _steps("bare", ["-S"], "", mounts=False)
    beside = _steps(
        "Starlette and uvicorn imported", [], "import asyncio, starlette.applications, uvicorn", mounts=True
    )
    for name, seconds in (bare | beside).items():
        figures = (min(seconds), percentile(seconds, 0.5), max(seconds))
        rows.append([name, *map(milliseconds, figures)])
    slowest = max(
        percentile(taken, 0.5) for name, taken in (bare | beside).items() if name.endswith("import")
    )
    met = "met" if slowest < MOST_TIME else "missed"
    verdict = f"Target: the import under {MOST_TIME * 1e3:.0f} ms ({met}, by the median)."
    return "\n".join([table(["interpreter", "least", "median", "max"], rows), "", verdict, ""])


def _steps(name: str, flags: list[str], imported: str, *, mounts: bool) -> dict[str, list[float]]:
    """Seconds of each step in each of the interpreters."""
    runs = [_timed(flags, imported, mounts=mounts) for _ in range(IMPORTS)]
    steps = ("import", "start()", "asgi(app)") if mounts else ("import", "start()")
    return {f"{name}: {step}": [run[index] for run in runs] for index, step in enumerate(steps)}


def _timed(flags: list[str], imported: str, *, mounts: bool) -> list[float]:
    with tempfile.TemporaryDirectory(prefix="oomguard-bench-") as folder, FakeSidecar(folder):
        code = _TIMED.format(imported=imported, folder=folder, mounts=mounts)
        done = subprocess.run(
            [sys.executable, *flags, "-c", code],
            env={**environment(), "PYTHONPATH": str(ROOT / "exporter")},
            capture_output=True,
            text=True,
            check=True,
        )
    told: list[float] = json.loads(done.stdout)
    return told
