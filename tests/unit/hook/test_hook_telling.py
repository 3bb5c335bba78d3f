"""Where a line of the hook's goes: the application's handlers, else stderr, never stdout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from oomguard.hook import Guard
from oomguard.hook.telling import memory_line

ROOT = Path(__file__).resolve().parents[3]

SAY = """
from oomguard.hook.telling import tell
for level in ("debug", "info", "warning", "error"):
    tell(level, f"asked {level} 100 %s")
    tell(level, f"unasked {level}", asked=False)
"""


def said(code: str, **environ: str) -> tuple[str, str]:
    """What a program prints, on stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "exporter"), **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout, done.stderr


def test_without_a_handler_stderr_gets_what_was_asked_for_and_what_is_wrong() -> None:
    out, err = said(SAY)
    assert out == ""
    assert err.splitlines() == [
        "oomguard: asked info 100 %s",
        "oomguard: asked warning 100 %s",
        "oomguard: unasked warning",
        "oomguard: asked error 100 %s",
        "oomguard: unasked error",
    ]


def test_a_logger_without_a_handler_changes_nothing() -> None:
    assert said("import logging; logging.getLogger('oomguard')" + SAY) == said(SAY)


@pytest.mark.parametrize(
    ("level", "lines"),
    [("debug", 6), ("INFO", 5), ("warning", 4), ("WARN", 4), ("error", 2), ("critical", 0), ("loud", 5)],
)
def test_log_level_is_respected(level: str, lines: int) -> None:
    assert said(SAY, LOG_LEVEL=level)[1].count("\n") == lines


def test_an_applications_handler_gets_all_and_stderr_nothing() -> None:
    code = "import logging, sys; logging.basicConfig(stream=sys.stdout, level=20, format='%(name)s %(message)s')\n"
    out, err = said(code + SAY)
    assert err == ""
    assert out.splitlines()[:2] == ["oomguard asked info 100 %s", "oomguard unasked info"]
    assert out.count("\n") == 6


def test_nothing_is_imported_to_say_a_line() -> None:
    code = (
        "import sys\nfrom oomguard.hook.telling import tell\nbefore = set(sys.modules)\n"
        "tell('info', 'x')\nprint(set(sys.modules) - before)"
    )
    assert said(code) == ("set()\n", "oomguard: x\n")


@pytest.mark.parametrize(
    "breakage",
    [
        "sys.stderr = None",
        "sys.stderr.close()",
        "os.close(2)",
        "sys.stderr = object()",
        "sys.stderr = sys.__stderr__ = None",
        "sys.modules['logging'] = object()",
        "import logging; h = logging.Handler(); h.emit = lambda r: 1 / 0; logging.root.addHandler(h)",
    ],
)
def test_what_cannot_be_said_raises_nothing(breakage: str) -> None:
    out, _ = said(f"import os, sys\n{breakage}\n{SAY}\nprint('alive')")
    assert out == "alive\n"


def test_a_stderr_that_nobody_reads_is_not_waited_for() -> None:
    code = SAY + "for _ in range(2000): tell('info', 'x' * 1000)\nprint('alive', flush=True)\n"
    reading, writing = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": str(ROOT / "exporter")},
            stdout=subprocess.PIPE,
            stderr=writing,
            text=True,
            timeout=60,
        )
        assert done.stdout == "alive\n"
        os.close(writing)
        writing = -1
        lines = os.read(reading, 1 << 20).decode().splitlines()
        assert {line for line in lines if line.endswith("x")} == {"oomguard: " + "x" * 1000}, (
            "whole lines only"
        )
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


def test_under_gevent_the_hooks_thread_keeps_off_loggings_locks() -> None:
    """A greenlet holds the handler's lock: a real thread would make a hub of its own to wait for it, and import."""
    code = """
from gevent import monkey; monkey.patch_all()
import gevent, logging, sys
from oomguard.hook import unpatched
from oomguard.hook.telling import tell
handler = logging.StreamHandler(sys.stdout)
logging.basicConfig(handlers=[handler], level=20)
done = []
def thread():
    tell("info", "from the thread", ours=True)
    done.append(True)
handler.acquire()
unpatched.start_thread(thread)
while not done:
    gevent.sleep(0.01)
handler.release()
tell("info", "from the application")
"""
    assert said(code) == ("INFO:oomguard:from the application\n", "oomguard: from the thread\n")


def test_the_line_about_memory_names_what_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMORY_LIMIT_MB", "100000")
    monkeypatch.delenv("OOMGUARD_RUNTIME_DIR", raising=False)
    guard = Guard()
    guard.cache("bulk", clear=str, size=lambda: 34 << 20)
    guard.cache("small", clear=str, size=lambda: 1 << 20)
    line = memory_line("startup", guard._process.answers)
    head, used, collections, caches = line.split(", ")
    assert head.startswith("startup: ")
    assert head.endswith(" MB resident")
    assert " MB of " in used
    assert used.endswith(" %)")
    assert collections.startswith("gc ")
    assert collections.count("/") == 2
    assert caches == "caches 35 MB"
