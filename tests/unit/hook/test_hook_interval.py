"""Cleaning up by the clock: when, what, and the line that says what it gave back."""

from __future__ import annotations

import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from oomguard.hook.alone.interval import Interval, wanted
from oomguard.hook.chores import Chores
from oomguard.hook.parts import Core, Released, resident

ON = {"MEMORY_CLEANUP": "1", "MEMORY_CLEANUP_THRESHOLD_MB": "1"}
BLOCK = 64 << 20


class Host:
    """A process with 64 MB that a trim gives back."""

    def __init__(self, environ: dict[str, str], released: Released | None = None) -> None:
        self.block = bytearray(BLOCK)
        self.released = released or Released(1234, BLOCK, 0.1, trims=True)
        self.expired: int | None = 56
        self.cleaned: list[str] = []
        self.chores = Chores(lambda: None, lambda: None)
        self.core = Core(environ, self.chores, threading.RLock(), self.release)  # type: ignore[arg-type]  # any lock does
        self.interval = Interval(self.core, self.expire)

    def expire(self) -> int | None:
        self.cleaned.append("expire")
        return self.expired

    def release(self) -> Released:
        self.cleaned.append("release")
        self.block = bytearray()
        return self.released


def megabytes(text: str) -> int:
    number, unit = text.split()
    assert unit == "MB"
    return int(number)


@pytest.mark.parametrize(
    ("value", "on"), [("1", True), ("true", True), ("ON", True), ("0", False), ("", False), ("maybe", False)]
)
def test_it_runs_where_the_environment_asks_for_it(value: str, on: bool) -> None:
    assert wanted({"MEMORY_CLEANUP": value}) == on
    assert not wanted({})


def test_each_interval_it_expires_collects_and_trims_and_says_what_that_gave_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    host = Host({**ON, "MEMORY_CLEANUP_INTERVAL": "30"})
    assert caplog.messages == ["memory cleanup every 30 s when more than 1 MB are resident"]
    assert host.chores.run(1000.0) == 30.0, "not in the first moment"
    assert host.cleaned == []
    before = resident()
    assert host.chores.run(1030.0) == 30.0
    after = resident()
    assert host.cleaned == ["expire", "release"]
    assert before is not None
    assert after is not None
    freed, _, rest = caplog.messages[1].removeprefix("memory cleanup: ").partition(" freed, from ")
    sizes, _, rest = rest.partition("; ")
    assert megabytes(freed) == pytest.approx(64, abs=4)
    assert [megabytes(size) for size in sizes.split(" to ")] == pytest.approx(
        [before >> 20, after >> 20], abs=4
    )
    assert rest == "gc collected 1234 objects, 56 expired cache entries dropped, malloc_trim called"


def test_what_was_not_there_is_said_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    host = Host(ON, Released(None, None, 0.0, trims=False))
    host.expired = None
    host.chores.run(1000.0)
    host.chores.run(1060.0)
    assert caplog.messages[1].endswith("; gc not run, no cache with expiring entries, no malloc_trim here")


def test_below_the_threshold_nothing_is_done_or_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    host = Host({"MEMORY_CLEANUP": "1", "MEMORY_CLEANUP_THRESHOLD_MB": "100000"})
    host.chores.run(1000.0)
    assert host.chores.run(1060.0) == 60.0
    assert host.cleaned == []
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MEMORY_CLEANUP_INTERVAL", "soon"),
        ("MEMORY_CLEANUP_INTERVAL", "0"),
        ("MEMORY_CLEANUP_INTERVAL", "-5"),
        ("MEMORY_CLEANUP_INTERVAL", "nan"),
        ("MEMORY_CLEANUP_INTERVAL", "inf"),
        ("MEMORY_CLEANUP_THRESHOLD_MB", "100MB"),
        ("MEMORY_CLEANUP_THRESHOLD_MB", "-1"),
    ],
)
def test_a_bad_value_is_told_once_and_the_default_holds(
    name: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    host = Host({"MEMORY_CLEANUP": "1", name: value})
    assert (host.interval.every, host.interval.above) == (60.0, 100 << 20)
    for now in (0.0, 60.0, 120.0):
        host.chores.run(now)
    told = [line for line in caplog.messages if name in line]
    assert len(told) == 1
    assert f"{name}={value!r} is not a number" in told[0]
    assert "for example" in told[0]
    assert told == host.core.warnings


def test_a_forked_child_waits_for_an_interval_of_its_own() -> None:
    host = Host(ON)
    host.chores.run(1000.0)
    host.interval.forked()
    host.chores.run(1060.0)
    assert host.cleaned == []
    host.chores.run(1120.0)
    assert host.cleaned


SERVICE = """
import sys
from oomguard import hook
blocks = [b"x" * 16384 for _ in range(4000)]
kept = blocks[::50]
hook.start()
del blocks
sys.stdin.readline()
"""


def test_a_service_needs_no_more_than_the_environment() -> None:
    root = Path(__file__).resolve().parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE],
        env={"PYTHONPATH": str(root / "exporter"), **ON, "MEMORY_CLEANUP_INTERVAL": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as service:
        assert service.stderr is not None
        first, second = service.stderr.readline(), service.stderr.readline()
        out, _ = service.communicate("\n", timeout=60)
    assert first == "oomguard: memory cleanup every 1 s when more than 1 MB are resident\n"
    assert second.startswith("oomguard: memory cleanup: ")
    assert " freed, from " in second
    assert "gc collected " in second
    assert out == ""
    if platform.libc_ver()[0] == "glibc":
        assert second.endswith("malloc_trim called\n")
        assert int(second.split()[3]) >= 55
