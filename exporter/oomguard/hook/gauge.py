"""How much memory is used here, and of how much: of this process's cgroup, else of the process alone.

Used is what the kernel would kill for. In a cgroup that is its usage less the file cache that can be
reclaimed (cgroup-v2.rst, "memory.stat"; v1: memory.txt, 5.2); without a limit there it is this process's RSS.

The files stay open and are read without giving up the interpreter. `os.pread` and `os.fstat` give it up, and beside
one thread that computes each of them waits 5 ms (sys.getswitchinterval) to have it back: a look took 30 ms that
way, in which a box of 256 MB was full.
"""

from __future__ import annotations

import ctypes
import os
import sys

from oomguard.hook.descriptors import Descriptor, stdio_is_open

_PAGE = os.sysconf("SC_PAGE_SIZE")
_NO_LIMIT = 1 << 60
"""Bytes. cgroup v1 says "no limit" with the largest multiple of a page, 2^63 less one of them."""
_CHUNK = 16_384
"""Bytes. memory.stat has 1.5 kB here, and 3 kB on the latest kernels; struct stat has 144."""


class Version:
    """Where one version of the cgroup interface keeps what."""

    def __init__(self, usage: str, limit: str, cache: tuple[bytes, ...]) -> None:
        self.usage = usage
        self.limit = limit
        self.cache = cache


_V2 = Version("memory.current", "memory.max", (b"active_file", b"inactive_file", b"slab_reclaimable"))
_V1 = Version(
    "memory.usage_in_bytes", "memory.limit_in_bytes", (b"total_active_file", b"total_inactive_file")
)


class Gauge:
    """Keeps the files open that it reads. Used by one thread at a time; a forked child makes another one.

    `find` looks for the cgroup, once or whenever its place may have changed. Nothing here raises.
    """

    def __init__(self, proc: str = "/proc", cgroups: str = "/sys/fs/cgroup") -> None:
        self._proc = proc
        self._cgroups = cgroups
        self._files: dict[str, _File] = {}
        self._place: tuple[str, Version] | None = None
        self._buffer = ctypes.create_string_buffer(_CHUNK)

    @property
    def in_cgroup(self) -> bool:
        """Whether `used` is that of a cgroup with a limit, rather than this process's RSS."""
        return self._place is not None

    def find(self) -> None:
        """Look for the nearest cgroup with a limit (60 microseconds)."""
        self.close()
        try:
            self._place = _place(self._proc, self._cgroups)
        except (OSError, ValueError, IndexError):
            self._place = None

    def close(self) -> None:
        """Close the files, those that are still ours; they are opened again when they are needed."""
        files, self._files = self._files, {}
        for file in files.values():
            file.close()

    def look(self, little: int = 0) -> tuple[int | None, int | None]:
        """Used and limit in bytes; None where they are not known. Without a cgroup that has a limit, used is RSS.

        Where usage is below `little`, the file cache in it is not told apart: that costs half of a look.
        """
        if self._place is None:
            return self.resident(), None
        place, version = self._place
        try:
            used = int(self._read(f"{place}/{version.usage}"))
            limit = _limit(self._read(f"{place}/{version.limit}"))
            if used >= little:
                used = max(0, used - _cache(self._read(f"{place}/memory.stat"), version))
        except (OSError, ValueError):
            return self.resident(), None
        return used, limit

    def resident(self) -> int | None:
        """Bytes resident in this process (proc_pid_statm(5))."""
        try:
            return int(self._read(f"{self._proc}/self/statm").split()[1]) * _PAGE
        except (OSError, ValueError, IndexError):
            return None

    def _read(self, path: str) -> bytes:
        file = self._files.get(path)
        if file is not None:
            content = file.read()
            if content:
                return content
            file.close()
        # The host has closed it. While a number from 0 to 2 is free, the host may be about to open a file that it
        # expects there.
        if not stdio_is_open():
            return _whole(path)
        file = self._files[path] = _File(path, self._buffer)
        return file.read()


class _File:
    """A file of the kernel's that is kept open. Raises OSError where it can't be opened."""

    def __init__(self, path: str, buffer: ctypes.Array[ctypes.c_char]) -> None:
        self._held = Descriptor(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        self._buffer = buffer
        self._identity = self._stat()

    def read(self) -> bytes:
        """Its content now; empty where the number is another's, or the file has gone."""
        number = self._held.number
        if _CALLS is None:
            try:
                return os.pread(number, _CHUNK, 0) if self._held.ours() else b""
            except OSError:
                return b""
        if self._stat() != self._identity:
            return b""
        size = _CALLS.pread(number, self._buffer, _CHUNK, 0)
        return ctypes.string_at(self._buffer, size) if size > 0 else b""

    def _stat(self) -> bytes:
        """st_dev and st_ino, as they lie in memory; empty for a number that is not open."""
        if _CALLS is None or _CALLS.fstat(self._held.number, self._buffer):
            return b""
        return ctypes.string_at(self._buffer, _IDENTITY)

    def close(self) -> None:
        """Close it, if the number is still ours."""
        self._held.close()


def _calls() -> ctypes.PyDLL | None:
    """The C library's fstat and pread, called with the interpreter held: they take a microsecond or two.

    Only where st_dev and st_ino are known to be the first 16 bytes of struct stat: Linux with 64 bits (glibc
    before 2.33 has no fstat to call).
    """
    if sys.platform != "linux" or sys.maxsize < 1 << 32:
        return None
    library = ctypes.PyDLL(None)
    try:
        library.fstat.argtypes = [ctypes.c_int, ctypes.c_void_p]
        library.pread.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long]
        library.pread.restype = ctypes.c_ssize_t
    except AttributeError:
        return None
    return library


_CALLS = _calls()
_IDENTITY = 16


def _place(proc: str, cgroups: str) -> tuple[str, Version] | None:
    """Folder of the nearest cgroup that has a limit; None where none of ours has one. Raises OSError, ValueError."""
    base, path, version = cgroups, "", _V2
    for line in os.fsdecode(_whole(f"{proc}/self/cgroup")).splitlines():
        _, controllers, where = line.split(":", 2)
        if "memory" in controllers.split(","):
            base, path, version = f"{cgroups}/memory", where, _V1
            break
        if not controllers:
            path = where
    parts = path.strip("/").split("/") if path.strip("/") else []
    if ".." in parts or not os.path.isdir("/".join([base, *parts])):  # noqa: PTH112 (pathlib costs 3 ms)
        parts = []  # of a container that sees its own cgroup as the root, and the host's path for it
    while True:
        place = "/".join([base, *parts])
        try:
            if _limit(_whole(f"{place}/{version.limit}")) is not None:
                return place, version
        except FileNotFoundError:
            pass  # a root cgroup, or one without the controller
        if not parts:
            return None
        parts.pop()


def _whole(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123 (as above)
        return file.read()


def _limit(text: bytes) -> int | None:
    text = text.strip()
    return int(text) if text != b"max" and int(text) < _NO_LIMIT else None


def _cache(stat: bytes, version: Version) -> int:
    """Bytes of the file cache (and slab) that can be reclaimed."""
    total = 0
    for line in stat.splitlines():
        name, _, value = line.partition(b" ")
        if name in version.cache:
            total += int(value)
    return total
