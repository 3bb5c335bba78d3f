"""Real servers with the hook in them, under a fake sidecar: starting one, asking it, finding its workers' hooks."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.client import wait_for as wait_for_answer
from tests.support.fake_sidecar import FakeSidecar, Hook
from tests.support.guarded import WORKLOADS, free_port
from tests.support.supervised import children, wait_for
from tests.support.targets import clean_environment

from oomguard import inject

PATIENCE = 60.0
"""Seconds after which a test fails instead of hanging; a busy machine needs some to start a server."""
HELPERS = ("resource_tracker", "semaphore_tracker", "multiprocessing.forkserver")


def environment(sidecar: FakeSidecar | None, **variables: str) -> dict[str, str]:
    """What ``oomguard run`` gives its target; with no sidecar, the same without oomguard."""
    plain = {**clean_environment(), "PYTHONPATH": str(WORKLOADS), "PYTHONDONTWRITEBYTECODE": "1", **variables}
    return plain if sidecar is None else inject.environment(plain, sidecar.runtime_dir, target="svc")


def descendants(pid: int) -> Iterator[int]:
    """All processes below one, those that only keep house left out."""
    for child in children(pid):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{child}/cmdline").read_text(errors="replace")
            if not any(helper in command for helper in HELPERS):
                yield child
        yield from descendants(child)


class Hooks:
    """The hooks that said hello to a fake sidecar so far, the last one of each process."""

    def __init__(self, sidecar: FakeSidecar) -> None:
        self._sidecar = sidecar
        self._found: dict[int, Hook] = {}

    def of(self, pid: int, timeout: float = PATIENCE) -> Hook:
        """The hook of this process; raises TimeoutError where none comes."""
        until = time.monotonic() + timeout
        while pid not in self._found:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"no hook of process {pid}, but of {sorted(self._found)}")
            with contextlib.suppress(TimeoutError, EOFError, ConnectionResetError):
                hook = self._sidecar.accept(min(left, 1.0))
                self._found[hook.pid] = hook
        return self._found[pid]

    def until(self, pid: int, look: Callable[[dict[str, Any]], object], what: str) -> dict[str, Any]:
        """The first reading of this process that `look` finds true."""
        hook = self.of(pid)

        def seen() -> dict[str, Any] | None:
            reading = hook.reading()
            return reading if look(reading) else None

        return wait_for(seen, what, PATIENCE)


class Served:
    """A server that is ended on exit, with all that it has forked.

    `command` is made with the port. Afterwards `code` is its exit code and `said` what it wrote to stderr.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str | Path]],
        env: Mapping[str, str],
        *,
        cwd: Path | None = None,
        workers: int = 0,
        ready: str | None = "/facts",
    ) -> None:
        """`ready`: a path that is answered with 200 once it serves; None: it serves no HTTP."""
        self.port = free_port()
        self._command = [str(word) for word in command(self.port)]
        self._env = dict(env)
        self._cwd = cwd or tempfile.gettempdir()
        self._workers = workers
        self._ready = ready
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        self.code: int | None = None
        self.said = ""

    def __enter__(self) -> Served:  # noqa: PYI034 (Self is typing's from 3.11 on)
        self.process = subprocess.Popen(
            self._command, env=self._env, cwd=self._cwd, stdin=subprocess.DEVNULL, stdout=self._errors,
            stderr=self._errors,
        )  # fmt: skip
        try:
            if self._ready is not None:
                wait_for_answer(self.port, self._ready, timeout=PATIENCE)
        except BaseException:
            self._end(signal.SIGKILL)
            raise AssertionError(f"{self._command} does not serve: {self.said}") from None
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self.code is None:
            self._end(signal.SIGTERM)
        self._errors.close()

    def stop(self) -> tuple[int, str]:
        """End it by SIGTERM; exit code, and what it wrote with every number as N."""
        self._end(signal.SIGTERM)
        assert self.code is not None
        return self.code, re.sub(r"0x[0-9a-f]+|\d+", "N", self.said)

    def get(self, path: str, timeout: float = PATIENCE) -> Any:
        """Body of a GET, decoded from JSON; anything but 200 fails."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        assert response.status == 200, (response.status, body)
        return json.loads(body)

    def workers(self) -> list[int]:
        """PIDs of those that serve, once all are there: the server's children, or itself where it has none."""
        if not self._workers:
            return [self.process.pid]
        return wait_for(
            lambda: found if len(found := list(descendants(self.process.pid))) == self._workers else None,
            f"{self._workers} workers, there are {list(descendants(self.process.pid))}",
            PATIENCE,
        )

    def _end(self, number: int) -> None:
        left = [*descendants(self.process.pid), *children(self.process.pid)]
        if self.process.poll() is None:
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.code = self.process.wait()
        self._errors.seek(0)
        self.said = self._errors.read()
