"""The mount for WSGI applications (PEP 3333)."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any

from oomguard.hook import unpatched
from oomguard.hook.admin.endpoint import MAX_BODY, PATHS, WAIT, Answer, Endpoint, failed
from oomguard.hook.web import Parts, connection
from oomguard.hook.web.requests import Tally
from oomguard.hook.web.streams import Stream, reason_of

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

_PAUSE = 0.001
"""Seconds between two looks whether the work is done."""


def mount(app: Application, parts: Parts) -> Application:
    """Put the parts in front of an application; what is not theirs is passed through as it came."""
    shedding, paths, tally = parts.shedding, parts.paths, parts.requests.tally()

    def mounted(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path in paths:
            answer = parts.healthy() if path not in PATHS else _serve(parts.endpoint, environ, path)
            return _respond(start_response, answer)
        if shedding.armed and parts.sheds(path):
            return _respond(start_response, parts.shed)
        exchange = _Exchange(parts, tally, environ, start_response)
        try:
            body = app(environ, exchange.start)
        except BaseException as error:
            exchange.end(error)
            raise
        if exchange.stream is None and not exchange.rejected:
            # A whole body needs nothing more of the application; a file may be sent by the server's own means.
            whole = isinstance(body, list | tuple) or _is_file(environ, body)
            if whole and not exchange.end(None):
                return body
        return _Body(exchange, body)

    return mounted


class _Exchange:
    """One request, and what becomes of it."""

    __slots__ = (
        "_environ",
        "_mark",
        "_over",
        "_parts",
        "_start_response",
        "_tally",
        "due",
        "rejected",
        "stream",
    )

    def __init__(
        self, parts: Parts, tally: Tally, environ: Environ, start_response: Callable[..., Any]
    ) -> None:
        requests = parts.requests
        self._parts = parts
        self._tally = tally
        self._environ = environ
        self._start_response = start_response
        self._mark = requests.measure() if requests.samples > 0 else None
        with tally.lock:
            tally.begun += 1
        self._over = False
        self.stream: Stream | None = None
        self.rejected = False
        """A stream too many: its body is answered with another one."""
        self.due = False
        """Garbage is to be collected once the response is sent."""

    def start(self, status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
        """Begin the response, as the application says, unless it is a stream too many."""
        if self.stream is None and not self.rejected:
            for name, value in headers:
                if name.lower() == "content-type":
                    if value.partition(";")[0].strip().lower() == "text/event-stream" and not self._open():
                        return _start(self._start_response, self._parts.full)
                    break
        elif self.rejected:
            return _ignore
        return self._start_response(status, headers, *exc_info)

    def end(self, error: BaseException | None, *, whole: bool = True) -> bool:
        """Note that the application is done with it, once; whether garbage is to be collected."""
        if self._over:
            return self.due
        self._over = True
        if self.stream is not None:
            self.stream.close("client" if error is None and not whole else reason_of(error))
        else:
            with self._tally.lock:
                self._tally.answered += 1
                answered = self._tally.answered
            if self._mark is not None:
                self._parts.requests.grown(self._mark)
            every = self._parts.gc_every
            self.due = every is not None and answered % every == 0
        return self.due

    def refusal(self) -> bytes:
        """The body of a stream too many."""
        return self._parts.full.body

    def _open(self) -> bool:
        environ = self._environ
        stream = Stream(self._parts.streams, "sse")
        about = f"{environ.get('PATH_INFO', '')} {environ.get('REMOTE_ADDR', '')}"
        if not self._parts.streams.open(stream, about, bounded=True):
            self.rejected = True
            return False
        with self._tally.lock:
            self._tally.left += 1
        self.stream = stream
        # gunicorn's and werkzeug's own; of another server's connection nothing is known.
        found = environ.get("gunicorn.socket") or environ.get("werkzeug.socket")
        connection.watch_number(None if found is None else found.fileno())
        return True


class _Body:
    """The application's body: its end is the request's, and each part of a stream is an event."""

    __slots__ = ("_body", "_exchange", "_parts")

    def __init__(self, exchange: _Exchange, body: Iterable[bytes]) -> None:
        self._exchange = exchange
        self._body = body
        self._parts: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        exchange = self._exchange
        stream = exchange.stream
        if stream is not None and stream.ending is not None:
            exchange.end(None)
            raise StopIteration
        if self._parts is None:
            self._parts = iter((exchange.refusal(),) if exchange.rejected else self._body)
        try:
            part = next(self._parts)
        except StopIteration:
            exchange.end(None)
            raise
        except BaseException as error:
            exchange.end(error)
            raise
        if exchange.rejected and self._parts is not None:
            self._parts = iter(())  # a generator begins its response with the first part
            return exchange.refusal()
        if exchange.stream is not None and part[:1] != b":":
            exchange.stream.touch()
        return part

    def close(self) -> None:
        """Called by the server when the response is sent, or can't be (PEP 3333)."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            if self._exchange.end(None, whole=False):
                gc.collect()


def _is_file(environ: Environ, body: object) -> bool:
    wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(wrapper, type) and isinstance(body, wrapper)


def _ignore(data: bytes) -> None:
    """The `write` of a response that is another's."""


def _respond(start_response: Callable[..., Any], answer: Answer) -> list[bytes]:
    _start(start_response, answer)
    return [answer.body]


def _start(start_response: Callable[..., Any], answer: Answer) -> Any:
    return start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", list(answer.headers))


def _serve(endpoint: Endpoint, environ: Environ, path: str) -> Answer:
    method, headers = environ["REQUEST_METHOD"], _headers(environ)
    refusal = endpoint.refusal(method, path, headers)
    if refusal is not None:
        return refusal
    try:
        body = _body(environ)
        answers: list[Answer] = []
        unpatched.start_thread(lambda: answers.append(endpoint.answer(method, path, headers, body)))
    except (OSError, RuntimeError) as error:  # the client has gone; no thread can be had
        return failed(error)
    # A wait on a lock would hold up a gevent worker's every request, and so would the steps, done here. What
    # the module holds now is asked to sleep: gevent's own, where it has patched it.
    until = time.monotonic() + WAIT
    while not answers and time.monotonic() < until:
        time.sleep(_PAUSE)
    return answers[0] if answers else endpoint.late(path)


def _headers(environ: Environ) -> dict[str, str]:
    headers = {"content-length": environ.get("CONTENT_LENGTH") or ""}
    if "HTTP_AUTHORIZATION" in environ:
        given: str = environ["HTTP_AUTHORIZATION"]  # bytes, each as a character (PEP 3333, "Unicode issues")
        headers["authorization"] = given.encode("latin-1", "replace").decode("utf-8", "surrogateescape")
    return headers


def _body(environ: Environ) -> bytes:
    """Read the body, at most one byte further than is accepted."""
    length = environ.get("CONTENT_LENGTH") or ""
    # Only a server that ends the stream itself may be read without a length: others block for ever.
    unknown = MAX_BODY + 1 if environ.get("wsgi.input_terminated") else 0
    body: bytes = environ["wsgi.input"].read(int(length) if length.isdecimal() else unknown)
    return body
