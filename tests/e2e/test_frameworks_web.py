"""Web frameworks under their servers: every worker brings a hook of its own, and the server notices nothing."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.support.command import Running
from tests.support.fake_sidecar import FakeSidecar
from tests.support.guarded import WORKLOADS, free_port
from tests.support.served import PATIENCE, Hooks, Served, environment
from tests.support.supervised import wait_for

pytestmark = pytest.mark.real

MIB = 1 << 20
USUAL = 0.1
"""Seconds in which a hook answers though its host is blocked; the quickest of a few answers is looked at."""


def python(*words: object) -> Callable[[int], Sequence[str]]:
    """Command of a server in this interpreter; PORT stands for its port."""
    return lambda port: [sys.executable, *(str(word).replace("PORT", str(port)) for word in words)]


def uvicorn(app: str, *flags: object) -> Callable[[int], Sequence[str]]:
    return python("-m", "uvicorn", app, "--port", "PORT", "--no-access-log", *flags)


def gunicorn(app: str, worker: str, *flags: object) -> Callable[[int], Sequence[str]]:
    return python(
        "-m", "gunicorn", "-b", "127.0.0.1:PORT", "-k", worker, "--graceful-timeout", 5, *flags, app
    )


ALONE = {
    "aiohttp": python(WORKLOADS / "aiohttp_app.py", "PORT"),
    "starlette on uvicorn with uvloop": uvicorn(
        "starlette_app:app", "--loop", "uvloop", "--http", "httptools"
    ),
    "fastapi on uvicorn with asyncio": uvicorn("fastapi_app:app", "--loop", "asyncio", "--http", "h11"),
}
"""One process that serves."""
WORKERS = {
    "starlette on uvicorn --workers": uvicorn("starlette_app:app", "--loop", "uvloop", "--workers", 2),
    "fastapi on uvicorn --workers": uvicorn("fastapi_app:app", "--loop", "asyncio", "--workers", 2),
    "flask on gunicorn sync": gunicorn("flask_app:app", "sync", "-w", 2),
    "flask on gunicorn gthread": gunicorn("flask_app:app", "gthread", "--threads", 4, "-w", 2),
    "flask on gunicorn gevent": gunicorn("flask_app:app", "gevent", "-w", 2),
    "aiohttp on gunicorn": gunicorn("aiohttp_app:make", "aiohttp.GunicornWebWorker", "-w", 2),
}
"""Two that are forked or spawned by a third."""


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[FakeSidecar]:
    with FakeSidecar(tmp_path) as running:
        yield running


@pytest.fixture(params=[*ALONE, *WORKERS])
def served(request: pytest.FixtureRequest, sidecar: FakeSidecar) -> Iterator[Served]:
    name = request.param
    with Served((ALONE | WORKERS)[name], environment(sidecar), workers=0 if name in ALONE else 2) as running:
        yield running


def stored(reading: dict[str, Any]) -> int:
    return int(next(cache["bytes"] for cache in reading["caches"] if cache["name"] == "store"))


def test_every_worker_has_a_hook_of_its_own_and_takes_steps_for_itself(
    served: Served, sidecar: FakeSidecar
) -> None:
    workers = served.workers()
    hooks = Hooks(sidecar)
    # A hook is there before the application is imported.
    readings = [hooks.until(pid, lambda reading: reading["caches"], "the cache") for pid in workers]
    assert [stored(reading) for reading in readings] == [MIB] * len(workers)
    assert {reading["gc"]["status"] for reading in readings} == {"ok"}
    first, *others = workers
    assert hooks.of(first).step("caches")["details"]["cleared"] == ["store"]
    assert stored(hooks.of(first).reading()) == 0
    assert [stored(hooks.of(pid).reading()) for pid in others] == [MIB] * len(others)
    assert served.get("/facts")["pid"] in workers


def test_a_blocked_worker_answers_its_sidecar_as_fast_as_ever(
    served: Served, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    flag = tmp_path / "go_on"
    hooks = Hooks(sidecar)
    with ThreadPoolExecutor() as threads:
        answer = threads.submit(served.get, f"/block?flag={flag}")
        try:
            wait_for(lambda: answer.done() or Path(f"{flag}.blocked").exists(), "the blocked handler")
            for pid in served.workers():
                hook, seconds = hooks.of(pid), []
                for _ in range(10):
                    began = time.perf_counter()
                    assert hook.reading()["gc"]["status"] == "ok"
                    seconds.append(time.perf_counter() - began)
                assert min(seconds) < USUAL
            assert not answer.done(), "the handler was not blocked all the time"
        finally:
            flag.touch()
    assert answer.result()["pid"] in served.workers()


def test_a_stream_is_counted_in_its_worker_and_the_step_closes_it_cleanly(
    served: Served, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    hooks, note = Hooks(sidecar), tmp_path / "left"
    workers = served.workers()

    def streams(pid: int) -> dict[str, Any]:
        found: dict[str, Any] = hooks.until(pid, lambda reading: "streams" in reading, "streams")["streams"]
        return found

    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", f"/events?note={note}")
        response = connection.getresponse()
        assert response.readline() == b"data: tick\n"
        assert sorted(streams(pid)["open"] for pid in workers) == [0] * (len(workers) - 1) + [1]
        holder = next(pid for pid in workers if streams(pid)["open"])
        assert hooks.of(holder).reading()["requests"]["in_flight"] == 0
        step = hooks.of(holder).step("streams")
        assert (step["status"], step["details"]["closed"]) == ("done", 1)
        rest = response.read()  # raises IncompleteRead where the end is not a proper one
    assert rest.replace(b"data: tick\n", b"").strip(b"\n") == b""
    wait_for(note.exists, "the handler's finally")
    after = streams(holder)
    assert (after["open"], after["opened"], after["closed"]["evicted"]) == (0, 1, 1)
    assert served.get("/facts")["store"] == 1, "it serves on"


@pytest.mark.parametrize("name", [*ALONE, *WORKERS])
def test_a_server_ends_with_the_same_code_and_words_as_without_a_hook(
    name: str, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    ends = []
    for env in (environment(sidecar), environment(None, OOMGUARD_HOOK="0")):
        with Served((ALONE | WORKERS)[name], env, workers=0 if name in ALONE else 2) as served:
            workers = served.workers()
            if "OOMGUARD_RUNTIME_DIR" in env:
                hooks = Hooks(sidecar)
                for pid in workers:
                    hooks.until(pid, lambda reading: reading["caches"], "the cache")
                    for _ in range(20):
                        hooks.of(pid).question("step", step="gc", name=None, within=5)
            served.get("/facts")
            code, said = served.stop()
            # A set: a worker of gunicorn's that is ended while it begins says one line less, or not.
            ends.append((code, set(said.splitlines())))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("name", WORKERS)
def test_the_worker_that_takes_a_killed_ones_place_brings_a_hook(name: str, sidecar: FakeSidecar) -> None:
    with Served(WORKERS[name], environment(sidecar), workers=2) as served:
        hooks = Hooks(sidecar)
        first = served.workers()
        for pid in first:
            hooks.until(pid, lambda reading: reading["caches"], "the cache")
        os.kill(first[0], signal.SIGKILL)
        hooks.of(first[0]).wait_closed()
        fresh = wait_for(lambda: set(served.workers()) - set(first), "another worker", PATIENCE).pop()
        reading = hooks.until(fresh, lambda reading: reading["caches"], "the cache of the new worker")
        assert stored(reading) == MIB


# -- the sidecar


def test_the_sidecar_adds_up_what_the_workers_hold() -> None:
    target = uvicorn("starlette_app:app", "--workers", 2)(free_port())
    with Running("run", target=target, env={"PYTHONPATH": str(WORKLOADS)}) as running:
        workers = running.until_guarding(hooks=3)["hooks"]  # and the one of the process that spawned them
        assert len({hook["pid"] for hook in workers}) == 3
        wait_for(lambda: running.metric("oomguard_cache_bytes", cache="store") == 2 * MIB, "the sum")
        assert running.metric("oomguard_cache_entries", cache="store") == 2


# -- gunicorn --preload: the application is loaded in the master, whose heap the workers share


@pytest.mark.parametrize("worker", ["sync", "gthread", "gevent"])
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "not frozen"])
def test_preloaded_workers_collect_only_where_the_master_froze_its_heap(
    frozen: bool, worker: str, sidecar: FakeSidecar
) -> None:
    env = environment(sidecar, **({"FREEZE": "1"} if frozen else {}))
    with Served(gunicorn("flask_app:app", worker, "--preload", "-w", 2), env, workers=2) as served:
        workers = served.workers()
        hooks = Hooks(sidecar)
        for pid in workers:
            hook = hooks.of(pid)
            assert hook.hello["forked"] is True
            assert stored(hook.reading()) == MIB, "what was registered in the master is here, too"
            assert hook.reading()["gc"]["frozen"] is frozen
            step = hook.step("gc")
            assert (step["status"], step["reason"]) == (
                ("done", "") if frozen else ("skipped", "shared_heap")
            )
        master = hooks.of(served.process.pid)
        assert master.hello["forked"] is False
        assert master.step("gc")["status"] == "done"
        hooks.of(workers[0]).step("caches")
        assert stored(hooks.of(workers[1]).reading()) == stored(master.reading()) == MIB
        assert served.get("/facts")["pid"] in workers
