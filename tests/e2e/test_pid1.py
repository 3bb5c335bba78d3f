"""The supervisor as the first process of a container."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.boxes import podman_pid, podman_run, podman_store
from tests.support.supervised import children, launch, lines, process_state, runs, wait_for

pytestmark = pytest.mark.real

Run = Callable[..., tuple["subprocess.Popen[bytes]", int]]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Runs a supervised command in a container; gives podman's process and the PID 1 as the host sees it."""
    started: list[subprocess.Popen[bytes]] = []
    with podman_store() as store:

        def begin(*target: str, **settings: object) -> tuple[subprocess.Popen[bytes], int]:
            name = f"oomguard-test-{os.getpid()}"
            started.append(
                podman_run(
                    launch(target, tmp_path / "sidecar.log", **settings),
                    store=store,
                    name=name,
                    options=("--volume", f"{tmp_path}:{tmp_path}"),
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            )
            wait_for(lambda: lines(tmp_path / "up"), "the container", timeout=60)
            return started[-1], podman_pid(name, store=store)

        yield begin
    for process in started:
        process.communicate(timeout=60)


def told_of_target(folder: Path) -> list[str]:
    return [line for line in lines(folder / "sidecar.log") if line.startswith("target ")]


def inside(first: int, word: str) -> int:
    """PID on the host of the child of PID 1 whose command line holds a word."""
    return next(pid for pid in children(first) if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes())


def test_as_pid_1_it_forwards_reaps_and_outlives_its_sidecar(run: Run, tmp_path: Path) -> None:
    script = (
        f"echo $PPID > {tmp_path}/up; (sh -c 'exec sleep 0.2' &); trap 'exit 7' TERM;"
        "while :; do sleep 0.05; done"
    )
    podman, first = run("/bin/sh", "-c", script)
    assert lines(tmp_path / "up") == ["1"]
    sidecar = inside(first, "standin_sidecar.py")
    target = inside(first, "trap")
    wait_for(lambda: sorted(children(first)) == sorted((sidecar, target)), "the orphan's end")

    os.kill(sidecar, signal.SIGKILL)
    told = wait_for(lambda: found if len(found := told_of_target(tmp_path)) == 2 else None, "the new sidecar")

    assert told[0] == told[1]
    assert runs(target)
    assert process_state(sidecar) == ""
    os.kill(first, signal.SIGTERM)

    assert podman.wait(timeout=60) == 7


def test_a_signal_that_the_kernel_would_drop_for_pid_1_reaches_the_target(run: Run, tmp_path: Path) -> None:
    podman, first = run("/bin/sh", "-c", f"echo up > {tmp_path}/up; exec sleep 1000")

    # The kernel drops a signal to PID 1 that has its default action; the target is not PID 1.
    os.kill(first, signal.SIGUSR1)

    assert podman.wait(timeout=60) == 128 + signal.SIGUSR1
