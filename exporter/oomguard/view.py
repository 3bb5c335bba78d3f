"""What the sidecar shows over HTTP, from memory alone: `oomguard.web.server.View`."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import Any

from oomguard import __version__
from oomguard import metrics as m
from oomguard.actions import STEP_NAMES
from oomguard.config import Settings
from oomguard.counters import Counters
from oomguard.errors import UserError
from oomguard.export import status as told
from oomguard.export.prometheus import Exporter
from oomguard.export.series import level_samples, snapshot_samples
from oomguard.guardian import Guardian
from oomguard.journal import Journal
from oomguard.model import StepOutcome
from oomguard.sizes import parse_threshold
from oomguard.sources.hooks import Hooks
from oomguard.state import State
from oomguard.store import Sample, Store


class SidecarView:
    """Reads the shared state; orders a cleanup when asked to."""

    def __init__(
        self,
        settings: Settings,
        state: State,
        guardian: Guardian,
        hooks: Hooks,
        journal: Journal,
        counters: Counters,
        store: Store,
        *,
        slow_seconds: Callable[[], float],
        looked: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._state = state
        self._guardian = guardian
        self._hooks = hooks
        self._journal = journal
        self._counters = counters
        self._store = store
        self._slow_seconds = slow_seconds
        self._looked = looked
        self._exporter = Exporter(self._scraped)
        # Counters that have not counted yet are 0, not unknown.
        for step in STEP_NAMES:
            for outcome in StepOutcome:
                counters.add(m.STEPS, step, outcome.value, by=0)
            for metric in (m.STEP_FREED, m.STEP_SECONDS, m.STEP_STALL):
                counters.add(metric, step, by=0)
        counters.add(m.TARGET_STARTS, by=0)

    # -- series -------------------------------------------------------------------------------

    def slot(self) -> list[Sample]:
        """Everything that is known now, for a slot of the store."""
        snapshot = self._state.snapshot
        return [*(snapshot_samples(snapshot) if snapshot is not None else ()), *self._live()]

    def _scraped(self) -> list[Sample]:
        """For a scrape: the last slot, with what has changed since."""
        live = self._live()
        fresh = {sample.metric for sample in live}
        return [*live, *(sample for sample in self._store.latest() if sample.metric not in fresh)]

    def _live(self) -> list[Sample]:
        """What changes between slow ticks."""
        target, level, guardian, lane = (
            self._state.target,
            self._state.level,
            self._guardian,
            self._guardian.lane,
        )
        samples = (
            list(level_samples(level, target, self._settings.thresholds(level.limit)))
            if level is not None
            else []
        )
        samples += [
            Sample(m.ALERT_FIRING, (target, rule.alertname), float(rule in guardian.firing))
            for rule in guardian.rules
        ]
        samples.append(Sample(m.RUN_ACTIVE, (target,), float(guardian.broker.active is not None)))
        if guardian.broker.reaction is not None:
            samples.append(Sample(m.REACTION, (target,), guardian.broker.reaction))
        samples += [
            Sample(m.HOOK_ERRORS, (target, reason.value), self._hooks.errors[reason])
            for reason in m.HookErrorReason
        ]
        samples += [
            Sample(m.BUILD_INFO, (__version__, platform.python_version()), 1.0),
            Sample(m.TICKS, ("fast",), lane.ticks),
            Sample(m.LATE_TICKS, (), lane.late),
            Sample(m.LATENESS, (), lane.lateness.now(time.monotonic())),
            Sample(m.INTERVAL, (), lane.interval),
            Sample(m.SLOW_SECONDS, (), self._slow_seconds()),
            Sample(m.JOURNAL_ERRORS, (), self._journal.errors),
            Sample(m.STORE_SERIES, (), len(self._store)),
            Sample(m.STORE_REFUSED, (), self._store.refused),
        ]
        samples.extend(self._counters.samples())
        return samples

    # -- routes -------------------------------------------------------------------------------

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """Body and content type of /metrics."""
        return self._exporter.render(accept)

    def health(self) -> dict[str, Any]:
        """Body of /health."""
        level = self._state.level
        return told.health(
            level, self._settings.thresholds(level.limit) if level is not None else {}, self._state.target
        )

    def ready(self) -> str:
        """Why memory is not being read, or an empty string."""
        if self._state.level is not None:
            return ""
        return (
            "waiting for the target"
            if self._state.root is None
            else "memory can't be read; see /api/v1/status"
        )

    def status(self, *, command_lines: bool) -> dict[str, Any]:
        """Body of /api/v1/status."""
        self._looked()
        state, guardian = self._state, self._guardian
        broker, lane, level, snapshot = guardian.broker, guardian.lane, state.level, state.snapshot
        shown = told.snapshot_json(snapshot, command_lines=command_lines) if snapshot is not None else {}
        return {
            "version": __version__,
            "target": state.target,
            "pid": state.root.pid if state.root is not None else None,
            "acts": self._settings.act,
            "health": self.health()["status"],
            "level": told.level_json(level),
            "thresholds": self._settings.thresholds(level.limit) if level is not None else None,
            "advice": told.advice(snapshot) if snapshot is not None else "",
            "alerts": [rule.alertname for rule in guardian.rules if rule in guardian.firing],
            "cleanup": {
                "active": broker.active.id if broker.active is not None else None,
                "held": broker.held,
                "last": {"run": broker.last[0].id, "outcome": broker.last[1].value} if broker.last else None,
            },
            "sampler": {
                "interval": round(lane.interval, 4),
                "ticks": lane.ticks,
                "late": lane.late,
                "lateness": round(lane.lateness.now(time.monotonic()), 4),
                "fill_rate": round(lane.fill_rate),
            },
            "journal": {"path": str(self._journal.path or ""), "error": self._journal.error},
            **shown,
        }

    def history(self, since: float) -> dict[str, Any]:
        """Used memory and the limit over the last 15 minutes: lists of (Unix seconds, bytes)."""
        level, target = self._state.level, self._state.target
        if level is None:
            return {"used": [], "limit": []}
        used = self._store.history(m.MEMORY_USED.name, (target, level.kind.value), since)
        limit = self._store.history(m.MEMORY_LIMIT.name, (target, level.origin.value), since)
        return {"used": used, "limit": limit}

    def journal(self, limit: int) -> list[dict[str, Any]]:
        """The last records, oldest first."""
        return list(self._journal.records)[-limit:]

    def cleanup(self, steps: list[str] | None, goal: float | str | None) -> dict[str, Any]:
        """Order a cleanup by hand; raises UserError for what there is not, LookupError without a target."""
        unknown = [step for step in steps or () if step not in STEP_NAMES]
        if unknown:
            raise UserError(f"unknown step {unknown[0]!r}; the steps are {', '.join(STEP_NAMES)}")
        try:
            threshold = parse_threshold(goal) if goal is not None else None
        except ValueError as error:
            raise UserError(f"goal: {error}") from None
        level = self._guardian.measure()
        if level is None:
            raise LookupError(self.ready() or "no target is running")
        default = self._settings.thresholds(level.limit)["goal"]
        wanted = threshold.of(level.limit) if threshold is not None else default
        run = self._guardian.broker.order("manual", steps or STEP_NAMES, wanted, level)
        return {"run": run.id, "goal": run.goal, "used": level.used}
