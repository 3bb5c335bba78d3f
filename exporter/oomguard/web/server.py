"""Routes of the sidecar. Reading needs no token, ordering does; everything answers from memory."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from typing import Any, Final, NoReturn, Protocol

from aiohttp import web

from oomguard.broker.inbox import Outcome
from oomguard.broker.requests import MalformedError
from oomguard.broker.wishes import Action
from oomguard.errors import ConfigError, TargetError, UserError

MAX_BODY: Final = 1 << 20
_DIGITS: Final = 15
"""Of a number in a question: int() refuses those of more than 4300."""
_PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; img-src data:"
)
"""Content-Security-Policy of the live page: it loads nothing from elsewhere and sends nothing there."""


class View(Protocol):
    """What the routes show and order; the application implements it."""

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """Body and content type of /metrics."""

    def health(self) -> dict[str, Any]:
        """Body of /health."""

    def ready(self) -> str:
        """Empty when ready, else why not."""

    def status(self, *, command_lines: bool) -> dict[str, Any]:
        """Body of /api/v1/status."""

    def history(self, since: float) -> dict[str, Any]:
        """Body of /api/v1/history; `since` is Unix seconds."""

    def journal(self, limit: int) -> list[dict[str, Any]]:
        """The last records, oldest first."""

    def entry(self, number: int) -> dict[str, Any]:
        """A request or a run of the journal, with its outcome; raises LookupError when there is none.

        Called in a thread: it may read 512 KiB from a disk that a full box has no pages for.
        """

    def order(self, body: bytes, default: Action) -> dict[str, Any]:
        """Follow a payload or a person's order; `default` is the action of alerts that name none.

        Raises MalformedError, UserError for steps or goals that there are not, TargetError where the target has
        gone for good, LookupError while there is none.
        """

    def refused(self, outcome: Outcome) -> None:
        """Count an order that was not even read."""

    def alerts(self) -> list[dict[str, Any]]:
        """``data.alerts`` of Prometheus' /api/v1/alerts."""

    def rules(self) -> list[dict[str, Any]]:
        """``data.groups`` of Prometheus' /api/v1/rules."""

    def silences(self, filters: Sequence[str]) -> list[dict[str, Any]]:
        """Body of Alertmanager's /api/v2/silences; raises UserError for a filter that is no matcher."""

    def silence(self, silence: str) -> dict[str, Any]:
        """Body of Alertmanager's /api/v2/silence/{id}; raises LookupError."""

    async def set_silence(self, told: object) -> str:
        """Create or change a silence; returns its id once it is kept, raises UserError."""

    async def expire(self, silence: str) -> None:
        """End a silence; returns once that is kept, raises LookupError."""

    async def reload(self) -> list[str]:
        """Read configuration, rules and routes again; returns what is in force, raises ConfigError."""


def build(view: View, token: str | None, *, loopback: bool) -> web.Application:
    """The application; `loopback`: only this machine can read, so command lines are shown to all.

    Without a token nothing can be ordered.
    """
    routes = _Routes(view, token, loopback=loopback)
    app = web.Application(client_max_size=MAX_BODY, middlewares=[_errors_as_json])
    app.add_routes(
        [
            web.get("/", routes.page),
            web.get("/graph", routes.graph),
            web.get("/metrics", routes.metrics),
            web.get("/healthz", routes.healthz),
            web.get("/readyz", routes.readyz),
            web.get("/health", routes.health),
            web.get("/api/v1/status", routes.status),
            web.get("/api/v1/history", routes.history),
            web.get("/api/v1/journal", routes.journal),
            web.get(r"/api/v1/journal/{id:[0-9]{1,15}}", routes.entry),
            web.get("/api/v1/alerts", routes.alerts),
            web.get("/api/v1/rules", routes.rules),
            web.get("/api/v2/silences", routes.silences),
            web.post("/api/v2/silences", routes.set_silence),
            web.get("/api/v2/silence/{id}", routes.silence),
            web.delete("/api/v2/silence/{id}", routes.expire),
            web.post("/admin/cleanup", routes.cleanup),
            web.post("/admin/unload", routes.unload),
            web.post("/-/reload", routes.reload),
        ]
    )
    return app


