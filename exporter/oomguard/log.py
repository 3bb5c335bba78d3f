"""Log lines on stderr, as ``key=value`` or JSON; never on stdout, which may carry a protocol."""

from __future__ import annotations

import json
import logging
import select
import sys
import time
from collections.abc import Mapping

LOGGER = logging.getLogger("oomguard")


def setup(level: str, form: str) -> None:
    """Send oomguard's own log to stderr; `level` as in LOG_LEVEL, `form` ``logfmt`` or ``json``."""
    handler = _Stderr(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Logfmt())
    LOGGER.handlers[:] = [handler]
    LOGGER.setLevel(level.upper())
    LOGGER.propagate = False
    logging.raiseExceptions = False  # a closed stderr is no reason to say so on it


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]  # not subscriptable before Python 3.11
    """Drops a line rather than wait: the event loop must tick, whether or not anybody reads our stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line if the other side takes it now."""
        try:
            poll = select.poll()
            poll.register(self.stream.fileno(), select.POLLOUT)
            if not any(events & select.POLLOUT for _, events in poll.poll(0)):
                return
        except (OSError, ValueError):
            pass  # closed, or a stream without a descriptor
        super().emit(record)


def fields(**values: object) -> dict[str, object]:
    """The `extra` of a log call: ``LOGGER.info("cleanup", extra=fields(freed=1))``; None is left out."""
    return {"fields": {key: value for key, value in values.items() if value is not None}}


def timestamp(seconds: float) -> str:
    """A Unix time as every line begins with it: ``2026-01-31T12:00:00.500Z``."""
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{milliseconds:03d}Z"


def _pairs(record: logging.LogRecord) -> dict[str, object]:
    pairs: dict[str, object] = {
        "ts": timestamp(record.created),
        "level": record.levelname.lower(),
        "msg": record.getMessage(),
    }
    extra = getattr(record, "fields", None)
    if isinstance(extra, Mapping):
        pairs.update(extra)
    if record.exc_info and record.exc_info[1] is not None:
        pairs["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
    return pairs


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(_pairs(record), default=str)


class _Logfmt(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return " ".join(f"{key}={quoted(value)}" for key, value in _pairs(record).items())


def quoted(value: object) -> str:
    """A logfmt value: bare where it can be, else in double quotes with control characters escaped."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    if text and all(char.isprintable() and char not in ' "=' for char in text):
        return text
    return json.dumps(text, ensure_ascii=False)
