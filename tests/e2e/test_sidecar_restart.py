"""``kill -9`` of the sidecar: the target lives on, and the next sidecar goes on where the journal ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.boxes import podman_pid, podman_run, podman_store
from tests.support.command import OBEDIENT, OOMGUARD, Running, environment
from tests.support.guarded import workload
from tests.support.supervised import children, process_state, runs, wait_for

SLOW = """
import os, sys, time
from oomguard import hook
cache = []
def clear():
    os.write(1, b'{"clearing": true}\\n')
    time.sleep(4)
    cache.clear()
hook.start().cache("slow", clear=clear, size=lambda: len(cache) << 20)
cache.extend(b"x" * (1 << 20) for _ in range(150))
sys.stdin.read()
"""


def killed(running: Running) -> tuple[int, int]:
    """Kill the sidecar; the old PID and the new one."""
    old = running.sidecar
    os.kill(old, signal.SIGKILL)
    return old, wait_for(lambda: pid if (pid := running.sidecar) != old else 0, "a new sidecar")


def test_the_target_lives_and_the_new_sidecar_goes_on_where_the_journal_ends() -> None:
    with Running("run", "--limit", "192MiB", target=OBEDIENT) as running:
        target = running.answer()["pid"]
        running.order("register")
        running.until_guarding(hooks=1)
        running.order("cache 165")
        running.until_journal("run_end")
        starts = running.journal("target_start")

        old, new = killed(running)

        assert runs(target)
        assert process_state(old) == ""
        assert running.order("hold 1")["did"] == "hold"
        status = running.until_guarding(hooks=1)  # the hook has connected to the new one
        assert status["pid"] == target
        assert running.journal("target_start") == starts  # the same target: it did not start again
        assert [record["pid"] for record in running.journal("sidecar_start")] == [old, new]
        (lost,) = running.journal("sidecar_lost")
        assert (lost["pid"], lost["limit"]) == (old, 192 << 20)
        assert lost["last_seen"] <= lost["time"]
        (line,) = [line for line in running.log() if line["msg"].startswith("the sidecar before this one")]
        assert line["last_seen"][:4] == line["ts"][:4]
        assert line["last_seen"] <= line["ts"]

        running.order("cache 165")
        ends = running.until_journal("run_end", 2)
        assert [end["run"] for end in ends] == [1, 2]
        assert {end["outcome"] for end in ends} == {"goal_reached"}
        assert running.metric("oomguard_target_starts_total") == 0  # of this sidecar's time
        running.process.stdin.close()
        assert running.wait() == 0


def test_a_cleanup_that_died_with_its_sidecar_is_noted_as_interrupted_and_done_again() -> None:
    with Running("run", "--limit", "160MiB", target=[sys.executable, "-c", SLOW]) as running:
        assert running.answer() == {"clearing": True}  # in the middle of the step
        assert running.journal("step_start")[-1]["step"] == "caches"
        assert running.journal("step_end") == []

        killed(running)

        interrupted, *_ = running.until_journal("run_end")
        assert interrupted["outcome"] == "interrupted"
        assert interrupted["run"] == 1
        finished = running.until_journal("run_end", 2)[-1]
        assert finished["run"] == 2
        wait_for(lambda: running.status()["level"]["used"] < 60 << 20, "the cache's end")
        assert "run 1   run end        interrupted: its sidecar died" in running.command("journal").stdout


def test_memory_that_is_high_when_the_new_sidecar_comes_is_cleaned_once_the_hook_is_back() -> None:
    with Running("run", "--limit", "192MiB", target=OBEDIENT) as running:
        running.answer()
        running.order("register")
        running.until_guarding(hooks=1)
        running.order("cache 100")
        os.kill(running.sidecar, signal.SIGKILL)
        running.order("cache 85")  # 92 % while nobody looks: the first run may find no hook to ask
        wait_for(
            lambda: any(end["outcome"] == "goal_reached" for end in running.journal("run_end")), "a cleanup"
        )


def test_every_kill_brings_another_sidecar() -> None:
    with Running("run", "--limit", "1GiB", target=OBEDIENT) as running:
        target = running.answer()["pid"]
        for _ in range(3):
            running.until_guarding(hooks=1)
            killed(running)
        assert running.until_guarding(hooks=1)["pid"] == target
        assert running.order("hold 1")["did"] == "hold"
        assert [pairs["msg"] for pairs in running.log()].count("sidecar ended") == 3


def test_a_sidecar_that_is_stopped_for_a_while_catches_up() -> None:
    with Running("run", "--limit", "192MiB", target=OBEDIENT) as running:
        running.answer()
        running.order("register")
        running.until_guarding(hooks=1)
        os.kill(running.sidecar, signal.SIGSTOP)
        running.order("cache 165")
        os.kill(running.sidecar, signal.SIGCONT)
        assert running.until_journal("run_end")[0]["outcome"] == "goal_reached"


@pytest.mark.real
def test_as_pid_1_of_a_container_the_target_outlives_its_sidecar(tmp_path: Path) -> None:
    argv = [
        *OOMGUARD, "run", "--listen", "127.0.0.1:0", "--limit", "160MiB", "--runtime-dir", str(tmp_path / "run"),
        "--", *workload("clearable_cache", "--rate", "60", "--seconds", "12"),
    ]  # fmt: skip
    journal = tmp_path / "run" / "journal.jsonl"

    def records(event: str) -> list[dict[str, Any]]:
        lines = journal.read_text().splitlines() if journal.exists() else []
        return [record for record in map(json.loads, lines) if record["event"] == event]

    with podman_store() as store, (tmp_path / "stderr").open("wb") as errors:
        name = f"oomguard-test-{os.getpid()}"
        podman = podman_run(
            argv, store=store, name=name, memory="512m",
            # The checkout may be a mount of its own, which an overlay of / does not show.
            options=("--volume", f"{tmp_path}:{tmp_path}"),
            stdout=subprocess.PIPE, stderr=errors, text=True, env=environment(),
        )  # fmt: skip
        first = podman_pid(name, store=store)
        wait_for(lambda: records("run_end"), "the first cleanup", timeout=60)
        record = json.loads((tmp_path / "run" / "sidecar.json").read_text())
        sidecar = next(
            pid
            for pid in children(first)
            if b"sidecar" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        )
        (target,) = set(children(first)) - {sidecar}
        before = len(records("run_end"))

        os.kill(sidecar, signal.SIGKILL)

        wait_for(lambda: len(records("sidecar_start")) == 2, "the new sidecar")
        wait_for(lambda: len(records("run_end")) > before + 1, "a cleanup by the new one", timeout=60)
        assert runs(target)
        out, _ = podman.communicate(timeout=60)
        assert podman.returncode == 0, (tmp_path / "stderr").read_text()
    assert record["pid"] != 1
    assert json.loads(out.splitlines()[-1])["cleared"] >= 2
    assert len(records("target_start")) == 1
    runs_seen = [record["run"] for record in records("run_start")]
    assert runs_seen == sorted(set(runs_seen))
