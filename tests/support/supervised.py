"""Runs the real supervisor, as `oomguard run` does, with a stand-in for the sidecar."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "exporter"
SIDECAR = ROOT / "tests" / "support" / "standin_sidecar.py"

LAUNCHER = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
from oomguard import supervisor
supervisor.become_subreaper()
argv = supervisor.command(python=sys.executable, mask=supervisor.hold_signals(), **json.loads(sys.argv[2]))
os.execv(argv[0], argv)
"""

RECORDER = """
import os, signal, sys
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
leave = {int(n) for n in sys.argv[2:]} | {signal.SIGKILL, signal.SIGSTOP}
for n in signal.valid_signals() - leave:
    signal.signal(n, lambda number, _: os.write(log, b"%d\\n" % number))
for n in leave - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(n, signal.SIG_DFL)
os.write(log, b"up %d\\n" % os.getpid())
while True:
    signal.pause()
"""


def recorder(log: Path, *default: int) -> list[str]:
    """Argv of a target that writes the number of each signal it gets; `default` ones it does not catch."""
    return [sys.executable, "-c", RECORDER, str(log), *(str(int(number)) for number in default)]


def wait_for(look: Callable[[], T | None], what: str, timeout: float = 30.0) -> T:
    """What `look` returns once it is true; fails rather than hangs."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.01)
    raise TimeoutError(f"{what} did not come within {timeout} s")


def lines(path: Path) -> list[str]:
    """Lines of a file that may not be there yet."""
    return path.read_text().splitlines() if path.exists() else []


def process_state(pid: int) -> str:
    """Letter of /proc/PID/stat; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def runs(pid: int) -> bool:
    """Whether a process runs or sleeps: it is not stopped, dead or gone."""
    return process_state(pid) in {"R", "S", "D"}


def children(pid: int) -> Iterator[int]:
    """PIDs of a process's children."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            yield int(path.parent.name)


def launch(target: Sequence[str], sidecar_log: Path, kind: str = "good", **settings: Any) -> list[str]:
    """Argv of a process that becomes the supervisor of `target`."""
    chosen: dict[str, Any] = {
        "target": list(target),
        "sidecar": [sys.executable, str(SIDECAR), str(sidecar_log), kind],
        "restart": False,
        "max_restarts": 5,
        "oom_adj": True,
        **settings,
    }
    return [sys.executable, "-c", LAUNCHER, str(SOURCES), json.dumps(chosen)]


class Supervised:
    """One supervisor at work. Its log of the sidecar is `sidecar_log`; call `end` at last."""

    def __init__(self, folder: Path, target: Sequence[str], kind: str = "good", **settings: Any) -> None:
        self.sidecar_log = folder / "sidecar.log"
        popen: dict[str, Any] = settings.pop("popen", {})
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            launch(target, self.sidecar_log, kind, **settings),
            **{"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, **popen},
        )
        self.pid = self.process.pid

    def sidecars(self) -> list[int]:
        """PIDs of the sidecars that were started, in order."""
        return [int(line.split()[1]) for line in lines(self.sidecar_log) if line.startswith("started ")]

    def told(self) -> list[str]:
        """What the sidecars were told."""
        return [line for line in lines(self.sidecar_log) if not line.startswith(("started ", "eof "))]

    def target(self) -> int:
        """PID of the target as the sidecar was told, once it was."""
        return wait_for(
            lambda: next(
                (int(line.split()[1]) for line in reversed(self.told()) if line.startswith("target ")), 0
            ),
            "a target",
        )

    def send(self, number: int) -> None:
        """Send the supervisor a signal."""
        os.kill(self.pid, number)

    def result(self, timeout: float = 30.0) -> tuple[int, str]:
        """Exit code and stderr, once it has ended."""
        _, errors = self.process.communicate(timeout=timeout)
        return self.process.returncode, (errors or b"").decode()

    def end(self) -> None:
        """Kill whatever is left of it."""
        left = [pid for pid in (self.pid, *children(self.pid)) if process_state(pid)]
        if self.process.poll() is None:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.communicate()
