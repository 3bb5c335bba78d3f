"""What the two endpoints answer, whatever the framework: method, path, headers and body in, an answer out.

A mount asks `refusal` before it reads a body, then runs `answer` in a thread of its own (a step may take
seconds), and sends `late` when that has not ended within `WAIT` seconds. None of them raises.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

from oomguard.hook.admin import level, token
from oomguard.hook.admin.level import Level
from oomguard.hook.admin.order import RefusedError, parse
from oomguard.hook.admin.run import Outcome, Runs
from oomguard.hook.admin.size import Goal, parse_goal, parse_limit

MEMORY = "/admin/memory"
CLEANUP = "/admin/cleanup"
PATHS = (MEMORY, CLEANUP)
MAX_BODY = 1 << 20
"""Bytes. Alertmanager's payload of 1000 alerts has about 600 kB."""
WAIT = 10.0
"""Seconds until a caller is told that the run goes on without it: a callback of the application's may hang."""
_METHODS = {MEMORY: "GET", CLEANUP: "POST"}
_OFF = ("0", "false", "no", "off")
_DEFAULT_GOAL = Goal(ratio=0.7)


class Answer(NamedTuple):
    """A whole response; `headers` have lower-case names."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Endpoint:
    """Both endpoints of one process.

    `take` takes a step and answers as the hook protocol does; `read` returns a reading of the protocol's and
    its age in seconds (None: there is none yet). `environ` is looked at anew with every request; `look` tells
    the level under the limit that it gives.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        take: Callable[[str], dict[str, object]],
        read: Callable[[], tuple[dict[str, object], float | None]],
        look: Callable[[int | None], Level] = level.read,
    ) -> None:
        self._environ = environ
        self._look = look
        self._read = read
        self._runs = Runs(take, self._level, self._goal)

    def forked(self) -> None:
        """Begin anew in a forked child."""
        self._runs.forked()

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> Answer | None:
        """Judge a request by its head (`headers` by lower-case names); None lets it pass."""
        if method != _METHODS[path]:
            return _error(405, f"{method} {path}: send {_METHODS[path]}", ("allow", _METHODS[path]))
        access = token.check(headers.get("authorization"), self._environ)
        if access is token.Access.MISSING:
            text = "no token; send Authorization: Bearer with OOMGUARD_TOKEN or the runtime directory's token"
            return _error(401, text, ("www-authenticate", "Bearer"))
        if access is token.Access.WRONG:
            return _error(403, "wrong token")
        length = headers.get("content-length", "")
        return too_large() if length.isdecimal() and int(length[:20]) > MAX_BODY else None

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Answer one request. A cleanup blocks until its steps are taken, unless it joins another one."""
        refusal = self.refusal(method, path, headers)
        if refusal is not None:
            return refusal
        if len(body) > MAX_BODY:
            return too_large()
        try:
            if path == MEMORY:
                return _reply(200, self._memory())
            order = parse(body, self._environ.get("OOMGUARD_TARGET", ""))
            reply = self._runs.order(order, act=self._acts())
        except RefusedError as error:
            return _error(error.status, str(error))
        except Exception as error:  # noqa: BLE001 - the caller is told; the host must not notice
            return failed(error)
        return _reply(202 if reply["outcome"] == Outcome.JOINED.value else 200, reply)

    def late(self, path: str) -> Answer:
        """Answer a caller who has waited for `WAIT` seconds."""
        if path == MEMORY:
            return _error(503, f"no reading within {WAIT:g} s: a callback of a cache hangs")
        return _reply(202, {"outcome": "under_way", "run": self._runs.under_way, "pid": os.getpid()})

    def _memory(self) -> dict[str, object]:
        now = self._level()
        reading, age = self._read()
        return {
            "pid": os.getpid(),
            "target": self._environ.get("OOMGUARD_TARGET") or None,
            "rss": now.rss,
            "used": now.used,
            "used_of": now.origin.value,
            "limit": now.limit,
            "run": self._runs.under_way,
            "reading_age": age,
            **reading,
        }

    def _level(self) -> Level:
        environ = self._environ
        return self._look(parse_limit(environ.get("OOMGUARD_LIMIT"), environ.get("MEMORY_LIMIT_MB")))

    def _acts(self) -> bool:
        given = self._environ.get("OOMGUARD_ACT") or self._environ.get("MEMORY_CLEANUP") or ""
        return given.strip().lower() not in _OFF

    def _goal(self) -> Goal:
        try:
            return parse_goal(self._environ.get("OOMGUARD_GOAL", ""))
        except ValueError:
            return _DEFAULT_GOAL


def too_large() -> Answer:
    """Answer a body that is longer than `MAX_BODY`, however it was sent."""
    return _error(413, f"the body is larger than {MAX_BODY} bytes")


def failed(error: BaseException) -> Answer:
    """Answer when something here went wrong; an Alertmanager tries again."""
    return _error(500, f"{type(error).__name__}: {error}"[:200])


def _error(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    return _reply(status, {"error": text}, *headers)


def _reply(status: int, content: dict[str, object], *headers: tuple[str, str]) -> Answer:
    # Text goes as ASCII escapes, so that a lone surrogate in a cache's name can't spoil it.
    body = json.dumps(content).encode("ascii") + b"\n"
    common = (
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        ("cache-control", "no-store"),
    )
    return Answer(status, (*common, *headers), body)
