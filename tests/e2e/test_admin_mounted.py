"""The app's own /admin, mounted in real servers: memory falls, and the application notices nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.boxes import require
from tests.support.client import wait_for
from tests.support.fake_sidecar import FakeSidecar
from tests.support.guarded import WORKLOADS, free_port

from oomguard.hook import Guard

TOKEN = "s3cret"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
MIB = 1 << 20
PATIENCE = 60.0


class Service:
    """A running service, and requests to it."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path, body, BEARER if headers is None else headers)
            response = connection.getresponse()
            return response.status, response.read()

    def cleanup(self, body: object) -> tuple[int, dict[str, Any]]:
        status, answer = self.ask("POST", "/admin/cleanup", json.dumps(body).encode())
        return status, json.loads(answer)

    def memory(self) -> dict[str, Any]:
        status, answer = self.ask("GET", "/admin/memory")
        assert status == 200, answer
        found: dict[str, Any] = json.loads(answer)
        return found


@contextlib.contextmanager
def running(framework: str, **variables: str) -> Iterator[Service]:
    command = [sys.executable, str(WORKLOADS / "mounted_admin.py"), framework]
    env = {**os.environ, "OOMGUARD_TOKEN": TOKEN, "OOMGUARD_TARGET": "api", **variables}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Service(json.loads(process.stdout.readline())["port"])
            assert process.poll() is None, "the application has ended"
        finally:
            process.kill()


@pytest.fixture(params=["aiohttp", "wsgi"])
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    with running(request.param) as started:
        yield started


def firing(**labels: str) -> dict[str, Any]:
    return {"status": "firing", "labels": {"alertname": "MemoryCritical", **labels}}


def test_an_alert_clears_the_cache_and_memory_falls(service: Service) -> None:
    assert service.ask("GET", "/fill")[0] == 200
    full = service.memory()
    assert [cache["bytes"] for cache in full["caches"]] == [None, 100 * MIB]
    storm = [firing(target="other", steps="gc")] * 999
    alert = firing(target="api", action="cleanup", steps="caches,trim", goal="1MiB")
    status, reply = service.cleanup({"version": "4", "status": "firing", "alerts": [*storm, alert]})
    assert (status, reply["outcome"], reply["declined"]) == (200, "goal_not_reached", {"other_target": 999})
    assert [step["step"] for step in reply["steps"]] == ["caches", "trim"]
    assert reply["freed"] > 90 * MIB
    assert reply["freed"] == sum(step["freed"] for step in reply["steps"])
    assert reply["seconds"] >= reply["stall"] > 0
    assert full["rss"] - service.memory()["rss"] > 90 * MIB


def test_no_token_and_a_wrong_one_are_refused(service: Service) -> None:
    for method, path in (("GET", "/admin/memory"), ("POST", "/admin/cleanup")):
        assert service.ask(method, path, headers={})[0] == 401
        assert service.ask(method, path, headers={"Authorization": "Bearer other"})[0] == 403


@pytest.mark.parametrize("body", [b"\x00garbage", b"[" * 500_000, b'{"steps": 7}', b'{"version": "3"}'])
def test_garbage_harms_nothing(service: Service, body: bytes) -> None:
    status, answer = service.ask("POST", "/admin/cleanup", body)
    assert status == 400
    assert json.loads(answer)["error"]
    assert service.ask("GET", "/ping") == (200, b"/ping")


def test_a_body_too_large_is_refused_before_it_is_sent(service: Service) -> None:
    head = (
        f"POST /admin/cleanup HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Length: {MIB + 1}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", service.port), PATIENCE) as connection:
        connection.sendall(head.encode())
        assert b" 413 " in connection.recv(65_536).split(b"\r\n")[0]


def test_everything_else_is_the_applications(service: Service) -> None:
    for path in ("/", "/admin", "/admin/other", "/admin/memory/", "/x/admin/memory"):
        assert service.ask("GET", path, headers={}) == (200, path.encode())


