"""What the mounts on an asyncio loop share: ending a stream's task, and looking whether its client is there."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable
from typing import Any, NoReturn

from oomguard.hook.web.connection import gone
from oomguard.hook.web.streams import Stream, Streams

_LOOK = 5.0
"""Seconds between two looks whether the clients of all streams of a loop are there."""
_FINISH = 1.0
"""Seconds that a client has to take the end of its stream."""


class Lookout:
    """Cancels streams whose client has left without their noticing: they wait for something else than it.

    One timer a loop, while it has streams. A stream has from one look to the next to end by itself.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._missing: dict[asyncio.AbstractEventLoop, set[int]] = {}

    def attend(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at the streams of this loop, which calls."""
        if loop not in self._missing:
            self._missing[loop] = set()
            loop.call_later(_LOOK, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        watched, missing = False, set()
        for stream in self._streams.current():
            task = stream.task
            if task is None or stream.connection is None or task.get_loop() is not loop:
                continue
            watched = True
            if gone(stream.connection):
                missing.add(stream.number)
                if stream.number in self._missing[loop]:
                    stream.cancel("client")
        if watched:
            self._missing[loop] = missing
            loop.call_later(_LOOK, self._look, loop)
        else:
            del self._missing[loop]


async def finish(stream: Stream, ending: Awaitable[Any]) -> None:
    """Send a stream's end; the connection of a client that does not take it is cut."""
    connection = stream.connection
    try:
        await asyncio.wait_for(asyncio.ensure_future(ending), _FINISH)
    except (asyncio.TimeoutError, TimeoutError):
        transport = getattr(connection, "transport", None)
        if transport is not None:
            transport.abort()
    except Exception:  # noqa: BLE001, S110 (it is closed already)
        pass


async def ended() -> NoReturn:
    """What is left to a task that still sends to a stream that we end.

    Its cancellation comes while this waits, unless it is a task of the application's own that nobody cancels.
    """
    await asyncio.sleep(_FINISH)
    raise ConnectionAbortedError("this stream was ended by oomguard: its client has been told")


def collect_soon() -> None:
    """Collect garbage when the response that was just written is on its way: uvloop writes at the turn's end."""
    asyncio.get_running_loop().call_soon(gc.collect)
