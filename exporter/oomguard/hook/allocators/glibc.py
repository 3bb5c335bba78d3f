"""glibc's malloc: mallinfo2(3), malloc_trim(3), malloc_info(3) and mallopt(3).

mallinfo2 came with glibc 2.33; the older mallinfo counts in 32-bit integers and is never used. The number of
arenas only malloc_info tells, as a text. It walks the free lists as mallinfo2 does (15 microseconds on a tidy
heap where that takes 2; 53 ms, as that does, on 16 arenas with half a million free chunks), so it is asked seldom.
"""

from __future__ import annotations

import ctypes
from time import monotonic

from oomguard.hook.allocators.account import Account

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_ARENAS_EVERY = 60.0
"""Seconds between two counts of the arenas: a process gets its arenas once, with its threads."""
_ARENAS_SHARE = 2000
"""And a count that took t is not repeated before 2000·t: 0.05 % of the time."""

_FIELDS = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


class _Mallinfo2(ctypes.Structure):
    """struct mallinfo2 (mallinfo(3))."""

    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]
    hblkhd: int
    uordblks: int
    fordblks: int


class Glibc:
    """The malloc of the GNU C library. `environ` is the one that the process was started with."""

    name = "glibc"

    def __init__(self, library: ctypes.CDLL, environ: Mapping[str, str]) -> None:
        self._mallinfo2 = getattr(library, "mallinfo2", None)
        if self._mallinfo2 is not None:
            self._mallinfo2.argtypes = []
            self._mallinfo2.restype = _Mallinfo2
        self._malloc_trim = getattr(library, "malloc_trim", None)
        if self._malloc_trim is not None:
            self._malloc_trim.argtypes = [ctypes.c_size_t]
            self._malloc_trim.restype = ctypes.c_int
        self.trims = self._malloc_trim is not None
        self.reason = "glibc before 2.33 has no mallinfo2" if self._mallinfo2 is None else ""
        self._info = _Info(library)
        self._arenas: int | None = None
        self._count_at = 0.0
        self._set = {
            "arena_max": _setting(environ, "MALLOC_ARENA_MAX", "glibc.malloc.arena_max"),
            "trim_threshold": _setting(environ, "MALLOC_TRIM_THRESHOLD_", "glibc.malloc.trim_threshold"),
        }

    def account(self) -> Account | None:
        """Ask mallinfo2. Of what is free only pages without a living block can be given back: nobody knows how many."""
        if self._mallinfo2 is None:
            return None
        info: _Mallinfo2 = self._mallinfo2()
        return Account(info.uordblks, info.fordblks, info.hblkhd, info.fordblks)

    def release(self) -> None:
        """Call malloc_trim(0): whole free pages of all arenas."""
        assert self._malloc_trim is not None
        self._malloc_trim(0)

    def details(self) -> dict[str, object]:
        """`arenas`, and what the environment sets: null where it does not (then glibc's own, which adapts)."""
        now = monotonic()
        if now >= self._count_at:
            self._arenas = self._info.arenas()
            self._count_at = now + max(_ARENAS_EVERY, _ARENAS_SHARE * (monotonic() - now))
        return {"arenas": self._arenas, **self._set}


class _Info:
    """malloc_info(3), written to memory (open_memstream(3))."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        try:
            library.open_memstream.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
            library.open_memstream.restype = ctypes.c_void_p
            library.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
            library.fclose.argtypes = library.free.argtypes = [ctypes.c_void_p]
            library.free.restype = None
            self._there = True
        except AttributeError:
            self._there = False

    def arenas(self) -> int | None:
        """Count the arenas; None where that can't be told."""
        if not self._there:
            return None
        text, size = ctypes.c_void_p(), ctypes.c_size_t()
        stream = self._library.open_memstream(ctypes.byref(text), ctypes.byref(size))
        if not stream:
            return None
        wrong = self._library.malloc_info(0, stream)
        if self._library.fclose(stream) or wrong or not text.value:
            self._library.free(text)
            return None
        try:
            return ctypes.string_at(text.value, size.value).count(b"<heap nr=")
        finally:
            self._library.free(text)


def _setting(environ: Mapping[str, str], name: str, tunable: str) -> int | None:
    """Value of a variable, or of the tunable that means the same (glibc's manual, "Memory Allocation Tunables")."""
    text = environ.get(name, "")
    for pair in environ.get("GLIBC_TUNABLES", "").split(":"):
        key, _, value = pair.partition("=")
        if key == tunable:
            text = value  # read last, it wins
    try:
        return int(text, 0)
    except ValueError:
        return None
