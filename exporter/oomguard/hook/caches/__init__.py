"""The caches that the application registered: how large they are, and clearing them.

The callbacks are the application's. They may raise, lie, hang or call the guard; a callback that hangs
hangs the hook's own thread and nothing else, and the sidecar then reports this process as stalled.
"""

from __future__ import annotations

import operator

from oomguard.hook.sizes import check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any
    from weakref import WeakValueDictionary

    from oomguard.hook.caches.lru import Lru

_LARGEST = 1 << 62
_TEXT = 200


class Cache:
    """One registered cache; `lru` is set where it is one of the hook's own."""

    __slots__ = ("_told", "_warn", "clear", "entries", "expire", "expired", "lru", "name", "size")

    def __init__(
        self,
        name: str,
        clear: Callable[[], object],
        size: Callable[[], int] | None,
        entries: Callable[[], int] | None,
        expire: Callable[[], object] | None = None,
        lru: Lru[object, object] | None = None,
        *,
        warn: Callable[[str], object],
    ) -> None:
        self.name = name
        self.clear = clear
        self.size = size
        self.entries = entries
        self.expire = expire
        self.lru = lru
        self.expired: int | None = None
        """Entries that `expire` dropped so far; None until that could be known once."""
        self._warn = warn
        self._told: set[str] = set()
        """Callbacks that were warned about: one that is asked every second may raise with another text each time."""

    def ask(self, what: str) -> int | None:
        """What `size` or `entries` says; None where there is none, it fails (a warning), or says what can't be."""
        callback = self.size if what == "size" else self.entries
        if callback is None:
            return None
        try:
            value = operator.index(_call(callback, what))  # type: ignore[arg-type]  # it raises for what is no number
        except BaseException as error:  # noqa: BLE001 (as in clear)
            self._doubt(what, _text(error))
            return None
        if 0 <= value < _LARGEST:
            return value
        self._doubt(
            what, "what it says is no number of bytes" if what == "size" else "what it says is no count"
        )
        return None

    def _doubt(self, what: str, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._warn(f"cache {self.name!r}: {what} is unknown: {text}")

    def drop_expired(self) -> int | None:
        """Call `expire`: the entries it dropped, as it says itself or as `entries` tells; None if neither does.

        Raises what the callback raises.
        """
        if self.expire is None:
            return None
        before = self.ask("entries")
        dropped = _count(_call(self.expire, "expire"))
        if dropped is None and before is not None:
            after = self.ask("entries")
            dropped = None if after is None else max(0, before - after)
        if dropped is not None:
            self.expired = (self.expired or 0) + dropped
        return dropped

    def reading(self) -> dict[str, object]:
        """What the sidecar is told; `expired`, `evictions` and `max_bytes` only where they are known."""
        reading: dict[str, object] = {
            "name": self.name,
            "bytes": self.ask("size"),
            "entries": self.ask("entries"),
        }
        if self.expired is not None:
            reading["expired"] = self.expired
        if self.lru is not None:
            reading["evictions"], reading["max_bytes"] = self.lru.evictions, self.lru.max_bytes
        return reading


class Caches:
    """All of them, by name. Registering is one store into a dict, so that no lock can be left held."""

    def __init__(self) -> None:
        self._caches: dict[str, Cache] = {}
        self.warnings: list[str] = []
        """What the developer should know, for people; at most a few."""
        self._lrus: WeakValueDictionary[int, Lru[object, object]] | None = None
        """Replaced ones too, while the application holds them: their locks must not stay held after a fork."""

    def __len__(self) -> int:
        return len(self._caches)

    def register(
        self,
        name: str,
        clear: Callable[[], object],
        size: Callable[[], int] | None,
        entries: Callable[[], int] | None,
        expire: Callable[[], object] | None = None,
    ) -> None:
        """Add a cache, or replace the one of this name, which is noted as a warning.

        Raises TypeError or ValueError for what can only be a slip of the pen.
        """
        check_name("cache", name)
        for what, callback in (("clear", clear), ("size", size), ("entries", entries), ("expire", expire)):
            if not callable(callback) and (callback is not None or what == "clear"):
                raise TypeError(f"cache {name!r}: {what} must be callable, not {type(callback).__name__}")
        self._put(Cache(name, clear, size, entries, expire, warn=self._warn))

    def add(self, lru: Lru[Any, Any]) -> None:
        """Add one of the hook's own; under pressure it is emptied."""
        from weakref import WeakValueDictionary  # noqa: PLC0415 (only those who have one pay for it)

        if self._lrus is None:
            self._lrus = WeakValueDictionary()
        self._lrus[id(lru)] = lru
        lru.warn = self._warn
        self._put(Cache(lru.name, lru.evict, lru.size, lru.__len__, lru=lru, warn=self._warn))

    def forked(self) -> None:
        """Begin anew in a forked child: counters at zero, locks that nobody holds."""
        for cache in list(self._caches.values()):
            cache.expired = None if cache.expired is None else 0
        for lru in list(self._lrus.values()) if self._lrus is not None else ():
            lru.forked()

    def names(self) -> list[str]:
        """List the registered names, oldest first."""
        return list(self._caches)

    def reading(self) -> list[dict[str, object]]:
        """Take the `caches` part of a reading; a callback that fails leaves its value out."""
        return [cache.reading() for cache in list(self._caches.values())]

    def expire(self) -> int | None:
        """Drop what is too old anyway; how many entries went, None where no cache could tell. Never raises."""
        total: int | None = None
        for cache in list(self._caches.values()):
            try:
                dropped = cache.drop_expired()
            except BaseException as error:  # noqa: BLE001 (as in clear)
                self._warn(f"cache {cache.name!r}: expire raised {_text(error)}")
                continue
            if dropped is not None:
                total = (total or 0) + dropped
        return total

    def clear(self, name: str | None) -> dict[str, object]:
        """Clear one, or all; of each, what has expired is dropped before.

        The names stand under `cleared`, texts by name under `failed`, what the sizes tell under `bytes`, and how
        many entries had expired under `expired`. A cache whose `expire` raises is cleared all the same.
        """
        cleared: list[str] = []
        failed: dict[str, str] = {}
        freed: int | None = None
        expired: int | None = None
        for cache in list(self._caches.values()):
            if name is not None and cache.name != name:
                continue
            before = cache.ask("size")
            try:
                dropped = cache.drop_expired()
                if dropped is not None:
                    expired = (expired or 0) + dropped
            except BaseException as error:  # noqa: BLE001 (as below)
                failed[cache.name] = _text(error)
            try:
                _call(cache.clear, "clear")
            except BaseException as error:  # noqa: BLE001 (SystemExit and GreenletExit too: nothing may end the thread)
                failed[cache.name] = _text(error)
                continue
            cleared.append(cache.name)
            after = cache.ask("size")
            if before is not None and after is not None:
                freed = (freed or 0) + before - after
        details: dict[str, object] = {"cleared": cleared}
        if failed:
            details["failed"] = failed
        if freed is not None:
            details["bytes"] = freed
        if expired is not None:
            details["expired"] = expired
        return details

    def _put(self, cache: Cache) -> None:
        if cache.name in self._caches:
            self._warn(f"cache {cache.name!r} was registered again: the later one counts")
        self._caches[cache.name] = cache

    def _warn(self, text: str) -> None:
        if text not in self.warnings and len(self.warnings) < 20:  # noqa: PLR2004 (a bound, so that it stays small)
            self.warnings.append(text)


def _call(callback: Callable[[], object], what: str) -> object:
    result = callback()
    if hasattr(type(result), "__await__"):
        close = getattr(result, "close", None)
        if close is not None:
            close()  # else Python warns that it was never awaited
        raise TypeError(
            f"{what} is asynchronous and was not run: the hook has no event loop, pass a plain function"
        )
    return result


def _count(value: object) -> int | None:
    """What `expire` returned, if that is a number of entries."""
    if type(value) is int and 0 <= value < _LARGEST:
        return value
    return None


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:_TEXT]
    except BaseException:  # noqa: BLE001 (an exception whose __str__ raises)
        return type(error).__name__[:_TEXT]
