"""The mount for aiohttp applications: around their handling of requests, and a signal that sees responses begin."""

from __future__ import annotations

import importlib
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable, Generator
from typing import Any

from oomguard.hook.admin.endpoint import PATHS, Answer
from oomguard.hook.admin.loop import serve
from oomguard.hook.web import Parts, connection
from oomguard.hook.web.streams import Stream, current_task, reason_of
from oomguard.hook.web.tasks import Lookout, collect_soon, ended, finish

Handler = Callable[[Any], Awaitable[Any]]

_TRY_AGAIN_LATER = 1013
"""The websocket close code (IANA's registry of RFC 6455's codes)."""


def mount(app: Any, parts: Parts) -> None:
    """Put the parts in front of an `aiohttp.web.Application`, before it runs; raises RuntimeError afterwards."""
    if app.frozen:
        raise RuntimeError("the application runs already: mount oomguard before it is started")
    # The hook needs the standard library only; whoever has an Application has this.
    web = importlib.import_module("aiohttp.web")
    notice = _Notice(parts, web)
    app.on_response_prepare.append(notice.begin)
    if callable(getattr(app, "_handle", None)):
        # What the server calls. A middleware would do, but each application with one costs every request a
        # tenth of its time (measured: aiohttp 3.14, on uvloop).
        vars(app)["_handle"] = _guarded(app._handle, parts, notice, web)  # noqa: SLF001 (see above)
    else:
        # In front of the application's own: the token is what guards /admin.
        app.middlewares.insert(0, web.middleware(_Middleware(parts, notice, web)))


def _guarded(  # noqa: C901 (what a request passes stands together)
    handler: Handler, parts: Parts, notice: _Notice, web: Any
) -> Handler:
    shedding, requests, paths, every = parts.shedding, parts.requests, parts.paths, parts.gc_every
    open_now, tally = notice.streams, notice.tally

    def respond(answer: Answer) -> Any:
        return web.Response(status=answer.status, headers=dict(answer.headers), body=answer.body)

    async def guarded(request: Any) -> Any:  # noqa: C901 (as above)
        # The raw path is there; the other one is computed, which the application may never need.
        if request.raw_path.startswith(paths) and request.path in paths:
            return respond(await _answer(parts, request))
        if shedding.armed and parts.sheds(request.path):
            return respond(parts.shed)
        mark = requests.measure() if requests.samples > 0 else None
        tally.begun += 1
        stream: _Response | None = None
        try:
            response = await handler(request)
            if open_now:
                stream = open_now.pop(request.protocol, None)
        except BaseException as error:
            stream = open_now.pop(request.protocol, None)
            if stream is None:
                raise
            if not stream.absorbs(error):
                stream.leave(error)
                raise
            response = stream.response
        finally:
            if stream is None:
                tally.answered += 1
                if mark is not None:
                    requests.grown(mark)
                if every is not None and tally.answered % every == 0:
                    collect_soon()
        if stream is not None:
            await stream.end()
        return response

    return guarded


class _Middleware:
    """The same as a middleware, for an aiohttp that handles requests otherwise."""

    def __init__(self, parts: Parts, notice: _Notice, web: Any) -> None:
        self._made = parts, notice, web

    async def __call__(self, request: Any, handler: Handler) -> Any:
        """Handle one request."""
        return await _guarded(handler, *self._made)(request)


class _Nothing:
    """Awaitable at once: half the cost of a coroutine, which every plain response would need one of."""

    def __await__(self) -> Generator[None, None, None]:
        return iter(())  # type: ignore[return-value]  # an iterator will do


_NOTHING = _Nothing()


