"""Crossing: from memory's passing 80 % of the limit until a webhook has received the payload, by both engines at
once.

One guarded target (tests/workloads/climber.py) climbs over 80 % of a 512 MB box at 50 to 400 MB/s, stays there,
and comes down by itself; nobody acts (MEMORY_CLEANUP=0). It dates the crossing itself, by the start of the
piece that made it, as in the section on reaction: the figure is too long by up to one piece, never too short;
"drift" is by how much its reckoning was wrong, as time. One receiver takes the webhooks of both and dates them
when it has read the whole body.

Embedded: the sidecar evaluates the shipped rules and `oomguard_memory_used_ratio >= 0.8`: the threshold is the
same for both engines (that of MemoryHigh is lowered by growth times lateness, which would flatter the sidecar).
An alert that comes back within a minute finds its group there and waits for `group_interval`, in both; as a
crossing is usually the first for long, the rule stands there 32 times, each good for two seconds of 64, with a
group of its own. Beside it the real Prometheus and Alertmanager at their fastest: scrape and evaluation every
second, the same rule files, the same routes with no group wait. They are started anew every 15 rounds, for how
a scrape lies to an evaluation follows from hashes. Rounds that an engine did not tell of while memory was above
are counted as missed.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.boxes import MIB, BoxV1
from tests.support.guarded import Guarded, workload

from bench.prometheus import Alertmanager, Prometheus
from bench.table import milliseconds, percentile, table
from oomguard.alerting.loading import RULES

LIMIT = 512 * MIB
HIGH = 0.8
BASELINE, TOP = 0.74, 0.85
"""Parts of the limit between which memory moves."""
BATCH = 15
"""Rounds between two starts."""
TARGET = 0.05
ALERT = "BenchCrossed"
SLOTS, SLOT_SECONDS = 32, 2
RULES_TEXT = (
    "groups: [{name: bench, rules: ["
    + "".join(
        f"""
  {{alert: {ALERT}, labels: {{slot: "{slot}"}},
   expr: 'oomguard_memory_used_ratio >= {HIGH}
     and on () floor(vector(time() / {SLOT_SECONDS})) % {SLOTS} == {slot}'}},"""
        for slot in range(SLOTS)
    )
    + "]}]\n"
)
ROUTES = """
route:
  receiver: "null"
  routes:
    - matchers: [alertname="{alert}"]
      receiver: bench
      group_by: [slot]
      group_wait: 0s
      group_interval: 1s
      repeat_interval: 1h
receivers:
  - name: "null"
  - name: bench
    webhook_configs:
      - url: http://127.0.0.1:{port}/{path}
"""


@dataclass
class Receiver:
    """Takes webhooks on loopback, and notes when each had come: `with Receiver() as receiver: …`."""

    arrivals: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    """CLOCK_MONOTONIC, path, payload."""

    def __enter__(self) -> Receiver:  # noqa: PYI034 - typing.Self needs Python 3.11
        arrivals = self.arrivals

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                arrivals.append((time.monotonic(), self.path.strip("/"), json.loads(body)))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def first(self, path: str, since: float, until: float) -> float | None:
        """When the first payload came in which the alert fires; None where none came."""
        for at, where, payload in list(self.arrivals):
            if where == path and since <= at < until and payload["status"] == "firing":
                assert (payload["version"], payload["commonLabels"]["alertname"]) == ("4", ALERT), payload
                return at
        return None


def measure(rounds: int) -> str:
    """The section for RESULTS.md."""
    climbs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="oomguard-bench-") as folder, Receiver() as receiver:
        while len(climbs) < rounds:
            climbs += _climbs(Path(folder), receiver, min(BATCH, rounds - len(climbs)))
    crossings = [_crossing(climb) for climb in climbs]
    rows, medians = [], []
    for path, name in (("embedded", "oomguard"), ("prometheus", "Prometheus and Alertmanager")):
        arrived = [
            receiver.first(path, at - 0.5, climb["left"]) for at, climb in zip(crossings, climbs, strict=True)
        ]
        seconds = [
            max(0.0, at - crossed) for at, crossed in zip(arrived, crossings, strict=True) if at is not None
        ]
        early = sum(at < crossed for at, crossed in zip(arrived, crossings, strict=True) if at is not None)
        figures = [milliseconds(percentile(seconds, part)) for part in (0.5, 0.99)] + [
            milliseconds(max(seconds))
        ]
        rows.append([name, len(seconds), arrived.count(None), early, *figures])
        medians.append((percentile(seconds, 0.5), percentile(seconds, 0.99)))
    head = ["engine", "n", "missed", "early", "p50", "p99", "max"]
    (p50, p99), (their_p50, their_p99) = medians
    drift = percentile([abs(climb["drift"]) / climb["rate"] for climb in climbs], 0.5)
    verdict = (
        f"Target: p99 under {milliseconds(TARGET)}. The real ones take {their_p50 / p50:.0f} times as long at the "
        f"median, {their_p99 / p99:.0f} times at p99. Median drift {milliseconds(drift)}; early: it came within the "
        "reckoning's error before the crossing, and counts as 0."
    )
    return "\n".join([(__doc__ or "").strip(), "", table(head, rows), "", verdict, ""])


def _climbs(folder: Path, receiver: Receiver, rounds: int) -> list[dict[str, Any]]:
    rule = folder / "bench.rules.yml"
    rule.write_text(RULES_TEXT)
    routes = folder / "routes.yml"
    routes.write_text(ROUTES.format(alert=ALERT, port=receiver.port, path="embedded"))
    flags = ["--rules", f"{RULES},{rule}", "--routes", str(routes)]
    with BoxV1(LIMIT) as box:
        argv = workload(
            "climber", "--cgroup", box.path, "--rounds", rounds + 1, "--seed", time.monotonic_ns(),
            "--baseline", int(BASELINE * LIMIT), "--top", int(TOP * LIMIT),
        )  # fmt: skip
        with (
            Guarded(box, argv, flags=flags, env={"MEMORY_CLEANUP": "0"}) as program,
            Alertmanager(ROUTES.format(alert=ALERT, port=receiver.port, path="prometheus")) as alertmanager,
            Prometheus(rules=[RULES, rule], scrape=program.listen_port, alertmanager=alertmanager.port),
        ):
            program.port()
            program.next_line(120)  # the first climb warms everybody up
            return [program.next_line(120) for _ in range(rounds)]


def _crossing(climb: dict[str, Any]) -> float:
    """When memory passed the level; what the reckoning was wrong by is spread over the climb."""
    trail: Sequence[tuple[float, float]] = climb["trail"]
    for index, (at, used) in enumerate(trail, 1):
        if used + climb["drift"] * index / len(trail) > HIGH * LIMIT:
            return at
    raise RuntimeError(f"the climb ended below the level: {trail[-1]}")
