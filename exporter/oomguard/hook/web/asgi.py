"""The mount for ASGI applications (ASGI 3.0, HTTP and websocket scopes), on an asyncio loop.

A plain request must cost half a microsecond here, a fiftieth of what the server and Starlette take for it: hence
one coroutine around the application, one small object before `send`, and no other call.
"""

from __future__ import annotations

from asyncio import Task, ensure_future
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from time import monotonic
from typing import TYPE_CHECKING, Any

from oomguard.hook.admin.endpoint import PATHS, Answer
from oomguard.hook.admin.loop import serve
from oomguard.hook.web import Parts, connection
from oomguard.hook.web.streams import Stream, current_task, reason_of
from oomguard.hook.web.tasks import Lookout, collect_soon, ended, finish

if TYPE_CHECKING:
    from oomguard.hook.web.streams import Reason

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

_TRY_AGAIN_LATER = 1013
"""The websocket close code (IANA's registry of RFC 6455's codes)."""


class _GoneError(Exception):
    """The client has gone before its body was whole."""


def mount(app: Application, parts: Parts) -> Application:
    """Put the parts in front of an application; what is not theirs is passed through as it came."""
    front = _Front(app, parts)
    gate, tally, paths = front.gate, front.tally, front.paths

    async def mounted(scope: Message, receive: Receive, send: Send) -> None:
        after: Callable[[], None] | None = None
        if (
            (gate.up and monotonic() >= gate.due)
            or scope["type"] != "http"
            or scope["path"] in paths
            or scope.get("root_path")
        ):
            after = await front.look(scope, receive, send)
            if after is None:
                return
        response = _Response()
        response.front = front
        response.scope = scope
        response.receive = receive
        response.send = send
        response.stream = None
        tally.begun += 1
        try:
            await app(scope, receive, response.pass_on)
        except BaseException as error:
            stream = response.stream
            if stream is None:
                raise
            if not stream.absorbs(error):
                stream.close(stream.why(error))
                raise
        finally:
            if response.stream is None:
                tally.answered += 1
                if after is not None:
                    after()
        if response.stream is not None:
            await response.stream.leave()

    return mounted


class _Response:
    """What stands before the server's `send`: it sees whether an event stream begins.

    Made for every request: its attributes are set from outside, since a call of `__init__` costs more than all of
    them. A function with these as its variables costs more, too, and 350 bytes more of each stream.
    """

    __slots__ = ("front", "receive", "scope", "send", "stream")
    front: _Front
    scope: Message
    receive: Receive
    send: Send
    stream: _EventStream | None

    def pass_on(self, message: Message) -> Awaitable[None]:
        """Pass a part of the response on."""
        if self.stream is None:
            if "headers" in message:  # http.response.start
                for name, value in message["headers"]:
                    if name == b"content-length":
                        break  # it has an end
                    if name == b"content-type":
                        if value.partition(b";")[0].strip().lower() == b"text/event-stream":
                            self.stream = _EventStream(self.front, self.scope, self.receive, self.send)
                            return self.stream.begin(message)
                        break
            send = self.send  # as a variable, since a slot's value is found slowly where it is called (3.11)
            return send(message)
        return self.stream.pass_on(message)


class _Front:
    """What all requests of a mount need, and those that are looked at more closely."""

    def __init__(self, app: Application, parts: Parts) -> None:
        self.parts = parts
        self.gate = parts.gate
        self.paths = frozenset(parts.paths)
        self.tally = parts.requests.tally()
        self._app = app
        self._lookout = Lookout(parts.streams)

    def open(self, stream: Stream, scope: Message, *, bounded: bool) -> bool:
        """Note a stream as open, and let its connection be watched; whether there was room."""
        about = f"{scope['path']} {':'.join(map(str, scope.get('client') or ()))}"
        if not self.parts.streams.open(stream, about, bounded=bounded):
            return False
        connection.watch(getattr(stream.connection, "transport", None))
        if stream.task is not None:
            self._lookout.attend(stream.task.get_loop())
        return True

    async def look(self, scope: Message, receive: Receive, send: Send) -> Callable[[], None] | None:
        """Look at it more closely: what is to be called when the application has answered; None: it is served."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return None
        parts, path = self.parts, _path(scope)
        if path in self.paths:
            await _answer(parts, path, scope, receive, send)
            return None
        if parts.shedding.armed and parts.sheds(path):
            await _respond(send, parts.shed)
            return None
        return parts.requests.look(self.tally, parts.gc_every, collect_soon)

    async def _other(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve a websocket, and pass through what is none."""
        app = self._app
        if scope["type"] != "websocket":
            await app(scope, receive, send)
            return
        parts = self.parts
        if parts.shedding.armed and parts.sheds(_path(scope)):
            await _deny(scope, send, parts.shed)
            return
        stream = _Socket(self, scope, receive, send)
        try:
            await app(scope, stream.hear, stream.pass_on)
        except BaseException as error:
            if not stream.absorbs(error):
                stream.close(reason_of(error))
                raise
        await stream.leave()


