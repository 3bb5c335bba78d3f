"""Streams on real servers: noticed, counted, refused above the limit, closed cleanly, and their ends told."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.support.client import wait_for as wait_for_answer
from tests.support.guarded import WORKLOADS, free_port

PATIENCE = 60.0

pytestmark = pytest.mark.real


class Service:
    """A running service, what it said on stdout, and requests to it."""

    def __init__(self, server: str, port: int, process: subprocess.Popen[str]) -> None:
        self.server = server
        self.port = port
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, args=(process,), daemon=True)
        self._reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.said.append(line.rstrip("\n"))

    def ask(self, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path)
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.headers.items()}
            return response.status, headers, response.read()

    def state(self) -> dict[str, Any]:
        status, _, body = self.ask("/state")
        assert status == 200, body
        found: dict[str, Any] = json.loads(body)
        return found

    def step(self, name: str) -> dict[str, Any]:
        status, _, body = self.ask(f"/step/{name}", "POST")
        assert status == 200, body
        found: dict[str, Any] = json.loads(body)
        return found

    def until(self, condition: Callable[[], object], what: str) -> None:
        until = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < until, (what, self.state(), self.said)
            time.sleep(0.02)

    def heard(self, text: str) -> bool:
        return any(text in line for line in self.said)


class Client:
    """An event stream that is being read."""

    def __init__(self, port: int, path: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        self.connection.request("GET", path)
        self.response = self.connection.getresponse()
        assert self.response.status == 200
        self.first = self.response.readline()

    def rest(self) -> bytes:
        """What comes until the stream's proper end; http.client raises where it is cut."""
        return self.response.read()

    def __enter__(self) -> Client:  # noqa: PYI034 (Self is typing's from 3.11 on)
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self.connection.close()


COMMANDS: dict[str, list[str]] = {
    "uvicorn": ["-m", "uvicorn", "streaming:asgi", "--loop", "uvloop", "--log-level", "warning", "--port"],
    "aiohttp": [str(WORKLOADS / "streaming.py"), "aiohttp"],
    "gevent": ["-m", "gunicorn", "-k", "gevent", "streaming:wsgi", "-b"],
    "gthread": ["-m", "gunicorn", "-k", "gthread", "--threads", "16", "streaming:wsgi", "-b"],
}


@contextlib.contextmanager
def running(server: str, **variables: str) -> Iterator[Service]:
    port = free_port()
    where = f"127.0.0.1:{port}" if server.startswith("g") else str(port)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(WORKLOADS), *sys.path]), **variables}
    command = [sys.executable, *COMMANDS[server], where]
    with subprocess.Popen(command, env=env, cwd=WORKLOADS, stdout=subprocess.PIPE, text=True) as process:
        try:
            wait_for_answer(port, "/health", timeout=PATIENCE)
            yield Service(server, port, process)
            assert process.poll() is None, "the service has ended"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(params=sorted(COMMANDS), scope="module")
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    with running(request.param) as started:
        yield started


def closed(service: Service, reason: str) -> int:
    return int(service.state()["streams"]["closed"][reason])


def test_a_stream_is_counted_and_is_no_request_in_flight(service: Service) -> None:
    before = service.state()["streams"]
    with Client(service.port, "/events") as client:
        assert client.first == b"data: first\n"
        now = service.state()
        assert now["streams"]["open"] == before["open"] + 1
        assert now["streams"]["opened"] == before["opened"] + 1
        assert now["streams"]["oldest_age"] > 0
        assert now["requests"]["in_flight"] == 1, "the question itself"
        service.until(lambda: service.heard(" opened: sse /events 127.0.0.1"), "an opening that is logged")
    service.until(lambda: closed(service, "client") > before["closed"]["client"], "the client's going")
    service.until(lambda: service.heard("finally events"), "the handler's end")
    service.until(lambda: service.heard("(client)"), "a closing that is logged")
    after = service.state()["streams"]
    assert sum(after["duration"]["counts"]) == sum(before["duration"]["counts"]) + 1
    assert service.state()["requests"]["in_flight"] == 1


def test_the_step_closes_streams_cleanly_and_says_how_many(service: Service) -> None:
    evicted = closed(service, "evicted")
    with Client(service.port, "/events") as client:
        answer = service.step("streams")
        assert (answer["status"], answer["details"]) == ("done", {"asked": 1, "closed": 1, "left": 0})
        client.rest()
    assert closed(service, "evicted") == evicted + 1
    service.until(lambda: service.heard("(evicted)"), "a closing that is logged")
    if service.server != "gevent":  # where every greenlet is a Dummy
        assert not any(line.startswith("oomguard.streams Dummy") for line in service.said), (
            "logged by the hook"
        )
    assert not service.heard("Traceback"), "\n".join(service.said)


