"""An aiohttp service for the framework tests: ``aiohttp_app.py PORT``, or `make` for gunicorn's worker."""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web
from serving import PAUSE, TICK, block, facts, guard, left


async def who(request: web.Request) -> web.Response:
    return web.json_response(facts())


async def blocked(request: web.Request) -> web.Response:
    block(request.query["flag"])
    return web.json_response(facts())


async def events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    try:
        while True:
            await response.write(TICK.encode())
            await asyncio.sleep(PAUSE)
    finally:
        left(request.query["note"])
    return response


async def make() -> web.Application:
    app = web.Application()
    app.add_routes([web.get("/facts", who), web.get("/block", blocked), web.get("/events", events)])
    guard.aiohttp(app)
    return app


if __name__ == "__main__":
    web.run_app(make(), host="127.0.0.1", port=int(sys.argv[1]), print=None)
