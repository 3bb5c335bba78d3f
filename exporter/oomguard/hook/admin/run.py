"""Taking the steps that were ordered: one run at a time, measured step by step, until the goal is reached."""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import Enum
from time import perf_counter

from oomguard.hook import unpatched
from oomguard.hook.admin.level import Level, Origin
from oomguard.hook.admin.order import LADDER, Order, Stop
from oomguard.hook.admin.size import Goal


class Outcome(Enum):
    """How an order ended; the first four as the sidecar's journal has them."""

    GOAL_REACHED = "goal_reached"
    GOAL_NOT_REACHED = "goal_not_reached"
    NOT_NEEDED = "not_needed"
    DONE = "done"
    """All steps were taken: there was no goal, or it can't be compared with what is known here."""
    JOINED = "joined"
    """A run was under way: it takes those of the steps that it had not taken yet."""
    NOTHING_ASKED = "nothing_asked"
    """Every alert was resolved, or meant for others."""
    OFF = "off"
    """Automatic actions are turned off; a person's order is followed."""


class _Run:
    """The run under way; changed under the lock of `Runs`."""

    def __init__(self, number: int, order: Order) -> None:
        self.number = number
        self.steps = order.steps
        self.goals = order.goals
        self.begun: set[str] = set()


class Runs:
    """`take` takes a step and answers as the hook protocol does; `measure` looks at memory."""

    def __init__(
        self,
        take: Callable[[str], dict[str, object]],
        measure: Callable[[], Level],
        default_goal: Callable[[], Goal],
    ) -> None:
        self._take = take
        self._measure = measure
        self._default_goal = default_goal
        self._count = 0
        self.forked()

    def forked(self) -> None:
        """Forget the parent's run in a forked child: its thread has not come along."""
        self._lock = unpatched.allocate_lock()
        self._current: _Run | None = None

    @property
    def under_way(self) -> int | None:
        """Number of the run under way."""
        run = self._current
        return None if run is None else run.number

    def order(self, order: Order, *, act: bool) -> dict[str, object]:
        """Take the steps, or hand them to the run under way; returns what to answer. Blocks meanwhile.

        `act` False: what alerts ask for is not done.
        """
        common: dict[str, object] = {"pid": os.getpid()}
        if order.declined is not None:
            common["declined"] = {why.value: count for why, count in order.declined.items()}
        if not order.steps:
            return {"outcome": Outcome.NOTHING_ASKED.value, **common}
        if order.declined is not None and not act:
            return {"outcome": Outcome.OFF.value, **common}
        with self._lock:
            run = self._current
            if run is not None:
                run.steps |= order.steps
                run.goals |= order.goals
                return {"outcome": Outcome.JOINED.value, "run": run.number, **common}
            self._count += 1
            run = self._current = _Run(self._count, order)
        try:
            return {"run": run.number, **self._climb(run), **common}
        finally:
            with self._lock:
                self._close(run)

    def _climb(self, run: _Run) -> dict[str, object]:
        started = perf_counter()
        first = level = self._measure()
        steps: list[dict[str, object]] = []
        while not isinstance(decided := self._decide(run, level), Outcome):
            answer = self._take(decided)
            after = self._measure()
            freed = None if level.rss is None or after.rss is None else level.rss - after.rss
            steps.append({**answer, "rss_before": level.rss, "rss_after": after.rss, "freed": freed})
            level = after
        return {
            "outcome": decided.value,
            "goal": self._goal(run, level),
            "limit": level.limit,
            "used_before": first.used,
            "used_after": level.used,
            "used_of": level.origin.value,
            "rss_before": first.rss,
            "rss_after": level.rss,
            "freed": None if first.rss is None or level.rss is None else first.rss - level.rss,
            "seconds": perf_counter() - started,
            "stall": sum(stall for step in steps if isinstance(stall := step["stall"], float)),
            "steps": steps,
        }

    def _decide(self, run: _Run, level: Level) -> str | Outcome:
        """Choose the next step, or say how it ended: from then on nobody can join, for nothing more is taken."""
        with self._lock:
            goal = self._goal(run, level)
            if goal is not None and level.used is not None and level.used <= goal:
                outcome = Outcome.GOAL_REACHED if run.begun else Outcome.NOT_NEEDED
            else:
                left = run.steps - run.begun
                step = min(left, key=lambda step: (LADDER.index(step.partition(":")[0]), step), default=None)
                if step is not None:
                    run.begun.add(step)
                    return step
                known = goal is not None and level.used is not None
                outcome = Outcome.GOAL_NOT_REACHED if known else Outcome.DONE
            self._close(run)
            return outcome

    def _goal(self, run: _Run, level: Level) -> int | None:
        """Lowest of the goals in bytes; None where one of them is none, or can't be told in bytes."""
        sizes = []
        for wanted in run.goals:
            if wanted is Stop.AFTER_ALL or (wanted is Stop.AT_DEFAULT and level.origin is Origin.PROCESS):
                return (
                    None  # the alert has measured the whole service: one process of it can't say "not needed"
                )
            goal = wanted if isinstance(wanted, Goal) else self._default_goal()
            size = goal.of(level.limit)
            if size is None:
                return None
            sizes.append(size)
        return min(sizes, default=None)

    def _close(self, run: _Run) -> None:
        if self._current is run:
            self._current = None
