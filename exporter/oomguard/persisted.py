"""What of the alerting survives the sidecar: one JSON file in the runtime directory, replaced whole."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

VERSION: Final = 1
_MOST: Final = 16 << 20


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


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Replace the file at a stroke, so that a reader finds the old or the new; raises OSError."""
    line = json.dumps({"version": VERSION, **state}, separators=(",", ":"))
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        try:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise
