"""A service as it died on Railway: a large model stays loaded, and event streams that nobody reads any more never end.

    model_beside_streams.py

Prints ``{"port": …}``. ``/embed`` uses the model (180 MB), ``/events`` opens a stream that holds 4 MB of
history and sends nothing but keepalives, ``/ping`` answers. Where nobody guards it, the guard's lines do nothing.
"""

import asyncio
import json

from aiohttp import web

from oomguard import hook

MIB = 1 << 20

guard = hook.start()


def load():
    return [bytearray(b"w" * (64 << 10)) for _ in range(180 * 16)]


model = guard.model("jina-v3", load=load, min_residency=0)


async def embed(_):
    async with model as weights:
        return web.json_response({"weights": len(weights)})


async def events(request):
    history = [bytearray(b"h" * (64 << 10)) for _ in range(4 * 16)]
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    try:
        while True:
            await response.write(b": keepalive\n\n")
            await asyncio.sleep(0.2)
    finally:
        history.clear()


async def ping(_):
    return web.json_response({"model": model.state})


async def main():
    app = web.Application()
    app.add_routes([web.get("/embed", embed), web.get("/events", events), web.get("/ping", ping)])
    guard.aiohttp(app)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(json.dumps({"port": site._server.sockets[0].getsockname()[1]}), flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
