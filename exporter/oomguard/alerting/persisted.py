"""What of the alerting survives the sidecar: one JSON file in the runtime directory, replaced whole."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

VERSION: Final = 1
_MOST: Final = 16 << 20
_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def read(path: Path | None) -> dict[str, Any]:
    """What `write` wrote last; empty where there is nothing, or nothing that this version can read."""
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            told = json.loads(file.read(_MOST))
    except (OSError, ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) and told.get("version") == VERSION else {}


def written_at(path: Path | None) -> int:
    """Unix milliseconds of the last `write` or `touch`; 0 where there was none."""
    try:
        return path.stat().st_mtime_ns // 1_000_000 if path is not None else 0
    except OSError:
        return 0


def touch(path: Path) -> None:
    """Say that what the file holds is still so."""
    with contextlib.suppress(OSError):
        os.utime(path)


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Replace the file at a stroke, so that a reader finds the old or the new; raises OSError."""
    line = json.dumps({"version": VERSION, **state}, separators=(",", ":"))
    # One name for what is half written: a sidecar that is killed over it leaves no heap of them.
    new = path.with_name(f".{path.name}.new")
    try:
        with open(os.open(new, _FLAGS, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 - a mode, from the first byte
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
