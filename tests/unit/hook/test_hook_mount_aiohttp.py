"""The mount for aiohttp, without a server: where it sits, and what it refuses."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web as http
from aiohttp.test_utils import make_mocked_request
from tests.support.web_parts import make_endpoint, make_web

from oomguard.hook.web import aiohttp


def test_an_application_that_runs_is_refused() -> None:
    app = http.Application()
    app.freeze()
    with pytest.raises(RuntimeError, match="before it is started"):
        aiohttp.mount(app, make_web({}).parts(make_endpoint({})))


def test_an_application_that_handles_requests_otherwise_gets_a_middleware(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(http.Application, "_handle")
    web = make_web({})
    app = http.Application()
    aiohttp.mount(app, web.parts(make_endpoint({}), health="/health"))
    (middleware,) = app.middlewares

    async def hello(request: http.Request) -> http.StreamResponse:
        assert web.requests.reading()["in_flight"] == 1
        return http.Response(text="hello")

    async def ask(path: str) -> Any:
        return await middleware(make_mocked_request("GET", path), hello)

    assert asyncio.run(ask("/")).text == "hello"
    assert asyncio.run(ask("/health")).status == 200
    assert asyncio.run(ask("/admin/memory")).status == 401
    assert web.requests.reading()["total"] == 1