def test_the_longest_idle_are_closed_first_and_comments_are_no_events(service: Service) -> None:
    with Client(service.port, "/comments") as idle, Client(service.port, "/events") as busy:
        answer = service.step("streams")
        assert answer["details"] == {"asked": 1, "closed": 1, "left": 1}
        idle.rest()
        assert busy.response.read(1)
    service.until(lambda: service.state()["streams"]["open"] == 0, "the other's end")


def test_without_streams_there_is_nothing_to_do(service: Service) -> None:
    service.until(lambda: service.state()["streams"]["open"] == 0, "no stream")
    assert service.step("streams")["reason"] == "nothing_registered"


@pytest.mark.parametrize("server", sorted(COMMANDS))
def test_above_the_limit_a_stream_is_refused_and_requests_are_not(server: str) -> None:
    with running(server, STREAMS_MAX="2") as service, contextlib.ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(Client(service.port, "/events"))
        for count in (1, 2):
            status, headers, body = service.ask("/events")
            assert (status, headers["retry-after"]) == (503, "7")
            assert b"streams" in body
            assert service.state()["streams"]["rejected"] == count
        assert service.ask("/hello")[0] == 200
        assert service.state()["requests"]["in_flight"] == 1
        stack.close()
        service.until(lambda: service.state()["streams"]["open"] == 0, "room")
        with Client(service.port, "/events") as client:
            assert client.first == b"data: first\n"
        assert not service.heard("Traceback"), "\n".join(service.said)


@pytest.mark.parametrize("server", sorted(COMMANDS))
def test_while_shedding_requests_are_refused_but_for_health_and_admin(server: str) -> None:
    with running(server) as service:
        assert service.step("shed")["status"] == "done"
        status, headers, body = service.ask("/hello")
        assert (status, headers["retry-after"]) == (503, "7")
        assert body
        assert json.loads(service.ask("/health")[2])["status"] in ("healthy", "degraded", "critical")
        assert service.ask("/admin/memory")[0] == 401, "the token is asked for, as ever"
        assert service.state()["shed"] == {"on": True, "refused": 1}


@pytest.mark.parametrize("server", sorted(COMMANDS))
def test_above_a_level_of_memory_requests_are_refused(server: str) -> None:
    with running(server, SHED_ABOVE="2MiB", OOMGUARD_LIMIT="1TiB") as service:
        assert service.ask("/hello")[0] == 503
        assert service.state()["shed"]["on"] is True


@pytest.mark.parametrize("path", ["/silent", "/bare"])
def test_a_stream_that_waits_for_something_else_is_closed_cleanly_too(path: str) -> None:
    with running("uvicorn") as service, Client(service.port, path) as client:
        assert service.step("streams")["details"] == {"asked": 1, "closed": 1, "left": 0}
        client.rest()
        service.until(lambda: service.heard("finally silent"), "the handler's end")
        assert not service.heard("Traceback"), "\n".join(service.said)


def test_a_handler_that_waits_for_something_else_ends_when_its_client_leaves() -> None:
    with running("uvicorn") as service:
        with Client(service.port, "/bare"):
            pass
        service.until(lambda: service.heard("finally silent"), "the handler's end")
        assert closed(service, "client") == 1
        assert not service.heard("Traceback"), "\n".join(service.said)


class WebSocket:
    """The client's side of a handshake, and frames, as RFC 6455 has them."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        self.headers = http.client.parse_headers(self.file)

    def send(self, opcode: int, data: bytes) -> None:
        self.socket.sendall(bytes([0x80 | opcode, 0x80 | len(data), 0, 0, 0, 0]) + data)

    def receive(self) -> tuple[int, bytes]:
        head = self.file.read(2)
        return head[0] & 15, self.file.read(head[1])

    def __enter__(self) -> WebSocket:  # noqa: PYI034 (Self is typing's from 3.11 on)
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()


@pytest.mark.parametrize("server", ["aiohttp", "uvicorn"])
def test_a_websocket_is_a_stream(server: str) -> None:
    with running(server, STREAMS_MAX="1") as service:
        with WebSocket(service.port) as client:
            assert client.status == 101
            client.send(1, b"hello")
            assert client.receive() == (1, b"hello")
            assert service.state()["streams"]["open"] == 1
            with WebSocket(service.port) as second:
                assert (second.status, second.headers["retry-after"]) == (503, "7")
            assert service.step("streams")["details"]["asked"] == 1
            opcode, data = client.receive()
            assert (opcode, int.from_bytes(data[:2], "big")) == (8, 1013)
            client.send(8, data[:2])
        service.until(lambda: closed(service, "evicted") == 1, "the eviction")
        with WebSocket(service.port) as client:
            client.send(8, (1000).to_bytes(2, "big"))
            assert client.receive()[0] == 8
        service.until(lambda: closed(service, "client") == 1, "the client's going")
        assert service.state()["streams"]["rejected"] == 1
        assert not service.heard("Traceback"), "\n".join(service.said)
