"""A service that holds as much memory as it is told to, with /admin mounted; prints ``{"port": N}``.

GET /cache/N puts N MiB into a registered cache, /hold/N where nothing can be cleared; /empty lets go of both;
/spike/N/MS holds N MiB for so many milliseconds. /arm has the cache's `clear` wait for /release.
"""

from __future__ import annotations

import mmap
import threading
import time
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from ping import say

from oomguard import hook

PAGE = 4096

cached: list[mmap.mmap] = []
held: list[mmap.mmap] = []
armed, released = threading.Event(), threading.Event()


def memory(mebibytes: int) -> mmap.mmap:
    """Memory that goes straight back to the kernel when it is closed, whatever malloc would think of it."""
    size = mebibytes << 20
    piece = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    piece[::PAGE] = b"\x01" * (size // PAGE)
    return piece


def empty(pieces: list[mmap.mmap]) -> None:
    while pieces:
        pieces.pop().close()


def clear() -> None:
    if armed.is_set():
        released.wait(120)
    empty(cached)


def act(order: str, *numbers: str) -> None:
    if order == "cache":
        cached.append(memory(int(numbers[0])))
    elif order == "hold":
        held.append(memory(int(numbers[0])))
    elif order == "empty":
        empty(cached)
        empty(held)
    elif order == "spike":
        piece = memory(int(numbers[0]))
        time.sleep(int(numbers[1]) / 1000)
        piece.close()
    elif order == "arm":
        armed.set()
    elif order == "release":
        released.set()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    act(*environ["PATH_INFO"].strip("/").split("/"))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done\n"]


class Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


if __name__ == "__main__":
    guard = hook.start()
    guard.cache("pieces", clear, size=lambda: sum(map(len, cached)), entries=lambda: len(cached))
    with Server(("127.0.0.1", 0), Quiet) as server:
        server.set_app(guard.wsgi(application))
        say(port=server.server_port)
        server.serve_forever()
