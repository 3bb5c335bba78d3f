"""The mounts: what stands in front of an application of each framework, and what they share.

In this order: the /admin endpoints, `/health`, shedding, counting of requests, noticing of streams. Imported when
the application mounts one, not before. `asgi`, `wsgi` and `aiohttp` know one framework each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from oomguard.hook.admin.endpoint import PATHS, Answer, Endpoint
from oomguard.hook.parts import Core
from oomguard.hook.web.gate import Gate
from oomguard.hook.web.health import Health
from oomguard.hook.web.loop_lag import LoopLag
from oomguard.hook.web.requests import Requests
from oomguard.hook.web.shedding import Shedding
from oomguard.hook.web.streams import Streams

BODY = "the service is short of memory, try again later\n"
"""What a request is told that is shed."""
HEALTH = frozenset(
    ("/health", "/healthz", "/health/live", "/health/ready", "/livez", "/live", "/readyz", "/ready")
)
"""The application's own health routes, as they are usually called: one that is shed would have its pod restarted."""
_FULL = "too many streams are open, try again later\n"


class Parts(NamedTuple):
    """What one mount needs, as `Web.parts` makes it."""

    endpoint: Endpoint
    streams: Streams
    shedding: Shedding
    requests: Requests
    gate: Gate
    """Where a plain request learns that none of `shedding`, `requests` and `gc_every` has to see it."""
    health: Callable[[], Mapping[str, object]]
    health_path: str | None
    exempt: frozenset[str]
    """Paths that are never shed."""
    gc_every: int | None
    shed: Answer
    full: Answer

    @property
    def paths(self) -> tuple[str, ...]:
        """Those that are answered here."""
        return PATHS if self.health_path is None else (*PATHS, self.health_path)

    def healthy(self) -> Answer:
        """Answer for the health path: 200 whatever it says, so that nobody restarts the service for it."""
        body = json.dumps(self.health()).encode("ascii") + b"\n"
        return Answer(200, _headers("application/json", body), body)

    def sheds(self, path: str) -> bool:
        """Whether a request is refused now, which is counted; ask only where `shedding.armed`."""
        if not self.shedding.on() or path in self.exempt or path.rstrip("/") in HEALTH:
            return False
        self.shedding.refuse()
        return True


class Web:
    """What all mounts of a process share. `more` adds to `/health` what other parts know (models loaded)."""

    def __init__(self, core: Core, more: Callable[[], Mapping[str, object]] = dict) -> None:
        self.streams = Streams(core)
        self._gate = Gate()
        self.shedding = Shedding(core, self._gate)
        self.requests = Requests(core, self._gate)
        self.lag = LoopLag(core)
        self.requests.sampled = self.lag.watch_running
        self.health = Health(
            core.environ,
            lambda: {"streams_open": self.streams.count, "shedding": self.shedding.on(), **more()},
        )

    def parts(
        self,
        endpoint: Endpoint,
        *,
        max_streams: int | None = None,
        shed_above: float | str | None = None,
        retry_after: int = 30,
        shed_body: str = BODY,
        exempt: Collection[str] = (),
        health: str | None = None,
        gc_every: int | None = None,
    ) -> Parts:
        """Check what the application asks for; TypeError or ValueError say what is wrong with it.

        `max_streams` and `shed_above` hold for the process, whatever mount sets them; the rest for this mount.
        """
        _whole("retry_after", retry_after, 0)
        if gc_every is not None:
            _whole("gc_every", gc_every, 1)
        if not isinstance(shed_body, str):
            raise TypeError(f"shed_body {shed_body!r}: must be text")
        if isinstance(exempt, str):
            raise TypeError(f"exempt {exempt!r}: must be a list of paths")
        for what, path in (*(("exempt", path) for path in exempt), ("health", health)):
            if path is not None and not (isinstance(path, str) and path.startswith("/")):
                raise ValueError(f"{what} {path!r}: must be a path that begins with /")
        if max_streams is not None:
            self.streams.limit_to(max_streams)
        if shed_above is not None:
            self.shedding.above(shed_above)
        gate = self._gate
        if gc_every is not None:
            gate = Gate()  # this mount's own, and never down
            gate.want("gc_every", 0.0)
        return Parts(
            endpoint,
            self.streams,
            self.shedding,
            self.requests,
            gate,
            self.health,
            health,
            frozenset(exempt),
            gc_every,
            _busy(shed_body, retry_after),
            _busy(_FULL, retry_after),
        )


def _whole(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} {value!r}: must be a whole number")
    if value < least:
        raise ValueError(f"{name} {value}: must be {least} or more")


def _busy(text: str, retry_after: int) -> Answer:
    body = text.encode()
    return Answer(
        503, (*_headers("text/plain; charset=utf-8", body), ("retry-after", str(retry_after))), body
    )


def _headers(kind: str, body: bytes) -> tuple[tuple[str, str], ...]:
    return (("content-type", kind), ("content-length", str(len(body))), ("cache-control", "no-store"))
