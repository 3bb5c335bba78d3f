"""What stays open: event streams, websockets, and what the application names itself (`Guard.stream`).

An event of a stream stores a time in it and no more; only the step `streams` looks at all of them. A stream that
runs in an asyncio task is closed by cancelling that task, in the task's own loop; another one is marked, and
whoever serves it sees the mark at its next event.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from time import monotonic

from oomguard.hook import unpatched
from oomguard.hook.parts import Core, Stopwatch, answer
from oomguard.hook.web.histogram import Histogram

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Literal

    Reason = Literal["client", "server", "evicted", "error"]

_REASONS = ("client", "server", "evicted", "error")
_BOUNDS = (1, 5, 15, 60, 300, 900, 3600, 14_400)
"""Seconds that a stream was open."""
IDLE = 5.0
"""Seconds without an event after which a stream counts as idle."""
_WAIT = 1.0
"""Seconds that the step waits for the streams to be closed."""
_PAUSE = 0.005
_MOST = 1_000_000
_log = logging.getLogger("oomguard.streams")


class Stream:
    """One that is open. `active` is the time of its last event, `ending` why we end it (else None)."""

    __slots__ = ("_streams", "active", "connection", "ending", "name", "number", "opened", "task")

    def __init__(
        self,
        streams: Streams,
        name: str,
        task: asyncio.Task[object] | None = None,
        connection: object = None,
    ) -> None:
        self._streams = streams
        self.name = name
        self.task = task
        """The one to cancel; None: it is served without an event loop, or is closed."""
        self.connection = connection
        """What tells whether the client is there (see web.connection); None where nothing does."""
        self.number = 0
        self.opened = self.active = 0.0
        self.ending: Reason | None = None

    def touch(self) -> None:
        """Note an event."""
        self.active = monotonic()

    def close(self, reason: Reason) -> None:
        """Note that it is closed; the first time counts. Why we ended it goes before `reason`."""
        self._streams.closed(self, self.ending or reason)

    def cancel(self, why: Reason) -> None:
        """End it, in its loop; one that is closed or ends already is left alone."""
        if self.task is not None and self.ending is None:
            self.ending = why
            self.task.cancel()

    def absorbs(self, error: BaseException) -> bool:
        """Whether an exception is what `cancel` caused, and nobody else cancelled as well: it ends here."""
        if self.ending is None or type(error).__name__ != "CancelledError":
            return False
        here = current_task()
        if self.task is not here:
            # Cancelled was a task of the application's that sends; this one, which waits for it, was not (Python 3.11).
            cancelling = getattr(here, "cancelling", None)
            return cancelling is None or not cancelling()
        uncancel = getattr(self.task, "uncancel", None)  # Python 3.11; it tells how many others there are
        return uncancel is None or not uncancel()


class Held:
    """A stream of the application's own: open inside `with` or `async with`, idle since then or since `touch()`.

    Inside an asyncio task the step `streams` cancels what runs in the block, and the task goes on behind it.
    Elsewhere it sets `evicted`, and the block is asked to leave.
    """

    def __init__(self, streams: Streams, name: str) -> None:
        self._streams = streams
        self._name = name
        self._stream: Stream | None = None
        self._inside = False

    @property
    def evicted(self) -> bool:
        """Whether this stream is to be closed."""
        return self._stream is not None and self._stream.ending is not None

    def touch(self) -> None:
        """Say that it is in use: it is idle since now."""
        if self._stream is not None:
            self._stream.touch()

    def __enter__(self) -> Held:  # noqa: PYI034 (Self is typing's from 3.11 on)
        if self._inside:
            raise RuntimeError(f"stream {self._name!r}: is open already, make another one for each block")
        self._inside = True
        self._stream = Stream(self._streams, self._name, current_task())
        self._streams.open(self._stream, "")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        stream = self._stream
        if stream is None:
            return False
        self._inside = False
        absorbed = error is not None and stream.absorbs(error)
        stream.close(reason_of(error))
        return absorbed

    async def __aenter__(self) -> Held:  # noqa: PYI034 (as above)
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        return self.__exit__(kind, error, trace)


class Streams:
    """All of them. `limit` (None: none) is for the mounts: a stream above it is refused."""

    def __init__(self, core: Core) -> None:
        self.warn = core.warn
        """Notes what the developer should know."""
        self.limit: int | None = None
        given = core.environ.get("MAX_SSE_CONNECTIONS")
        if given:
            try:
                self.limit_to(int(given))
            except ValueError:
                core.warn(
                    f"MAX_SSE_CONNECTIONS={given[:20]!r}: must be a whole number above 0; there is no limit"
                )
        self._count = 0
        self._durations = Histogram(_BOUNDS)
        self.forked()

    def forked(self) -> None:
        """Begin anew in a forked child: the parent's streams are the parent's."""
        self._lock = unpatched.allocate_rlock()
        """Can be taken again: a collection may end a generator that holds a stream, wherever it comes."""
        self._open: dict[int, Stream] = {}
        """By number, so in the order in which they were opened."""
        self._opened = 0
        self._closed: dict[str, int] = dict.fromkeys(_REASONS, 0)
        self._rejected = 0
        self._durations.forked()

    def limit_to(self, most: int) -> None:
        """Let no more than this be open at once, in this process.

        Raises TypeError for what is no whole number, ValueError for one below 1.
        """
        if not isinstance(most, int) or isinstance(most, bool):
            raise TypeError(f"max_streams {most!r}: must be a whole number")
        if not 0 < most <= _MOST:
            raise ValueError(f"max_streams {most}: must be 1 to {_MOST}")
        self.limit = most

    def stream(self, name: str) -> Held:
        """Make a stream of the application's own, which is never refused.

        Raises TypeError for a name that is not text, ValueError for one that is empty or above 100 characters.
        """
        if not isinstance(name, str):
            raise TypeError(f"stream name {name!r}: must be text")
        if not name or len(name) > 100:  # noqa: PLR2004 (as for every name)
            raise ValueError(f"stream name {name[:100]!r}: must have 1 to 100 characters")
        return Held(self, name)

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    def full(self) -> bool:
        """Whether one more would be too many."""
        limit = self.limit
        return limit is not None and len(self._open) >= limit

    def open(self, stream: Stream, about: str, *, bounded: bool = False) -> bool:
        """Note a stream as open, and log it; False, and it is counted as rejected, where `bounded` and full."""
        with self._lock:
            if bounded and self.full():
                self._rejected += 1
                return False
            stream.number = self._count = self._count + 1
            self._opened += 1
            stream.opened = stream.active = monotonic()
            self._open[stream.number] = stream
        if _log.isEnabledFor(logging.INFO):
            _log.info("stream %s-%s opened: %s %s", os.getpid(), stream.number, stream.name, about)
        return True

    def closed(self, stream: Stream, reason: Reason) -> None:
        """Note one as closed; one that is not open is left alone."""
        with self._lock:
            if self._open.pop(stream.number, None) is None:
                return
            self._closed[reason] += 1
            stream.task = stream.connection = None
        lasted = monotonic() - stream.opened
        self._durations.observe(lasted)
        if _log.isEnabledFor(logging.INFO):
            _log.info(
                "stream %s-%s closed: %s after %.1f s (%s)",
                os.getpid(),
                stream.number,
                stream.name,
                lasted,
                reason,
            )

    def current(self) -> list[Stream]:
        """Those that are open, oldest first."""
        with self._lock:
            return list(self._open.values())

    def take(self, name: str | None, within: float) -> dict[str, object]:
        """Take the step `streams`: close those that had no event for `IDLE` seconds, the longest idle first.

        A quarter of all at least: few may be idle where many have just come. `name` restricts it to the streams of
        this name. Waits until they are closed, for `_WAIT` seconds or `within` at most.
        """
        watch = Stopwatch()
        among = [stream for stream in self.current() if name is None or stream.name == name]
        if not among:
            return answer("skipped", "nothing_registered")
        chosen = choose(among, monotonic())
        tasks = {stream: stream.task for stream in chosen}
        by_loop: dict[asyncio.AbstractEventLoop, list[Stream]] = {}
        for stream, task in tasks.items():
            if task is not None:
                by_loop.setdefault(task.get_loop(), []).append(stream)
            elif stream.ending is None:
                stream.ending = "evicted"
        for loop, ours in by_loop.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_evict, ours)
        until = monotonic() + min(_WAIT, within)
        while monotonic() < until and self._any_open(chosen):
            unpatched.sleep(_PAUSE)
        closed = sum(stream.number not in self._open for stream in chosen)
        seconds, stall = watch.read()
        details: dict[str, object] = {"asked": len(chosen), "closed": closed, "left": len(self._open)}
        return answer("done", "", seconds, stall, details=details)

    def reading(self) -> dict[str, object]:
        """The `streams` part of a reading (docs/hook-protocol.md)."""
        with self._lock:
            oldest = next(iter(self._open.values()), None)
            told: dict[str, object] = {
                "open": len(self._open),
                "limit": self.limit,
                "opened": self._opened,
                "closed": dict(self._closed),
                "rejected": self._rejected,
            }
        told["oldest_age"] = None if oldest is None else monotonic() - oldest.opened
        told["duration"] = self._durations.reading()
        return told

    def _any_open(self, chosen: list[Stream]) -> bool:
        return any(stream.number in self._open for stream in chosen)


def choose(streams: list[Stream], now: float) -> list[Stream]:
    """Those to close, longest idle first: all that are idle, and a quarter (rounded up) if that is more."""
    ordered = sorted(streams, key=lambda stream: stream.active)
    idle = sum(now - stream.active >= IDLE for stream in ordered)
    return ordered[: max(idle, -(-len(ordered) // 4))]


def current_task() -> asyncio.Task[object] | None:
    """The asyncio task that calls; None where none does."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return None
    try:
        task: object = asyncio.current_task()
    except (RuntimeError, AttributeError):  # no loop runs in this thread
        return None
    return task  # type: ignore[return-value]  # asyncio is not imported here, so its types are unknown


def reason_of(error: BaseException | None) -> Reason:
    """Why a stream ended whose server has left it with this exception."""
    if error is None:
        return "server"
    client = (GeneratorExit, ConnectionError)
    return "client" if isinstance(error, client) or type(error).__name__ == "CancelledError" else "error"


def _evict(streams: Iterable[Stream]) -> None:
    for stream in streams:
        stream.cancel("evicted")
