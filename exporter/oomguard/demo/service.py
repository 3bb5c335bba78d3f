"""A careless service: it caches every answer and never forgets one.

About 15 MB a second come from its own clients, a thread that asks as a busy front end would. The only lines
of oomguard's are the two that register the cache.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import urlopen

from oomguard import hook

ANSWERS: dict[str, bytes] = {}
ANSWER_BYTES = 96 << 10
PAUSE = 0.004


class Handler(BaseHTTPRequestHandler):
    """Answers with a page that is made once for each address, and kept."""

    def do_GET(self) -> None:
        """Answer from the cache, or make the answer and keep it."""
        answer = ANSWERS.get(self.path)
        if answer is None:
            answer = ANSWERS[self.path] = os.urandom(1 << 10) * (ANSWER_BYTES >> 10)
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Say nothing: the sidecar's lines are what the demo is about."""


def clients(url: str) -> None:
    """Ask for ever new addresses."""
    # At the demo's end the server goes first: no reason for a traceback.
    with contextlib.suppress(OSError, HTTPException):
        for number in itertools.count():
            with urlopen(f"{url}/{number}") as answer:  # noqa: S310 - our own server
                answer.read()
            time.sleep(PAUSE)


def main() -> None:
    """Serve until ended."""
    guard = hook.start()
    guard.cache(
        "answers", clear=ANSWERS.clear, size=lambda: len(ANSWERS) * ANSWER_BYTES, entries=lambda: len(ANSWERS)
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=clients, args=(url,), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
