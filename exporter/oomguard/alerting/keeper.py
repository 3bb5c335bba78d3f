"""Writes the alerting's state to its file soon after it changed, in the worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from oomguard.alerting import persisted
from oomguard.log import LOGGER, fields

SOON: Final = 0.25
"""Seconds in which changes are gathered: alerts may flap at every fast tick."""


class Keeper:
    """Keeps one file; on the event loop but for the writing itself."""

    def __init__(self, path: Path | None, worker: ThreadPoolExecutor) -> None:
        """`path` None: nothing can be kept."""
        self.saved = persisted.read(path)
        """What the sidecar before left."""
        self.alive_until = persisted.written_at(path)
        """Unix milliseconds at which it lived last; 0: unknown."""
        self._path = path
        self._worker = worker
        self._state: Callable[[], Mapping[str, Any]] | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._writing: Future[None] | None = None
        self._failed = False

    def start(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """From now on keep what `state` gives."""
        self._state = state
        self.soon()

    def alive(self) -> None:
        """Leave a sign of life, so that time in which we looked is not taken for time in which nobody did."""
        if self._path is not None and self._handle is None:
            self._worker.submit(persisted.touch, self._path)

    def soon(self) -> None:
        """Something has changed."""
        if self._handle is None and self._state is not None and self._path is not None:
            self._handle = asyncio.get_running_loop().call_later(SOON, self._save)

    async def now(self) -> None:
        """Return once what is known now is on the disk, or can't be: before somebody is told that it holds."""
        if self._state is None or self._path is None:
            return
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        self._submit()
        assert self._writing is not None
        await asyncio.wrap_future(self._writing)

    def close(self) -> None:
        """Write the last state; the worker must still run."""
        if self._handle is not None:
            self._handle.cancel()
            self._submit()  # behind a write that is under way: there is no later for it

    def _save(self) -> None:
        self._handle = None
        if self._writing is not None and not self._writing.done():
            self.soon()  # the worker is busy: what is new then is written then
            return
        self._submit()

    def _submit(self) -> None:
        assert self._state is not None
        self._writing = self._worker.submit(self._write, self._state())

    def _write(self, state: Mapping[str, Any]) -> None:
        assert self._path is not None
        try:
            persisted.write(self._path, state)
            self._failed = False
        except OSError as error:
            if not self._failed:
                LOGGER.warning(
                    "the state of alerts can't be kept: a new sidecar will begin anew",
                    extra=fields(file=self._path, reason=(error.strerror or str(error)).lower()),
                )
            self._failed = True
