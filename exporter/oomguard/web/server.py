"""Routes of the sidecar. Reading needs no token, ordering does; everything answers from memory."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any, Final, Protocol

from aiohttp import web

from oomguard.errors import UserError

MAX_BODY: Final = 1 << 20
_JSON: Final = "application/json"


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
    """The application; `loopback` says that only this machine can read, so command lines may be shown.

    Without a token nothing can be ordered.
    """
    routes = web.RouteTableDef()

    def authenticated(request: web.Request) -> bool:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        return (
            token is not None
            and scheme.lower() == "bearer"
            and hmac.compare_digest(given.strip().encode(), token.encode())
        )

    @routes.get("/metrics")
    async def metrics(request: web.Request) -> web.Response:
        body, content_type = view.metrics(request.headers.get("Accept", ""))
        response = web.Response(body=body, headers={"Content-Type": content_type})
        response.enable_compression()
        return response

    @routes.get("/")
    async def page(_: web.Request) -> web.Response:
        body = resources.files("oomguard.web").joinpath("page.html").read_text(encoding="utf-8")
        return web.Response(
            text=body,
            content_type="text/html",
            headers={
                "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
                "script-src 'unsafe-inline'; connect-src 'self'; img-src data:"
            },
        )

    @routes.get("/healthz")
    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    @routes.get("/readyz")
    async def readyz(_: web.Request) -> web.Response:
        reason = view.ready()
        return web.Response(text=f"{reason or 'ok'}\n", status=503 if reason else 200)

    @routes.get("/health")
    async def health(_: web.Request) -> web.Response:
        return web.json_response(view.health())

    @routes.get("/api/v1/status")
    async def status(request: web.Request) -> web.Response:
        return web.json_response(view.status(command_lines=loopback or authenticated(request)))

    @routes.get("/api/v1/history")
    async def history(request: web.Request) -> web.Response:
        try:
            since = float(request.query.get("since", "0"))
        except ValueError:
            return _error(400, f"since={request.query['since']!r} is not a time in Unix seconds")
        return web.json_response(view.history(since))

    @routes.get("/api/v1/journal")
    async def journal(request: web.Request) -> web.Response:
        limit = request.query.get("limit", "100")
        if not limit.isdecimal() or not int(limit):
            return _error(400, f"limit={limit!r} is not a number of records; write for example limit=100")
        return web.json_response({"records": view.journal(int(limit))})

    @routes.post("/admin/cleanup")
    async def cleanup(request: web.Request) -> web.Response:
        if "Authorization" not in request.headers:
            return _error(
                401,
                "no token; send Authorization: Bearer with the token of OOMGUARD_TOKEN or the runtime directory",
            )
        if not authenticated(request):
            return _error(403, "wrong token")
        try:
            body = json.loads(await request.read() or b"{}")
        except (ValueError, RecursionError):
            return _error(400, "the body is not JSON")
        if not isinstance(body, dict):
            return _error(
                400, 'the body is not an object; send for example {"steps": ["caches", "gc"], "goal": 0.7}'
            )
        steps, goal = body.get("steps"), body.get("goal")
        if steps is not None and not (
            isinstance(steps, list) and all(isinstance(step, str) for step in steps)
        ):
            return _error(400, f"steps is {steps!r}; send a list of names")
        if not isinstance(goal, int | float | str | None) or isinstance(goal, bool):
            return _error(400, f"goal is {goal!r}; send a ratio, a percentage or a size")
        try:
            return web.json_response(view.cleanup(steps, goal), status=202)
        except UserError as error:
            return _error(422, str(error))
        except LookupError as error:
            return _error(503, str(error))

    app = web.Application(client_max_size=MAX_BODY, middlewares=[_errors_as_json])
    app.add_routes(routes)
    return app


@web.middleware
async def _errors_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:  # noqa: PLR2004 - not an error
            raise
        return _error(error.status, f"{request.method} {request.path}: {error.reason.lower()}")


def _error(status: int, text: str) -> web.Response:
    return web.Response(status=status, text=json.dumps({"error": text}), content_type=_JSON)
