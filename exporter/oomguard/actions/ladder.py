"""One run of the ladder: step by step, cheapest first, until memory is below the goal.

Memory is read again before and after every step; a step is announced in the journal before it starts. What the
hooks answer is kept for people, what counts is what was measured.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from oomguard.actions.shed import ENDS, slowed
from oomguard.actions.step import Performed, Situation, Step, Worker, noise, side_by_side, split, uncovered
from oomguard.counters import Counters
from oomguard.journal import Journal
from oomguard.log import LOGGER, fields
from oomguard.metrics import STEP_FREED, STEP_SECONDS, STEP_STALL, STEPS
from oomguard.model import Level, ProcessId, RunOutcome, SkipReason, StepOutcome, StepReport
from oomguard.sizes import megabytes

SETTLE: Final = 0.02
"""Seconds after which memory is read a second time when a step seems to have given nothing: the kernel
uncharges pages in batches."""
LAST_BREATH: Final = 0.2
"""Seconds for which it is watched, once the kernel has killed something, whether that was the main process: its
connections are closed before it is a zombie."""
MOST_NAMED: Final = 20
"""Alerts that a run is told to serve: a storm may bring a thousand, and every record of the run names them."""


@dataclass(slots=True)
class Run:
    """A run of the ladder. Alerts that come while it is under way widen its steps and lower its goal."""

    id: int
    alerts: tuple[str, ...]
    wanted: dict[str, int | None]
    """Each turn (a step, or ``caches:bulk``), with the bytes of used memory at or below which nobody wishes for it;
    None: at any level."""
    level: Level
    """Where it began."""
    manual: bool = False
    """A person asked for it: no cooldown holds."""
    reports: list[StepReport] = field(default_factory=list)

    @property
    def steps(self) -> frozenset[str]:
        """The turns that may be taken."""
        return frozenset(self.wanted)

    @property
    def goal(self) -> int | None:
        """The lowest of the goals; None where a person asked for steps without one."""
        return min((goal for goal in self.wanted.values() if goal is not None), default=None)

    @property
    def freed(self) -> int:
        """Bytes that its steps gave back, or emptied inside malloc."""
        # Not both: what a step emptied inside malloc is what the trim after it returns.
        returned = sum(report.freed for report in self.reports)
        return max(returned, sum(report.retained_bytes or 0 for report in self.reports))

    def join(self, alerts: tuple[str, ...], wanted: Mapping[str, int | None]) -> None:
        """Union of the steps, each with the lowest goal that anybody has for it."""
        self.alerts = tuple(dict.fromkeys(self.alerts + alerts))[:MOST_NAMED]
        for step, goal in wanted.items():
            known = self.wanted.get(step, goal)
            self.wanted[step] = None if goal is None or known is None else min(known, goal)

    def left(self, turn: str, used: int) -> bool:
        """Whether anybody still wishes for a turn at this level."""
        goal = self.wanted.get(turn, used)
        return goal is None or used > goal


LEAVING: Final = ("streams", "models")
"""Steps after which `gc` and `trim` are taken again."""


class Ladder:
    """Executes runs. `held` says why a turn is not taken at a level, None when it may be."""

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        measure: Callable[[], Level | None],
        workers: Callable[[], Sequence[Worker]],
        held: Callable[[Run, str, Level], SkipReason | None],
        root: Callable[[], ProcessId | None],
        kills: Callable[[], int | None],
        journal: Journal,
        counters: Counters,
        describe: Callable[[], Mapping[str, object]] = dict,
        dry_run: bool = False,
    ) -> None:
        """`root` is the main process, None once it has gone; `kills` how often the kernel's OOM killer has struck, None
        where it does not say.
        """
        self.steps = tuple(steps)
        self._rank = {step.name: rank for rank, step in enumerate(self.steps)}
        self.dry_run = dry_run
        """Decide and journal, but take no step."""
        self._measure = measure
        self._workers = workers
        self._held = held
        self._root = root
        self._kills = kills
        self._guarded: ProcessId | None = None
        """The main process for which the run began: what another one uses says nothing of it."""
        self._struck: int | None = None
        """The kernel's kills, as last looked at in this run."""
        self._journal = journal
        self._counters = counters
        self._describe = describe

    async def climb(self, run: Run) -> tuple[RunOutcome, Level | None]:
        """Take steps until the goal; returns how it ended, and the level it ended at."""
        taken: set[str] = set()
        self._guarded, self._struck = self._root(), self._kills()
        while True:
            level = self._level()
            if level is None:
                return RunOutcome.TARGET_GONE, None
            turn = self._next(run, taken, level.used)
            if turn is None:
                return (RunOutcome.DRY_RUN if self.dry_run else _outcome(run, level.used)), level
            taken.add(turn)
            report = await self._take(turn, run, level)
            run.reports.append(report)
            if split(turn)[0] in LEAVING and report.outcome is not StepOutcome.SKIPPED:
                # What they leave behind is garbage, or in malloc's hands: both have their turn once more.
                taken -= {"gc", "trim"}
                run.join((), dict.fromkeys(("gc", "trim"), run.wanted[turn]))

    async def repeat(self, step: str, name: str, level: Level) -> Performed:
        """Order a step from all processes beside any run, unmeasured: to renew what ends by itself, or to end it."""
        return await side_by_side(step, Situation(self._workers(), 0, level, self._measure, name or None))

    def _next(self, run: Run, taken: set[str], used: int) -> str | None:
        """The cheapest turn that is left and that somebody wishes for at this level, but `trim` at once after a step
        whose memory malloc kept.

        An application that fills its cache again does so at the speed of memcpy, for those pages are resident
        already (400 MB in 30 ms, seen here): what a trim is to return must be returned before that.
        """
        known = frozenset(turn for turn in run.steps if split(turn)[0] in self._rank)
        left = [turn for turn in uncovered(known, frozenset(taken)) if run.left(turn, used)]
        # A step as a whole comes before its parts, which it comprises.
        left.sort(key=lambda turn: (self._rank[split(turn)[0]], turn))
        if run.reports and run.reports[-1].outcome is StepOutcome.RETAINED:
            left.sort(key=lambda turn: turn != "trim")
        return left[0] if left else None

    async def _take(self, turn: str, run: Run, level: Level) -> StepReport:
        name, restricted = split(turn)
        step = self.steps[self._rank[name]]
        goal = run.wanted[turn] or 0
        last = run.reports[-1] if run.reports else None
        spare = last.retained_bytes or 0 if last is not None and last.outcome is StepOutcome.RETAINED else 0
        situation = Situation(self._workers(), goal, level, self._level, restricted, spare)
        skip = self._skip(step, turn, run, situation)
        self._journal.write(
            "step_start" if skip is None else "step_skipped",
            run=run.id,
            step=turn,
            used=level.used,
            **({} if skip is None else {"reason": skip.value}),
        )
        if skip is not None:
            report = StepReport(turn, StepOutcome.SKIPPED, level.used, level.used, 0.0, skip.value)
        else:
            began = time.perf_counter()
            try:
                performed = await step.perform(situation)
            except Exception as error:  # noqa: BLE001 - the next step must have its turn
                LOGGER.exception("step failed", extra=fields(step=turn))
                performed = Performed(error=f"{type(error).__name__}: {error}")
            seconds = time.perf_counter() - began
            killed = self._killed()
            if killed:
                await self._bury()
            after = self._level()
            if after is not None and not killed and self._unsettled(performed, level, after):
                await asyncio.sleep(SETTLE)
                after = self._level()
                seconds = time.perf_counter() - began
            report = judge(turn, level, after, performed, seconds, killed=killed)
            self._told(run, report, level.limit)
        self._count(report)
        return report

    def _level(self) -> Level | None:
        """Memory now; None where it can't be read, or the main process has gone that the run began for."""
        return self._measure() if self.alive() else None

    def alive(self) -> bool:
        """Whether the main process is there that the last run began for."""
        return self._guarded is not None and self._root() == self._guarded

    def _killed(self) -> bool:
        """Whether the kernel has killed something since this was asked last."""
        before, self._struck = self._struck, self._kills()
        return before is not None and self._struck is not None and self._struck > before

    async def _bury(self) -> None:
        """Wait until the main process has gone, if it was the one that the kernel killed."""
        for _ in range(round(LAST_BREATH / SETTLE)):
            if not self.alive():
                return
            await asyncio.sleep(SETTLE)

    @staticmethod
    def _unsettled(performed: Performed, before: Level, after: Level) -> bool:
        """Whether a second look is worth its time: nothing seems to have come of it, and there is time."""
        least = noise(after.limit)
        gave_nothing = before.used - after.used < least and performed.retained < least
        if performed.growth is not None:
            return False
        return performed.done > 0 and gave_nothing and after.seconds_left > SETTLE * 20

    def _skip(self, step: Step, turn: str, run: Run, situation: Situation) -> SkipReason | None:
        if self.dry_run:
            return SkipReason.DRY_RUN
        if not situation.workers:
            return SkipReason.NO_HOOK
        if (held := self._held(run, turn, situation.level)) is not None:
            return held
        if step.expected(situation) > situation.lasts(situation.level):
            return SkipReason.NO_TIME
        return None

    def _told(self, run: Run, report: StepReport, limit: int) -> None:
        self._journal.write(
            "step_end",
            run=run.id,
            step=report.step,
            outcome=report.outcome.value,
            used_before=report.used_before,
            used_after=report.used_after,
            freed=report.freed,
            seconds=round(report.seconds, 6),
            reason=report.reason,
            stall=report.stall_seconds,
            retained=report.retained_bytes,
            hooks=dict(report.details),
        )
        after = report.used_after
        text = f"{report.step} freed {megabytes(report.freed)}"
        if report.outcome is StepOutcome.SKIPPED:
            text = f"{report.step} skipped"
        elif after is not None:
            text += f" ({megabytes(report.used_before)} -> {megabytes(after)})"
        LOGGER.info(
            text,
            extra=fields(
                run=run.id,
                step=report.step,
                outcome=report.outcome.value,
                ratio_before=round(report.used_before / limit, 3),
                ratio_after=None if after is None else round(after / limit, 3),
                seconds=round(report.seconds, 4),
                reason=report.reason or None,
                **self._describe(),
            ),
        )

    def _count(self, report: StepReport) -> None:
        step = split(report.step)[0]  # names are the application's: they make no series
        self._counters.add(STEPS, step, report.outcome.value)
        self._counters.add(STEP_FREED, step, by=report.freed)
        self._counters.add(STEP_SECONDS, step, by=report.seconds)
        self._counters.add(STEP_STALL, step, by=report.stall_seconds or 0.0)


