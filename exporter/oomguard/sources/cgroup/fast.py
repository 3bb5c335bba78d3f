"""The fast lane's reader: usage and reclaimable memory through kept-open descriptors."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_MAX_STAT = 1 << 14


class FastMemory:
    """Usage of one cgroup, read in a few microseconds (`pread`; opening alone costs more than reading).

    `path` is the directory; it equals `CgroupMemory.path` until the limiting cgroup changes, and
    then a new reader must be opened and this one closed. The constructor raises OSError.
    """

    def __init__(
        self, directory: Path, usage: str, reclaimable: tuple[bytes, ...], inactive_file: bytes
    ) -> None:
        self.path = str(directory)
        self._reclaimable = tuple(_needle(name) for name in reclaimable if name != inactive_file)
        self._inactive_file = _needle(inactive_file)
        self._usage = self._stat = -1
        try:
            self._usage = os.open(directory / usage, os.O_RDONLY | os.O_CLOEXEC)
            self._stat = os.open(directory / "memory.stat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self.close()
            raise

    def read(self) -> tuple[int, int, int]:
        """Usage, what the kernel can reclaim of it (file cache, v2: and slab), inactive file; bytes.

        OSError once the cgroup is gone (ENODEV) or the reader is closed (EBADF).
        """
        # The statistics first: memory that comes in between then counts as used, not as cache.
        data = os.pread(self._stat, _MAX_STAT, 0)
        usage = int(os.pread(self._usage, 32, 0))
        inactive = _number(data, self._inactive_file)
        return usage, inactive + sum([_number(data, name) for name in self._reclaimable]), inactive

    def close(self) -> None:
        """Close the descriptors; more than once is allowed."""
        for descriptor in (self._usage, self._stat):
            if descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        self._usage = self._stat = -1


def _needle(name: bytes) -> bytes:
    return b"\n" + name + b" "


def _number(data: bytes, needle: bytes) -> int:
    """The number after a name at a line's start (the first line, cache or anon, is never asked for).

    0 for a line that this kernel lacks: what it does not count is not taken for reclaimable.
    """
    at = data.find(needle)
    if at < 0:
        return 0
    at += len(needle)
    return int(data[at : data.find(b"\n", at)])
