"""A process whose interpreter is held: the sidecar says so within a second, for how long, and goes on with the others.

And one whose event loop is blocked, beside a thread that computes: its hook answers all the same.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.command import Running
from tests.support.fake_sidecar import FakeSidecar
from tests.support.guarded import WORKLOADS, workload
from tests.support.targets import Target

STALLS = workload("stalls")
START = "import runpy, sys; from oomguard import hook; hook.start(); runpy.run_path(sys.argv[1], run_name='__main__')"


@pytest.fixture
def running() -> Iterator[Running]:
    with Running("run", target=STALLS) as running:
        running.answer()
        running.until_guarding(hooks=2)
        yield running


def test_an_interpreter_that_is_held_in_c_is_said_within_a_second_and_the_others_go_on(
    running: Running,
) -> None:
    running.tell("regex 6")
    began = running.answer()["began"]
    status = running.until_status(lambda status: status["stalled"], "stalled", 15)
    (stalled,) = running.until_journal("hook_stalled")
    late = stalled["time"] - began
    assert stalled["process"] == "worker-1"
    # 0.95 s, and what a busy machine adds.
    assert late < 3.0, late
    assert [(hook["process"], hook["seconds"] > 0) for hook in status["stalled"]] == [("worker-1", True)]
    running.until_status(
        lambda status: "has not answered for" in status["sources"]["hook"].get("reason", ""),
        "the source's reason",
    )
    assert running.metric("oomguard_hook_connected", process="worker-1") == 0
    assert running.metric("oomguard_hook_connected", process="main") == 1
    assert (running.metric("oomguard_hook_stalled_seconds", process="worker-1") or 0) > 0.5
    assert running.metric("oomguard_hook_stalled_seconds", process="main") == 0
    shown = running.command("status").stdout
    assert "stalled  worker-1 (process" in shown
    ordered = running.cleanup("--steps", "gc")
    assert "gc freed" in ordered.stdout or "gc skipped" in ordered.stdout
    assert [hook["process"] for hook in running.status()["hooks"]] == ["main"], (
        "it is read while the other hangs"
    )
    ended = running.answer()["ended"]
    (answered,) = running.until_journal("hook_answered")
    assert answered["seconds"] == pytest.approx(ended - began, abs=2.0)
    running.until_status(lambda status: len(status["hooks"]) == 2 and not status["stalled"], "both again")
    assert running.metric("oomguard_hook_connected", process="worker-1") == 1
    assert len(running.journal("hook_stalled")) == 1


def test_a_worker_that_ends_is_not_stalled(running: Running) -> None:
    running.tell("end")
    running.answer()
    running.until_status(lambda status: len(status["hooks"]) == 1, "one hook")
    time.sleep(1.5)
    assert running.journal("hook_stalled") == []
    assert running.metric("oomguard_hook_connected", process="worker-1") is None


def test_a_reading_is_answered_while_the_event_loop_is_blocked_beside_a_busy_thread(tmp_path: Path) -> None:
    with FakeSidecar(tmp_path) as sidecar:
        places = os.pathsep.join([str(WORKLOADS), os.environ.get("PYTHONPATH", "")])
        env = {**os.environ, **sidecar.environment, "PYTHONPATH": places}
        with Target([sys.executable, "-c", START, STALLS[-1]], env) as target:
            hook = sidecar.accept_pid(json.loads(target.first_line)["worker"])
            assert target.process.stdin is not None
            assert target.process.stdout is not None
            target.process.stdin.write("loop 10\n")
            target.process.stdin.flush()
            assert "began" in json.loads(target.process.stdout.readline())
            seconds = []
            for _ in range(40):
                began = time.perf_counter()
                hook.reading()
                seconds.append(time.perf_counter() - began)
                time.sleep(0.05)
            assert statistics.median(seconds) < 0.1, seconds
