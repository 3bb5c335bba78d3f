"""Counting requests, measuring by how much memory grew while one was alone, and collecting after every so many."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.web_parts import make_core, make_endpoint, make_web

from oomguard.hook.web import Web, asgi, wsgi
from oomguard.hook.web.requests import Requests

MIB = 1 << 20
SCOPE = {"type": "http", "path": "/", "headers": [], "method": "GET"}
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]}


@pytest.fixture
def web() -> Web:
    return make_web({})


async def nothing(*_: object) -> None:
    pass


def growth(requests: Requests) -> list[int]:
    counts: list[int] = requests.reading()["growth"]["counts"]  # type: ignore[index]
    return counts


def test_memory_that_a_request_keeps_is_seen(web: Web) -> None:
    kept: list[bytearray] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kept.append(bytearray(b"x" * (30 * MIB)))
        await send(HEAD)

    assert sum(growth(web.requests)) == 0
    mounted = asgi.mount(app, web.parts(make_endpoint({})))
    asyncio.run(mounted(dict(SCOPE), nothing, nothing))
    reading: Any = web.requests.reading()
    assert (reading["in_flight"], reading["total"]) == (0, 1)
    assert sum(reading["growth"]["counts"]) == 1
    assert reading["growth"]["sum"] > 25 * MIB
    assert reading["growth"]["counts"][reading["growth"]["bounds"].index(64 * MIB)] == 1


def test_requests_at_the_same_time_are_not_measured(web: Web) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.01)

    mounted = asgi.mount(app, web.parts(make_endpoint({})))
    web.requests.reading()

    async def main() -> None:
        await asyncio.gather(*(mounted(dict(SCOPE), nothing, nothing) for _ in range(3)))

    asyncio.run(main())
    assert web.requests.reading()["total"] == 3
    assert sum(growth(web.requests)) == 0


def test_a_few_requests_are_measured_between_two_readings(web: Web) -> None:
    mounted = asgi.mount(nothing, web.parts(make_endpoint({})))
    growth(web.requests)

    async def main() -> None:
        for _ in range(100):
            await mounted(dict(SCOPE), nothing, nothing)

    asyncio.run(main())
    assert sum(growth(web.requests)) == 10
    assert web.requests.reading()["total"] == 100


def test_a_service_that_never_answers_one_alone_is_left_in_peace_after_a_hundred(web: Web) -> None:
    looked: list[int] = []
    web.requests.sampled = lambda: looked.append(1)
    parts = web.parts(make_endpoint({}))
    mounted = asgi.mount(nothing, parts)
    parts.requests.tally().begun = 1  # one that takes for ever
    growth(web.requests)
    assert parts.gate.up

    async def main() -> None:
        for _ in range(150):
            await mounted(dict(SCOPE), nothing, nothing)

    asyncio.run(main())
    assert len(looked) == 100
    assert not parts.gate.up, "requests cost one look at an attribute again"
    assert sum(growth(web.requests)) == 0
    assert parts.gate.up, "the next reading asks anew"


def test_a_request_that_raises_is_over(web: Web) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(asgi.mount(app, web.parts(make_endpoint({})))(dict(SCOPE), nothing, nothing))
    assert (web.requests.reading()["in_flight"], web.requests.reading()["total"]) == (0, 1)


class Collections:
    """Counts full collections."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        self.count += phase == "start" and info["generation"] == 2


@pytest.fixture
def collections() -> Iterator[Collections]:
    seen = Collections()
    gc.disable()
    gc.callbacks.append(seen)
    yield seen
    gc.callbacks.remove(seen)
    gc.enable()


def test_garbage_is_collected_after_every_nth_response(web: Web, collections: Collections) -> None:
    sent: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(HEAD)
        sent.append(collections.count)

    mounted = asgi.mount(app, web.parts(make_endpoint({}), gc_every=3))

    async def main() -> None:
        for _ in range(7):
            await mounted(dict(SCOPE), nothing, nothing)
            await asyncio.sleep(0)

    asyncio.run(main())
    assert sent == [0, 0, 0, 1, 1, 1, 2]


def test_wsgi_collects_when_the_server_has_sent_the_response(web: Web, collections: Collections) -> None:
    mounted = wsgi.mount(lambda environ, start: [b"x"], web.parts(make_endpoint({}), gc_every=2))
    for number in range(4):
        body: Any = mounted({"PATH_INFO": "/"}, nothing)
        assert collections.count == number // 2
        assert list(body) == [b"x"]
        assert hasattr(body, "close") is bool(number % 2), "a list goes through as it is"
        if hasattr(body, "close"):
            body.close()
    assert collections.count == 2


def test_a_wsgi_generator_is_in_flight_until_it_is_closed(web: Web) -> None:
    closed = []

    def chunks() -> Iterator[bytes]:
        try:
            yield b"1"
            yield b"2"
        finally:
            closed.append(True)

    mounted = wsgi.mount(lambda environ, start: chunks(), web.parts(make_endpoint({})))
    body: Any = mounted({"PATH_INFO": "/"}, nothing)
    assert next(body) == b"1"
    assert web.requests.reading()["in_flight"] == 1
    body.close()
    assert web.requests.reading()["in_flight"] == 0
    assert closed
    assert web.requests.reading()["total"] == 1


def test_a_generator_that_begins_an_event_stream_late_is_noticed_and_refused_above_the_limit(
    web: Web,
) -> None:
    begun: list[tuple[str, dict[str, str]]] = []

    def app(environ: Any, start: Any) -> Iterator[bytes]:
        start("200 OK", [("content-type", "text/event-stream")])
        yield b"data: 1\n\n"
        yield b"data: 2\n\n"

    def start(status: str, headers: list[tuple[str, str]]) -> None:
        begun.append((status, dict(headers)))

    mounted = wsgi.mount(app, web.parts(make_endpoint({}), max_streams=1))
    first: Any = mounted({"PATH_INFO": "/"}, start)
    assert next(first) == b"data: 1\n\n"
    assert web.streams.count == 1
    second: Any = mounted({"PATH_INFO": "/"}, start)
    assert b"".join(second).startswith(b"too many streams")
    second.close()
    assert begun[1][0] == "503 Service Unavailable"
    assert begun[1][1]["retry-after"] == "30"
    assert list(first) == [b"data: 2\n\n"]
    first.close()
    reading: Any = web.streams.reading()
    assert (reading["open"], reading["rejected"], reading["closed"]["server"]) == (0, 1, 1)
    assert web.requests.reading()["in_flight"] == 0


def test_many_threads_of_a_wsgi_server_lose_no_count(web: Web) -> None:
    mounted = wsgi.mount(lambda environ, start: [b"x"], web.parts(make_endpoint({})))

    def work() -> None:
        for _ in range(500):
            mounted({"PATH_INFO": "/"}, nothing)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (web.requests.reading()["total"], web.requests.reading()["in_flight"]) == (2000, 0)


def test_a_forked_child_counts_from_zero() -> None:
    requests = Requests(make_core({}))
    tally = requests.tally()
    tally.begun = tally.answered = 7
    tally.lock.acquire()
    requests.forked()
    assert requests.reading()["total"] == 0
    assert tally.lock.acquire(blocking=False)
