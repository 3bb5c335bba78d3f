"""What malloc holds: in use, free, mapped on its own, and what a trim is expected to give back.

Of glibc everything is asked through ctypes, which lets other threads run during the call. mallinfo2 came
with glibc 2.33; the older mallinfo counts in 32-bit integers and is never used (malloc: mallinfo(3)).

Free is not what a trim returns: pages that glibc has already handed back still count as free. Resident
are only those that make the process's anonymous memory larger than what malloc has given out:

    slack    = RSS - shared - uordblks - hblkhd
    retained = min(fordblks, max(0, slack - slack after the last trim))

The slack that no trim removes is the interpreter's own (pymalloc's arenas, stacks, relocated libraries).
Before the first trim the slack at the hook's start stands for it; where a lower one was seen since, that
one does, because what is not malloc's can shrink too.

Of 200 MB on glibc 2.36, predicted and returned, in MB: blocks of 16 KB, one of 50 kept, 196.3 and 195.8;
of 2 KB, one of 50 kept, 197.6 and 189.3; of 2 KB, one of 4 kept, 143.7 and 48.9. So it is an upper bound
where living blocks are strewn about: a page with one of them stays.
"""

from __future__ import annotations

import ctypes
import os
from time import perf_counter, thread_time

from oomguard.hook.statm import Statm

_COSTLY = 0.002
"""Seconds. On fragmented heaps mallinfo2 took 3 to 8 ms with every arena locked in turn; from here on a
step takes the last reading as its 'before'."""

_FIELDS = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


class _Mallinfo2(ctypes.Structure):
    """struct mallinfo2 (mallinfo(3))."""

    _fields_ = [(name, ctypes.c_size_t) for name in _FIELDS]
    hblkhd: int
    uordblks: int
    fordblks: int


class _DlInfo(ctypes.Structure):
    """Dl_info (dladdr(3))."""

    _fields_ = [
        ("dli_fname", ctypes.c_char_p),
        ("dli_fbase", ctypes.c_void_p),
        ("dli_sname", ctypes.c_char_p),
        ("dli_saddr", ctypes.c_void_p),
    ]
    dli_fname: bytes | None


class Allocator:
    """The malloc of this process. Made and asked by one thread at a time."""

    def __init__(self, statm: Statm, library: ctypes.CDLL | None = None) -> None:
        self._statm = statm
        self._library = ctypes.CDLL(None) if library is None else library
        self.name = _name(self._library)
        self._mallinfo2 = getattr(self._library, "mallinfo2", None) if self.name == "glibc" else None
        if self._mallinfo2 is not None:
            self._mallinfo2.argtypes = []
            self._mallinfo2.restype = _Mallinfo2
        self._malloc_trim = getattr(self._library, "malloc_trim", None) if self.name == "glibc" else None
        if self._malloc_trim is not None:
            self._malloc_trim.argtypes = [ctypes.c_size_t]
            self._malloc_trim.restype = ctypes.c_int
        self._baseline: int | None = None
        self._last: tuple[float, int] | None = None
        self._trim_rate: float | None = None

    @property
    def trims(self) -> bool:
        """Whether there is a malloc_trim to call."""
        return self._malloc_trim is not None

    def reading(self) -> dict[str, object]:
        """Take the `allocator` part of a reading; the slack seen on the way may lower the baseline."""
        if self._mallinfo2 is None:
            why = (
                "glibc before 2.33 has no mallinfo2"
                if self.name == "glibc"
                else f"{self.name} has no mallinfo2"
            )
            return {"status": "unsupported", "name": self.name, "reason": why}
        info, seconds = self._info()
        anonymous = self._statm.anonymous()
        retained = None
        if anonymous is not None:
            slack = anonymous - info.uordblks - info.hblkhd
            self._baseline = slack if self._baseline is None else min(self._baseline, slack)
            retained = min(info.fordblks, slack - self._baseline)
        return {
            "status": "ok",
            "name": self.name,
            "in_use": info.uordblks,
            "free": info.fordblks,
            "mmapped": info.hblkhd,
            "retained": retained,
            "seconds": seconds,
        }

    def free_before(self) -> int | None:
        """Free bytes inside malloc, from the last reading where a fresh one would hold the host up."""
        if self._last is not None and self._last[0] > _COSTLY:
            return self._last[1]
        return self.free_now()

    def free_now(self) -> int | None:
        """Free bytes inside malloc (fordblks); None where this libc does not tell."""
        return self._info()[0].fordblks if self._mallinfo2 is not None else None

    def trim_expected(self) -> float:
        """Seconds that a trim may take: as long as the last one for each byte resident, else 0.1 s per GB."""
        resident = self._statm.anonymous() or 0
        return resident * (self._trim_rate if self._trim_rate is not None else 0.1 / 1e9)

    def trim(self) -> tuple[float, int | None]:
        """Give free pages back: the seconds that the call took, and by how much resident memory fell."""
        assert self._malloc_trim is not None
        before = self._statm.anonymous()
        started, cpu = perf_counter(), thread_time()
        self._malloc_trim(0)
        seconds, work = perf_counter() - started, thread_time() - cpu
        after = self._statm.anonymous()
        if before is None or after is None:
            return seconds, None
        # Beside busy threads most of the time may be waiting for the interpreter: that is not what a trim takes.
        self._trim_rate = work / max(before, 1)
        if self._mallinfo2 is not None:
            info, _ = self._info()
            self._baseline = after - info.uordblks - info.hblkhd
        return seconds, before - after

    def _info(self) -> tuple[_Mallinfo2, float]:
        assert self._mallinfo2 is not None
        started = perf_counter()
        info: _Mallinfo2 = self._mallinfo2()
        seconds = perf_counter() - started
        self._last = (seconds, info.fordblks)
        return info, seconds


