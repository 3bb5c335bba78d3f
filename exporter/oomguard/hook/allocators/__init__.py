"""Who serves malloc in this process, and what that one tells and takes: a file each.

A preloaded allocator brings symbols of its own, and is told by them. Otherwise the file that `malloc` comes
from decides, so that one which is not known here (mimalloc) is never taken for glibc, whose mallinfo2 and
malloc_trim are still there and would speak of an empty heap.
"""

from __future__ import annotations

import ctypes
import os

from oomguard.hook.allocators.glibc import Glibc
from oomguard.hook.allocators.jemalloc import Jemalloc
from oomguard.hook.allocators.tcmalloc import Tcmalloc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from oomguard.hook.allocators.account import Account, Malloc

__all__ = ["find"]


class Untrimmed:
    """A malloc that tells nothing and can't be trimmed: musl's, macOS's, or one that is not known."""

    trims = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.reason = f"{name} has no malloc_trim" if name == "musl" else _ONLY.format(name)

    def account(self) -> Account | None:
        """Nothing is told."""
        return None

    def release(self) -> None:
        """Never called: `trims` is False."""
        raise NotImplementedError(self.reason)

    def details(self) -> dict[str, object]:
        """Nothing is known."""
        return {}


_ONLY = "malloc is {}: only glibc's, jemalloc's and tcmalloc's can be trimmed"
_SERVED_TOGETHER = ("malloc", "calloc", "realloc", "posix_memalign")
"""Whoever serves malloc serves all of these (malloc(3); replacing malloc, in glibc's manual)."""


class _DlInfo(ctypes.Structure):
    """Dl_info (dladdr(3))."""

    _fields_ = [
        ("dli_fname", ctypes.c_char_p),
        ("dli_fbase", ctypes.c_void_p),
        ("dli_sname", ctypes.c_char_p),
        ("dli_saddr", ctypes.c_void_p),
    ]
    dli_fname: bytes | None


def find(library: ctypes.CDLL) -> Malloc:
    """Return the malloc of a process whose global symbols `library` has (`ctypes.CDLL(None)`)."""
    if hasattr(library, "mallctl"):
        return Jemalloc(library)
    if hasattr(library, "MallocExtension_GetNumericProperty") or hasattr(library, "tc_version"):
        return Tcmalloc(library)
    if hasattr(library, "malloc_zone_pressure_relief"):
        return Untrimmed("macos")
    home = _home_of_malloc(library)
    if "musl" in home:
        return Untrimmed("musl")
    if home.startswith(("libc.so", "libc-2")) and hasattr(library, "gnu_get_libc_version"):
        return Glibc(library, os.environ)
    return Untrimmed("unknown")


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
