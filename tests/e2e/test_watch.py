"""``oomguard watch``: real processes that it did not start."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.boxes import require
from tests.support.command import OBEDIENT, Running, environment, oomguard
from tests.support.supervised import wait_for

MIB = 1 << 20
NOBODY = 65534
SLEEPER = "import sys, time; print('up', flush=True); time.sleep(1000)"
SERVER = (
    "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1])));"
    "print(s.getsockname()[1], flush=True); time.sleep(1000)"
)

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a Python program and returns when it has said its first line (in `line`)."""
    started: list[subprocess.Popen[str]] = []

    def begin(*argv: str, env: dict[str, str] | None = None, **popen: Any) -> subprocess.Popen[str]:
        command = list(argv) if argv[0].startswith("/") else [sys.executable, "-c", *argv]
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(**(env or {})), **popen
        )  # fmt: skip
        started.append(process)
        process.line = process.stdout.readline()  # type: ignore[attr-defined]
        return process

    yield begin
    for process in started:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    process.communicate()


@pytest.fixture
def word() -> str:
    """A word that no other command line on this machine holds."""
    return f"target-{secrets.token_hex(8)}"


def guarded_pid(watching: Running) -> int:
    return int(watching.until_guarding()["pid"])


def test_a_pid_is_guarded_until_it_is_gone(start: Start) -> None:
    target = start(SLEEPER)
    with Running("watch", "--pid", str(target.pid), "--limit", "1GiB") as watching:
        status = watching.until_guarding()
        assert status["pid"] == target.pid
        assert status["processes"][0]["pid"] == target.pid
        assert status["level"]["limit"] == 1 << 30
        end(target)
        watching.until_status(lambda status: status["pid"] is None, "its end")
        assert watching.process.poll() is None
        assert [record["pid"] for record in watching.until_journal("target_exit")] == [target.pid]


def test_a_pid_file_is_waited_for_and_followed_across_restarts(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "service.pid"
    with Running("watch", "--pid-file", file, "--limit", "1GiB") as watching:
        waiting = watching.until_status(lambda status: status.get("sources"), "a status")
        assert waiting["pid"] is None
        assert "waiting for the target" in watching.command("status").stdout
        first = start(SLEEPER)
        file.write_text(f"{first.pid}\n")
        assert guarded_pid(watching) == first.pid
        end(first)
        second = start(SLEEPER)
        file.write_text(f"{second.pid}\n")
        watching.until_status(lambda status: status["pid"] == second.pid, "the second one")
        assert [record["pid"] for record in watching.journal("target_start")] == [first.pid, second.pid]
        assert watching.metric("oomguard_target_starts_total") == 2


def test_a_match_is_waited_for_and_followed_across_restarts(start: Start, word: str) -> None:
    with Running("watch", "--match", f"{word}$", "--limit", "1GiB") as watching:
        watching.until_status(lambda status: status.get("sources"), "a status")
        first = start(SLEEPER, word)
        assert guarded_pid(watching) == first.pid
        end(first)
        second = start(SLEEPER, word)
        watching.until_status(lambda status: status["pid"] == second.pid, "the second one")


def test_the_process_that_listens_on_a_port_is_found(start: Start) -> None:
    first = start(SERVER, "0")
    port = first.line.strip()
    with Running("watch", "--port", port, "--limit", "1GiB") as watching:
        assert guarded_pid(watching) == first.pid
        end(first)
        second = start(SERVER, port)
        watching.until_status(lambda status: status["pid"] == second.pid, "the second one")


def test_a_match_of_several_trees_lists_them(start: Start, word: str) -> None:
    pids = sorted(start("/bin/sh", "-c", "echo up; read line", word, name).pid for name in ("one", "two"))
    done = oomguard("watch", "--match", word)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"--match {word!r} fits 2 process trees: " in line
    assert all(f"{pid} '" in line for pid in pids)
    assert f"read line {word} one'" in line
    assert line.endswith("narrow it, or give --pid of one of them")


def test_a_match_that_becomes_ambiguous_later_is_said_and_guarding_goes_on(start: Start, word: str) -> None:
    first = start(SLEEPER, word)
    with Running("watch", "--match", word, "--limit", "1GiB") as watching:
        assert guarded_pid(watching) == first.pid
        others = [start(SLEEPER, word, name) for name in ("one", "two")]
        end(first)
        watching.until_log(f"--match {word!r} fits 2 process trees")
        end(others[0])
        watching.until_status(lambda status: status["pid"] == others[1].pid, "the one that is left")


def test_a_limit_below_the_present_use_is_the_users_error(start: Start) -> None:
    held = "held = bytearray(b'x' * (80 << 20)); " + SLEEPER
    target = start(held)
    done = oomguard("watch", "--pid", str(target.pid), "--limit", "64MiB", "--listen", "127.0.0.1:0")
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("oomguard: ")]
    assert line.startswith("oomguard: --limit 64.0 MiB lies below the ")
    assert f"that process {target.pid} uses already; give a larger limit" in line
    assert target.poll() is None


