"""Large files on a real disk that are not in the page cache yet."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def large_file(size: int) -> Iterator[Path]:
    """A file of `size` bytes, on the disk and nowhere else; removed on exit.

    In /var/tmp, since /tmp may be memory itself. Pages that anybody left in the cache are charged to them and
    not to the box that reads the file later: `drop_from_cache` before each use.
    """
    with tempfile.NamedTemporaryFile(dir="/var/tmp", prefix="oomguard-test-") as file:
        block = os.urandom(1 << 20)
        for _ in range(size >> 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        path = Path(file.name)
        drop_from_cache(path)
        yield path


def drop_from_cache(path: Path) -> None:
    """Let go of a file's pages (posix_fadvise(2)); it must have been synced."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
