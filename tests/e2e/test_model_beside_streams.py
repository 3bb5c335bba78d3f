"""A large model beside event streams that never end, in a real box of 512 MB: killed unguarded, alive guarded."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import time

import aiohttp
import pytest
from tests.support.boxes import MIB, BoxV1
from tests.support.client import read_json, wait_for
from tests.support.guarded import Guarded, Program, workload

pytestmark = pytest.mark.real

LIMIT = 512 * MIB
STREAMS = 110
"""Of 4 MB each: with the model and the interpreters more than the box holds."""


async def _visit(port: int, streams: int) -> dict[str, int]:
    """Open so many streams, one after another, and read each to its end; how many ended how."""
    ends = {"clean": 0, "shed": 0, "broken": 0, "open": 0}

    async def read(session: aiohttp.ClientSession) -> None:
        try:
            async with session.get(f"http://127.0.0.1:{port}/events") as response:
                async for _ in response.content.iter_any():
                    pass
            ends["clean" if response.status == 200 else "shed"] += 1
        except (aiohttp.ClientError, OSError):
            ends["broken"] += 1

    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks = []
        for _ in range(streams):
            tasks.append(asyncio.create_task(read(session)))
            await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        ends["open"] = sum(not task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return ends


def _ask(port: int, path: str) -> tuple[int, str | None, bytes]:
    """Status, Retry-After and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.headers["Retry-After"], answer.read()
    finally:
        connection.close()


def _patiently(port: int, path: str) -> dict[str, int]:
    """Ask again while requests are shed, which ends by itself."""
    until = time.monotonic() + 60
    status, retry_after, body = _ask(port, path)
    while status == 503 and time.monotonic() < until:
        assert retry_after == "30"
        time.sleep(0.5)
        status, retry_after, body = _ask(port, path)
    assert status == 200
    return json.loads(body)


def test_unguarded_the_kernel_kills_it():
    with BoxV1(LIMIT) as box, Program(box, workload("model_beside_streams")) as program:
        port = program.port()
        read_json(port, "/embed")
        asyncio.run(_visit(port, STREAMS))
        assert program.wait(60) == -signal.SIGKILL
        assert box.oom_kills() == 1


def test_guarded_idle_streams_are_closed_cleanly_and_the_service_goes_on():
    argv = workload("model_beside_streams")
    with BoxV1(LIMIT) as box, Guarded(box, argv) as program:
        port = program.port()
        wait_for(program.listen_port, "/readyz", timeout=30)
        assert read_json(port, "/embed")["weights"] == 2880
        ends = asyncio.run(_visit(port, STREAMS))
        until = time.monotonic() + 30
        while program.metric("oomguard_streams_open") != 0 and time.monotonic() < until:
            time.sleep(0.2)
        steps = [record for record in program.journal("step_end") if record["outcome"] != "skipped"]
        print(
            "\n", ends, json.dumps([(step["step"], step["outcome"], step["freed"] // MIB) for step in steps])
        )
        assert box.oom_kills() == 0
        assert ends["broken"] == 0
        assert ends["clean"] > 0, "streams were closed, each with a proper end"
        assert {"streams", "models"} & {step["step"] for step in steps if step["outcome"] == "effective"}
        assert _patiently(port, "/embed")["weights"] == 2880, "whoever needs the model gets it again"
        assert program.metric("oomguard_streams_closed_total", reason="evicted") >= ends["clean"]
        assert program.metric("oomguard_model_loads_total", model="jina-v3") >= 1
