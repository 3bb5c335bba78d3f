"""How the hook speaks: through the application's logging where it has set that up, else on stderr, never on stdout.

Nothing is imported to say a line. An application that has not imported logging has no handler either; and in the
hook's own thread an import could wait for a lock that another thread holds for long.
"""

from __future__ import annotations

import os
import sys
from select import POLLOUT

from oomguard.hook import unpatched
from oomguard.hook.gauge import Gauge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    from oomguard.hook.answers import Answers

_LOGGER = "oomguard"
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
"""Those of logging."""
_NAMES = {**_LEVELS, "warn": 30, "critical": 50, "fatal": 50}
_LONGEST = 4000
"""Characters of a line: what is shorter than PIPE_BUF is written at once, or not at all (pipe(7))."""


def tell(level: str, text: str, *, asked: bool = True, ours: bool = False) -> None:
    """Say one line: ``debug``, ``info``, ``warning`` or ``error``. Never raises, never waits for who reads stderr.

    Where nothing handles the logger ``oomguard``, it goes to stderr if it was `asked` for, or is a warning, and the
    environment's LOG_LEVEL does not forbid it. `ours`: called in the hook's thread, which under gevent keeps
    off logging: its locks are greenlets' there.
    """
    try:
        logging = sys.modules.get("logging")
        patched = _patched()
        if logging is not None and not (ours and patched) and _handled(logging):
            logging.getLogger(_LOGGER).log(_LEVELS[level], text)
        elif (asked or level in ("warning", "error")) and _LEVELS[level] >= _least(os.environ):
            _write(f"oomguard: {text}"[:_LONGEST] + "\n", patched=patched)
    except Exception:  # noqa: BLE001, S110 (a handler of the application's, or a stderr that is closed)
        pass


def megabytes(size: float) -> str:
    """A size in MB of 2^20 bytes, as the sidecar's lines have it."""
    return f"{size / (1 << 20):.0f} MB"


def memory_line(text: str, answers: Answers) -> str:
    """``startup: 143 MB resident, 144 MB of 512 MB used (28 %), gc 120/10/1, caches 34 MB``."""
    from oomguard.hook.admin.size import parse_limit  # noqa: PLC0415 (asked for in the application's thread)

    gauge = Gauge()
    try:
        gauge.find()
        resident, (used, limit) = gauge.resident(), gauge.look()
    finally:
        gauge.close()
    environ = answers.core.environ
    own = parse_limit(environ.get("OOMGUARD_LIMIT"), environ.get("MEMORY_LIMIT_MB"))
    limit = min((size for size in (limit, own) if size is not None), default=None)
    parts = []
    if resident is not None:
        parts.append(f"{megabytes(resident)} resident")
    if used is not None and limit:
        parts.append(f"{megabytes(used)} of {megabytes(limit)} used ({100 * used / limit:.0f} %)")
    return f"{text}: " + ", ".join([*parts, *_of_reading(answers.read()[0])])


def _of_reading(reading: Mapping[str, object]) -> list[str]:
    parts = []
    gc = reading.get("gc")
    if isinstance(gc, dict) and "collections" in gc:
        parts.append("gc " + "/".join(map(str, gc["collections"])))
    for name in ("caches", "models"):
        entries = reading.get(name)
        if isinstance(entries, list) and entries:
            parts.append(f"{name} {megabytes(sum(entry.get('bytes') or 0 for entry in entries))}")
    return parts


def _handled(logging: ModuleType) -> bool:
    """Whether a handler would get it; a module that is just being imported has none."""
    return hasattr(logging, "getLogger") and bool(logging.getLogger(_LOGGER).hasHandlers())


def _patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return hasattr(monkey, "is_module_patched") and bool(monkey.is_module_patched("threading"))  # type: ignore[union-attr]  # hasattr says that it is there


def _least(environ: Mapping[str, str]) -> int:
    """The least level that is said; whatever else the application means by LOG_LEVEL is taken as info."""
    given = environ.get("OOMGUARD_LOG_LEVEL") or environ.get("LOG_LEVEL") or ""
    return _NAMES.get(given.strip().lower(), _LEVELS["info"])


def _write(line: str, *, patched: bool) -> None:
    stream, original = sys.stderr, sys.__stderr__
    if stream is None:
        return
    if original is None or (stream is not original and not patched):
        stream.write(line)  # somebody has put another one there: a test, a notebook
        stream.flush()
        return
    # Not through the stream: its lock, held by a daemon thread while the interpreter ends, is a fatal error.
    number = original.fileno()
    poll = unpatched.poll()
    poll.register(number, POLLOUT)
    if poll.poll(0):
        os.write(number, line.encode("utf-8", "backslashreplace"))
