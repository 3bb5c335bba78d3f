"""Routes of the sidecar. Reading needs no token, ordering does; everything answers from memory."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any, Final, NoReturn, Protocol

from aiohttp import web

from oomguard.errors import UserError

MAX_BODY: Final = 1 << 20
_EXAMPLE: Final = '{"steps": ["caches", "gc"], "goal": 0.7}'
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

    def cleanup(self, steps: list[str] | None, goal: float | str | None) -> dict[str, Any]:
        """Order a cleanup; raises UserError for steps or a goal that there is not, LookupError without a target."""


def build(view: View, token: str | None, *, loopback: bool) -> web.Application:
    """The application; `loopback`: only this machine can read, so command lines are shown to all.

    Without a token nothing can be ordered.
    """
    routes = _Routes(view, token, loopback=loopback)
    app = web.Application(client_max_size=MAX_BODY, middlewares=[_errors_as_json])
    app.add_routes(
        [
            web.get("/", routes.page),
            web.get("/metrics", routes.metrics),
            web.get("/healthz", routes.healthz),
            web.get("/readyz", routes.readyz),
            web.get("/health", routes.health),
            web.get("/api/v1/status", routes.status),
            web.get("/api/v1/history", routes.history),
            web.get("/api/v1/journal", routes.journal),
            web.post("/admin/cleanup", routes.cleanup),
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
        except ValueError:
            _refuse(400, f"since={since!r} is not a time in Unix seconds")

    async def journal(self, request: web.Request) -> web.Response:
        limit = request.query.get("limit", "100")
        if not limit.isdecimal() or not int(limit):
            _refuse(400, f"limit={limit!r} is not a number of records; write for example limit=100")
        return web.json_response({"records": self._view.journal(int(limit))})

    async def cleanup(self, request: web.Request) -> web.Response:
        if "Authorization" not in request.headers:
            _refuse(
                401,
                "no token; send Authorization: Bearer with OOMGUARD_TOKEN or the runtime directory's token",
            )
        if not self._authenticated(request):
            _refuse(403, "wrong token")
        steps, goal = _order(await request.read())
        try:
            return web.json_response(self._view.cleanup(steps, goal), status=202)
        except UserError as error:
            _refuse(422, str(error))
        except LookupError as error:
            _refuse(503, str(error))

    def _authenticated(self, request: web.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if self._token is None or scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(given.strip().encode(), self._token.encode())


def _order(data: bytes) -> tuple[list[str] | None, float | str | None]:
    """Steps and goal of a body; either may be missing."""
    try:
        body = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        _refuse(400, "the body is not JSON")
    if not isinstance(body, dict):
        _refuse(400, f"the body is not an object; send for example {_EXAMPLE}")
    steps, goal = body.get("steps"), body.get("goal")
    if steps is not None and not (isinstance(steps, list) and all(isinstance(step, str) for step in steps)):
        _refuse(400, f"steps is {steps!r}; send a list of names, for example {_EXAMPLE}")
    if isinstance(goal, bool) or not isinstance(goal, int | float | str | None):
        _refuse(400, f"goal is {goal!r}; send a ratio, a percentage or a size")
    return steps, goal


class _RefusedError(Exception):
    """An answer that is an error, with its text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _refuse(status: int, text: str) -> NoReturn:
    raise _RefusedError(status, text) from None


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except _RefusedError as error:
        return web.json_response({"error": str(error)}, status=error.status)
    except web.HTTPException as error:
        if error.status < 400:  # noqa: PLR2004 - not an error
            raise
        text = f"{request.method} {request.path}: {error.reason.lower()}"
        return web.json_response({"error": text}, status=error.status)
