"""A service with the app's own /admin mounted: ``mounted_admin.py aiohttp|wsgi``; prints ``{"port": N}``.

GET /fill fills a cache with 100 MiB; GET /release lets go of the cache `gate`, whose `clear` waits for it when it
is armed (GET /arm); any other path is answered with 200 and itself.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from oomguard import hook

BLOCKS = 100

blocks: list[bytearray] = []
armed, released = threading.Event(), threading.Event()


def clear_gate() -> None:
    if armed.is_set():
        released.wait(60)


def act(path: str) -> str:
    if path == "/fill":
        blocks.extend(bytearray(b"x" * (1 << 20)) for _ in range(BLOCKS))
    elif path == "/arm":
        armed.set()
    elif path == "/release":
        released.set()
    return path


def serve_aiohttp(guard: hook.Guard) -> None:
    from aiohttp import web

    @web.middleware
    async def nobody_enters_admin(
        request: web.Request, handler: Callable[[web.Request], Any]
    ) -> web.StreamResponse:
        if request.path in ("/admin/memory", "/admin/cleanup"):
            raise web.HTTPTeapot  # what the application thinks of these paths is not asked
        response: web.StreamResponse = await handler(request)
        return response

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=act(request.path))

    async def main() -> None:
        app = web.Application(middlewares=[nobody_enters_admin], client_max_size=10)
        app.router.add_route("*", "/{path:.*}", answer)
        guard.aiohttp(app)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
        await asyncio.Event().wait()

    asyncio.run(main())


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class Threading(ThreadingMixIn, WSGIServer):
    daemon_threads = True


def serve_wsgi(guard: hook.Guard) -> None:
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [act(environ["PATH_INFO"]).encode()]

    with Threading(("127.0.0.1", 0), Quiet) as server:
        server.set_app(guard.wsgi(app))
        print(json.dumps({"port": server.server_port}), flush=True)
        server.serve_forever()


if __name__ == "__main__":
    started = hook.start()
    started.cache("gate", clear_gate)
    started.cache("blocks", blocks.clear, size=lambda: sum(map(len, blocks)), entries=lambda: len(blocks))
    {"aiohttp": serve_aiohttp, "wsgi": serve_wsgi}[sys.argv[1]](started)
