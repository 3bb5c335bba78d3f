"""The caches that the application registered: how large they are, and clearing them.

The callbacks are the application's. They may raise, lie, hang or call the guard; a callback that hangs
hangs the hook's own thread and nothing else, and the sidecar then reports this process as stalled.
"""

from __future__ import annotations

import operator

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LARGEST = 1 << 62
_NAME = 100
_TEXT = 200


class Cache:
    """One registered cache."""

    __slots__ = ("clear", "entries", "name", "size")

    def __init__(
        self,
        name: str,
        clear: Callable[[], object],
        size: Callable[[], int] | None,
        entries: Callable[[], int] | None,
    ) -> None:
        self.name = name
        self.clear = clear
        self.size = size
        self.entries = entries


class Caches:
    """All of them, by name. Registering is one store into a dict, so that no lock can be left held."""

    def __init__(self) -> None:
        self._caches: dict[str, Cache] = {}
        self.warnings: list[str] = []
        """What the developer should know, for people; at most a few."""

    def __len__(self) -> int:
        return len(self._caches)

    def register(
        self,
        name: str,
        clear: Callable[[], object],
        size: Callable[[], int] | None,
        entries: Callable[[], int] | None,
    ) -> None:
        """Add a cache, or replace the one of this name, which is noted as a warning.

        Raises TypeError or ValueError for what can only be a slip of the pen.
        """
        if not isinstance(name, str):
            raise TypeError(f"cache name {name!r}: must be text")
        if not name or len(name) > _NAME:
            raise ValueError(f"cache name {name[:_NAME]!r}: must have 1 to {_NAME} characters")
        for what, callback in (("clear", clear), ("size", size), ("entries", entries)):
            if not callable(callback) and (callback is not None or what == "clear"):
                raise TypeError(f"cache {name!r}: {what} must be callable, not {type(callback).__name__}")
        if name in self._caches:
            self._warn(f"cache {name!r} was registered again: the later one counts")
        self._caches[name] = Cache(name, clear, size, entries)

    def names(self) -> list[str]:
        """List the registered names, oldest first."""
        return list(self._caches)

    def reading(self) -> list[dict[str, object]]:
        """Take the `caches` part of a reading; a callback that fails leaves its value out."""
        return [
            {"name": cache.name, "bytes": _ask(cache.size), "entries": _ask(cache.entries)}
            for cache in list(self._caches.values())
        ]

    def clear(self, name: str | None) -> dict[str, object]:
        """Clear one, or all.

        The names stand under `cleared`, texts by name under `failed`, and what the sizes tell under `bytes`.
        """
        cleared: list[str] = []
        failed: dict[str, str] = {}
        freed: int | None = None
        for cache in list(self._caches.values()):
            if name is not None and cache.name != name:
                continue
            before = _ask(cache.size)
            try:
                _call(cache.clear)
            except BaseException as error:  # noqa: BLE001 (SystemExit and GreenletExit too: nothing may end the thread)
                failed[cache.name] = _text(error)
                continue
            cleared.append(cache.name)
            after = _ask(cache.size)
            if before is not None and after is not None:
                freed = (freed or 0) + before - after
        details: dict[str, object] = {"cleared": cleared}
        if failed:
            details["failed"] = failed
        if freed is not None:
            details["bytes"] = freed
        return details

    def _warn(self, text: str) -> None:
        if text not in self.warnings and len(self.warnings) < 20:  # noqa: PLR2004 (a bound, so that it stays small)
            self.warnings.append(text)


def _call(clear: Callable[[], object]) -> None:
    result = clear()
    if hasattr(type(result), "__await__"):
        close = getattr(result, "close", None)
        if close is not None:
            close()  # else Python warns that it was never awaited
        raise TypeError(
            "clear is asynchronous and was not run: the hook has no event loop, pass a plain function"
        )


def _ask(callback: Callable[[], int] | None) -> int | None:
    if callback is None:
        return None
    try:
        value = operator.index(callback())
    except BaseException:  # noqa: BLE001 (as in clear)
        return None
    return value if 0 <= value < _LARGEST else None


def _text(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:_TEXT]
    except BaseException:  # noqa: BLE001 (an exception whose __str__ raises)
        return type(error).__name__[:_TEXT]
