"""The MCP Python SDK: its server over HTTP behind the guard, and its stdio server, to whose output nothing is added."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pytest
from mcp import Client
from tests.support.client import read_json
from tests.support.command import OOMGUARD, Running
from tests.support.fake_sidecar import FakeSidecar, Hook
from tests.support.guarded import WORKLOADS, free_port
from tests.support.served import PATIENCE, Hooks, Served, environment
from tests.support.supervised import wait_for

pytestmark = pytest.mark.real

CLIENT = {"name": "test", "version": "1"}
REQUESTS: tuple[dict[str, Any], ...] = (
    {"id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": CLIENT}},
    {"method": "notifications/initialized"},
    {"id": 2, "method": "tools/list"},
    {"id": 3, "method": "tools/call", "params": {"name": "add", "arguments": {"a": 2, "b": 40}}},
    {"id": 4, "method": "tools/call", "params": {
        "name": "count", "arguments": {"to": 50}, "_meta": {"progressToken": "t"}}},
    {"id": 5, "method": "tools/call", "params": {"name": "add", "arguments": {"a": "no number"}}},
    {"id": 6, "method": "no/such/method"},
    {"id": 7, "method": "ping"},
)  # fmt: skip
STDIO = [sys.executable, str(WORKLOADS / "mcp_tools.py")]


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[FakeSidecar]:
    with FakeSidecar(tmp_path) as running:
        yield running


# -- stdio


def converse(
    command: list[str], env: dict[str, str], meanwhile: Callable[[], object] = lambda: None
) -> tuple[int, bytes, bytes]:
    """Send the requests, each after the answer to the one before; exit code, output, standard error."""
    with subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        guillotine = threading.Timer(PATIENCE, process.kill)  # instead of waiting for an answer for ever
        guillotine.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            said = b""
            for request in REQUESTS:
                process.stdin.write(json.dumps({"jsonrpc": "2.0", **request}).encode() + b"\n")
                process.stdin.flush()
                if "id" in request:
                    said += answer(process.stdout, request["id"])
                meanwhile()
            process.stdin.close()
            return process.wait(PATIENCE), said + process.stdout.read(), process.stderr.read()
        finally:
            guillotine.cancel()
            process.kill()


def answer(stdout: IO[bytes], identity: int) -> bytes:
    """Everything up to the answer to this request."""
    read = b""
    for line in stdout:
        read += line
        if json.loads(line).get("id") == identity:
            return read
    raise EOFError(f"ended without an answer to {identity}: {read!r}")


def test_a_stdio_server_says_byte_for_byte_what_it_says_without_a_hook(sidecar: FakeSidecar) -> None:
    hooks: list[Hook] = []

    def rain() -> None:
        if not hooks:
            hooks.append(sidecar.accept())
        assert hooks[0].reading()["gc"]["status"] == "ok"
        assert hooks[0].step("gc")["status"] == "done"
        assert hooks[0].step("trim")["status"] in ("done", "unsupported")

    with_hook = converse(STDIO, environment(sidecar), rain)
    assert with_hook == converse(STDIO, environment(None))
    code, said, errors = with_hook
    assert code == 0
    assert said.count(b"notifications/progress") == 50
    assert b'"42"' in said
    assert errors == b""


def test_a_stdio_server_under_oomguard_run_says_the_same(tmp_path: Path) -> None:
    command = [*OOMGUARD, "run", "--listen", "127.0.0.1:0", "--runtime-dir", str(tmp_path), "--"]
    with_oomguard = converse([*command, *STDIO], environment(None))
    assert with_oomguard[:2] == converse(STDIO, environment(None))[:2]


# -- streamable HTTP


async def session(port: int) -> dict[str, Any]:
    """What a client of the SDK's own gets to see."""
    steps: list[float] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        steps.append(done)

    async with Client(f"http://127.0.0.1:{port}/mcp", mode="legacy") as client:
        tools = await client.list_tools()
        added = await client.call_tool("add", {"a": 2, "b": 40})
        counted = await client.call_tool("count", {"to": 20}, progress_callback=progress)
        return {
            "tools": [tool.model_dump() for tool in tools.tools],
            "added": added.model_dump(),
            "counted": counted.model_dump(),
            "progress": steps,
        }


def serve(port: int) -> list[str]:
    return [sys.executable, "-m", "uvicorn", "mcp_tools:app", "--port", str(port), "--no-access-log"]


def test_a_client_sees_the_same_server_with_and_without_the_guard(sidecar: FakeSidecar) -> None:
    with Served(serve, environment(None, OOMGUARD_HOOK="0")) as served:
        without, end = asyncio.run(session(served.port)), served.stop()
    with Served(serve, environment(sidecar)) as served:
        hook = Hooks(sidecar).of(served.process.pid)
        seen = asyncio.run(session(served.port))
        assert served.get("/facts")["sessions"] == 0, "the client ended its session"
        streams = hook.reading()["streams"]
        assert streams["opened"] >= 1, "responses of the SDK's are event streams"
        assert (streams["open"], streams["rejected"]) == (0, 0)
        assert served.stop() == end
    assert seen == without
    assert seen["progress"] == list(range(1, 21))


def test_a_session_outlives_cleanups(sidecar: FakeSidecar) -> None:
    async def long(port: int, hook: Hook) -> list[Any]:
        async with Client(f"http://127.0.0.1:{port}/mcp", mode="legacy") as client:
            sums = []
            for step in ("caches", "gc", "trim"):
                await asyncio.to_thread(hook.step, step)
                result = await client.call_tool("add", {"a": len(sums), "b": 1})
                sums.append(result.structured_content)
            return sums

    with Served(serve, environment(sidecar)) as served:
        hook = Hooks(sidecar).of(served.process.pid)
        assert asyncio.run(long(served.port, hook)) == [{"result": 1}, {"result": 2}, {"result": 3}]


def test_oomguard_asks_nothing_of_the_service_on_its_own() -> None:
    port = free_port()
    with Running("run", target=serve(port), env={"PYTHONPATH": str(WORKLOADS)}) as running:
        running.until_guarding(hooks=1)
        wait_for(
            lambda: running.metric("oomguard_cache_bytes", cache="store"), "a reading of the application's"
        )
        assert running.cleanup("--steps", "caches,gc,trim").returncode == 0
        before = running.status()["sampler"]["ticks"]
        running.until_status(lambda status: status["sampler"]["ticks"] > before + 4, "four more looks")
        assert read_json(port, "/facts") == {"asked": {"GET /facts": 1}, "sessions": 0}
