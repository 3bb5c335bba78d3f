"""The mount for aiohttp: where it sits, what it refuses, and how it comes to see streams."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web as http
from aiohttp.test_utils import TestClient, TestServer, make_mocked_request
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


async def events(request: http.Request) -> http.StreamResponse:
    response = http.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.prepare(request)  # as the server does once more at the end: it is one stream
    await response.write(b"data: 1\n\n")
    return response


async def asked(app: http.Application, *paths: str) -> list[str]:
    async with TestClient(TestServer(app)) as client:
        return [await (await client.get(path)).text() for path in paths]


def application() -> http.Application:
    async def hello(request: http.Request) -> http.Response:
        return http.Response(text="hello")

    async def page(request: http.Request) -> http.StreamResponse:
        response = http.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        await response.write(b"piece by piece")
        return response

    app = http.Application()
    app.add_routes([http.get("/events", events), http.get("/", hello), http.get("/page", page)])
    return app


def test_a_plain_response_pays_for_no_signal_and_runs_the_method_that_there_was() -> None:
    web, app = make_web({}), application()
    aiohttp.mount(app, web.parts(make_endpoint({})))
    assert not app.on_response_prepare
    assert "notices" not in vars(http.Response.prepare)
    assert asyncio.run(asked(app, "/")) == ["hello"]
    assert asyncio.run(asked(application(), "/events")) == ["data: 1\n\n"]
    assert web.streams.reading()["opened"] == 0, "it is another application's"


def test_a_stream_is_noticed_once_and_by_the_mount_of_its_application() -> None:
    first, second = make_web({}), make_web({})
    app, other = application(), application()
    aiohttp.mount(app, first.parts(make_endpoint({})))
    aiohttp.mount(other, second.parts(make_endpoint({})))
    assert asyncio.run(asked(app, "/events", "/page")) == ["data: 1\n\n", "piece by piece"]
    assert (first.streams.reading()["opened"], first.streams.count) == (1, 0)
    assert second.streams.reading()["opened"] == 0


def test_where_somebody_else_sees_responses_begin_the_signal_does(monkeypatch: pytest.MonkeyPatch) -> None:
    prepare = http.Response.prepare

    async def theirs(response: http.Response, request: http.BaseRequest) -> Any:
        return await prepare(response, request)

    monkeypatch.setattr(http.StreamResponse, "prepare", prepare)
    monkeypatch.setattr(http.Response, "prepare", theirs)
    web, app = make_web({}), application()
    aiohttp.mount(app, web.parts(make_endpoint({}), max_streams=1))
    assert len(app.on_response_prepare) == 1
    assert asyncio.run(asked(app, "/events", "/")) == ["data: 1\n\n", "hello"]
    assert (web.streams.reading()["opened"], web.streams.count) == (1, 0)


def test_a_stream_too_many_is_refused_with_a_whole_response_and_the_connection_goes_on() -> None:
    async def stay(request: http.Request) -> http.StreamResponse:
        response = http.StreamResponse(headers={"Content-Type": "Text/Event-Stream; charset=utf-8"})
        await response.prepare(request)
        await asyncio.sleep(100)
        return response

    async def refused() -> tuple[int, str, int]:
        app = application()
        app.router.add_get("/stay", stay)
        aiohttp.mount(app, make_web({}).parts(make_endpoint({}), max_streams=1))
        async with TestClient(TestServer(app)) as client:
            open_one = await client.get("/stay")
            second = await client.get("/stay")
            told = second.status, await second.text(), (await client.get("/")).status
            open_one.close()
            return told

    status, text, after = asyncio.run(refused())
    assert (status, after) == (503, 200)
    assert text == "too many streams are open, try again later\n"


def test_a_sub_application_is_told_where_the_mount_belongs() -> None:
    web, app, sub = make_web({}), http.Application(), application()
    aiohttp.mount(sub, web.parts(make_endpoint({})))
    app.add_subapp("/sub", sub)
    warnings: list[str] = []
    web.streams.warn = warnings.append
    assert asyncio.run(asked(app, "/sub/events")) == ["data: 1\n\n"]
    assert web.streams.reading()["opened"] == 0, "one that could never be seen to close is not opened"
    assert "give it the main one" in warnings[0]


def test_a_stream_whose_sender_is_another_task_is_ended_properly() -> None:
    async def delegates(request: http.Request) -> http.StreamResponse:
        response = http.StreamResponse(headers={"Content-Type": "text/event-stream"})

        async def sends() -> None:
            await response.prepare(request)
            await response.write(b"data: 1\n\n")
            await asyncio.sleep(100)

        await asyncio.create_task(sends())
        return response

    async def evicted() -> str:
        app, web = application(), make_web({})
        app.router.add_get("/delegates", delegates)
        aiohttp.mount(app, web.parts(make_endpoint({})))
        async with TestClient(TestServer(app)) as client:
            response = await client.get("/delegates")
            answer = await asyncio.to_thread(web.streams.take, None, 5.0)
            assert answer["details"] == {"asked": 1, "closed": 1, "left": 0}
            return await response.text()

    assert asyncio.run(evicted()) == "data: 1\n\n"
