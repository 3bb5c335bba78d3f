"""GET /admin/memory with 100 models and 100 caches registered, each of them with callbacks: in the endpoint, and over
loopback.

"In the endpoint" is what makes the answer, in the thread that it runs in: the reading, a look at the cgroup, JSON.
"Through the mount" is the ASGI application called on an idle loop, with the thread that is started for the request.
"Over loopback" is a request over a connection that is kept open, to uvicorn (uvloop, httptools) in another process,
on the other core, with nothing registered and with everything; beside it the service's own GET /. One request after
the other, 2000 of each, in turns.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from typing import Any

from bench.served import COUNT, register
from bench.service import TOKEN, Service, kept_to, two_cores
from bench.table import percentile, table
from oomguard.hook.admin.endpoint import MEMORY, Endpoint
from oomguard.hook.models.registry import Models
from oomguard.hook.process import Process
from oomguard.hook.web import Web, asgi

REQUESTS = 2000
TARGET = 0.001
_HEADERS = {"authorization": f"Bearer {TOKEN}"}


def measure() -> str:
    """The section for RESULTS.md."""
    service_core, load_core = two_cores()
    with kept_to(service_core):
        process, endpoint = _endpoint()
        inside, size = _in_the_endpoint(endpoint)
        through = asyncio.run(_through_the_mount(process, endpoint))
    with (
        kept_to(load_core),
        Service("starlette", "mounted", core=service_core) as bare,
        Service("starlette", "registered", core=service_core) as full,
    ):
        asked = {
            "GET /, over loopback": (full, "/", COUNT),
            "with nothing registered, over loopback": (bare, MEMORY, 0),
            "over loopback": (full, MEMORY, COUNT),
        }
        over = _over_loopback(asked)
    seconds = {"in the endpoint": inside, "through the mount": through, **over}
    rows = [[name, *_figures(taken)] for name, taken in seconds.items()]
    met = "met" if percentile(inside, 0.5) < TARGET else "missed"
    verdict = f"The body has {size} bytes. Target: under 1 ms ({met} in the endpoint, by the median)."
    return "\n".join(
        ["## GET /admin/memory", "", (__doc__ or "").strip(), "",
         table(["", "p50", "p99", "max"], rows), "", verdict, ""]
    )  # fmt: skip


def _figures(seconds: list[float]) -> list[str]:
    return [
        f"{value * 1e3:.3f} ms"
        for value in (percentile(seconds, 0.5), percentile(seconds, 0.99), max(seconds))
    ]


def _endpoint() -> tuple[Process, Endpoint]:
    process = Process({"OOMGUARD_TOKEN": TOKEN})
    process.equip()
    models = process.part("models", lambda: Models(process.core))
    register(process.answers.caches.register, models.register)
    return process, Endpoint(process.core.environ, process.answers.step, process.answers.read)


def _in_the_endpoint(endpoint: Endpoint) -> tuple[list[float], int]:
    seconds, body = [], b""
    for _ in range(REQUESTS):
        began = time.perf_counter()
        body = endpoint.answer("GET", MEMORY, _HEADERS, b"").body
        seconds.append(time.perf_counter() - began)
    _check(json.loads(body), COUNT)
    return seconds, len(body)


async def _through_the_mount(process: Process, endpoint: Endpoint) -> list[float]:
    async def app(*_: object) -> None:
        raise AssertionError("nothing else is asked for")

    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    mounted = asgi.mount(app, Web(process.core).parts(endpoint))
    headers = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
    scope = {"type": "http", "method": "GET", "path": MEMORY, "root_path": "", "headers": headers}
    seconds = []
    for _ in range(REQUESTS):
        said.clear()
        began = time.perf_counter()
        await mounted(scope, receive, send)
        seconds.append(time.perf_counter() - began)
        assert said[0]["status"] == 200, said
    return seconds


def _over_loopback(asked: dict[str, tuple[Service, str, int]]) -> dict[str, list[float]]:
    """Seconds of each request, by name; the number is how many models and caches the answer has to show."""
    connections = {
        name: http.client.HTTPConnection("127.0.0.1", service.port) for name, (service, _, _) in asked.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in asked}
    for turn in range(REQUESTS):
        for name, (_, path, count) in asked.items():
            connection = connections[name]
            began = time.perf_counter()
            connection.request("GET", path, headers=_HEADERS)
            body = connection.getresponse().read()
            seconds[name].append(time.perf_counter() - began)
            if path == MEMORY and not turn:
                _check(json.loads(body), count)
    for connection in connections.values():
        connection.close()
    return seconds


def _check(told: dict[str, Any], count: int) -> None:
    shown = len(told["caches"]), len(told.get("models", ()))
    if shown != (count, count):
        raise RuntimeError(f"/admin/memory shows {shown} caches and models, not {count}: {told}")
