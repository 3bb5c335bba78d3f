"""The supervisor's pipe: lines that say what becomes of the target (oomguard.supervisor.main says which)."""

from __future__ import annotations

import asyncio
import os
from typing import Protocol

from oomguard.log import LOGGER, fields
from oomguard.model import ProcessId


class Listener(Protocol):
    """Whom the lines concern."""

    def target_started(self, root: ProcessId) -> None:
        """The target runs, or runs again."""

    def target_ended(self, code: int | None = None) -> None:
        """The target has ended; `code` as a shell tells it."""

    def gave_up(self) -> None:
        """It will not be started again."""

    def supervisor_ended(self) -> None:
        """Nothing more will come."""


class ControlPipe:
    """Reads one pipe on the event loop."""

    def __init__(self, descriptor: int, listener: Listener) -> None:
        self._descriptor = descriptor
        self._listener = listener
        self._rest = b""

    def open(self) -> None:
        """Begin to read. Called on the event loop."""
        os.set_blocking(self._descriptor, False)
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, 4096)
        except BlockingIOError:
            return
        if not data:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            self._listener.supervisor_ended()
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line.decode(errors="replace").split())

    def _line(self, words: list[str]) -> None:
        if words[:1] == ["target"]:
            self._listener.target_started(ProcessId(int(words[1]), int(words[2])))
        elif words[:1] == ["exited"]:
            self._listener.target_ended(code=int(words[2]))
        elif words[:1] == ["restarting"]:
            LOGGER.warning("target restarts", extra=fields(in_seconds=words[1], restart=words[2]))
        elif words[:1] == ["giving-up"]:
            LOGGER.error("target has failed too often: giving up")
            self._listener.gave_up()
