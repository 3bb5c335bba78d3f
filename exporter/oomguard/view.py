"""What the sidecar shows over HTTP, from memory alone: `oomguard.web.server.View`."""

from __future__ import annotations

import platform
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from oomguard import __version__
from oomguard import metrics as m
from oomguard.actions import STEP_NAMES
from oomguard.alerting import Alerting
from oomguard.alerting.reloading import Reloader
from oomguard.broker.inbox import Inbox, Outcome
from oomguard.broker.requests import parse
from oomguard.broker.wishes import Action
from oomguard.counters import Counters
from oomguard.errors import TargetError
from oomguard.export import status as told
from oomguard.export.advice import advice
from oomguard.export.hook_series import HookTotals, health_samples
from oomguard.export.prometheus import Exporter
from oomguard.export.series import fast_samples, snapshot_samples, threshold_samples
from oomguard.guardian import Guardian
from oomguard.journal import Journal
from oomguard.model import StepOutcome
from oomguard.routes.silences import SilenceState
from oomguard.sources.hooks import Hooks
from oomguard.state import State
from oomguard.store import Sample, Store
from oomguard.thresholds import configured


class SidecarView:
    """Reads the shared state; orders a cleanup when asked to."""

    def __init__(
        self,
        state: State,
        guardian: Guardian,
        alerting: Alerting,
        reloader: Reloader,
        inbox: Inbox,
        hooks: Hooks,
        journal: Journal,
        counters: Counters,
        store: Store,
        *,
        slow_seconds: Callable[[], float],
        receivers: Callable[[], list[dict[str, Any]]],
        kept: Callable[[], Awaitable[None]],
        looked: Callable[[], None] = lambda: None,
    ) -> None:
        self._state = state
        self._guardian = guardian
        self._alerting = alerting
        self._reloader = reloader
        self._inbox = inbox
        self._hooks = hooks
        self._journal = journal
        self._counters = counters
        self._store = store
        self._slow_seconds = slow_seconds
        self._receivers = receivers
        self._kept = kept
        self._looked = looked
        self._totals = HookTotals()
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
        if snapshot is None:
            return self._live(exported=False)
        hooks = self._totals.samples(snapshot.target, snapshot.hooks.value or ())
        return [*snapshot_samples(snapshot), *hooks, *self._live(exported=False)]

    def _scraped(self) -> list[Sample]:
        """For a scrape: the last slot, with what has changed since."""
        live = self._live(exported=True)
        fresh = {sample.metric.name for sample in live} | {m.ALERTS.name, m.ALERTS_FOR_STATE.name}
        return [*live, *(sample for sample in self._store.latest() if sample.metric.name not in fresh)]

    def _live(self, *, exported: bool) -> list[Sample]:
        """What changes between slow ticks."""
        target, level, guardian, lane = (
            self._state.target,
            self._state.level,
            self._guardian,
            self._guardian.lane,
        )
        samples: list[Sample] = []
        if level is not None:
            samples += fast_samples(level, target, guardian.in_force(level))
            samples += threshold_samples(configured(self._state.settings, level.limit), target)
        samples.append(Sample(m.RUN_ACTIVE, (target,), float(guardian.broker.active is not None)))
        if guardian.broker.reaction is not None:
            samples.append(Sample(m.REACTION, (target,), guardian.broker.reaction))
        samples += health_samples(target, [(slot, hook.stalled) for slot, hook in guardian.hooks()])
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
        samples.extend(self._alerting.samples(self._now(), exported=exported))
        samples.extend(self._reloader.samples())
        samples.append(Sample(m.NOTIFICATION_QUEUE, (), self._queued()))
        samples.extend(self._counters.samples())
        return samples

    def _now(self) -> int:
        return self._state.clock.milliseconds()

    def _queued(self) -> int:
        return sum(receiver["waiting"] for receiver in self._receivers())

    # -- routes -------------------------------------------------------------------------------

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """Body and content type of /metrics."""
        return self._exporter.render(accept)

    def health(self) -> dict[str, Any]:
        """Body of /health."""
        level, snapshot = self._state.level, self._state.snapshot
        return told.health(
            level,
            self._state.settings.thresholds(level.limit) if level is not None else {},
            self._state.target,
            (snapshot.hooks.value or ()) if snapshot is not None else (),
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
            "acts": self._state.settings.act,
            "dry_run": self._state.settings.dry_run,
            "health": self.health()["status"],
            "level": told.level_json(level),
            "thresholds": self._state.settings.thresholds(level.limit) if level is not None else None,
            "advice": advice(snapshot) if snapshot is not None else "",
            "stalled": [
                {"process": slot, "pid": hook.pid, "seconds": round(hook.stalled, 1)}
                for slot, hook in guardian.hooks()
                if hook.stalled > 0
            ],
            "alerts": self._alerting.alerts_held(self._now()),
            "paused_until": self._alerting.paused_until(self._now()),
            "silences": [
                silence
                for silence in self.silences()
                if silence["status"]["state"] == SilenceState.ACTIVE.value
            ],
            "config": self._reloader.status(),
            "receivers": self._receivers(),
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

    def entry(self, number: int) -> dict[str, Any]:
        """See `oomguard.web.server.View`."""
        records = self._journal.records_of(number)
        if not records:
            raise LookupError(f"the journal has no entry {number}; it may have been rotated away")
        first = records[0]
        run = first.get("run")
        if first["event"] == "request" and isinstance(run, int):
            records = [first, *(record for record in self._journal.records_of(run) if record is not first)]
        ended = [record for record in records if record["event"] == "run_end"]
        return {
            "id": number,
            "run": run,
            "outcome": ended[-1]["outcome"] if ended else first.get("outcome", "running"),
            "ended": bool(ended) or not isinstance(run, int),
            "records": records,
        }

    def order(self, body: bytes, default: Action) -> dict[str, Any]:
        """See `oomguard.web.server.View`."""
        request = parse(body, default)
        level = self._guardian.measure()
        if self._state.gone:
            raise TargetError("the target has ended for good; this sidecar guards no other")
        if level is None:
            raise LookupError(self.ready() or "no target is running")
        limits = self._guardian.in_force(level)
        return self._inbox.take(request, default, level, limits, act=self._state.settings.act).to_json()

    def refused(self, outcome: Outcome) -> None:
        """See `oomguard.web.server.View`."""
        self._inbox.refused(outcome)

    def alerts(self) -> list[dict[str, Any]]:
        """See `oomguard.web.server.View`."""
        return self._alerting.alerts()

    def rules(self) -> list[dict[str, Any]]:
        """See `oomguard.web.server.View`."""
        return self._alerting.rules()

    def silences(self, filters: Sequence[str] = ()) -> list[dict[str, Any]]:
        """See `oomguard.web.server.View`."""
        return self._alerting.silences_json(self._now(), filters)

    def silence(self, silence: str) -> dict[str, Any]:
        """See `oomguard.web.server.View`."""
        return self._alerting.silence_json(silence, self._now())

    async def set_silence(self, told: object) -> str:
        """See `oomguard.web.server.View`."""
        made = self._alerting.silence(told, self._now())
        await self._kept()
        return made

    async def expire(self, silence: str) -> None:
        """See `oomguard.web.server.View`."""
        self._alerting.expire(silence, self._now())
        await self._kept()

    async def reload(self) -> list[str]:
        """See `oomguard.web.server.View`."""
        return await self._reloader.reload()
