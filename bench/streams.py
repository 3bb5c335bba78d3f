"""Ten thousand open event streams: memory of one, and processor time of one event, with the hook and without.

A service of `bench.served` with one event stream for each connection, on one core; the clients, in this process, on the
other one. Memory is private dirty, before the first stream (100 have been there and gone) and with all of them open,
divided by their number: what the framework keeps for a stream, and the hook beside it. Buffers of the kernel's are in
none. An event goes to all streams at once; its cost is the processor time of the service (schedstat) for it, divided by
the number of streams: the median of 20, in turns. Beside the ten thousand a hundred are measured: a scan of all streams
for each event would be seen.
"""

from __future__ import annotations

import resource
import selectors
import socket
import time
from dataclasses import dataclass

from tests.support.client import read

from bench.footprint import private_dirty
from bench.served import EVENT
from bench.service import Service, kept_to, two_cores
from bench.table import percentile, table
from bench.web import KINDS

MANY, FEW = 10_000, 100
EVENTS = 20
TARGET = 1024
"""Bytes a stream."""
_WAIT = 60.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one stream."""

    held: float
    """Bytes."""
    event: float
    event_of_few: float
    """Seconds."""


class Clients:
    """Connections on which a stream is read: ``with Clients(port, 100) as clients:``."""

    def __init__(self, port: int, count: int) -> None:
        self._port, self._count = port, count
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Clients:  # noqa: PYI034 - typing.Self needs Python 3.11
        for _ in range(self._count):
            connection = socket.create_connection(("127.0.0.1", self._port))
            self._sockets.append(connection)
            connection.sendall(b"GET /events HTTP/1.1\r\nHost: bench\r\n\r\n")
            self._selector.register(connection, selectors.EVENT_READ)
            if len(self._sockets) % 500 == 0:
                self.wait_for_event(500, since=len(self._sockets) - 500)
        self.wait_for_event(self._count % 500, since=self._count - self._count % 500)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for connection in self._sockets:
            connection.close()
        self._selector.close()

    def wait_for_event(self, count: int, *, since: int = 0) -> None:
        """Return when so many of them, from the one with this number on, have read an event."""
        waited = dict.fromkeys(self._sockets[since : since + count], b"")
        until = time.monotonic() + _WAIT
        while waited:
            if time.monotonic() > until:
                raise TimeoutError(f"{len(waited)} of {count} streams have no event after {_WAIT} s")
            for key, _ in self._selector.select(1.0):
                connection = key.fileobj
                assert isinstance(connection, socket.socket)
                data = connection.recv(4096)
                if not data:
                    raise ConnectionError(f"a stream was closed; it had said {waited.get(connection)!r}")
                # An event may come in pieces; of the head and what went before, only the end matters.
                said = waited.get(connection, b"") + data
                if EVENT in said:
                    waited.pop(connection, None)
                elif connection in waited:
                    waited[connection] = said


def measure() -> str:
    """The section for RESULTS.md."""
    hard = max(MANY + 1000, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (MANY + 1000, hard))
    service_core, load_core = two_cores()
    texts = ["## Streams", "", (__doc__ or "").strip(), ""]
    head = [f"{MANY:,} streams", "memory of a stream", "an event of each", f"of {FEW}"]
    for kind, name in KINDS.items():
        with kept_to(load_core):
            without, with_hook = (_costs(kind, how, service_core) for how in ("plain", "mounted"))
        rows = [
            ["without", *_row(without)],
            ["hook and middleware", *_row(with_hook)],
            [
                "the hook",
                f"{with_hook.held - without.held:.0f} B",
                f"{(with_hook.event - without.event) * 1e6:.1f} µs",
                f"{(with_hook.event_of_few - without.event_of_few) * 1e6:.1f} µs",
            ],
        ]
        texts += [f"### {name}", "", table(head, rows), ""]
    return "\n".join([*texts, f"Target: under {TARGET} B a stream.", ""])


def _row(cost: Cost) -> list[str]:
    return [f"{cost.held:.0f} B", f"{cost.event * 1e6:.1f} µs", f"{cost.event_of_few * 1e6:.1f} µs"]


def _costs(kind: str, how: str, core: int) -> Cost:
    with Service(kind, how, core=core, max_streams=2 * MANY) as service:
        with Clients(service.port, FEW) as clients:
            of_few = _event(service, clients, FEW)
        _until_open(service, 0)
        before = private_dirty(service.pid)
        with Clients(service.port, MANY) as clients:
            held = (private_dirty(service.pid) - before) / MANY
            event = _event(service, clients, MANY)
        return Cost(held, event, of_few)


def _event(service: Service, clients: Clients, count: int) -> float:
    """Seconds that the service computes for one stream's part of an event."""
    seconds = []
    for _ in range(EVENTS):
        before = service.cpu_seconds()
        told = int(read(service.port, "/publish", timeout=_WAIT))
        if told != count:
            raise RuntimeError(f"{told} streams are open, not {count}")
        clients.wait_for_event(count)
        seconds.append((service.cpu_seconds() - before) / count)
    return percentile(seconds, 0.5)


def _until_open(service: Service, count: int) -> None:
    until = time.monotonic() + _WAIT
    while int(read(service.port, "/publish")) != count:
        if time.monotonic() > until:
            raise TimeoutError(f"more than {count} streams are still open after {_WAIT} s")
        time.sleep(0.2)