def _outcome(run: Run, used: int) -> RunOutcome:
    """What a run came to that has no step left."""
    if run.goal is None:
        return RunOutcome.DONE
    if used > run.goal:
        return RunOutcome.GOAL_NOT_REACHED
    return RunOutcome.GOAL_REACHED if run.reports else RunOutcome.NOT_NEEDED


def judge(
    name: str,
    before: Level,
    after: Level | None,
    performed: Performed,
    seconds: float,
    *,
    killed: bool = False,
) -> StepReport:
    """What a step came to, by measurement: an answer is not an effect.

    Memory that rose meanwhile, or that can't be read, makes it inconclusive, which counts as a failure. So does a
    process that the kernel `killed` meanwhile: what fell then was not the step's doing.
    """
    freed = before.used - after.used if after is not None else 0
    least = noise(before.limit)
    if performed.skip is not None:
        outcome, reason = StepOutcome.SKIPPED, performed.skip.value
    elif not performed.done:
        outcome, reason = StepOutcome.FAILED, performed.error
    elif after is None:
        outcome, reason = StepOutcome.INCONCLUSIVE, "memory can't be read"
    elif killed:
        outcome, reason = StepOutcome.INCONCLUSIVE, "the kernel killed a process meanwhile"
    elif name == ENDS:
        outcome, reason = (
            StepOutcome.EFFECTIVE,
            performed.error,
        )  # requests are let in: there is nothing to measure
    elif performed.growth is not None:
        slower = slowed(before, performed.growth)
        outcome = StepOutcome.EFFECTIVE if slower else StepOutcome.INEFFECTIVE
        reason = performed.error or f"memory grows by {megabytes(round(performed.growth))} a second"
    elif freed >= least:
        outcome, reason = StepOutcome.EFFECTIVE, performed.error
    elif performed.retained >= least:
        outcome, reason = StepOutcome.RETAINED, performed.error
    elif freed <= -least:
        outcome, reason = StepOutcome.INCONCLUSIVE, "memory rose meanwhile"
    else:
        outcome, reason = StepOutcome.INEFFECTIVE, performed.error
    return StepReport(
        name,
        outcome,
        before.used,
        after.used if after is not None else None,
        seconds,
        reason,
        performed.stall,
        performed.retained,
        performed.details,
    )