def test_a_target_that_is_nearly_full_when_it_is_found_is_warned_of_with_every_figure(start: Start) -> None:
    target = start("held = bytearray(b'x' * (80 << 20)); " + SLEEPER)
    with Running("watch", "--pid", str(target.pid), "--limit", "100MiB") as watching:
        said = watching.until_log("memory usage warning: ")
        assert all(said[name].endswith(" MB") for name in ("rss", "vms", "available"))
        assert int(said["vms"].split()[0]) >= int(said["rss"].split()[0]) >= 80


def test_the_hook_connects_to_a_watching_sidecar_and_its_caches_are_cleared(
    start: Start, tmp_path: Path
) -> None:
    runtime_dir = tmp_path / "run"
    # The target is there first, as after a restart of the watcher: its hook goes on trying.
    target = start(*OBEDIENT, env={"OOMGUARD_RUNTIME_DIR": str(runtime_dir)})
    for order in ("register", "cache 165"):
        target.stdin.write(f"{order}\n")
        target.stdin.flush()
        target.stdout.readline()
    options = ("--pid", str(target.pid), "--limit", "400MiB", "--target", "svc")
    with Running("watch", *options, runtime_dir=runtime_dir) as watching:
        status = watching.until_guarding(hooks=1)
        assert status["hooks"][0]["caches"][0]["bytes"] > 150 * MIB
        done = watching.cleanup("--goal", "64MiB")
        assert done.returncode == 0, done.stdout + done.stderr
        (step,) = watching.journal("step_end")
        assert step["outcome"] == "effective"
        assert step["freed"] > 140 * MIB


def test_ctrl_c_ends_it_and_leaves_the_target_alone(start: Start) -> None:
    target = start(SLEEPER)
    with Running("watch", "--pid", str(target.pid), "--limit", "1GiB") as watching:
        watching.until_guarding()
        watching.process.send_signal(signal.SIGINT)
        assert watching.wait() == 0
        assert watching.log()[-1]["msg"] == "oomguard stopped"
    assert target.poll() is None


@pytest.mark.real
def test_a_target_of_another_user_shows_as_a_sources_status_and_guarding_goes_on(start: Start) -> None:
    """A sidecar without capabilities, beside a target of another uid: ptrace(2) says what it may not read."""
    require("another user's process needs root to be had" if os.geteuid() else None)
    require(None if shutil.which("setpriv") else "setpriv is missing (apt-get install util-linux)")
    target = start("/bin/sh", "-c", "echo up; read line", user=NOBODY, group=NOBODY, extra_groups=[])
    powerless = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    with Running("watch", "--pid", str(target.pid), "--limit", "1GiB", prefix=powerless) as watching:
        status = watching.until_guarding()
        ticks = watching.metric("oomguard_sampler_ticks_total", lane="fast") or 0
        (process,) = status["processes"]
        assert process["rss"] > MIB / 2
        assert process["pss"] is None  # smaps_rollup is closed to others: unknown, not 0
        wait_for(
            lambda: (watching.metric("oomguard_sampler_ticks_total", lane="fast") or 0) > ticks, "more ticks"
        )
        assert watching.metric("oomguard_process_proportional_memory_bytes", process="main") is None
        assert "Traceback" not in watching.stderr()
