"""Clients that drive services from outside their box: a pinger, and plain reads of HTTP."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
import time
import urllib.request
from typing import Any


def read(port: int, path: str, *, timeout: float = 10.0) -> str:
    """Body of a GET on loopback; raises OSError for a refused connection and for any status but 200."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as response:
        body: bytes = response.read()
    return body.decode()


def read_json(port: int, path: str) -> Any:
    """Body of a GET on loopback, decoded."""
    return json.loads(read(port, path))


def wait_for(port: int, path: str, *, timeout: float) -> None:
    """Return once a GET is answered with 200; raises TimeoutError."""
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(OSError):
            read(port, path)
            return
        if time.monotonic() > deadline:
            raise TimeoutError(f"no answer on port {port}{path} within {timeout} s")
        time.sleep(0.05)


class Pinger:
    """Asks ``GET /ping`` of a workload, one request after the other; `with Pinger(port) as pinger: …`.

    Afterwards `seconds` holds how long each answered request took, `failures` what became of the others.
    The workload ends some time and takes the server along: end the block before it does.
    """

    def __init__(self, port: int, *, pause: float = 0.02, timeout: float = 20.0) -> None:
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self._port, self._pause, self._timeout = port, pause, timeout
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pinger")

    def __enter__(self) -> Pinger:  # noqa: PYI034 - Self is not in the typing of Python 3.10
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def summary(self) -> str:
        """One line for people."""
        taken = sorted(self.seconds) or [float("nan")]
        return (
            f"{len(self.seconds)} requests answered, {len(self.failures)} failed; "
            f"median {taken[len(taken) // 2] * 1e3:.1f} ms, slowest {taken[-1] * 1e3:.0f} ms"
        )

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._timeout)
        while not self._stop.wait(self._pause):
            began = time.monotonic()
            try:
                connection.request("GET", "/ping")
                answer = connection.getresponse()
                if answer.read() != b"pong\n":
                    self.failures.append(f"status {answer.status}")
                    continue
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{type(error).__name__}: {error}")
                connection.close()
                continue
            self.seconds.append(time.monotonic() - began)
        connection.close()
