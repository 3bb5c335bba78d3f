"""A mapping that is bounded in bytes: what was not used for longest goes first.

Comparing keys is the application's code, which may take locks of its own or come back to this mapping. So entries
are filed under the number that `hash` gave, outside of the lock; keys are compared outside of it, too, and the result
counts if what was compared is still filed there. The lock can be taken again by the thread that holds it, because
a finalizer or a signal handler may run in any line; values that go are let go of after it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import ItemsView, Iterator, MutableMapping, ValuesView
from typing import Any, TypeVar

from oomguard.hook import unpatched
from oomguard.hook.caches.sizeof import sizeof as estimate
from oomguard.hook.sizes import check_name, format_size, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")

OVERHEAD = 310
"""Bytes that an entry takes besides key and value: 305 by tracemalloc on Python 3.10 to 3.13, of 100,000 of them."""
_NOTHING: Any = object()
_LARGEST = 1 << 62


class _Entry:
    """Compared by identity, which is no code of anybody's."""

    __slots__ = ("hashed", "key", "size", "value")

    def __init__(self, key: Any, value: Any, hashed: int, size: int) -> None:
        self.key = key
        self.value = value
        self.hashed = hashed
        self.size = size


class Lru(MutableMapping[K, V]):
    """Holds at most `max_bytes` (a number, or ``"512MiB"``) and, if given, `max_items`.

    `sizeof` tells the bytes of a value and then alone counts; without it key and value are estimated (`sizeof.py`)
    and what the mapping itself needs is added. A value is measured when it is stored: one that grows later is not
    noticed. A single value larger than `max_bytes` is not kept.

    May be used by any number of threads. `get` and ``[]`` count as use, ``in`` and iterating do not. Under pressure
    it is emptied (`evict`). Raises TypeError or ValueError for a name or a bound that can't be one.
    """

    def __init__(
        self,
        name: str,
        max_bytes: int | str,
        *,
        max_items: int | None = None,
        sizeof: Callable[[V], int] | None = None,
    ) -> None:
        check_name("lru", name)
        if max_items is not None and (type(max_items) is not int or max_items < 1):
            raise ValueError(f"lru {name!r}: max_items must be a number above 0, not {max_items!r}")
        if sizeof is not None and not callable(sizeof):
            raise TypeError(f"lru {name!r}: sizeof must be callable, not {type(sizeof).__name__}")
        self.name = name
        self.max_bytes = parse_size(f"lru {name!r}: max_bytes", max_bytes)
        self.max_items = max_items
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        """Entries that went for want of room; those deleted or replaced are not among them."""
        self.warn: Callable[[str], object] = str
        """Told when `sizeof` fails; the guard sets it."""
        self._sizeof = sizeof
        self._lock = unpatched.allocate_rlock()
        self._bytes = 0
        self._order: OrderedDict[_Entry, None] = OrderedDict()
        self._filed: dict[int, tuple[_Entry, ...]] = {}

    # -- the mapping

    def __getitem__(self, key: K) -> V:
        _, found = self._find(key)
        with self._lock:
            if found is None:
                self.misses += 1
            else:
                self.hits += 1
                try:  # noqa: SIM105 (contextlib's suppress takes as long as all the rest)
                    self._order.move_to_end(found)
                except KeyError:
                    pass  # it went meanwhile; what was found is still an answer
        if found is None:
            raise KeyError(key)
        value: V = found.value
        return value

    def __setitem__(self, key: K, value: V) -> None:
        entry = _Entry(key, value, hash(key), self._measure(key, value))
        gone: list[_Entry] = []
        while True:
            filed, found = self._find(key)
            with self._lock:
                if self._filed.get(entry.hashed, ()) is not filed:
                    continue  # somebody else was quicker: compare again
                if found is not None:
                    self._remove(found)
                if entry.size > self.max_bytes:
                    self.evictions += 1
                    return
                self._order[entry] = None
                self._filed[entry.hashed] = (*self._filed.get(entry.hashed, ()), entry)
                self._bytes += entry.size
                while (self._bytes > self.max_bytes or len(self._order) > (self.max_items or _LARGEST)) and (
                    oldest := self._oldest()
                ):
                    gone.append(oldest)
                self.evictions += len(gone)
            return

    def __delitem__(self, key: K) -> None:
        if self._take(key) is None:
            raise KeyError(key)

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[K]:
        return iter([entry.key for entry in self._entries()])

    def __contains__(self, key: object) -> bool:
        return self._find(key)[1] is not None

    def items(self) -> ItemsView[K, V]:
        """Pairs, the oldest first, as they are when the iteration begins."""
        return _Items(self)

    def values(self) -> ValuesView[V]:
        """Values, as `items`."""
        return _Values(self)

    def pop(self, key: K, default: D = _NOTHING) -> V | D:
        """Remove a key and return its value, else the default; raises KeyError without one."""
        entry = self._take(key)
        if entry is not None:
            value: V = entry.value
            return value
        if default is _NOTHING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[K, V]:
        """Remove what was not used for longest and return it; raises KeyError if there is nothing."""
        with self._lock:
            entry = self._oldest()
        if entry is None:
            raise KeyError(f"lru {self.name!r} is empty")
        return entry.key, entry.value

    def clear(self) -> None:
        """Remove everything."""
        self._empty()

    def __repr__(self) -> str:
        used, most = format_size(self._bytes), format_size(self.max_bytes)
        return f"<Lru {self.name!r}: {len(self)} entries, {used} of {most}>"

    # -- what the guard calls

    def size(self) -> int:
        """Bytes held, as they were counted."""
        return self._bytes

    def evict(self) -> None:
        """Remove everything because memory is short."""
        gone = self._empty()
        with self._lock:
            self.evictions += len(gone)

    def forked(self) -> None:
        """Begin anew in a forked child: a lock of its own, counters at zero; the entries stay, shared."""
        left_off = not self._lock.acquire(blocking=False)
        self._lock = unpatched.allocate_rlock()
        self.hits = self.misses = self.evictions = 0
        if left_off:  # by a thread that did not come along; else nothing is touched that the parent shares
            self._filed = {}
            self._bytes = 0
            for entry in self._order:
                self._filed[entry.hashed] = (*self._filed.get(entry.hashed, ()), entry)
                self._bytes += entry.size

    # -- inside

    def _measure(self, key: K, value: V) -> int:
        if self._sizeof is not None:
            try:
                size = self._sizeof(value)
                if isinstance(size, int) and 0 <= size < _LARGEST:
                    return size
                said = f"returned {size!r}"
            except Exception as error:  # noqa: BLE001 (storing a value must not fail because of its size)
                said = f"raised {type(error).__name__}: {error}"
            self.warn(f"lru {self.name!r}: sizeof {said}: the size is estimated")
        return estimate(key) + estimate(value) + OVERHEAD

    def _find(self, key: object) -> tuple[tuple[_Entry, ...], _Entry | None]:
        """What is filed under the key's hash, and which of these is the key's; never called with the lock held."""
        filed = self._filed.get(hash(key), ())
        for entry in filed:
            if entry.key is key or entry.key == key:
                return filed, entry
        return filed, None

    def _take(self, key: K) -> _Entry | None:
        while True:
            filed, found = self._find(key)
            if found is None:
                return None
            with self._lock:
                if self._filed.get(found.hashed, ()) is filed:
                    self._remove(found)
                    return found

    def _oldest(self) -> _Entry | None:
        """Remove what was not used for longest, in one call into C: a signal handler can't come in between."""
        try:
            entry, _ = self._order.popitem(last=False)
        except KeyError:
            return None
        self._forget(entry)
        return entry

    def _remove(self, entry: _Entry) -> None:
        if self._order.pop(entry, _NOTHING) is not _NOTHING:
            self._forget(entry)

    def _forget(self, entry: _Entry) -> None:
        self._bytes -= entry.size
        left = tuple(other for other in self._filed.get(entry.hashed, ()) if other is not entry)
        if left:
            self._filed[entry.hashed] = left
        else:
            self._filed.pop(entry.hashed, None)

    def _empty(self) -> list[_Entry]:
        with self._lock:
            gone = self._order
            self._order, self._filed, self._bytes = OrderedDict(), {}, 0
        return list(gone)

    def _entries(self) -> list[_Entry]:
        with self._lock:
            return list(self._order)


class _Items(ItemsView[K, V]):
    _mapping: Lru[K, V]

    def __iter__(self) -> Iterator[tuple[K, V]]:
        return iter([(entry.key, entry.value) for entry in self._mapping._entries()])  # noqa: SLF001 (its view)


class _Values(ValuesView[V]):
    _mapping: Lru[Any, V]

    def __iter__(self) -> Iterator[V]:
        return iter([entry.value for entry in self._mapping._entries()])  # noqa: SLF001 (its view)
