"""A service with streams: ``streaming.py aiohttp PORT``, or ``streaming:asgi`` and ``streaming:wsgi`` for a server.

GET /events sends an event every 50 ms, /silent one event and then nothing, /comments only comments that keep alive;
/ws echoes. Each says in its `finally`, on stdout, that it has ended. GET /state tells what the parts know, POST
/step/NAME takes a step, in a thread as the hook's; /hello says hello. STREAMS_MAX, SHED_ABOVE set the options.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.web_parts import make_endpoint, make_web

from oomguard.hook import unpatched
from oomguard.hook.web import Parts

HOST = os.environ.get("HOST", "127.0.0.1")
web = make_web()
logging.basicConfig(stream=sys.stdout, format="%(name)s %(threadName)s %(message)s", level=logging.INFO)


def parts() -> Parts:
    limit = os.environ.get("STREAMS_MAX")
    return web.parts(
        make_endpoint(),
        max_streams=int(limit) if limit else None,
        shed_above=os.environ.get("SHED_ABOVE"),
        retry_after=7,
        health="/health",
        exempt=["/state", "/step/streams", "/step/shed"],
    )


def said(text: str) -> None:
    print(text, flush=True)


def state() -> str:
    return json.dumps(
        {
            "pid": os.getpid(),
            "streams": web.streams.reading(),
            "requests": web.requests.reading(),
            "shed": web.shedding.reading(),
        }
    )


def step(name: str) -> str:
    answers: list[dict[str, object]] = []
    take = {"streams": web.streams.take, "shed": web.shedding.take}[name]
    unpatched.start_thread(lambda: answers.append(take(None, 5.0)))  # as the hook's: it has no name
    while not answers:
        time.sleep(0.005)
    return json.dumps(answers[0])


async def chunks(kind: str) -> AsyncIterator[bytes]:
    try:
        yield b"data: first\n\n"
        while kind == "silent":
            await asyncio.sleep(3600)
        while True:
            await asyncio.sleep(0.05)
            yield b": alive\n\n" if kind == "comments" else b"data: more\n\n"
    finally:
        said(f"finally {kind}")


def plain_chunks(kind: str) -> Iterator[bytes]:
    try:
        yield b"data: first\n\n"
        while True:
            time.sleep(0.05)
            yield b": alive\n\n" if kind == "comments" else b"data: more\n\n"
    finally:
        said(f"finally {kind}")


# -- ASGI


def make_asgi() -> Any:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response, StreamingResponse
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocket

    from oomguard.hook.web import asgi

    async def hello(_: Request) -> Response:
        return PlainTextResponse("hello")

    async def known(_: Request) -> Response:
        return PlainTextResponse(state())

    async def take(request: Request) -> Response:
        return PlainTextResponse(await asyncio.to_thread(step, request.path_params["name"]))

    async def stream(request: Request) -> Response:
        return StreamingResponse(chunks(request.url.path[1:]), media_type="text/event-stream")

    async def bare(_: Request) -> Any:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for chunk in chunks("silent"):  # it looks for no disconnect
                await send({"type": "http.response.body", "body": chunk, "more_body": True})

        return app

    async def echo(socket: WebSocket) -> None:
        try:
            await socket.accept()
            async for text in socket.iter_text():
                await socket.send_text(text)
        finally:
            said("finally ws")

    app = Starlette(
        routes=[
            Route("/hello", hello),
            Route("/state", known),
            Route("/step/{name}", take, methods=["POST"]),
            Route("/events", stream),
            Route("/silent", stream),
            Route("/comments", stream),
            Route("/bare", bare),
            WebSocketRoute("/ws", echo),
        ]
    )
    return asgi.mount(app, parts())


# -- WSGI


def make_wsgi() -> Any:
    from oomguard.hook.web import wsgi

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path in ("/events", "/comments"):
            start_response("200 OK", [("Content-Type", "text/event-stream; charset=utf-8")])
            return plain_chunks(path[1:])
        start_response("200 OK", [("Content-Type", "text/plain")])
        if path == "/state":
            return [state().encode()]
        if path.startswith("/step/"):
            return [step(path.removeprefix("/step/")).encode()]
        return [b"hello"]

    return wsgi.mount(app, parts())


def __getattr__(name: str) -> Any:
    made = {"asgi": make_asgi, "wsgi": make_wsgi}.get(name)
    if made is None:
        raise AttributeError(name)
    return made()


# -- aiohttp


def serve_aiohttp(port: int) -> None:
    from aiohttp import web as http

    from oomguard.hook.web import aiohttp

    async def hello(_: http.Request) -> http.StreamResponse:
        return http.Response(text="hello")

    async def known(_: http.Request) -> http.StreamResponse:
        return http.Response(text=state())

    async def take(request: http.Request) -> http.StreamResponse:
        return http.Response(text=await asyncio.to_thread(step, request.match_info["name"]))

    async def stream(request: http.Request) -> http.StreamResponse:
        response = http.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            async with contextlib.aclosing(chunks(request.path[1:])) as parts:
                async for chunk in parts:
                    await response.write(chunk)
        return response

    async def echo(request: http.Request) -> http.StreamResponse:
        response = http.WebSocketResponse()
        try:
            await response.prepare(request)
            async for message in response:
                await response.send_str(message.data)
        finally:
            said("finally ws")
        return response

    app = http.Application()
    for path in ("/events", "/silent", "/comments"):
        app.router.add_get(path, stream)
    app.router.add_get("/hello", hello)
    app.router.add_get("/state", known)
    app.router.add_post("/step/{name}", take)
    app.router.add_get("/ws", echo)
    aiohttp.mount(app, parts())
    http.run_app(app, host=HOST, port=port, print=None, access_log=None)


if __name__ == "__main__":
    serve_aiohttp(int(sys.argv[2]))
