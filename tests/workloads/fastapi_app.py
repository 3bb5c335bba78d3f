"""A FastAPI service for the framework tests; the guard is a middleware of the application's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from serving import PAUSE, TICK, block, facts, guard, left

app = FastAPI()
app.add_middleware(guard.asgi)


@app.get("/facts")
async def who() -> dict[str, object]:
    return facts()


@app.get("/block")
async def blocked(flag: str) -> dict[str, object]:
    block(flag)
    return facts()


@app.get("/events")
async def events(note: str) -> StreamingResponse:
    async def ticks() -> AsyncIterator[str]:
        try:
            while True:
                yield TICK
                await asyncio.sleep(PAUSE)
        finally:
            left(note)

    return StreamingResponse(ticks(), media_type="text/event-stream")