def _name(library: ctypes.CDLL) -> str:
    """Name who answers a malloc: ``glibc``, ``jemalloc``, ``tcmalloc``, ``musl`` or ``unknown``.

    A preloaded allocator brings symbols of its own. Otherwise the file that `malloc` comes from decides, so
    that one which is not known here (mimalloc) is never taken for glibc, whose mallinfo2 is still there.
    """
    if hasattr(library, "mallctl"):
        return "jemalloc"
    if hasattr(library, "MallocExtension_GetNumericProperty") or hasattr(library, "tc_version"):
        return "tcmalloc"
    home = _home_of_malloc(library)
    if "musl" in home:
        return "musl"
    if home.startswith(("libc.so", "libc-2")) and hasattr(library, "gnu_get_libc_version"):
        return "glibc"
    return "unknown"


_SERVED_TOGETHER = ("malloc", "calloc", "realloc", "posix_memalign")
"""Whoever serves malloc serves all of these (malloc(3); replacing malloc, in glibc's manual)."""


def _home_of_malloc(library: ctypes.CDLL) -> str:
    """File name of the object that serves malloc; of the program itself when nothing else is found.

    In a program that is not position-independent (Debian's python3) the address of a function that it takes
    itself is one of its own, in its procedure linkage table: then the others tell.
    """
    try:
        program = os.path.basename(os.readlink("/proc/self/exe"))  # noqa: PTH115, PTH119 (pathlib costs 3 ms)
    except OSError:
        program = ""
    homes = [_home(library, name) for name in _SERVED_TOGETHER]
    return next((home for home in homes if home not in ("", program)), homes[0])


def _home(library: ctypes.CDLL, name: str) -> str:
    if not hasattr(library, name) or not hasattr(library, "dladdr"):
        return ""
    found = _DlInfo()
    address = ctypes.cast(getattr(library, name), ctypes.c_void_p)
    library.dladdr.argtypes = [ctypes.c_void_p, ctypes.POINTER(_DlInfo)]
    if not library.dladdr(address, ctypes.byref(found)) or not found.dli_fname:
        return ""
    return os.path.basename(os.path.realpath(os.fsdecode(found.dli_fname)))  # noqa: PTH119 (pathlib costs 3 ms)
