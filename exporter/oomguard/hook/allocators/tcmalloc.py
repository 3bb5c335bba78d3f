"""gperftools' tcmalloc, preloaded or linked: malloc_extension_c.h, with the properties of malloc_extension.h."""

from __future__ import annotations

import ctypes

from oomguard.hook.allocators.account import Account


class Tcmalloc:
    """tcmalloc keeps what is freed; its ReleaseFreeMemory gives the free spans of its page heap back.

    What lies free in its threads' caches (32 MB at most, as it is set by default) stays.
    """

    name = "tcmalloc"

    def __init__(self, library: ctypes.CDLL) -> None:
        self._property = getattr(library, "MallocExtension_GetNumericProperty", None)
        if self._property is not None:
            self._property.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
            self._property.restype = ctypes.c_int
        self._release = getattr(library, "MallocExtension_ReleaseFreeMemory", None)
        if self._release is not None:
            self._release.argtypes = []
            self._release.restype = None
        self.trims = self._release is not None
        there = self.trims and self._property is not None
        self.reason = "" if there else "this tcmalloc has no MallocExtension to ask or to trim with"

    def account(self) -> Account | None:
        """Ask the properties: 60 to 200 microseconds."""
        allocated = self._size(b"generic.current_allocated_bytes")
        heap = self._size(b"generic.heap_size")
        spans = self._size(b"tcmalloc.pageheap_free_bytes")
        unmapped = self._size(b"tcmalloc.pageheap_unmapped_bytes")
        if allocated is None or heap is None or spans is None or unmapped is None:
            return None
        # Some versions count what is unmapped as a part of the heap, others do not: free is at least the spans.
        return Account(allocated, max(spans, heap - unmapped - allocated), 0, spans)

    def release(self) -> None:
        """Give free spans back."""
        assert self._release is not None
        self._release()

    def details(self) -> dict[str, object]:
        """Nothing more is told."""
        return {}

    def _size(self, name: bytes) -> int | None:
        if self._property is None:
            return None
        value = ctypes.c_size_t()
        return value.value if self._property(name, ctypes.byref(value)) else None