def test_the_application_serves_while_a_step_is_under_way_and_a_redelivery_joins_it(service: Service) -> None:
    service.ask("GET", "/arm")
    replies: list[tuple[int, dict[str, Any]]] = []
    order = {"version": "4", "alerts": [firing(steps="caches", goal="1MiB")]}
    first = threading.Thread(target=lambda: replies.append(service.cleanup(order)))
    first.start()
    while service.memory()["run"] is None:
        pass
    status, reply = service.cleanup(order)
    assert (status, reply["outcome"], reply["run"]) == (202, "joined", 1)
    assert service.ask("GET", "/release")[0] == 200, "a blocked loop could not answer this, nor end the step"
    first.join(PATIENCE)
    ((status, reply),) = replies
    assert (status, len(reply["steps"]), reply["steps"][0]["details"]["cleared"]) == (
        200,
        1,
        ["gate", "blocks"],
    )


def test_the_sidecar_and_admin_take_turns(tmp_path: Path) -> None:
    with FakeSidecar(tmp_path) as sidecar, running("aiohttp", OOMGUARD_RUNTIME_DIR=str(tmp_path)) as service:
        hook = sidecar.accept()
        service.ask("GET", "/arm")
        order = threading.Thread(target=service.cleanup, args=({"steps": ["caches"]},))
        order.start()
        while service.memory()["run"] is None:
            pass
        hook.question("step", step="gc")
        assert service.memory()["reading_age"] != 0, "a step is under way"
        assert select.select([hook.socket], [], [], 0) == ([], [], []), "the sidecar's waits for its end"
        service.ask("GET", "/release")
        assert hook.receive()["step"]["status"] == "done"
        order.join(PATIENCE)


