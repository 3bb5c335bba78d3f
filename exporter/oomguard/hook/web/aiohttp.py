"""The mount for aiohttp applications: around their handling of requests, and where streams are prepared."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import weakref
from asyncio import get_running_loop
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
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
    if _streams_are_seen(web):
        _notices[app] = notice
    else:
        app.on_response_prepare.append(notice.begin)
    if callable(getattr(app, "_handle", None)):
        # What the server calls. A middleware would do, but each application with one costs every request a
        # tenth of its time (measured: aiohttp 3.14, on uvloop).
        vars(app)["_handle"] = _guarded(app._handle, parts, notice, web)  # noqa: SLF001 (see above)
    else:
        # In front of the application's own: the token is what guards /admin.
        app.middlewares.insert(0, web.middleware(_Middleware(parts, notice, web)))


_notices: weakref.WeakKeyDictionary[Any, _Notice] = weakref.WeakKeyDictionary()
"""By application."""


def _streams_are_seen(web: Any) -> bool:
    """Let `StreamResponse.prepare` notice streams, in all applications that are mounted; whether it does.

    A signal of the application's would see them as well, but costs each plain response as much as all the rest here:
    those keep the method that there was. False where somebody else has put another one there.
    """
    prepare = web.StreamResponse.prepare
    if getattr(prepare, "notices", None) is _notices:
        return True
    if web.Response.prepare is not prepare or not inspect.iscoroutinefunction(prepare):
        return False

    @functools.wraps(prepare)
    async def noticing(response: Any, request: Any) -> Any:
        notice = None
        with contextlib.suppress(
            Exception
        ):  # a request of a server without an application, or one of another make
            if not response.prepared:
                notice = _notice_of(request.match_info.apps)
        if notice is not None:
            await notice.begin(request, response)
        return await prepare(response, request)

    vars(noticing)["notices"] = _notices
    web.Response.prepare = prepare
    web.StreamResponse.prepare = noticing
    return True


def _notice_of(apps: Sequence[Any]) -> _Notice | None:
    """That of the application which serves a request, the first of `apps`: no server asks a sub-application."""
    for app in apps[1:]:
        if app in _notices:
            _notices[app].misplaced()
    return _notices.get(apps[0])


def _guarded(  # noqa: C901 (what a request passes stands together)
    handler: Handler, parts: Parts, notice: _Notice, web: Any
) -> Handler:
    gate, paths = parts.gate, parts.paths
    open_now, tally = notice.streams, notice.tally

    async def guarded(request: Any) -> Any:
        after: Callable[[], None] | None = None
        # The raw path is there; the other one is computed, which the application may never need.
        if (gate.up and monotonic() >= gate.due) or request.raw_path.startswith(paths):
            answer = await _answer(parts, request)
            if answer is not None:
                return web.Response(status=answer.status, headers=dict(answer.headers), body=answer.body)
            after = parts.requests.look(tally, parts.gc_every, collect_soon)
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
                if after is not None:
                    after()
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


class _Notice:
    """Notices streams when their responses begin."""

    def __init__(self, parts: Parts, web: Any) -> None:
        self._parts = parts
        self._web = web
        self._lookout = Lookout(parts.streams)
        self.tally = parts.requests.tally()
        self.streams: dict[object, _Response] = {}
        """By connection, which answers one request at a time; a request may be cloned on its way."""

    def misplaced(self) -> None:
        """Say that this mount sees nothing."""
        self._parts.streams.warn(
            "guard.aiohttp has a sub-application, where it sees nothing: give it the main one"
        )

    async def begin(self, request: Any, response: Any) -> None:
        """See a response that is about to be sent; raises HTTPServiceUnavailable where it is a stream too many."""
        web, parts = self._web, self._parts
        if isinstance(response, web.Response):
            return
        if isinstance(response, web.WebSocketResponse):
            stream: _Response = _Socket(parts, "websocket", request, response)
        elif response.content_type == "text/event-stream":
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


async def _answer(parts: Parts, request: Any) -> Answer | None:
    """Answer a request that the application is not to see; None: it is."""
    if request.raw_path.startswith(parts.paths) and request.path in parts.paths:
        if request.path not in PATHS:
            return parts.healthy()
        headers = {name.lower(): value for name, value in request.headers.items()}
        chunks = request.content.iter_any()
        return await serve(parts.endpoint, request.method, request.path, headers, chunks)
    if parts.shedding.armed and parts.shedding.on() and parts.sheds(request.path):
        return parts.shed
    return None
