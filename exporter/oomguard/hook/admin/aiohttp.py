"""The endpoints in an aiohttp application, as its first middleware."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from typing import Any

from oomguard.hook.admin.endpoint import PATHS, Endpoint
from oomguard.hook.admin.loop import serve


def mount(app: Any, endpoint: Endpoint) -> None:
    """Add the middleware to an `aiohttp.web.Application`, before it runs; raises RuntimeError afterwards."""
    if app.frozen:
        raise RuntimeError("the application runs already: mount oomguard before it is started")
    # The hook needs the standard library only; whoever has an Application has this.
    web = importlib.import_module("aiohttp.web")

    async def admin(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        if request.path not in PATHS:
            return await handler(request)
        headers = {name.lower(): value for name, value in request.headers.items()}
        chunks = request.content.iter_any()
        answer = await serve(endpoint, request.method, request.path, headers, chunks)
        return web.Response(status=answer.status, headers=dict(answer.headers), body=answer.body)

    # In front of the application's own: the token is what guards these two.
    app.middlewares.insert(0, web.middleware(admin))