class _Notice:
    """Notices streams when their responses begin."""

    def __init__(self, parts: Parts, web: Any) -> None:
        self._parts = parts
        self._web = web
        self._whole = web.Response
        self._lookout = Lookout(parts.streams)
        self.tally = parts.requests.tally()
        self.streams: dict[object, _Response] = {}
        """By connection, which answers one request at a time; a request may be cloned on its way."""

    def begin(self, request: Any, response: Any) -> Awaitable[None]:
        """See a response that is about to be sent."""
        if isinstance(response, self._whole):
            return _NOTHING
        return self._begin(request, response)

    async def _begin(self, request: Any, response: Any) -> None:
        """The same; raises HTTPServiceUnavailable where it is a stream too many."""
        web, parts = self._web, self._parts
        if isinstance(response, web.WebSocketResponse):
            stream: _Response = _Socket(parts, "websocket", request, response)
        elif response.headers.get("Content-Type", "").startswith("text/event-stream"):
            stream = _EventStream(parts, "sse", request, response)
        else:
            return
        if not parts.streams.open(stream, f"{request.path} {request.remote}", bounded=True):
            again = {name: value for name, value in parts.full.headers if name == "retry-after"}
            raise web.HTTPServiceUnavailable(headers=again, text=parts.full.body.decode())
        self.tally.left += 1
        self.streams[request.protocol] = stream
        stream.attach()
        connection.watch(request.transport)
        self._lookout.attend(get_running_loop())


class _Response(Stream):
    """A response that stays open."""

    __slots__ = ("response",)
    METHODS: tuple[str, ...] = ()
    """Those of the response that are called here instead, to see its events."""

    def __init__(self, parts: Parts, name: str, request: Any, response: Any) -> None:
        super().__init__(parts.streams, name, current_task(), request)
        self.response = response

    def attach(self) -> None:
        """Begin to see its events."""
        for name in self.METHODS:
            setattr(self.response, name, getattr(self, name))

    def leave(self, error: BaseException | None) -> None:
        """Close it behind the handler, which has ended with this exception."""
        for name in self.METHODS:
            self.response.__dict__.pop(name, None)  # else the two hold each other until a collection
        gone = connection.gone(self.connection)
        if not gone and type(error).__name__ == "CancelledError":
            self.close("server")  # aiohttp cancels handlers when it shuts down
        else:
            self.close("client" if gone else reason_of(error))

    async def end(self) -> None:
        """The same; where we ended it, its end is sent first."""
        if self.ending is not None:
            await finish(self, self.last())
        self.leave(None)

    def last(self) -> Awaitable[Any]:
        """Send what ends it properly."""
        raise NotImplementedError

    def original(self, name: str, *given: Any, **named: Any) -> Awaitable[Any]:
        """Call the response's own method."""
        if self.ending is not None:
            return ended()
        called: Awaitable[Any] = getattr(type(self.response), name)(self.response, *given, **named)
        return called


class _EventStream(_Response):
    __slots__ = ()
    METHODS = ("write",)

    def write(self, data: Any) -> Awaitable[Any]:
        """Pass it on. A line that begins with a colon is a comment, which keeps alive: no event."""
        if bytes(data[:1]) != b":":
            self.touch()
        return self.original("write", data)

    def last(self) -> Awaitable[Any]:
        ending: Awaitable[Any] = self.response.write_eof()
        return ending


class _Socket(_Response):
    __slots__ = ()
    METHODS = ("receive", "send_bytes", "send_str")

    async def receive(self, *given: Any, **named: Any) -> Any:
        """Pass on what the client says."""
        message = await self.original("receive", *given, **named)
        self.touch()
        if message.type.name in ("CLOSE", "CLOSING", "CLOSED", "ERROR"):
            self.close("client")
        return message

    def send_bytes(self, *given: Any, **named: Any) -> Awaitable[Any]:
        """Pass on what the application says."""
        self.touch()
        return self.original("send_bytes", *given, **named)

    def send_str(self, *given: Any, **named: Any) -> Awaitable[Any]:
        """Pass on what the application says."""
        self.touch()
        return self.original("send_str", *given, **named)

    def last(self) -> Awaitable[Any]:
        closing: Awaitable[Any] = self.response.close(code=_TRY_AGAIN_LATER)
        return closing


async def _answer(parts: Parts, request: Any) -> Answer:
    if request.path not in PATHS:
        return parts.healthy()
    headers = {name.lower(): value for name, value in request.headers.items()}
    chunks = request.content.iter_any()
    return await serve(parts.endpoint, request.method, request.path, headers, chunks)
