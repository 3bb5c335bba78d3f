"""Celery's prefork pool: each child has a hook of its own, also those that take the place of others."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from tests.support.fake_sidecar import FakeSidecar
from tests.support.served import PATIENCE, Hooks, Served, environment
from tests.support.supervised import wait_for

pytestmark = pytest.mark.real

MIB = 1 << 20


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[FakeSidecar]:
    with FakeSidecar(tmp_path) as running:
        yield running


@pytest.fixture
def broker(tmp_path: Path) -> Path:
    folder = tmp_path / "broker"
    folder.mkdir()
    return folder


def worker(broker: Path, env: dict[str, str], *flags: object) -> Served:
    command = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--pool", "prefork"]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING"]
    return Served(
        lambda _: [*command, "--concurrency", "2", *quiet, *map(str, flags)],
        {**env, "BROKER": str(broker)},
        cwd=broker,
        workers=2,
        ready=None,
    )


@pytest.fixture
def send(broker: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Sends a task by name; its result has `get`."""
    for name in ("messages", "control", "results"):
        (broker / name).mkdir(exist_ok=True)
    client = Celery("client", broker="filesystem://", backend=f"file://{broker}/results")
    client.conf.broker_transport_options = {
        "data_folder_in": str(broker / "messages"),
        "data_folder_out": str(broker / "messages"),
        "control_folder": str(broker / "control"),
    }
    return lambda task, *arguments: client.send_task(f"celery_app.{task}", arguments)


def test_each_child_has_a_hook_answers_while_its_task_blocks_and_keeps_its_heap_shared(
    broker: Path, send: Callable[..., Any], sidecar: FakeSidecar, tmp_path: Path
) -> None:
    flag = tmp_path / "go_on"
    with worker(broker, environment(sidecar)) as served:
        children, hooks = served.workers(), Hooks(sidecar)
        assert send("who").get(PATIENCE)["pid"] in children
        task = send("blocked", str(flag))
        wait_for(Path(f"{flag}.blocked").exists, "the blocked task", PATIENCE)
        for pid in children:
            hook = hooks.of(pid)
            assert hook.hello["forked"] is True
            assert [cache["bytes"] for cache in hook.reading()["caches"]] == [MIB]
            assert hook.step("gc")["reason"] == "shared_heap"
        assert hooks.of(served.process.pid).hello["forked"] is False
        hooks.of(children[0]).step("caches")
        assert hooks.of(children[1]).reading()["caches"][0]["bytes"] == MIB
        flag.touch()
        assert task.get(PATIENCE)["pid"] in children


def test_children_collect_where_the_worker_froze_its_heap_before_it_forked(
    broker: Path, sidecar: FakeSidecar
) -> None:
    with worker(broker, environment(sidecar, FREEZE="1")) as served:
        hooks = Hooks(sidecar)
        for pid in served.workers():
            assert hooks.of(pid).step("gc")["status"] == "done"


def test_a_child_that_is_recycled_goes_and_the_next_one_brings_a_hook(
    broker: Path, send: Callable[..., Any], sidecar: FakeSidecar
) -> None:
    with worker(broker, environment(sidecar), "--max-tasks-per-child", 1) as served:
        hooks = Hooks(sidecar)
        first = served.workers()
        for pid in first:
            hooks.of(pid)
        used = {send("who").get(PATIENCE)["pid"] for _ in range(4)}
        assert len(used) == 4, "each task had a child of its own"
        for pid in used & set(first):
            hooks.of(pid).wait_closed()
        fresh = wait_for(
            lambda: found if not used & set(found := served.workers()) else None,
            "the next children",
            PATIENCE,
        )
        for pid in fresh:
            assert hooks.of(pid).reading()["gc"]["status"] == "ok"


def test_an_isolated_model_in_a_child_ends_with_the_child(
    broker: Path, send: Callable[..., Any], sidecar: FakeSidecar
) -> None:
    with worker(broker, environment(sidecar)) as served:
        hooks = Hooks(sidecar)
        told = send("counted", "abb").get(PATIENCE)
        assert told["most"] == [["b", 2]]
        model = hooks.of(told["pid"]).reading()["models"][0]
        assert (model["state"], model["isolated"]) == ("loaded", True)
        assert hooks.of(told["pid"]).step("models", name="counter")["details"]["unloaded"]
        wait_for(lambda: gone(model["pid"]), "the end of the model's process")
        again = send("counted", "abb").get(PATIENCE)
        pid = hooks.of(again["pid"]).reading()["models"][0]["pid"]
        assert served.stop()[0] == 0
    wait_for(lambda: gone(pid), "the end of the model's process with its application's")


def gone(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def test_a_worker_ends_with_the_same_code_and_words_as_without_a_hook(
    broker: Path, send: Callable[..., Any], sidecar: FakeSidecar
) -> None:
    ends = []
    for env in (environment(sidecar), environment(None, OOMGUARD_HOOK="0")):
        with worker(broker, env) as served:
            served.workers()
            assert send("who").get(PATIENCE)["store"] == 1
            if "OOMGUARD_RUNTIME_DIR" in env:
                hooks = Hooks(sidecar)
                for pid in (served.process.pid, *served.workers()):
                    for _ in range(20):
                        hooks.of(pid).question("step", step="trim", name=None, within=5)
            ends.append(served.stop())
    assert ends[0] == ends[1]
    assert ends[0][0] == 0