class _Watched(Stream):
    """A stream with the server's `send`; `finished` says that its end was sent."""

    __slots__ = ("_closing", "_front", "_scope", "_send", "finished")

    def __init__(self, front: _Front, name: str, scope: Message, receive: Receive, send: Send) -> None:
        # The object behind uvicorn's `receive` has the transport; of another server nothing is known.
        connection = getattr(receive, "__self__", None)
        known = getattr(connection, "transport", None) is not None
        super().__init__(front.parts.streams, name, current_task(), connection if known else None)
        self._front = front
        self._scope = scope
        self._send = send
        self._closing: Task[None] | None = None
        self.finished = False

    def cancel(self, why: Reason) -> None:
        """End it: the client is told, whereupon `receive` tells the application, and the task is cancelled.

        The task is the one that sends, which may be a child of the one that the server waits for; the end that
        `receive` tells ends that one.
        """
        if self.ending is None and not self.finished:
            self.finished = True
            super().cancel(why)
            self._closing = ensure_future(finish(self, self._send(self.last())))

    async def leave(self) -> None:
        """Close it behind the application, which has ended."""
        if self._closing is not None:
            await self._closing
        self.close(self.why(None))

    async def reject(self, answer: Awaitable[None]) -> None:
        """Tell the client that it is one too many, and end the task that wanted to begin it."""
        self.finished = True
        await answer
        super().cancel("server")
        await ended()

    def last(self) -> Message:
        """What ends it properly."""
        raise NotImplementedError

    def why(self, error: BaseException | None) -> Reason:
        """Why it was closed, since the application ended with this exception."""
        raise NotImplementedError


class _EventStream(_Watched):
    """A response of the type text/event-stream (HTML Living Standard, "Server-sent events")."""

    __slots__ = ()

    def __init__(self, front: _Front, scope: Message, receive: Receive, send: Send) -> None:
        super().__init__(front, "sse", scope, receive, send)

    def begin(self, start: Message) -> Awaitable[None]:
        """Pass the head of the response on, or answer 503 where there are too many."""
        if self._front.open(self, self._scope, bounded=True):
            self._front.tally.left += 1
            return self._send(start)
        self._front.tally.answered += 1
        return self.reject(_respond(self._send, self._front.parts.full))

    def pass_on(self, message: Message) -> Awaitable[None]:
        """Pass a part of it on. A line that begins with a colon is a comment, which keeps alive: no event."""
        if self.ending is not None:
            return ended()
        if (message.get("body") or b"")[:1] != b":":  # a memoryview, with some frameworks
            self.touch()
        if not message.get("more_body", False):
            self.finished = True
            self.close(self.why_at_end())
        return self._send(message)

    def last(self) -> Message:
        return {"type": "http.response.body", "body": b"", "more_body": False}

    def why_at_end(self) -> Reason:
        """Why it was closed, since the application has sent the end."""
        return "client" if self.connection is not None and connection.gone(self.connection) else "server"

    def why(self, error: BaseException | None) -> Reason:
        if error is None:
            return "client"  # it left without an end: it was told that the client had left
        if type(error).__name__ == "CancelledError" and self.connection is not None:
            return self.why_at_end()
        return reason_of(error)


class _Socket(_Watched):
    """A websocket, from its acceptance on."""

    __slots__ = ("_hear",)

    def __init__(self, front: _Front, scope: Message, receive: Receive, send: Send) -> None:
        super().__init__(front, "websocket", scope, receive, send)
        self._hear = receive

    async def hear(self) -> Message:
        """Pass on what the client says."""
        message = await self._hear()
        if message["type"] == "websocket.disconnect":
            self.finished = True
            self.close("client")
        self.touch()
        return message

    def pass_on(self, message: Message) -> Awaitable[None]:
        """Pass on what the application says."""
        if self.ending is not None:
            return ended()
        kind = message["type"]
        self.touch()
        if kind == "websocket.accept" and not self._front.open(self, self._scope, bounded=True):
            return self.reject(_deny(self._scope, self._send, self._front.parts.full))
        if kind == "websocket.close":
            self.finished = True
            self.close("server")
        return self._send(message)

    def last(self) -> Message:
        return {"type": "websocket.close", "code": _TRY_AGAIN_LATER, "reason": ""}

    def why(self, error: BaseException | None) -> Reason:
        return reason_of(error)


async def _answer(parts: Parts, path: str, scope: Message, receive: Receive, send: Send) -> None:
    """Answer what is ours to answer."""
    if path not in PATHS:
        await _respond(send, parts.healthy())
        return
    headers = {name.decode("latin-1"): _text(value) for name, value in scope["headers"]}
    try:
        answer = await serve(parts.endpoint, scope["method"], path, headers, _body(receive))
    except _GoneError:
        return
    await _respond(send, answer)


def _path(scope: Message) -> str:
    # Behind a proxy that strips a prefix, servers put it in front of the path again (ASGI, "root_path").
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


async def _respond(send: Send, answer: Answer) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": _pairs(answer)})
    await send({"type": "http.response.body", "body": answer.body})


async def _deny(scope: Message, send: Send, answer: Answer) -> None:
    """Refuse a handshake: as HTTP where the server can (ASGI's extension), else by closing with 1013."""
    if "websocket.http.response" not in (scope.get("extensions") or ()):
        await send({"type": "websocket.close", "code": _TRY_AGAIN_LATER, "reason": ""})
        return
    head = {"type": "websocket.http.response.start", "status": answer.status, "headers": _pairs(answer)}
    await send(head)
    await send({"type": "websocket.http.response.body", "body": answer.body})


def _pairs(answer: Answer) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in answer.headers]


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
