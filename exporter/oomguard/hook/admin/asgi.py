"""The endpoints in an ASGI application (ASGI 3.0, HTTP connection scope), on an asyncio loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from oomguard.hook.admin.endpoint import PATHS, Endpoint
from oomguard.hook.admin.loop import serve

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class _GoneError(Exception):
    """The client has gone before its body was whole."""


def mount(app: Application, endpoint: Endpoint) -> Application:
    """Put the endpoints in front of an application; everything else is passed through as it came."""

    async def mounted(scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].endswith(PATHS):
            await app(scope, receive, send)
            return
        # Behind a proxy that strips a prefix, servers put it in front of the path again (ASGI, "root_path").
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path not in PATHS:
            await app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): _text(value) for name, value in scope["headers"]}
        try:
            answer = await serve(endpoint, scope["method"], path, headers, _body(receive))
        except _GoneError:
            return
        pairs = [(name.encode(), value.encode()) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
        await send({"type": "http.response.body", "body": answer.body})

    return mounted


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneError
        yield message.get("body", b"")
        more = message.get("more_body", False)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
