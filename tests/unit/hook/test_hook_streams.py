"""The registry of streams: what it counts, whom the step closes, what an open one costs."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.web_parts import make_core, make_endpoint, make_web

from oomguard.hook.web import asgi
from oomguard.hook.web.streams import IDLE, Stream, Streams, choose


@pytest.fixture
def streams() -> Streams:
    return Streams(make_core({}))


def opened(streams: Streams, name: str = "sse", *, bounded: bool = False) -> Stream:
    stream = Stream(streams, name)
    streams.open(stream, "", bounded=bounded)
    return stream


def test_opening_and_closing_are_counted_by_reason_and_a_second_closing_is_not(streams: Streams) -> None:
    first, second = opened(streams), opened(streams)
    first.close("client")
    first.close("error")
    second.ending = "evicted"
    second.close("server")
    reading = streams.reading()
    assert reading["open"] == 0
    assert reading["opened"] == 2
    assert reading["closed"] == {"client": 1, "server": 0, "evicted": 1, "error": 0}
    assert reading["oldest_age"] is None
    duration: Any = reading["duration"]
    assert duration["counts"][0] == sum(duration["counts"]) == 2
    assert len(duration["counts"]) == len(duration["bounds"]) + 1


def test_the_oldest_that_is_open_tells_the_age(streams: Streams) -> None:
    first, second = opened(streams), opened(streams)
    first.opened -= 100
    second.opened -= 10
    assert 100 <= streams.reading()["oldest_age"] < 105  # type: ignore[operator]
    first.close("client")
    assert 10 <= streams.reading()["oldest_age"] < 15  # type: ignore[operator]


def test_the_environment_limits_streams_and_a_slip_of_the_pen_is_warned_about() -> None:
    streams = Streams(make_core({"MAX_SSE_CONNECTIONS": "1"}))
    assert opened(streams, bounded=True).number
    assert not opened(streams, bounded=True).number
    assert opened(streams).number, "one of the application's own is never refused"
    assert (streams.reading()["rejected"], streams.reading()["limit"]) == (1, 1)
    core = make_core({"MAX_SSE_CONNECTIONS": "many"})
    assert Streams(core).limit is None
    assert "MAX_SSE_CONNECTIONS" in core.warnings[0]


@pytest.mark.parametrize(("most", "error"), [(0, ValueError), ("5", TypeError), (True, TypeError)])
def test_a_limit_that_is_none_is_refused(streams: Streams, most: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="max_streams"):
        streams.limit_to(most)


def test_the_idle_are_chosen_longest_idle_first_and_a_quarter_of_all_at_least(streams: Streams) -> None:
    now = time.monotonic()
    made = [opened(streams) for _ in range(5)]
    for stream, idle in zip(made, (0.3, 0.1, 0.5, 0.2, 0.4), strict=True):
        stream.active = now - idle
    assert choose(made, now) == [made[2], made[4]]
    made[0].active = now - IDLE
    assert choose(made, now) == [made[0], made[2]]
    made[0].active, made[4].active = now, now - 3 * IDLE
    made[1].active = now - IDLE
    made[3].active = now - 2 * IDLE
    assert choose(made, now) == [made[4], made[3], made[1]]


def test_a_stream_without_a_loop_is_marked_and_the_step_does_not_wait_for_ever(streams: Streams) -> None:
    with streams.stream("mcp") as held:
        assert not held.evicted
        answer = streams.take("mcp", 0.05)
        assert answer["details"] == {"asked": 1, "closed": 0, "left": 1}
        assert held.evicted
    assert streams.reading()["closed"]["evicted"] == 1  # type: ignore[index]
    assert streams.take("mcp", 0.05)["reason"] == "nothing_registered"


def test_a_name_restricts_the_step(streams: Streams) -> None:
    with streams.stream("mcp") as one, streams.stream("feed") as other:
        assert streams.take("feed", 0.0)["status"] == "done"
        assert (one.evicted, other.evicted) == (False, True)
        assert streams.take("none", 0.0)["status"] == "skipped"


def test_a_touch_makes_a_stream_less_idle(streams: Streams) -> None:
    with streams.stream("a") as first, streams.stream("b") as second:
        first.touch()
        streams.take(None, 0.0)
        assert (first.evicted, second.evicted) == (False, True)


def test_a_block_in_a_task_is_cancelled_and_the_task_goes_on_behind_it(streams: Streams) -> None:
    async def held() -> str:
        try:
            async with streams.stream("mcp"):
                await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "went on"

    async def main() -> tuple[str, dict[str, object]]:
        task = asyncio.create_task(held())
        await asyncio.sleep(0)
        answer = await asyncio.to_thread(streams.take, None, 5.0)
        return await task, answer

    went, answer = asyncio.run(main())
    assert went == "went on"
    assert answer["details"] == {"asked": 1, "closed": 1, "left": 0}
    assert streams.reading()["closed"]["evicted"] == 1  # type: ignore[index]


def test_a_cancellation_by_others_passes_through(streams: Streams) -> None:
    async def held() -> None:
        with streams.stream("mcp"):
            await asyncio.sleep(3600)

    async def main() -> None:
        task = asyncio.create_task(held())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert streams.reading()["closed"]["client"] == 1  # type: ignore[index]


def test_an_error_in_the_block_is_the_applications_and_counted(streams: Streams) -> None:
    with pytest.raises(KeyError), streams.stream("mcp"):
        raise KeyError
    assert streams.reading()["closed"]["error"] == 1  # type: ignore[index]


def test_one_stream_object_is_one_stream(streams: Streams) -> None:
    held = streams.stream("mcp")
    with held, pytest.raises(RuntimeError, match="open already"), held:
        pass
    with held:
        assert streams.count == 1
    assert streams.count == 0


@pytest.mark.parametrize(("name", "error"), [("", ValueError), ("x" * 101, ValueError), (7, TypeError)])
def test_a_name_that_is_none_is_refused(streams: Streams, name: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="stream name"):
        streams.stream(name)


def test_a_closed_loop_hurts_nobody(streams: Streams) -> None:
    async def main() -> None:
        streams.stream("mcp").__enter__()

    asyncio.run(main())
    assert streams.take(None, 0.0)["details"] == {"asked": 1, "closed": 0, "left": 1}


def test_a_forked_child_begins_anew(streams: Streams) -> None:
    opened(streams)
    streams._lock.acquire()
    child = os.fork()
    if child == 0:
        try:
            streams.forked()
            opened(streams)
            reading = streams.reading()
            os._exit(0 if (reading["open"], reading["opened"]) == (1, 1) else 1)
        finally:
            os._exit(2)
    streams._lock.release()
    assert os.waitpid(child, 0)[1] == 0


def test_openings_and_closings_are_logged_with_one_id(
    streams: Streams, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "oomguard.streams"):
        opened(streams).close("client")
    first, second = (record.getMessage() for record in caplog.records)
    assert first.split()[:3] == ["stream", f"{os.getpid()}-1", "opened:"]
    assert second.split()[:3] == ["stream", f"{os.getpid()}-1", "closed:"]
    assert second.endswith("(client)")


def test_many_threads_lose_no_count(streams: Streams) -> None:
    def work() -> None:
        for _ in range(500):
            opened(streams).close("client")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reading = streams.reading()
    assert (reading["open"], reading["opened"]) == (0, 2000)
    assert reading["closed"]["client"] == 2000  # type: ignore[index]


def test_ten_thousand_open_streams_cost_less_than_a_kilobyte_each() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
        await scope["gate"].wait()

    async def send(_: object) -> None:
        pass

    async def receive() -> None:
        await asyncio.sleep(3600)

    web = make_web({})
    mounted = asgi.mount(app, web.parts(make_endpoint({})))
    count = 10_000

    async def cost(which: Any) -> float:
        gate = asyncio.Event()
        base = {"type": "http", "path": "/events", "headers": [], "gate": gate, "client": ("127.0.0.1", 4242)}
        scopes = [dict(base) for _ in range(count)]
        gc.collect()
        tracemalloc.start()
        try:
            tasks = [asyncio.create_task(which(scope, receive, send)) for scope in scopes]
            for _ in range(3):
                await asyncio.sleep(0)
            gc.collect()
            size = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        gate.set()
        await asyncio.gather(*tasks)
        return size / count

    async def main() -> tuple[float, float]:
        bare = await cost(app)
        task = asyncio.create_task(cost(mounted))
        while web.streams.count < count:
            await asyncio.sleep(0)
        answer = web.streams.reading()
        assert answer["open"] == count
        return bare, await task

    bare, guarded = asyncio.run(main())
    print(f"{guarded - bare:.0f} bytes a stream")
    assert web.streams.reading()["opened"] == count
    # Python 3.10 has a frame object for each coroutine, of 0.5 kB.
    assert guarded - bare < (1000 if sys.version_info >= (3, 11) else 1400)


def test_what_an_application_sends_makes_its_stream_less_idle_unless_it_is_a_comment() -> None:
    web = make_web({})
    seen: list[float] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/event-stream")],
            }
        )
        (stream,) = web.streams.current()
        for chunk in (
            b"data: x\n\n",
            b": alive\n\n",
            memoryview(b"data: x\n\n"),
            memoryview(b": alive\n\n"),
            None,
        ):
            stream.active = 0.0
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            seen.append(stream.active)
        await send({"type": "http.response.body"})
        assert web.streams.count == 0, "what comes behind the end is no part of the stream"

    async def nothing(*_: object) -> None:
        pass

    asyncio.run(
        asgi.mount(app, web.parts(make_endpoint({})))({"type": "http", "path": "/"}, nothing, nothing)
    )
    assert [active > 0 for active in seen] == [True, False, True, False, True]
    assert web.streams.reading()["closed"]["server"] == 1  # type: ignore[index]


def test_a_collection_may_close_a_stream_in_the_midst_of_another_event(streams: Streams) -> None:
    def held() -> Iterator[None]:
        with streams.stream("mcp"):
            yield

    generator = held()
    next(generator)
    with streams._lock, streams._durations._lock:
        del generator  # as a collection would do it here
    assert streams.count == 0
