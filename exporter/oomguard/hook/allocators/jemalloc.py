"""jemalloc, preloaded or linked: mallctl(3) with the names of its manual ("MALLCTL NAMESPACE")."""

from __future__ import annotations

import ctypes
import os

from oomguard.hook.allocators.account import Account

_ALL = 4096
"""MALLCTL_ARENAS_ALL (jemalloc 5 and later): all arenas together."""


class Jemalloc:
    """jemalloc gives dirty pages back by itself after 10 s; a purge does it at once."""

    name = "jemalloc"
    trims = True

    def __init__(self, library: ctypes.CDLL) -> None:
        self._mallctl = library.mallctl
        self._mallctl.argtypes = [
            ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t,
        ]  # fmt: skip
        self._mallctl.restype = ctypes.c_int
        self._page = self._size(b"arenas.page") or os.sysconf("SC_PAGE_SIZE")
        told = self._size(b"stats.allocated") is not None
        self.reason = "" if told else "this jemalloc was built without statistics"

    def account(self) -> Account | None:
        """Ask the statistics, of this moment: 30 to 110 microseconds."""
        epoch = ctypes.c_uint64(1)
        self._mallctl(b"epoch", None, None, ctypes.byref(epoch), ctypes.sizeof(epoch))
        allocated, active = self._size(b"stats.allocated"), self._size(b"stats.active")
        dirty = self._size(b"stats.arenas.%d.pdirty" % _ALL)
        muzzy = self._size(b"stats.arenas.%d.pmuzzy" % _ALL)
        if allocated is None or active is None or dirty is None:
            return None
        unused = (dirty + (muzzy or 0)) * self._page
        return Account(allocated, max(0, active - allocated) + unused, 0, unused)

    def release(self) -> None:
        """Purge the dirty pages of all arenas. Raises OSError (EFAULT, ENOENT before jemalloc 5)."""
        wrong = self._mallctl(b"arena.%d.purge" % _ALL, None, None, None, 0)
        if wrong:
            raise OSError(wrong, f"jemalloc purges nothing: {os.strerror(wrong)}")

    def details(self) -> dict[str, object]:
        """Nothing more is told."""
        return {}

    def _size(self, name: bytes) -> int | None:
        value = ctypes.c_size_t()
        length = ctypes.c_size_t(ctypes.sizeof(value))
        if self._mallctl(name, ctypes.byref(value), ctypes.byref(length), None, 0):
            return None
        return value.value
