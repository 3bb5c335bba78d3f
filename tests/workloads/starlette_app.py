"""A Starlette service for the framework tests; the application is wrapped as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from serving import PAUSE, TICK, block, facts, guard, left
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route


async def who(request: Request) -> Response:
    return JSONResponse(facts())


async def blocked(request: Request) -> Response:
    block(request.query_params["flag"])
    return JSONResponse(facts())


async def events(request: Request) -> Response:
    note = request.query_params["note"]

    async def ticks() -> AsyncIterator[str]:
        try:
            while True:
                yield TICK
                await asyncio.sleep(PAUSE)
        finally:
            left(note)

    return StreamingResponse(ticks(), media_type="text/event-stream")


app = guard.asgi(
    Starlette(routes=[Route("/facts", who), Route("/block", blocked), Route("/events", events)]),
)