class _Routes:
    def __init__(self, view: View, token: str | None, *, loopback: bool) -> None:
        self._view = view
        self._token = token
        self._loopback = loopback

    async def page(self, _: web.Request) -> web.Response:
        body = resources.files("oomguard.web").joinpath("page.html").read_text(encoding="utf-8")
        return web.Response(
            text=body, content_type="text/html", headers={"Content-Security-Policy": _PAGE_POLICY}
        )

    async def graph(self, _: web.Request) -> NoReturn:
        """Where links in notifications lead (generatorURL), as they would lead to Prometheus' page."""
        raise web.HTTPFound("/")

    async def metrics(self, request: web.Request) -> web.Response:
        body, content_type = self._view.metrics(request.headers.get("Accept", ""))
        response = web.Response(body=body, headers={"Content-Type": content_type})
        response.enable_compression()
        return response

    async def healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(self, _: web.Request) -> web.Response:
        reason = self._view.ready()
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    async def health(self, _: web.Request) -> web.Response:
        return web.json_response(self._view.health())

    async def status(self, request: web.Request) -> web.Response:
        shown = self._loopback or self._authenticated(request)
        return web.json_response(self._view.status(command_lines=shown))

    async def history(self, request: web.Request) -> web.Response:
        since = request.query.get("since", "0")
        try:
            return web.json_response(self._view.history(float(since)))
        except (ValueError, OverflowError):  # infinity is a float, but no time
            _refuse(400, f"since={since!r} is not a time in Unix seconds")

    async def journal(self, request: web.Request) -> web.Response:
        limit = request.query.get("limit", "100")
        if not limit.isdecimal() or len(limit) > _DIGITS or not int(limit):
            _refuse(400, f"limit={limit!r} is not a number of records; write for example limit=100")
        return web.json_response({"records": self._view.journal(int(limit))})

    async def entry(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(await asyncio.to_thread(self._view.entry, int(request.match_info["id"])))
        except LookupError as error:
            _refuse(404, str(error))

    async def alerts(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "success", "data": {"alerts": self._view.alerts()}})

    async def rules(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "success", "data": {"groups": self._view.rules()}})

    async def silences(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(self._view.silences(request.query.getall("filter", [])))
        except UserError as error:
            _refuse(400, str(error))

    async def silence(self, request: web.Request) -> web.Response:
        try:
            return web.json_response(self._view.silence(request.match_info["id"]))
        except LookupError as error:
            _refuse(404, str(error))

    async def set_silence(self, request: web.Request) -> web.Response:
        self._authorize(request)
        try:
            told = json.loads(await request.read())
        except (ValueError, RecursionError):
            _refuse(400, "the body is not JSON; send a silence as Alertmanager's API v2 has it")
        try:
            return web.json_response({"silenceID": await self._view.set_silence(told)})
        except UserError as error:
            _refuse(400, str(error))

    async def expire(self, request: web.Request) -> web.Response:
        self._authorize(request)
        try:
            await self._view.expire(request.match_info["id"])
        except LookupError as error:
            _refuse(404, str(error))
        return web.Response()

    async def cleanup(self, request: web.Request) -> web.Response:
        return await self._order(request, Action.CLEANUP)

    async def unload(self, request: web.Request) -> web.Response:
        return await self._order(request, Action.UNLOAD)

    async def reload(self, request: web.Request) -> web.Response:
        self._authorize(request)
        try:
            return web.json_response({"status": "success", "loaded": await self._view.reload()})
        except ConfigError as error:
            raise _RefusedError(
                500,
                "the running configuration is kept",
                problems=[str(problem) for problem in error.problems],
            ) from None

    async def _order(self, request: web.Request, default: Action) -> web.Response:
        """Answers 202 once it is journaled; 503 has Alertmanager try again, any 4xx has it give up."""
        try:
            self._authorize(request)
        except _RefusedError:
            self._view.refused(Outcome.UNAUTHORIZED)
            raise
        try:
            return web.json_response(self._view.order(await request.read(), default), status=202)
        except (MalformedError, web.HTTPRequestEntityTooLarge) as error:
            self._view.refused(Outcome.MALFORMED)
            if isinstance(error, MalformedError):
                _refuse(400, str(error))
            _refuse(413, f"the body is larger than {MAX_BODY} bytes")
        except UserError as error:
            self._view.refused(Outcome.MALFORMED)
            _refuse(422, str(error))
        except TargetError as error:
            self._view.refused(Outcome.NO_TARGET)
            _refuse(409, str(error))
        except LookupError as error:
            self._view.refused(Outcome.NO_TARGET)
            _refuse(503, str(error))

    def _authorize(self, request: web.Request) -> None:
        if "Authorization" not in request.headers:
            _refuse(
                401,
                "no token; send Authorization: Bearer with OOMGUARD_TOKEN or the runtime directory's token",
            )
        if not self._authenticated(request):
            _refuse(403, "wrong token")

    def _authenticated(self, request: web.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if self._token is None or scheme.lower() != "bearer":
            return False
        # Bytes that are not UTF-8 come as surrogates.
        return hmac.compare_digest(given.strip().encode(errors="surrogateescape"), self._token.encode())


class _RefusedError(Exception):
    """An answer that is an error, with its text."""

    def __init__(self, status: int, text: str, *, problems: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.problems = problems


def _refuse(status: int, text: str) -> NoReturn:
    raise _RefusedError(status, text) from None


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except _RefusedError as error:
        return _error(request, error.status, str(error), error.problems)
    except web.RequestPayloadError:
        return _error(request, 400, "the body can't be read: it is not encoded as its headers say")
    except web.HTTPException as error:
        if error.status < 400:  # noqa: PLR2004 - not an error
            raise
        return _error(request, error.status, f"{request.method} {request.path}: {error.reason.lower()}")


def _error(request: web.Request, status: int, text: str, problems: Sequence[str] = ()) -> web.Response:
    """An error as JSON; below /api/v2 as a bare text, for that is what Alertmanager's clients read."""
    if request.path.startswith("/api/v2/"):
        return web.json_response(text, status=status)
    return web.json_response(
        {"error": text, **({"problems": list(problems)} if problems else {})}, status=status
    )
