"""A small service for the measurements: ``python -m bench.served KIND HOW [MAX_STREAMS]``.

KIND is ``starlette`` (on uvicorn with uvloop and httptools) or ``aiohttp`` (on asyncio's own loop). HOW is ``plain``,
``hook`` (started, nothing mounted), ``mounted`` (max_streams, shed_above and health are set), or ``registered``, which
is mounted and has 100 models and 100 caches. It says its port on stdout, and ends with its standard input, so that it
never outlives who started it.

GET / says hello, /events is an event stream, /publish sends one event to each of them and tells how many there are.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

HELLO = b"hello, world\n"
EVENT = b"data: something has happened\n\n"
COUNT = 100
"""Models, and as many caches."""


class Topic:
    """Hands one event to everybody who waits for it."""

    def __init__(self) -> None:
        self._next = asyncio.Event()
        self.open = 0

    def publish(self) -> None:
        """Wake all streams."""
        happened, self._next = self._next, asyncio.Event()
        happened.set()

    async def events(self) -> AsyncIterator[bytes]:
        """Those of one stream: one at once, and one for each `publish`."""
        self.open += 1
        try:
            while True:
                waiting = self._next
                yield EVENT
                await waiting.wait()
        finally:
            self.open -= 1


def register(cache: Callable[..., object], model: Callable[..., object]) -> None:
    """Register them, with what the guard's methods of these names do."""
    for number in range(COUNT):
        store = dict.fromkeys(range(100), b"a vector")
        cache(f"cache-{number}", store.clear, lambda: 100_000, store.__len__)
        model(f"model-{number}", load=lambda: bytearray(1000), idle_timeout=3600)


def main() -> None:
    kind, how, *rest = sys.argv[1:]
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    options: dict[str, Any] = {
        "max_streams": int(rest[0]) if rest else 5,
        "shed_above": "95%",
        "health": "/health",
    }
    (_starlette if kind == "starlette" else _aiohttp)(listener, how, options)


def _guard(how: str) -> Any:
    """The guard, where something is to be mounted; else None, and where there is to be no hook it is not imported."""
    if how == "plain":
        return None
    from oomguard import hook  # noqa: PLC0415

    guard = hook.start()
    if how == "registered":
        register(guard.cache, guard.model)
    return None if how == "hook" else guard


def _say_port(listener: socket.socket) -> None:
    print(listener.getsockname()[1], flush=True)


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


def _starlette(listener: socket.socket, how: str, options: dict[str, Any]) -> None:
    import uvicorn  # noqa: PLC0415 (a process imports one framework)
    from starlette.applications import Starlette  # noqa: PLC0415
    from starlette.requests import Request  # noqa: PLC0415
    from starlette.responses import PlainTextResponse, Response, StreamingResponse  # noqa: PLC0415
    from starlette.routing import Route  # noqa: PLC0415

    topic = Topic()

    async def hello(_: Request) -> Response:
        return PlainTextResponse(HELLO)

    async def events(_: Request) -> Response:
        return StreamingResponse(topic.events(), media_type="text/event-stream")

    async def publish(_: Request) -> Response:
        topic.publish()
        return PlainTextResponse(str(topic.open))

    app: Any = Starlette(routes=[Route("/", hello), Route("/events", events), Route("/publish", publish)])
    guard = _guard(how)
    if guard is not None:
        app = guard.asgi(app, **options)
    config = uvicorn.Config(app, loop="uvloop", http="httptools", log_level="warning", access_log=False)
    _say_port(listener)
    uvicorn.Server(config).run(sockets=[listener])


def _aiohttp(listener: socket.socket, how: str, options: dict[str, Any]) -> None:
    from aiohttp import web  # noqa: PLC0415 (as above)

    topic = Topic()

    async def hello(_: web.Request) -> web.Response:
        return web.Response(body=HELLO, content_type="text/plain")

    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with contextlib.suppress(
            ConnectionError
        ):  # the client has gone; ten thousand tracebacks tell no more
            async for event in topic.events():
                await response.write(event)
        return response

    async def publish(_: web.Request) -> web.Response:
        topic.publish()
        return web.Response(text=str(topic.open))

    app = web.Application()
    app.add_routes([web.get("/", hello), web.get("/events", events), web.get("/publish", publish)])
    guard = _guard(how)
    if guard is not None:
        guard.aiohttp(app, **options)
    _say_port(listener)
    web.run_app(app, sock=listener, print=None, access_log=None)


if __name__ == "__main__":
    main()
