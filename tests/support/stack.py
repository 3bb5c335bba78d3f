"""A service in a box that holds what it is told to, and the real Prometheus and Alertmanager around its sidecar."""

from __future__ import annotations

import http.server
import json
import shutil
import tempfile
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.stack import stack
from examples.stack.stack import Server
from tests.support.boxes import MIB, BoxV1, require
from tests.support.client import read
from tests.support.command import Running
from tests.support.guarded import workload
from tests.support.supervised import wait_for

PATIENCE = 90.0
"""Seconds; only a failure takes so long."""
LIMIT = 256 * MIB
OTHERS_ACT = Path(stack.__file__).with_name("others_act.yml")
"""Routes with which the sidecar does nothing by itself."""


def servers_problem() -> str | None:
    """Why the real ones can't be started here."""
    try:
        stack.find_programs()
    except stack.StackError as error:
        return str(error)
    return None


class Service(Running):
    """tests/workloads/filled_on_order.py under ``oomguard run``, all in one box; its target is called ``api``."""

    def __init__(self, box: BoxV1, *arguments: str | Path) -> None:
        self.box = box
        join = f'echo $$ > {box.path / "cgroup.procs"} && exec "$@"'
        super().__init__(
            "run", "--target", "api", *arguments,
            target=workload("filled_on_order"), prefix=["/bin/sh", "-c", join, "box"],
        )  # fmt: skip

    def start(self) -> None:
        """Return once it is guarded."""
        self.app_port = int(self.answer()["port"])
        self.until_guarding(hooks=1)

    def ask(self, order: str) -> None:
        """Have the service do something: see the workload."""
        read(self.app_port, f"/{order}", timeout=PATIENCE)

    def ratio(self) -> float:
        """Used memory, as part of the limit: now, not when the sidecar looked last."""
        stat = self.box.stat()
        return (self.box.usage() - stat["active_file"] - stat["inactive_file"]) / LIMIT

    def fill(self, ratio: float, kind: str = "cache") -> None:
        """Have it hold so much more that this part of the limit is used."""
        if (missing := round((ratio - self.ratio()) * LIMIT / MIB)) > 0:
            self.ask(f"{kind}/{missing}")

    def until_below(self, ratio: float) -> None:
        """Return once less than this part of the limit is used."""
        wait_for(lambda: self.ratio() < ratio, f"less than {ratio:.0%}", PATIENCE)

    def until_request(self, look: Callable[[dict[str, Any]], object], what: str) -> dict[str, Any]:
        """The first journaled request to /admin that `look` finds true."""
        return wait_for(lambda: next(filter(look, self.journal("request")), None), what, PATIENCE)

    @property
    def token_file(self) -> Path:
        """Where its token lies."""
        return self.runtime_dir / "token"


@contextmanager
def service(*arguments: str | Path) -> Iterator[Service]:
    """A guarded service in a box of `LIMIT` bytes."""
    require(servers_problem())
    with BoxV1(LIMIT) as box, Service(box, *arguments) as running:
        try:
            running.start()
            yield running
        except BaseException:
            print(running.stderr())  # pytest shows it
            raise


@dataclass(frozen=True, slots=True)
class RealOnes:
    """Debian's Prometheus and Alertmanager at work."""

    prometheus: Server
    alertmanager: Server

    def query(self, text: str) -> list[dict[str, Any]]:
        """The vector that an expression gives now."""
        answer = self.prometheus.get_json("/api/v1/query?" + urllib.parse.urlencode({"query": text}))
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def value(self, text: str) -> float:
        """The one value of an expression, 0 where there is none."""
        return sum(float(result["value"][1]) for result in self.query(text))

    def metric(self, server: Server, name: str, **labels: str) -> float:
        """Sum of a server's own series of this name that have these labels."""
        total = 0.0
        for line in server.get("/metrics").splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(f'{k}="{v}"' in series for k, v in labels.items()):
                total += float(value)
        return total

    def complaints(self) -> list[str]:
        """What Prometheus logged as a warning or an error."""
        lines = self.prometheus.log.read_text().splitlines()
        return [line for line in lines if "level=warn" in line or "level=error" in line]


@contextmanager
def real_ones(sidecar_port: int, config: str, *rules: Path) -> Iterator[RealOnes]:
    """Both, with this Alertmanager configuration and the shipped rules, or others."""
    with ExitStack() as opened:
        folder = Path(tempfile.mkdtemp(prefix="oomguard-stack-"))
        opened.callback(shutil.rmtree, folder, ignore_errors=True)
        file = folder / "alertmanager.yml"
        file.write_text(config)
        told = opened.enter_context(stack.alertmanager(file, folder, stack.free_port()))
        asked = opened.enter_context(
            stack.prometheus(
                rules or (stack.RULES,), folder, stack.free_port(),
                sidecar=sidecar_port, alertmanager_port=told.port,
            )
        )  # fmt: skip
        yield RealOnes(asked, told)


class Receiver(http.server.ThreadingHTTPServer):
    """Takes webhooks, each kept under its path; `with Receiver() as receiver: …`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.payloads: dict[str, list[dict[str, Any]]] = {}
        self.lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, name="receiver")
        self._thread.start()

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}"

    def got(self, path: str) -> list[dict[str, Any]]:
        """Payloads that were posted there, in order."""
        with self.lock:
            return list(self.payloads.get(path, ()))

    def until(
        self, path: str, look: Callable[[dict[str, Any]], object], what: str, *, skip: int = 0
    ) -> dict[str, Any]:
        """The first payload after `skip` others that `look` finds true."""
        return wait_for(lambda: next(filter(look, self.got(path)[skip:]), None), f"{path}: {what}", PATIENCE)

    def until_all_fire(self, path: str, names: set[str]) -> dict[str, Any]:
        """The first payload in which just these alerts fire."""
        return self.until(path, lambda told: alerts_of(told, "firing") == names, f"all of {names}")


def alerts_of(payload: dict[str, Any], status: str = "") -> set[str]:
    """Names of a payload's alerts, all or those of a status."""
    return {alert["labels"]["alertname"] for alert in payload["alerts"] if status in ("", alert["status"])}


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.payloads.setdefault(self.path, []).append(json.loads(body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing to say."""
