"""Reading and parsing the flat files of a cgroup; missing files are None, not 0."""

from __future__ import annotations

import os
import re
from pathlib import Path

from oomguard.sources.reading import PTRACE_FIX, Absent, Failed, os_reason

_FLAT = re.compile(rb"^(\S+) (\d+)$", re.MULTILINE)

# v1 says LONG_MAX rounded down to a page for "no limit", and page sizes differ; half of it is no
# machine's memory either.
_NO_LIMIT = 1 << 62
_MAX_FILE = 1 << 16


def parse_flat(data: bytes) -> dict[str, int]:
    """memory.stat, memory.events, cpu.stat: a name and a number a line; other lines are passed over."""
    return {name.decode(): int(value) for name, value in _FLAT.findall(data)}


def parse_limit(data: bytes) -> int | None:
    """A limit in bytes; None for ``max`` and for v1's page-rounded LONG_MAX."""
    text = data.strip()
    if text == b"max":
        return None
    value = int(text)
    return None if value >= _NO_LIMIT else value


def content(path: Path) -> bytes | None:
    """A file's bytes; None where there is no such file. Failed where it can't be read."""
    # Bare system calls: a third of the time of Path.read_bytes, for a dozen files a second.
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as error:
        raise Failed(os_reason(error, PTRACE_FIX)) from None
    try:
        return os.read(descriptor, _MAX_FILE)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        os.close(descriptor)


def needed(path: Path) -> bytes:
    """A file's bytes; Absent where there is no such file."""
    data = content(path)
    if data is None:
        raise Absent(f"there is no {path}")
    return data


def flat(path: Path) -> dict[str, int]:
    """The numbers of a flat file; empty where there is no such file."""
    return parse_flat(content(path) or b"")


def number(path: Path) -> int | None:
    """A file of one number; None where there is no such file."""
    data = content(path)
    return None if data is None else int(data)


def limit(path: Path) -> int | None:
    """A file of one limit; None for no limit and where there is no such file (a root has none)."""
    data = content(path)
    return None if data is None else parse_limit(data)
