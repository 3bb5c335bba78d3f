"""Starts a program in a box, bare or under ``oomguard run``, and reads what became of it.

Supervisor, sidecar and target all live in the box, as in a container.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.support.boxes import BoxV1
from tests.support.client import read, read_json
from typing_extensions import Self

P = TypeVar("P", bound="Program")

ROOT = Path(__file__).parents[2]
WORKLOADS = ROOT / "tests" / "workloads"


def workload(name: str, *arguments: object) -> list[str]:
    """Command line of a program of tests/workloads, in this interpreter."""
    return [sys.executable, str(WORKLOADS / f"{name}.py"), *map(str, arguments)]


def free_port() -> int:
    """A TCP port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Program:
    """A program in a box, with the JSON lines that it prints; `with Program(box, argv) as program: …`.

    Unguarded: without a runtime directory in its environment the hook looks for no sidecar. Ended on exit.
    """

    def __init__(self, box: BoxV1, argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
        self.box = box
        self.said: list[dict[str, Any]] = []
        self._argv = list(argv)
        outside = {name: value for name, value in os.environ.items() if not name.startswith("OOMGUARD_")}
        self._env = {**outside, **(env or {})}
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def __enter__(self) -> Self:
        self.process = self.box.run(self._argv, env=self._env, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, name="stdout")
        self._reader.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        # A killed supervisor leaves the target behind, which holds the pipe.
        for pid in self.box.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._reader.join()

    def next_line(self, timeout: float = 60.0) -> dict[str, Any]:
        """The next JSON line; raises EOFError at the program's end, queue.Empty after `timeout` s."""
        line = self._lines.get(timeout=timeout)
        if line is None:
            raise EOFError(f"ended with {self.process.wait(10)} after it had said {self.said}")
        self.said.append(line)
        return line

    def port(self) -> int:
        """Port of the workload's ``/ping``, from its first line."""
        return int(self.next_line()["port"])

    def wait(self, timeout: float) -> int:
        """Exit code; negative for a signal, as subprocess has it."""
        return self.process.wait(timeout)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                self._lines.put(json.loads(line))
        self._lines.put(None)


class Guarded(Program):
    """A program under ``oomguard run`` with a runtime directory and a port of its own."""

    def __init__(
        self,
        box: BoxV1,
        argv: Sequence[str],
        *,
        flags: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.listen_port = free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="oomguard-test-")
        self.runtime_dir = Path(self._folder.name)
        own = ["--listen", f"127.0.0.1:{self.listen_port}", "--runtime-dir", str(self.runtime_dir)]
        super().__init__(box, [sys.executable, "-m", "oomguard", "run", *own, *flags, "--", *argv], env=env)

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        self._folder.cleanup()

    def status(self) -> dict[str, Any]:
        """``/api/v1/status``."""
        status: dict[str, Any] = read_json(self.listen_port, "/api/v1/status")
        return status

    def metrics(self) -> str:
        """``/metrics``, Prometheus text."""
        return read(self.listen_port, "/metrics")

    def metric(self, name: str, **labels: str) -> float | None:
        """Value of the first series of this name that has these labels; None when there is none."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        for line in self.metrics().splitlines():
            series, _, value = line.rpartition(" ")
            if series.split("{")[0] == name and all(pair in series for pair in wanted):
                return float(value)
        return None

    def wait_until_guarding(self, timeout: float = 30.0, *, hooks: int = 0) -> None:
        """Return once memory is read and so many hooks are connected."""
        deadline = time.monotonic() + timeout
        status: dict[str, Any] = {}
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                status = self.status()
                if status.get("level") and len(status.get("hooks", ())) >= hooks:
                    return
            time.sleep(0.1)
        raise TimeoutError(f"not guarding within {timeout} s; status {status}")

    def journal(self, *events: str) -> list[dict[str, Any]]:
        """Records of the journal's file, the named events or all."""
        lines = (self.runtime_dir / "journal.jsonl").read_text().splitlines()
        records = [json.loads(line) for line in lines]
        return [record for record in records if not events or record["event"] in events]
