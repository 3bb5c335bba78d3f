"""The lines of the hook protocol, as docs/hook-protocol.md has them; no input or output here."""

from __future__ import annotations

import json

VERSION = 1
MAX_LINE = 65_536
"""Bytes of a line with its newline, either way."""
_MOST_BRACKETS = 64
"""In a thread with a stack of 1 MB json.loads of 9,000 nested lists ends CPython 3.13.0 with a segmentation fault."""


class MalformedError(ValueError):
    """The other side did not keep to the protocol; the connection ends."""


class RefusedError(ValueError):
    """The sidecar does not speak this version; the hook does not try again."""


def parse(line: bytes, *, first: bool) -> dict[str, object]:
    """Read a question of the sidecar's: a mapping with an `id` (integer or text) and an `ask` (text).

    An `error` instead of a question refuses the hook, but only as the `first` line of a connection.
    Raises MalformedError or RefusedError.
    """
    if line.count(b"[") + line.count(b"{") > _MOST_BRACKETS:
        raise MalformedError("a line with more lists and objects than a question has")
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
    """One line, newline included; what is too long loses list entries or details until it fits.

    Text goes as ASCII escapes, so that a lone surrogate in a name can't spoil it.
    """
    line = _line(message)
    reading = message.get("reading")
    if len(line) > MAX_LINE and isinstance(reading, dict):
        line = _shortened(message, reading)
    step = message.get("step")
    if len(line) > MAX_LINE and isinstance(step, dict):
        line = _line({**message, "step": {**step, "details": {"omitted": "longer than a line may be"}}})
    return line


def _shortened(message: dict[str, object], reading: dict[str, object]) -> bytes:
    """Halve the longest list again and again; ``NAME_omitted`` says how many entries went."""
    lists = {name: list(value) for name, value in reading.items() if isinstance(value, list)}
    omitted: dict[str, object] = {}
    line = _line(message)
    while len(line) > MAX_LINE and any(lists.values()):
        name = max(lists, key=lambda name: len(_line({"": lists[name]})))
        del lists[name][len(lists[name]) // 2 :]
        whole, before = reading[name], reading.get(f"{name}_omitted", 0)
        assert isinstance(whole, list)
        assert isinstance(before, int)
        omitted[f"{name}_omitted"] = before + len(whole) - len(lists[name])
        line = _line({**message, "reading": {**reading, **lists, **omitted}})
    return line


def _line(message: dict[str, object]) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode("ascii") + b"\n"
