"""A runtime directory that is full or read-only: the service runs on, its hook stays, and the status tells."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.boxes import require
from tests.support.command import OBEDIENT, Running
from tests.support.fake_sidecar import FakeSidecar
from tests.support.targets import ROOT, Target, base_python, clean_environment

pytestmark = pytest.mark.real

HOST = """
import sys
from oomguard import hook
guard = hook.start()
guard.cache("c", clear=list, size=lambda: 5)
with guard.model("m", list), guard.stream("s"): pass
guard.wsgi(lambda environ, start_response: [])
print("ready", flush=True)
sys.stdin.read()
print(guard.status()["state"], flush=True)
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB in memory."""
    require(None if os.geteuid() == 0 else "mounting a tmpfs needs root")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=0711", "oomguard-test", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def fill(place: Path) -> None:
    with contextlib.suppress(OSError), (place / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 512)


def make_read_only(place: Path) -> None:
    # "ro" with "bind" changes this mount alone, though files of it are open for writing.
    subprocess.run(["mount", "--bind", place, place], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)


@pytest.fixture(params=["full", "read-only"])
def spoiled(request: pytest.FixtureRequest, small: Path) -> Iterator[tuple[Path, str]]:
    """The directory, and what is to become of it."""
    yield small, request.param
    while Path("/proc/self/mounts").read_text().count(f" {small} ") > 1:
        subprocess.run(["umount", "--lazy", small], check=True)


def test_a_hook_needs_nothing_of_the_directory_but_its_socket(spoiled: tuple[Path, str]) -> None:
    place, how = spoiled
    with FakeSidecar(place) as sidecar:
        (fill if how == "full" else make_read_only)(place)
        env = {**clean_environment(), **sidecar.environment, "PYTHONPATH": str(ROOT / "exporter")}
        with Target([base_python(), "-X", "dev", "-W", "error", "-c", HOST], env) as target:
            hook = sidecar.accept_pid(target.pid)
            for step in ("caches", "gc", "trim", "streams", "models"):
                assert hook.step(step)["status"] in ("done", "skipped", "unsupported")
            reading = hook.reading()
            assert reading["caches"][0]["bytes"] == 5
            assert "warnings" not in reading
            assert target.finish() == (0, "connected\n", "")


def test_a_service_runs_on_when_the_directory_is_full_and_the_status_tells(small: Path) -> None:
    with Running("run", "--runtime-dir", str(small), target=OBEDIENT, runtime_dir=small) as running:
        pid = running.answer()["pid"]
        running.until_guarding(hooks=1)
        fill(small)
        for _ in range(50):  # what the journal's last page has left is filled first
            running.cleanup("--steps", "gc,trim")
            if running.status()["journal"]["error"]:
                break
        told = running.status()
        assert "no space left" in told["journal"]["error"]
        assert told["cleanup"]["last"]["outcome"] == "done"
        assert [hook["pid"] for hook in told["hooks"]] == [pid]
        assert told["sources"]["hook"]["status"] == "ok"
        child = running.order("fork 1")["children"][0]
        hooks = running.until_guarding(hooks=2)["hooks"]
        assert {hook["pid"] for hook in hooks} == {pid, child}
        (small / "filler").unlink()
        running.cleanup("--steps", "gc")
        running.until_status(lambda status: not status["journal"]["error"], "the end of the error")
        assert running.process.stdin is not None
        running.process.stdin.close()
        assert running.wait() == 0
