"""The lines of the hook protocol, as docs/hook-protocol.md has them; no input or output here."""

from __future__ import annotations

import json

VERSION = 1
MAX_LINE = 65_536
"""Bytes of a line with its newline, either way."""


class MalformedError(ValueError):
    """The other side did not keep to the protocol; the connection ends."""


class RefusedError(ValueError):
    """The sidecar does not speak this version; the hook does not try again."""


def parse(line: bytes, *, first: bool) -> dict[str, object]:
    """Read a question of the sidecar's: a mapping with an `id` (integer or text) and an `ask` (text).

    An `error` instead of a question refuses the hook, but only as the `first` line of a connection.
    Raises MalformedError or RefusedError.
    """
    try:
        question = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"a line that is not JSON: {line[:40]!r}") from error
    if not isinstance(question, dict):
        raise MalformedError(f"a line that is not an object: {line[:40]!r}")
    if "ask" not in question and first and isinstance(question.get("error"), str):
        raise RefusedError(question["error"][:200])
    identity = question.get("id")
    if not isinstance(identity, int | str) or not isinstance(question.get("ask"), str):
        raise MalformedError(f"a question without id or ask: {line[:40]!r}")
    return question


def encode(message: dict[str, object]) -> bytes:
    """One line, newline included; what is too long loses caches or details until it fits.

    Text goes as ASCII escapes, so that a lone surrogate in a name can't spoil it.
    """
    line = _line(message)
    reading = message.get("reading")
    if len(line) > MAX_LINE and isinstance(reading, dict):
        caches = list(reading["caches"])
        total = len(caches)
        while len(line) > MAX_LINE and caches:
            del caches[len(caches) // 2 :]
            short = {**reading, "caches": caches, "caches_omitted": total - len(caches)}
            line = _line({**message, "reading": short})
    step = message.get("step")
    if len(line) > MAX_LINE and isinstance(step, dict):
        line = _line({**message, "step": {**step, "details": {"omitted": "longer than a line may be"}}})
    return line


def _line(message: dict[str, object]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"
