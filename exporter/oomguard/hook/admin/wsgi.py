"""The endpoints in a WSGI application (PEP 3333)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from oomguard.hook import unpatched
from oomguard.hook.admin.endpoint import MAX_BODY, PATHS, WAIT, Answer, Endpoint, failed

Environ = dict[str, Any]
Application = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]

_PAUSE = 0.001
"""Seconds between two looks whether the work is done."""


def mount(app: Application, endpoint: Endpoint) -> Application:
    """Put the endpoints in front of an application; everything else is passed through as it came."""

    def mounted(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path not in PATHS:
            return app(environ, start_response)
        answer = _serve(endpoint, environ, path)
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", list(answer.headers))
        return [answer.body]

    return mounted


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
