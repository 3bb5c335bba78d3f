"""What a step of the ladder is, and how a step is ordered from one hook, from all, and from the worst first.

A step may be restricted to one cache or model: such a *turn* is written ``caches:bulk``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from oomguard.errors import HookError
from oomguard.model import Level, SkipReason
from oomguard.sources.hooks import Hook

LEAST_PATIENCE = 1.0
"""Seconds a hook is always given, however near the limit is: beside 8 spinning Python threads it answers after
half a second at worst. Its other steps would wait behind this one anyway."""
MOST_PATIENCE = 5.0
"""Seconds a hook is given while memory does not grow: a trim of 4 GB takes 0.4 s."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A process of the target that has a hook, and what the sidecar knows of it."""

    hook: Hook
    slot: str
    weight: int
    """Its private memory in bytes, as last seen: the worst worker comes first."""
    shared_heap: bool
    """It shares its Python heap copy-on-write with others, and was not frozen before the fork."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What a step may look at. `measure` reads memory again and returns None when that fails."""

    workers: Sequence[Worker]
    """Worst first."""
    goal: int
    level: Level
    measure: Callable[[], Level | None]
    name: str | None = None
    """The one cache or model that the step is restricted to."""
    spare: int = 0
    """Bytes that the step before left inside malloc: the application fills them before it takes any of what is left."""

    @property
    def seconds_left(self) -> float:
        """Until the limit is reached, as it looks now."""
        return self.lasts(self.measure() or self.level)

    def lasts(self, level: Level) -> float:
        """Seconds until the limit is reached from this level."""
        return level.seconds_left + (self.spare / level.rate if level.rate > 0 else 0.0)


@dataclass(frozen=True, slots=True)
class Performed:
    """What came of a step, before memory is measured again."""

    done: int = 0
    """In how many processes it ran."""
    skip: SkipReason | None = None
    """Why it ran in none, if it was left out."""
    error: str = ""
    """Why it failed where it failed."""
    stall: float = 0.0
    """The longest that any process stood still, in seconds."""
    retained: int = 0
    """Bytes freed inside malloc that the kernel has not got back."""
    details: Mapping[str, object] = field(default_factory=dict)
    """By slot: what the hooks said."""
    growth: float | None = None
    """Bytes per second by which memory grew once it was taken; None for a step that is judged by the level."""


class Step(Protocol):
    """One step of the ladder; its file is named after it."""

    @property
    def name(self) -> str:
        """As routes, the journal and metrics call it."""

    @property
    def cooldown(self) -> float:
        """Seconds for which it is held back after it proved ineffective."""

    def expected(self, situation: Situation) -> float:
        """Seconds that it is expected to take now."""

    async def perform(self, situation: Situation) -> Performed:
        """Do it; never raises for what a hook does."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One hook's word on a step."""

    status: str
    """``done``, ``skipped``, ``unsupported`` or ``failed``."""
    reason: str = ""
    seconds: float = 0.0
    stall: float = 0.0
    freed_in_allocator: int = 0
    details: Mapping[str, object] = field(default_factory=dict)

    @property
    def said(self) -> Mapping[str, object]:
        """For the journal: what is worth keeping."""
        said: dict[str, object] = {"status": self.status}
        if self.reason:
            said["reason"] = self.reason
        return {**said, **self.details}


async def order(worker: Worker, step: str, situation: Situation) -> Answer:
    """Have one hook take a step; whatever goes wrong becomes a ``failed`` answer."""
    if worker.hook.busy:
        return Answer("failed", f"process {worker.hook.pid} is still busy with an earlier step")
    # How long it may take is what is left; how long its answer is waited for is never less than a hook may need.
    within = min(MOST_PATIENCE, situation.seconds_left)
    patience = max(LEAST_PATIENCE, within)
    began = time.perf_counter()
    try:
        raw = await worker.hook.ask("step", patience, step=step, name=situation.name, within=within)
    except HookError as error:
        return Answer("failed", str(error), time.perf_counter() - began)
    details = raw.get("details")
    status = raw.get("status")
    return Answer(
        status if status in ("done", "skipped", "unsupported") else "failed",
        str(raw.get("reason", ""))[:200],
        _number(raw.get("seconds")),
        _number(raw.get("stall")),
        int(_number(raw.get("freed_in_allocator"))),
        {str(key)[:32]: value for key, value in list(details.items())[:8]}
        if isinstance(details, dict)
        else {},
    )


def split(turn: str) -> tuple[str, str | None]:
    """Step of a turn, and the name that it is restricted to."""
    step, colon, name = turn.partition(":")
    return step, name if colon else None


def uncovered(turns: frozenset[str], others: frozenset[str]) -> frozenset[str]:
    """Those turns that the others do not comprise: ``caches`` comprises ``caches:bulk``."""
    return frozenset(turn for turn in turns if not {turn, split(turn)[0]} & others)


STRAGGLERS = 0.1
"""Seconds for which the others are waited for once one process has done it: a worker that hangs must not keep
the ladder from the next step while another one fills its cache again."""


async def side_by_side(step: str, situation: Situation) -> Performed:
    """Order a step from every process at once."""
    workers = keyed(situation.workers)
    tasks = {asyncio.create_task(order(worker, step, situation)): slot for slot, worker in workers}
    pending, one_did = set(tasks), False
    while pending:
        done, pending = await asyncio.wait(
            pending, timeout=STRAGGLERS if one_did else None, return_when=asyncio.FIRST_COMPLETED
        )
        one_did = one_did or any(task.result().status == "done" for task in done)
        if not done:
            break
    for task in pending:
        task.cancel()
    late = Answer("failed", f"no answer {STRAGGLERS:g} s after the others'")
    return summed({slot: late if task in pending else task.result() for task, slot in tasks.items()})


async def worst_first(step: str, situation: Situation) -> Performed:
    """Order a step from one process after the other, the worst first, until the goal is reached."""
    answers: dict[str, Answer] = {}
    for slot, worker in keyed(situation.workers):
        answers[slot] = await order(worker, step, situation)
        after = situation.measure()
        if after is not None and after.used <= situation.goal:
            break
    return summed(answers)


def keyed(workers: Sequence[Worker]) -> list[tuple[str, Worker]]:
    """Workers by slot; those beyond the bound are all called ``other`` and are told apart by a number."""
    slots = [worker.slot for worker in workers]
    return [
        (worker.slot if slots.count(worker.slot) == 1 else f"{worker.slot}#{index}", worker)
        for index, worker in enumerate(workers)
    ]


def noise(limit: int) -> int:
    """Bytes below which a difference says nothing: a cgroup's counter is batched by 64 pages a processor."""
    return max(1 << 20, limit // 500)


def summed(answers: Mapping[str, Answer]) -> Performed:
    """One result of many hooks' answers; `answers` is by slot."""
    done = [answer for answer in answers.values() if answer.status == "done"]
    failed = [f"{slot}: {answer.reason}" for slot, answer in answers.items() if answer.status == "failed"]
    skip = None
    if not done and not failed:
        skip = SkipReason.NO_HOOK
        for answer in answers.values():
            skip = _skip_reason(answer)
    return Performed(
        done=len(done),
        skip=skip,
        error="; ".join(failed),
        stall=max((answer.stall for answer in answers.values()), default=0.0),
        retained=sum(answer.freed_in_allocator for answer in done),
        details={slot: answer.said for slot, answer in answers.items()},
    )


def _skip_reason(answer: Answer) -> SkipReason:
    try:
        return SkipReason(answer.reason)
    except ValueError:
        return SkipReason.UNSUPPORTED


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1 << 63:
        return 0.0
    return float(value)
