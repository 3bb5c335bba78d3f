"""A Flask service for the framework tests; with FREEZE it freezes the heap, for `--preload`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from flask import Flask, Response, request
from serving import PAUSE, TICK, block, facts, guard, left

app = Flask(__name__)


@app.get("/facts")
def who() -> dict[str, object]:
    return facts()


@app.get("/block")
def blocked() -> dict[str, object]:
    block(request.args["flag"])
    return facts()


@app.get("/events")
def events() -> Response:
    note = request.args["note"]

    def ticks() -> Iterator[str]:
        try:
            while True:
                yield TICK
                time.sleep(PAUSE)
        finally:
            left(note)

    return Response(ticks(), mimetype="text/event-stream")


app.wsgi_app = guard.wsgi(app.wsgi_app)  # type: ignore[method-assign]  # as Flask's documentation does it

if os.environ.get("FREEZE"):
    guard.freeze_before_fork()
