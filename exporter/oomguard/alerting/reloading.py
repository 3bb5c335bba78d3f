"""Configuration, rules and routes read again while the sidecar runs; a mistake changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from typing import Any

from oomguard import metrics as m
from oomguard.alerting import Alerting, loading
from oomguard.alerting.loading import Loaded
from oomguard.config import Settings
from oomguard.errors import ConfigError, Problem
from oomguard.journal import Journal
from oomguard.log import LOGGER, fields
from oomguard.state import State
from oomguard.store import Sample, Store


class Reloader:
    """Reads what ``POST /-/reload`` asks for, and knows how it went the last time."""

    def __init__(
        self,
        state: State,
        alerting: Alerting,
        store: Store,
        journal: Journal,
        worker: Executor,
        problems: Sequence[Problem] = (),
    ) -> None:
        """`problems`: why the files could not be read at the start, where older ones had to do."""
        self._worker = worker
        self._reloading = asyncio.Lock()
        self._state = state
        self._alerting = alerting
        self._store = store
        self._journal = journal
        self._problems = tuple(problems)
        self._loaded_at = state.clock.now() if not problems else None

    async def reload(self) -> list[str]:
        """Take over what the files say now; returns what was read. Raises ConfigError, with nothing changed.

        They are read in the worker thread: the shipped rules take 0.15 s, in which memory may climb by 75 MB.
        """
        async with self._reloading:  # the last one asked for is the last one read
            return await self._reload()

    async def _reload(self) -> list[str]:
        try:
            settings, loaded = await asyncio.get_running_loop().run_in_executor(self._worker, self._read)
        except ConfigError as error:
            self._problems = error.problems
            LOGGER.error(
                "reload failed: the running configuration is kept",
                extra=fields(problems="; ".join(str(problem) for problem in error.problems)),
            )
            self._journal.write("reload", ok=False, problems=[str(problem) for problem in error.problems])
            raise
        self._state.settings = settings
        LOGGER.setLevel(settings.log_level.upper())
        self._store.keep_long(loaded.long_names)
        self._alerting.reload(loaded, self._state.clock.milliseconds())
        self._problems, self._loaded_at = (), self._state.clock.now()
        self._journal.write("reload", ok=True)
        LOGGER.info("reloaded", extra=fields(rules=sum(len(group.rules) for group in loaded.groups)))
        return self.files()

    def _read(self) -> tuple[Settings, Loaded]:
        settings = self._state.settings.reloaded()
        return settings, loading.load(settings)

    def files(self) -> list[str]:
        """The rule files and the routes file that are in force."""
        texts = self._alerting.loaded.texts
        return [*texts["rules"], texts["routes"][0]]

    def status(self) -> dict[str, Any]:
        """For /api/v1/status."""
        return {
            "ok": not self._problems,
            "loaded_at": self._loaded_at,
            "files": self.files(),
            "problems": [str(problem) for problem in self._problems],
        }

    def samples(self) -> Iterator[Sample]:
        """Whether the last reading worked, and when one did."""
        yield Sample(m.CONFIG_RELOAD, (), float(not self._problems))
        if self._loaded_at is not None:
            yield Sample(m.CONFIG_RELOAD_TIME, (), self._loaded_at)
