"""The ASGI mount alone: what it takes for a request to an application that does nothing, without a server.

Everything lies in the caches here, so that a real request pays up to twice as much; but it repeats to a few per cent on
a busy machine, where throughput does not.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from bench.table import table
from oomguard.hook import Guard

_REQUESTS, _ROUNDS = 4000, 50
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-length", b"5"), (b"content-type", b"text/plain; charset=utf-8")],
}
_BODY = {"type": "http.response.body", "body": b"hello"}
_SCOPE = {"type": "http", "method": "GET", "path": "/vectors", "root_path": "", "headers": []}
Application = Callable[..., Awaitable[None]]


def measure() -> str:
    """A table: the best of rounds in turns."""
    ways: dict[str, Application] = {
        "nothing mounted": _answers,
        "a coroutine around it, and a function around `send`": _around(_answers),
        "mounted": Guard({}).asgi(_answers, max_streams=5, health="/health"),
        "mounted, with shed_above": Guard({}).asgi(
            _answers, max_streams=5, health="/health", shed_above="1TiB"
        ),
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(_ROUNDS):
        for name, app in ways.items():
            best[name] = min(best[name], _seconds(app))
    least = best["nothing mounted"]
    rows = [
        [name, f"{seconds * 1e6:.2f} µs", f"{(seconds - least) * 1e6:.2f} µs"]
        for name, seconds in best.items()
    ]
    return table(["", "a request", "more"], rows)


async def _answers(scope: object, receive: object, send: Callable[[Any], Awaitable[None]]) -> None:  # noqa: ARG001
    await send(_START)
    await send(_BODY)


def _around(app: Application) -> Application:
    """The least that sees the end of a request and the head of its response."""

    async def around(scope: object, receive: object, send: Callable[[Any], Awaitable[None]]) -> None:
        def seeing(message: object) -> Awaitable[None]:
            return send(message)

        await app(scope, receive, seeing)

    return around


async def _receive() -> None:
    """Nothing is asked."""


async def _send(message: object) -> None:
    """Taken."""


def _seconds(app: Application) -> float:
    """For one request."""
    began = time.perf_counter()
    for _ in range(_REQUESTS):
        running: Any = app(_SCOPE, _receive, _send)
        try:
            running.send(None)
        except StopIteration:
            continue
        raise RuntimeError("the application waits, though nothing is to be waited for")
    return (time.perf_counter() - began) / _REQUESTS