@pytest.mark.real
def test_an_alertmanager_posts_straight_to_the_application(tmp_path: Path) -> None:
    binary = shutil.which("prometheus-alertmanager")
    require(None if binary else "prometheus-alertmanager is not installed (tests/apt.txt)")
    port = free_port()
    with running("aiohttp") as service, (tmp_path / "log").open("w") as log:
        (tmp_path / "token").write_text(TOKEN)
        (tmp_path / "alertmanager.yml").write_text(
            f"""
route: {{receiver: app, group_wait: 0s, group_interval: 1s}}
receivers:
  - name: app
    webhook_configs:
      - url: http://127.0.0.1:{service.port}/admin/cleanup
        http_config: {{authorization: {{credentials_file: {tmp_path}/token}}}}
"""
        )
        command = [
            str(binary),
            f"--config.file={tmp_path}/alertmanager.yml",
            f"--storage.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ]
        with subprocess.Popen(command, stderr=log) as alertmanager:
            try:
                wait_for(port, "/-/ready", timeout=PATIENCE)
                service.ask("GET", "/fill")
                full = service.memory()["rss"]
                labels = {
                    "alertname": "MemoryHigh",
                    "action": "cleanup",
                    "steps": "caches,trim",
                    "goal": "1MiB",
                }
                alerts = json.dumps([{"labels": {**labels, "target": "api"}}]).encode()
                headers = {"Content-Type": "application/json"}
                assert Service(port).ask("POST", "/api/v2/alerts", alerts, headers)[0] == 200
                until = time.monotonic() + PATIENCE
                while full - service.memory()["rss"] < 90 * MIB:
                    assert time.monotonic() < until, (tmp_path / "log").read_text()
                    time.sleep(0.05)
            finally:
                alertmanager.terminate()


# -- ASGI, by its own interface


class Exchange:
    """One ASGI connection: what the server would hand over, and what came back."""

    def __init__(self, scope: dict[str, Any], *messages: dict[str, Any]) -> None:
        self.scope = {"type": "http", "method": "POST", "path": "/admin/cleanup", "headers": [], **scope}
        self.received = list(messages)
        self.sent: list[dict[str, Any]] = []

    async def receive(self) -> dict[str, Any]:
        return self.received.pop(0)

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    async def through(self, app: Callable[..., Coroutine[Any, Any, None]]) -> tuple[int, dict[str, Any]]:
        await app(self.scope, self.receive, self.send)
        start, end = self.sent
        return start["status"], json.loads(end["body"])


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Sends back what it was given, the very objects."""
    await send((scope, receive, send))


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Guard]:
    monkeypatch.setenv("OOMGUARD_TOKEN", TOKEN)
    made = Guard()
    yield made
    made.stop()


AUTHORIZED = [(b"authorization", f"Bearer {TOKEN}".encode())]


def test_asgi_clears_the_cache_that_a_body_in_pieces_names(guard: Guard) -> None:
    held = [bytearray(b"x" * MIB) for _ in range(100)]
    guard.cache("held", held.clear)
    parts = [
        {"type": "http.request", "body": part, "more_body": True}
        for part in (b'{"steps"', b': ["caches", "trim"]}')
    ]
    exchange = Exchange({"headers": AUTHORIZED}, *parts, {"type": "http.request"})
    status, reply = asyncio.run(exchange.through(guard.asgi(application)))
    assert (status, reply["outcome"], held) == (200, "done", [])
    assert reply["freed"] > 90 * MIB
    headers = dict(exchange.sent[0]["headers"])
    assert headers[b"content-length"] == str(len(exchange.sent[1]["body"])).encode()


@pytest.mark.parametrize(
    ("path", "root"), [("/admin/memory", ""), ("/api/admin/memory", "/api"), ("/admin/memory", "/api")]
)
def test_asgi_finds_its_paths_behind_a_prefix_of_the_servers(guard: Guard, path: str, root: str) -> None:
    exchange = Exchange(
        {"method": "GET", "path": path, "root_path": root, "headers": AUTHORIZED}, {"type": "http.request"}
    )
    status, reply = asyncio.run(exchange.through(guard.asgi(application)))
    assert (status, reply["pid"]) == (200, os.getpid())


async def echo(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Sends back what it was given and hears, the very objects."""
    await send({"type": "echo", "scope": scope, "receive": receive, "heard": await receive()})


@pytest.mark.parametrize(
    "scope",
    [
        {"type": "lifespan"},
        {"type": "websocket", "path": "/admin/memory"},
        {"type": "http", "path": "/"},
        {"type": "http", "path": "/other/admin/memory", "root_path": "/api"},
    ],
)
def test_asgi_passes_everything_else_through_untouched(guard: Guard, scope: dict[str, Any]) -> None:
    told = {"type": "told"}
    exchange = Exchange({}, told)
    asyncio.run(guard.asgi(echo)(scope, exchange.receive, exchange.send))
    (sent,) = exchange.sent
    assert sent["scope"] is scope
    assert sent["heard"] is told
    if scope["type"] != "websocket":  # what a websocket hears and says is an event
        assert sent["receive"] == exchange.receive


def test_asgi_reads_no_body_of_a_stranger_and_none_too_large(guard: Guard) -> None:
    app = guard.asgi(application)
    assert asyncio.run(Exchange({}).through(app))[0] == 401
    large = [*AUTHORIZED, (b"content-length", str(MIB + 1).encode())]
    assert asyncio.run(Exchange({"headers": large}).through(app))[0] == 413
    part = {"type": "http.request", "body": b" " * MIB, "more_body": True}
    exchange = Exchange({"headers": AUTHORIZED}, part, part, part)
    assert asyncio.run(exchange.through(app))[0] == 413
    assert exchange.received == [part], "the rest is not read"


def test_asgi_forgets_a_client_that_has_gone(guard: Guard) -> None:
    exchange = Exchange({"headers": AUTHORIZED}, {"type": "http.disconnect"})
    asyncio.run(guard.asgi(application)(exchange.scope, exchange.receive, exchange.send))
    assert exchange.sent == []
