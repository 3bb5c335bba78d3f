"""One model: loaded at its first use, once, however many ask; unloaded only while nobody uses it.

A use is what lies between entering and leaving a `with`. The lock is held for a few instructions, never while
anything of the application's runs. Whoever has to wait, for a load under way or an unload, looks again every few
milliseconds: that serves threads, greenlets (whose `time.sleep` is gevent's) and tasks alike, can be interrupted
and cancelled at any moment, and nothing is left behind in a forked child.
"""

from __future__ import annotations

import _thread
import time
from time import monotonic, perf_counter

from oomguard.hook import unpatched
from oomguard.hook.models.errors import ModelUnavailable, copy_of, text_of
from oomguard.hook.models.turn import HANGS, Turn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from oomguard.hook.models.place import Place

_USE, _LOAD, _WAIT, _REFUSED = object(), object(), object(), object()
BUSY = "busy"
UNLOADED, LOADING, LOADED, UNLOADING, FAILED = "unloaded", "loading", "loaded", "unloading", "failed"
_FIRST_BACKOFF, _LAST_BACKOFF = 1.0, 60.0
"""Seconds in which a model whose load failed is not tried again; they double each time."""
_LOOK = 0.001
"""Seconds between two looks whether a model is still in use."""


class Model:
    """What `guard.model` returns: ``with model as value``, or ``async with``; any number may do so at once.

    Entering raises what `load` raised, to all who waited for it. For the next 1 s (then 2, 4, … 60) it raises
    `ModelUnavailable`, as it does while `enabled` is false. Where there is a `fallback` its value is given
    instead of all these, by calling it, each time, in the caller's thread.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], object],
        place: Place,
        *,
        idle_timeout: float | None,
        enabled: bool,
        fallback: Callable[[], object] | None,
        min_residency: float,
        loaded: Callable[[], object],
        warn: Callable[[str], object],
    ) -> None:
        self.name = name
        self.load = load
        self.place = place
        self.idle_timeout = idle_timeout
        self.enabled = enabled
        self.min_residency = min_residency
        self.fallback = fallback
        self._when_loaded = loaded
        self._warn = warn
        self._lock = unpatched.allocate_rlock()
        """May be taken again by a finalizer, or a signal's handler, of the thread that has it."""
        self._state = UNLOADED
        self._value: object = None
        self._turn: Turn | None = None
        self._in_use: dict[int, int] = {}
        """By thread: in a forked child only the uses of the thread that forked go on."""
        self._bytes: int | None = None
        self._load_seconds: float | None = None
        self._loaded_at = self._last_used = monotonic()
        self._retry_at = 0.0
        self._backoff = _FIRST_BACKOFF
        self._error = ""
        self.last_returned: int | None = None
        """Bytes that the last unload gave back."""
        self._zero()

    def _zero(self) -> None:
        self._uses = self._loads = self._failures = self._unloads = self._busy = self._returned = 0

    def __repr__(self) -> str:
        return f"<model {self.name!r}, {self._state}>"

    # -- what the application does

    @property
    def state(self) -> str:
        """``unloaded``, ``loading``, ``loaded``, ``unloading`` or ``failed``."""
        return self._state

    def __enter__(self) -> Any:
        try:
            while True:
                what, thing = self._claim()
                if what is _USE:
                    return thing
                error = (
                    thing if what is _REFUSED else self._load(thing) if what is _LOAD else self._wait(thing)
                )
                try:
                    if error is not None:
                        return self._instead(error)
                finally:
                    del thing, error  # a traceback holds this frame, which must not hold the error in turn
        except BaseException:
            self._give_up()
            raise

    def __exit__(self, *_: object) -> None:
        self._leave()

    async def __aenter__(self) -> Any:
        from asyncio import sleep  # noqa: PLC0415 (whoever comes here has it already)

        try:
            while True:
                what, thing = self._claim()
                if what is _USE:
                    return thing
                if what is _REFUSED:
                    return self._instead(thing)
                if what is _LOAD:
                    self._load_aside(thing)
                for seconds in thing.looks():
                    await sleep(seconds)
                error = self._outcome(thing)
                try:
                    if error is not None:
                        return self._instead(error)
                finally:
                    del thing, error
        except BaseException:
            self._give_up()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    # -- entering and leaving

    def _claim(self) -> tuple[object, Any]:
        """Begin a use, or say what has to be done before: load, wait for a turn, or do without (an error)."""
        thread = unpatched.get_ident()
        with self._lock:
            if self._state == LOADED and not self.place.lost:
                self._count(thread)
                return _USE, self._value
            if self._turn is not None:
                return _WAIT, self._turn
            refused = self._refusal()
            if refused:
                return _REFUSED, ModelUnavailable(refused)
            self._turn = Turn(unloads=False)
            self._state = LOADING
            return _LOAD, self._turn

    def _refusal(self) -> str:
        if not self.enabled:
            return f"model {self.name!r} is switched off here (enabled=False), and it has no fallback"
        left = self._retry_at - monotonic()
        if self._state != FAILED or left <= 0:
            return ""
        return (
            f"model {self.name!r} failed to load and is tried again in {left:.1f} s; it raised {self._error}"
        )

    def _give_up(self) -> None:
        """Take back a claim to load that was interrupted before it began: others would wait for ever."""
        with self._lock:
            turn = self._turn
            if turn is not None and turn.mine() and not turn.begun:
                self._end(turn, UNLOADED)

    def _instead(self, error: BaseException) -> object:
        fallback = self.fallback
        if fallback is None:
            raise error
        value = fallback()
        thread = unpatched.get_ident()
        with self._lock:
            self._count(thread)  # so that leaving need not know what was entered
        return value

    def _count(self, thread: int) -> None:
        self._uses += 1
        self._in_use[thread] = self._in_use.get(thread, 0) + 1

    def _leave(self) -> None:
        thread = unpatched.get_ident()
        with self._lock:
            if thread not in self._in_use:  # a generator that another thread closes
                thread = next(iter(self._in_use), thread)
            left = self._in_use.pop(thread, 0) - 1
            if left > 0:
                self._in_use[thread] = left
            self._last_used = monotonic()

    # -- waiting for somebody else's turn

    def _wait(self, turn: Turn) -> BaseException | None:
        if turn.mine():
            return ModelUnavailable(f"model {self.name!r} is asked for by its own load or unload")
        for seconds in turn.looks():
            time.sleep(seconds)
        return self._outcome(turn)

    def _outcome(self, turn: Turn) -> BaseException | None:
        if turn.done:
            return None if turn.error is None else copy_of(turn.error, turn.raised_at)
        return ModelUnavailable(
            f"model {self.name!r} is being unloaded since {HANGS:.0f} s: its unload hangs"
        )

    # -- loading

    def _load(self, turn: Turn, *, aside: bool = False) -> Exception | None:
        """Load, and return what `load` raised.

        What is no Exception (Ctrl-C, a greenlet's end) is passed on, and others may try; in a thread of its own
        (`aside`) there is nobody to pass it on to, and it is a failure as well.
        """
        started = perf_counter()
        try:
            turn.begun = True
            value, gained = self.place.load()
        except Exception as error:  # noqa: BLE001 (the application's own: whoever waits gets it)
            self._failed(turn, error)
            del turn  # as in __enter__
            return error
        except BaseException as error:
            if not aside:
                with self._lock:
                    self._end(turn, UNLOADED)
                raise
            self._failed(turn, ModelUnavailable(f"model {self.name!r}: its load ended with {text_of(error)}"))
            return None
        seconds = perf_counter() - started
        with self._lock:
            if self._turn is turn:  # else this is a child that was forked meanwhile
                self._value = value
                self._bytes, self._load_seconds = gained, seconds
                self._loaded_at = self._last_used = monotonic()
                self._loads += 1
                self._backoff = _FIRST_BACKOFF
            self._end(turn, LOADED)
        self._when_loaded()
        return None

    def _load_aside(self, turn: Turn) -> None:
        """Load in a thread of its own, in the caller's context.

        Its signals are not blocked, since a process that it starts would inherit that.
        """
        import threading  # noqa: PLC0415 (whoever comes here has it already)
        from contextvars import copy_context  # noqa: PLC0415 (as above)

        turn.begun = True
        turn.by = 0  # not this thread's: it may wait

        def run() -> None:
            turn.by = _thread.get_ident()
            self._load(turn, aside=True)

        try:
            threading.Thread(
                target=copy_context().run, args=(run,), daemon=True, name="oomguard-load"
            ).start()
        except RuntimeError as error:  # the process ends, or may have no more threads
            self._failed(turn, error)

    def _failed(self, turn: Turn, error: Exception) -> None:
        text = text_of(error)
        with self._lock:
            first = self._backoff == _FIRST_BACKOFF
            if self._turn is turn:
                self._error = text
                self._failures += 1
                self._retry_at = monotonic() + self._backoff
                self._backoff = min(self._backoff * 2, _LAST_BACKOFF)
                turn.error, turn.raised_at = error, error.__traceback__
            self._end(turn, FAILED)
        if first:  # since its last success: the texts may all differ
            self._warn(f"model {self.name!r} failed to load: {text}")

    def _end(self, turn: Turn, state: str) -> None:
        if self._turn is turn:
            self._turn = None
            self._state = state
        turn.done = True

    # -- what the hook does

    def idle(self, now: float) -> float | None:
        """Seconds since its last use ended; None where it is not loaded, or in use."""
        with self._lock:
            return max(0.0, now - self._last_used) if self._state == LOADED and not self._in_use else None

    def fresh(self, now: float) -> float:
        """Seconds for which it is still to stay, since it was loaded only just now; 0 or less: none."""
        return self._loaded_at + self.min_residency - now

    @property
    def size(self) -> int | None:
        """Bytes gained at its load, while it is loaded."""
        return self._bytes if self._state == LOADED else None

    def unload(self, patience: float) -> str:
        """Unload it, in the hook's thread, with `work` held; what became of it: its state, or ``busy``.

        One in use is waited for, `patience` seconds at most. Never raises.
        """
        deadline = monotonic() + patience
        while True:
            with self._lock:
                if self._state != LOADED:
                    return self._state
                if not self._in_use and not self.place.busy:
                    turn = self._turn = Turn(unloads=True)
                    self._state = UNLOADING
                    held, self._value = [self._value], None
                    break
                if monotonic() >= deadline:
                    self._busy += 1
                    return BUSY
            unpatched.sleep(_LOOK)
        try:
            returned = self.place.unload(held)
        finally:
            with self._lock:
                self._end(turn, UNLOADED)
        with self._lock:
            self._bytes = None
            self._unloads += 1
            self.last_returned = returned
            self._returned += returned or 0
        return UNLOADED

    def reading(self, now: float) -> dict[str, object]:
        """As docs/hook-protocol.md has it."""
        with self._lock:
            if self._state == LOADED and not self._in_use:
                self.place.check()
                if self.place.lost:
                    self._state, self._value, self._bytes = UNLOADED, None, None
            return {
                "name": self.name,
                "state": self._state,
                "bytes": self._bytes,
                "load_seconds": self._load_seconds,
                "idle": self.idle(now),
                "uses": self._uses,
                "in_use": sum(self._in_use.values()),
                "loads": self._loads,
                "failures": self._failures,
                "unloads": self._unloads,
                "busy": self._busy,
                "returned": self._returned,
                "isolated": self.place.isolated,
                "pid": self.place.pid,
                "enabled": self.enabled,
            }

    def forked(self) -> None:
        """Begin anew in a forked child: what was loaded stays, what was under way never was."""
        self._lock = unpatched.allocate_rlock()
        came_along = self.place.forked()
        if self._state != LOADED or not came_along:
            self._state, self._value, self._bytes = UNLOADED, None, None
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.done = True  # greenlets of this thread may wait for it
        thread = unpatched.get_ident()
        self._in_use = {key: count for key, count in self._in_use.items() if key == thread}
        self._zero()
