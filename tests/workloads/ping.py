"""What the workloads share: a loopback server with ``GET /ping``, JSON lines on stdout, a pace to keep.

The workloads are programs, started by path: this folder is then first on their path.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MB = 1_000_000


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 12  # headers and body in one segment, or Nagle and the delayed ACK make 40 ms of it

    def do_GET(self) -> None:
        body = b"pong\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it
        """A line for each request would only be noise."""


def say(**fields: object) -> None:
    """Print one JSON line at once."""
    print(json.dumps(fields), flush=True)


def serve() -> None:
    """Answer ``GET /ping`` from threads of its own, and say ``{"port": …}``: the workload has begun."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="ping", daemon=True).start()
    say(port=server.server_port)


def register(
    name: str, clear: Callable[[], None], size: Callable[[], int], entries: Callable[[], int]
) -> None:
    """Tell oomguard of a cache, where it is installed.

    With ``WORKLOAD_ORDERS`` in the environment, a path, the cache is cleared for every datagram that
    arrives there instead: the baselines that oomguard is compared with send them.
    """
    address = os.environ.get("WORKLOAD_ORDERS")
    if address:
        orders = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        orders.bind(address)
        threading.Thread(target=_obey, args=(orders, clear), name="orders", daemon=True).start()
        return
    with contextlib.suppress(ImportError):
        from oomguard import hook

        hook.start().cache(name, clear=clear, size=size, entries=entries)


def _obey(orders: socket.socket, clear: Callable[[], None]) -> None:
    while orders.recv(64):
        clear()


class Pace:
    """Holds a rate in bytes a second, without catching up: no burst above it follows a stall."""

    def __init__(self, rate: float, *, slack: float = 0.02) -> None:
        self._rate, self._slack = rate, slack
        self._due = time.monotonic()

    def wait(self, size: int) -> None:
        """Call after `size` bytes: returns when the next ones are due."""
        now = time.monotonic()
        self._due = max(self._due + size / self._rate, now - self._slack)
        if self._due > now:
            time.sleep(self._due - now)


class Meter:
    """How fast it really went: the whole, and the fastest tenth of a second."""

    def __init__(self) -> None:
        self.total = 0
        self.fastest = 0.0
        self._began = self._since = time.monotonic()
        self._window = 0

    def add(self, size: int) -> None:
        """Count `size` bytes that were just allocated and touched."""
        self.total += size
        self._window += size
        now = time.monotonic()
        if now - self._since >= 0.1:
            self.fastest = max(self.fastest, self._window / (now - self._since))
            self._since, self._window = now, 0

    def result(self) -> dict[str, float]:
        """Fields for the last line, in bytes and bytes a second."""
        seconds = time.monotonic() - self._began
        return {
            "allocated": self.total,
            "seconds": round(seconds, 3),
            "rate": round(self.total / seconds),
            "fastest_rate": round(self.fastest),
        }
