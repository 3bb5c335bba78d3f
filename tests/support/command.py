"""The command ``oomguard`` as a user starts it: run to its end, or left running and looked at."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.client import read, read_json
from tests.support.guarded import workload
from tests.support.supervised import children, wait_for

OOMGUARD = (sys.executable, "-m", "oomguard")
OBEDIENT = workload("obedient")
"""A target that does what `Running.order` says."""
_PAIR = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without what would change oomguard, and with these variables."""
    unwanted = ("OOMGUARD_", "MEMORY_", "LOG_LEVEL")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(unwanted)},
        **variables,
    }


def oomguard(
    *arguments: str | Path, env: Mapping[str, str] | None = None, timeout: float = 60.0, **popen: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; stdout and stderr as text."""
    return subprocess.run(
        [*OOMGUARD, *map(str, arguments)],
        env=environment(**(env or {})),
        timeout=timeout,
        **{"capture_output": True, "text": True, "stdin": subprocess.DEVNULL, **popen},
    )


def parse_log(line: str) -> dict[str, str] | None:
    """The pairs of a key=value log line; None for a line that is none."""
    if not re.match(r"(?:ts=\S+ )?level=", line):
        return None
    return {key: json.loads(value) if value[:1] == '"' else value for key, value in _PAIR.findall(line)}


def _descendants(pid: int) -> Iterator[int]:
    for child in children(pid):
        yield child
        yield from _descendants(child)


class Running:
    """``oomguard run`` or ``watch`` on a free port, with a runtime directory of its own; ended on exit.

    `arguments` are those after the subcommand; `target` what stands after ``--``; `prefix` a command that
    becomes oomguard.
    """

    def __init__(
        self,
        subcommand: str,
        *arguments: str | Path,
        target: Sequence[str | Path] = (),
        env: Mapping[str, str] | None = None,
        runtime_dir: Path | None = None,
        prefix: Sequence[str] = (),
        **popen: Any,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="oomguard-test-")
        Path(self._folder.name).chmod(0o711)  # a target of another user comes through
        self.runtime_dir = runtime_dir or Path(self._folder.name)
        self._command = [
            *prefix, *OOMGUARD, subcommand, "--listen", "127.0.0.1:0", *map(str, arguments),
            *(("--", *map(str, target)) if target else ()),
        ]  # fmt: skip
        self._env = environment(OOMGUARD_RUNTIME_DIR=str(self.runtime_dir), **(env or {}))
        self._log = Path(self._folder.name, "stderr.log")
        self._popen = popen
        self._said: queue.Queue[str] = queue.Queue()
        self._reader: threading.Thread | None = None

    def __enter__(self):
        with self._log.open("wb") as log:
            self.process: subprocess.Popen[str] = subprocess.Popen(
                self._command,
                env=self._env,
                text=True,
                **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log, **self._popen},
            )
        if self.process.stdout is not None:
            self._reader = threading.Thread(target=self._read, args=(self.process.stdout,))
            self._reader.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        left = list(_descendants(self.process.pid))
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        # What the target forked may outlive it, and holds the pipe.
        for pid in (*left, self.process.pid):
            if self.process.returncode is None or pid != self.process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        if self._reader is not None:
            self._reader.join()
        self._folder.cleanup()

    # -- the target

    def order(self, text: str, timeout: float = 60.0) -> dict[str, Any]:
        """Tell the obedient target something; its answer."""
        self.tell(text)
        return self.answer(timeout)

    def tell(self, text: str) -> None:
        """Tell it something that it does not answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def answer(self, timeout: float = 60.0) -> dict[str, Any]:
        """The next JSON line of the target's."""
        told: dict[str, Any] = json.loads(self._said.get(timeout=timeout))
        return told

    def wait(self, timeout: float = 30.0) -> int:
        """The command's exit code."""
        return self.process.wait(timeout)

    def _read(self, stdout: Any) -> None:
        for line in stdout:
            self._said.put(line)

    # -- the sidecar

    @property
    def record(self) -> dict[str, Any]:
        """What the sidecar wrote of itself: ``pid`` and ``url``."""
        path = self.runtime_dir / "sidecar.json"
        wait_for(lambda: path.exists() or self.process.poll() is not None, "the sidecar's record")
        record: dict[str, Any] = json.loads(path.read_text())
        return record

    @property
    def url(self) -> str:
        """Address of the sidecar."""
        return str(self.record["url"])

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.url.rpartition(":")[2])

    @property
    def sidecar(self) -> int:
        """Its PID."""
        return int(self.record["pid"])

    def status(self) -> dict[str, Any]:
        """``/api/v1/status``."""
        status: dict[str, Any] = read_json(self.port, "/api/v1/status")
        return status

    def until_status(
        self, look: Callable[[dict[str, Any]], object], what: str, timeout: float = 30.0
    ) -> dict[str, Any]:
        """The first status that `look` finds true."""

        def seen() -> dict[str, Any] | None:
            with contextlib.suppress(OSError):  # not there yet, or being started again
                status = self.status()
                return status if look(status) else None
            return None

        return wait_for(seen, what, timeout)

    def until_guarding(self, *, hooks: int = 0) -> dict[str, Any]:
        """The first status with a level and so many hooks that answered."""
        return self.until_status(
            lambda status: status["level"] and len(status.get("hooks", ())) >= hooks, "guarding"
        )

    def metrics(self) -> str:
        """``/metrics``, Prometheus text."""
        return read(self.port, "/metrics")

    def metric(self, name: str, **labels: str) -> float | None:
        """Value of the first series of this name that has these labels; None when there is none."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        for line in self.metrics().splitlines():
            series, _, value = line.rpartition(" ")
            if series.partition("{")[0] == name and all(pair in series for pair in wanted):
                return float(value)
        return None

    def journal(self, *events: str) -> list[dict[str, Any]]:
        """Records of the journal's file, the named events or all."""
        path = self.runtime_dir / "journal.jsonl"
        records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [record for record in records if not events or record["event"] in events]

    def until_journal(self, event: str, count: int = 1, timeout: float = 30.0) -> list[dict[str, Any]]:
        """Records of this event, once there are so many."""
        return wait_for(
            lambda: found if len(found := self.journal(event)) >= count else None, f"{count} {event}", timeout
        )

    def cleanup(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``oomguard cleanup`` on it."""
        return self.command("cleanup", *arguments)

    def command(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Another command that finds it by its runtime directory."""
        return oomguard(*arguments, env={"OOMGUARD_RUNTIME_DIR": str(self.runtime_dir)})

    # -- its log

    def stderr(self) -> str:
        """Everything that was written to stderr so far."""
        return self._log.read_text(errors="replace")

    def log(self) -> list[dict[str, str]]:
        """oomguard's own lines of it."""
        return [pairs for line in self.stderr().splitlines() if (pairs := parse_log(line)) is not None]

    def until_log(self, text: str, timeout: float = 30.0) -> dict[str, str]:
        """The first log line whose message begins with this."""
        return wait_for(
            lambda: next((pairs for pairs in self.log() if pairs["msg"].startswith(text)), None),
            f"log line {text!r}",
            timeout,
        )
