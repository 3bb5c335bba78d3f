"""The broker: wishes come in, runs of the ladder go out; level-triggered, one run at a time.

Alerts are wishes, not orders. While one that asks for action fires and memory is above the goal, any
fast tick may start the next run; those that come meanwhile join it. What holds a run back is only
what was learned from the last one: `oomguard.broker.restraint`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from oomguard.actions.ladder import MOST_NAMED, Ladder, Run
from oomguard.actions.shed import ENDS, OFF
from oomguard.actions.step import Step, split
from oomguard.broker.restraint import Restraint
from oomguard.broker.shedding import Order, Shedding
from oomguard.broker.wishes import Wish
from oomguard.counters import Counters
from oomguard.journal import Journal, number
from oomguard.log import LOGGER, fields
from oomguard.metrics import RUNS
from oomguard.model import Level, RunOutcome, SkipReason, StepOutcome
from oomguard.sizes import megabytes
from oomguard.thresholds import Thresholds

LAST_WORDS: Final = 0.5
"""Seconds in which a run notices that its target has gone: the connections of its hooks have ended."""
_SHED = "shed"
_TAKEN = (StepOutcome.EFFECTIVE, StepOutcome.INEFFECTIVE, StepOutcome.INCONCLUSIVE)


class Broker:
    """Takes wishes at every fast tick and runs the ladder for them."""

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        ladder: Callable[[Callable[[Run, str, Level], SkipReason | None]], Ladder],
        journal: Journal,
        counters: Counters,
        past: Sequence[Mapping[str, object]] = (),
    ) -> None:
        self.active: Run | None = None
        self.last: tuple[Run, RunOutcome] | None = None
        self.held = ""
        """Why the last wish was not followed, empty when it was."""
        self.reaction: float | None = None
        """Seconds from the tick that saw the crossing to the first order's going out."""
        self._fresh = True
        """Whether slow readings are younger than the last run."""
        self.ended: Callable[[], None] = lambda: None
        """Called after every run: what is known of the target is old."""
        self._steps = {step.name: step for step in steps}
        self._ladder = ladder(self._holds_step)
        self._journal = journal
        self._counters = counters
        self._task: asyncio.Task[None] | None = None
        self._next_id = 1
        self.restraint = Restraint()
        self.shedding = Shedding()
        self._telling: set[asyncio.Task[None]] = set()
        self._resume(past)
        for outcome in RunOutcome:
            counters.add(RUNS, outcome.value, by=0)

    def consider(self, wishes: Sequence[Wish], level: Level, thresholds: Thresholds) -> Run | None:
        """Follow the wishes that stand at this level: start a run, or join the one under way.

        `thresholds` are those in force. Returns the run that serves them, None when nothing needs doing or
        restraint holds it back (`held` says why). Called on the event loop.
        """
        self.restraint.fell(level.used)
        if not wishes:
            self.held = ""
            if level.used <= thresholds.goal:
                self.restraint.relax()
            return None
        current = [wish for wish in wishes if wish.instant or self._fresh]
        if not current:
            self.held = "stale"
            return None
        wanted = _wanted(current, level, thresholds.goal)
        if not wanted:
            self.held = "not_needed"
            return None
        asking = [wish for wish in current if level.used > _goal_of(wish, level, thresholds.goal)]
        alerts = tuple(dict.fromkeys(wish.alertname for wish in asking))[:MOST_NAMED]
        if self.active is not None:
            self.active.join(alerts, wanted)
            return self.active
        self.held = self.restraint.holds(frozenset(wanted), level, thresholds.critical)
        if not self.held and all(self.restraint.holds_step(step, level) for step in wanted):
            self.held = "cooldown"
        if self.held:
            return None
        threshold = thresholds.high if level.used >= thresholds.high else None
        return self._start(Run(self.take_id(), alerts, wanted, level), threshold)

    def stand(self, wishes: Sequence[Wish], level: Level, goal: int) -> None:
        """Renew shedding while one of the sidecar's own wishes asks for it at this level, end it with the last.

        `goal` is that in force. Called at every fast tick, before `consider`.
        """
        own = any(_SHED in wish.steps and level.used > _goal_of(wish, level, goal) for wish in wishes)
        ordered = self.shedding.stand(level.at, own=own)
        if ordered is not None:
            task = asyncio.get_running_loop().create_task(self._tell(ordered, level))
            self._telling.add(task)  # the loop alone would forget it (asyncio.create_task)
            task.add_done_callback(self._telling.discard)

    def order(self, alertname: str, steps: Sequence[str], goal: int | None, level: Level) -> Run:
        """A person's order: nothing that was learned holds it back. Without a goal every step is taken."""
        wanted: dict[str, int | None] = dict.fromkeys(steps, goal)
        if self.active is not None:
            self.active.join((alertname,), wanted)
            self.active.manual = True
            return self.active
        return self._start(Run(self.take_id(), (alertname,), wanted, level, manual=True), None)

    def refreshed(self) -> None:
        """Everything has been read and judged again: wishes that rest on slow readings count as of now."""
        self._fresh = True

    def take_id(self) -> int:
        """The next id of a run or of a request; they go on across sidecars."""
        self._next_id += 1
        return self._next_id - 1

    async def finished(self) -> None:
        """Wait for the run under way, if there is one."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def close(self) -> None:
        """End the run under way, journaled as interrupted; one whose target has gone ends by itself."""
        if self._task is not None and not self._task.done():
            if not self._ladder.alive():
                await asyncio.wait({self._task}, timeout=LAST_WORDS)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _start(self, run: Run, threshold: int | None) -> Run:
        """Start a run; `threshold` is what memory has passed, None where that is not why."""
        self.active = run
        self._journal.write(
            "run_start",
            run=run.id,
            alerts=list(run.alerts),
            steps=[turn for step in self._steps for turn in sorted(run.wanted) if split(turn)[0] == step],
            used=run.level.used,
            limit=run.level.limit,
            threshold=threshold,
            goal=run.goal,
            rate=round(run.level.rate),
        )
        self._task = asyncio.get_running_loop().create_task(self._execute(run))
        return run

    async def _execute(self, run: Run) -> None:
        outcome, level = RunOutcome.INTERRUPTED, None
        self.reaction = time.monotonic() - run.level.at
        try:
            outcome, level = await self._ladder.climb(run)
        except Exception:  # noqa: BLE001 - whatever failed, the next tick must not try it again at once
            LOGGER.exception("cleanup failed", extra=fields(run=run.id))
            outcome, level = RunOutcome.GOAL_NOT_REACHED, run.level
        finally:
            self._fresh = False
            self.active = None
            self.last = (run, outcome)
            self._end(run, outcome, level)
            self.ended()

    async def _tell(self, ordered: Order, level: Level) -> None:
        ends = ordered is Order.END
        try:
            await self._ladder.repeat(_SHED, OFF if ends else "", level)
        except Exception:  # noqa: BLE001 - the processes end it by themselves
            LOGGER.exception("shedding could not be ordered", extra=fields(order=ordered.value))
        if ends:
            self._journal.write("shed_end", used=level.used)
            LOGGER.info("new requests are let in again")

    def _end(self, run: Run, outcome: RunOutcome, level: Level | None) -> None:
        if level is not None:
            for report in run.reports:
                self.restraint.step_ended(self._steps[split(report.step)[0]], report, level)
                if report.step == _SHED and report.outcome in _TAKEN:
                    self.shedding.begun(level.at)
                if report.step == ENDS and report.outcome in _TAKEN:
                    self.shedding.ended()
                    self._journal.write("shed_end", used=level.used)
            self.restraint.run_ended(run, outcome, level)
        used = level.used if level is not None else None
        self._counters.add(RUNS, outcome.value)
        self._journal.write(
            "run_end",
            run=run.id,
            outcome=outcome.value,
            alerts=list(run.alerts),
            steps=sorted(run.steps),
            used_before=run.level.used,
            used_after=used,
            freed=sum(report.freed for report in run.reports),
            goal=run.goal,
            floor=self.restraint.floor,
            failures=self.restraint.failures,
        )
        missed = outcome in (RunOutcome.GOAL_NOT_REACHED, RunOutcome.INTERRUPTED)
        say = LOGGER.warning if missed else LOGGER.info
        say(
            f"cleanup {outcome.value.replace('_', ' ')}",
            extra=fields(
                run=run.id,
                alerts=",".join(run.alerts),
                used_before=megabytes(run.level.used),
                used_after=None if used is None else megabytes(used),
                goal=None if run.goal is None else megabytes(run.goal),
                steps=",".join(
                    f"{report.step}:{report.reason or report.outcome.value}" for report in run.reports
                )
                if outcome is RunOutcome.GOAL_NOT_REACHED
                else None,
            ),
        )

    def _holds_step(self, run: Run, turn: str, level: Level) -> SkipReason | None:
        retained = any(report.outcome is StepOutcome.RETAINED for report in run.reports)
        if run.manual or (turn == "trim" and retained):
            return None
        if turn == _SHED and not self.shedding.wanted(level.at):
            return SkipReason.RESOLVED
        return SkipReason.COOLDOWN if self.restraint.holds_step(turn, level) else None

    def _resume(self, past: Sequence[Mapping[str, object]]) -> None:
        """Go on where the journal ends: ids, the floor, and a run that its sidecar did not live to end."""
        begun: Mapping[str, object] = {}
        ended: Mapping[str, object] = {}
        for record in past:
            for name in ("run", "id"):
                known = number(record, name)
                if known is not None:
                    self._next_id = max(self._next_id, int(known) + 1)
            if record.get("event") == "run_start":
                begun = record
            elif record.get("event") == "run_end":
                ended = record
                if "floor" not in record:
                    continue  # of a run that its sidecar did not live to end: it taught nothing
                floor = number(record, "floor")
                steps = record.get("steps")
                self.restraint = Restraint(
                    floor=None if floor is None else int(floor),
                    failures=int(number(record, "failures") or 0),
                    tried=frozenset(map(str, steps)) if isinstance(steps, list) else frozenset(),
                )
        if begun and begun.get("run") != ended.get("run"):
            self._journal.write("run_end", run=begun.get("run"), outcome=RunOutcome.INTERRUPTED.value)


def _goal_of(wish: Wish, level: Level, goal: int) -> int:
    """Bytes at or below which a wish is met; `goal` is that in force."""
    return goal if wish.goal is None else wish.goal.of(level.limit)


def _wanted(wishes: Sequence[Wish], level: Level, goal: int) -> dict[str, int | None]:
    """Each step that is wished for at this level, with the lowest goal that a wish has for it."""
    wanted: dict[str, int | None] = {}
    for wish in wishes:
        own = _goal_of(wish, level, goal)
        if level.used > own:
            wanted.update({step: min(own, wanted.get(step) or own) for step in wish.steps})
    return wanted
