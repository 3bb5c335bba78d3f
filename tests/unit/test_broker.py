"""The broker on a real event loop, with steps that free what the test says from a memory of the test's."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from oomguard.actions.ladder import LAST_BREATH, Ladder
from oomguard.actions.step import Performed, Worker
from oomguard.broker import Broker
from oomguard.broker.restraint import FIRST_BACKOFF, RISE
from oomguard.broker.wishes import Wish
from oomguard.counters import Counters
from oomguard.journal import Journal
from oomguard.metrics import STEP_FREED
from oomguard.model import Level, LimitOrigin, ProcessId, RunOutcome, SkipReason, StepOutcome, UsedKind
from oomguard.sizes import Threshold
from oomguard.sources.hooks import Hook
from oomguard.thresholds import Thresholds

LIMIT = 1000 << 20
GOAL = 700 << 20
CRITICAL = 900 << 20
MIB = 1 << 20
ROOT = ProcessId(41, 1)
LIMITS = Thresholds(800 * MIB, CRITICAL, GOAL)


@dataclass
class Memory:
    """A box whose level the test sets; `rate` is what the sampler would say."""

    used: int = 850 * MIB
    at: float = 100.0
    rate: float = 0.0
    readable: bool = True
    root: ProcessId | None = ROOT
    kills: int | None = 0

    def level(self):
        if not self.readable:
            return None
        return Level(self.at, self.used, LIMIT, LimitOrigin.CGROUP, UsedKind.CGROUP, self.rate)


@dataclass
class FakeStep:
    name: str
    memory: Memory
    frees: list[int] = field(default_factory=list)
    retained: int = 0
    takes: float = 0.0
    cooldown: float = 10.0
    raises: Exception | None = None
    skip: SkipReason | None = None
    taken: int = 0
    gate: asyncio.Event | None = None
    then: Callable[[], Performed | None] = lambda: None

    def expected(self, situation):
        return self.takes

    async def perform(self, situation):
        self.taken += 1
        if self.gate is not None:
            await self.gate.wait()
        if self.raises is not None:
            raise self.raises
        if self.skip is not None:
            return Performed(skip=self.skip)
        if self.frees:
            self.memory.used -= self.frees.pop(0)
        if (performed := self.then()) is not None:
            return performed
        return Performed(done=1, retained=self.retained)


class Box:
    """A broker with three steps over one memory."""

    def __init__(self, tmp_path, *, workers=True, past=()):
        self.memory = Memory()
        self.caches = FakeStep("caches", self.memory, cooldown=1.0)
        self.gc = FakeStep("gc", self.memory)
        self.trim = FakeStep("trim", self.memory)
        self.steps = (self.caches, self.gc, self.trim)
        self.journal = Journal(tmp_path / "journal.jsonl")
        self.counters = Counters("t")
        worker = Worker(Hook(1, {}, None), "main", 1, shared_heap=False)

        def ladder(held):
            self.ladder = Ladder(
                self.steps,
                measure=self.memory.level,
                workers=lambda: [worker] if workers else [],
                held=held,
                root=lambda: self.memory.root,
                kills=lambda: self.memory.kills,
                journal=self.journal,
                counters=self.counters,
            )
            return self.ladder

        self.broker = Broker(
            self.steps,
            ladder=ladder,
            journal=self.journal,
            counters=self.counters,
            past=past,
        )

    def tick(self, *alerts, steps=("caches", "gc", "trim"), goal=GOAL):
        own = None if goal == GOAL else Threshold(size=goal)
        wishes = [Wish(alert, steps, own) for alert in alerts or ("MemoryHigh",)]
        return self.broker.consider(wishes, self.memory.level(), LIMITS)

    def quiet(self):
        return self.broker.consider([], self.memory.level(), LIMITS)

    async def settle(self):
        await asyncio.wait_for(self.broker.finished(), 10)

    def events(self, *names):
        return [record for record in self.journal.records if record["event"] in names]

    def outcomes(self):
        return {record["step"]: record["outcome"] for record in self.events("step_end")}


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path)


def on_loop(test):
    """Run an async test on a loop of its own."""

    def run(box):
        asyncio.run(asyncio.wait_for(test(box), 20))

    run.__name__ = test.__name__
    return run


@on_loop
async def test_steps_are_taken_cheapest_first_until_the_goal(box):
    box.caches.frees = [50 * MIB]
    box.gc.frees = [120 * MIB]
    box.tick()
    await box.settle()
    assert [s.taken for s in box.steps] == [1, 1, 0]
    assert box.broker.last[1] is RunOutcome.GOAL_REACHED
    assert box.outcomes() == {"caches": "effective", "gc": "effective"}
    (end,) = box.events("run_end")
    assert (end["used_before"], end["used_after"], end["freed"]) == (850 * MIB, 680 * MIB, 170 * MIB)


@on_loop
async def test_every_action_is_in_the_journal_before_it_runs(box):
    box.caches.gate = asyncio.Event()
    box.caches.frees = [200 * MIB]
    box.tick()
    while not box.caches.taken:
        await asyncio.sleep(0)
    on_disk = [line for line in (box.journal.path).read_text().splitlines() if '"step_start"' in line]
    assert len(on_disk) == 1
    assert '"caches"' in on_disk[0]
    box.caches.gate.set()
    await box.settle()


@on_loop
async def test_alerts_that_come_meanwhile_join_the_run(box):
    box.caches.gate = asyncio.Event()
    first = box.tick("MemoryHigh", steps=("caches",))
    await asyncio.sleep(0)
    second = box.tick("MemoryCritical", steps=("caches", "trim"), goal=600 * MIB)
    assert second is first
    box.caches.gate.set()
    await box.settle()
    assert (first.goal, first.alerts) == (600 * MIB, ("MemoryHigh", "MemoryCritical"))
    assert [s.taken for s in box.steps] == [1, 0, 1], "union of the steps, each once"
    assert len(box.events("run_start")) == 1


@on_loop
async def test_a_step_is_taken_down_to_the_goal_of_those_who_wish_for_it(box):
    """An early trim to 50 % beside MemoryHigh must not cost the caches, which are wished for down to 70 % only."""
    box.caches.gate = asyncio.Event()
    box.caches.frees = [160 * MIB]
    box.trim.frees = [250 * MIB]
    box.tick("MemoryHigh", steps=("caches", "gc"))
    await asyncio.sleep(0)
    box.tick("AllocatorRetention", steps=("trim",), goal=500 * MIB)
    box.caches.gate.set()
    await box.settle()
    assert [s.taken for s in box.steps] == [1, 0, 1]
    assert box.broker.last[1] is RunOutcome.GOAL_REACHED


@on_loop
async def test_steps_that_a_person_asks_for_without_a_goal_are_taken_at_any_level(box):
    box.memory.used = 100 * MIB
    box.broker.order("manual", ("gc",), None, box.memory.level())
    await box.settle()
    assert [s.taken for s in box.steps] == [0, 1, 0]
    assert box.broker.last[1] is RunOutcome.DONE


@on_loop
async def test_a_dry_run_decides_and_journals_and_takes_no_step(box):
    box.ladder.dry_run = True
    box.tick()
    await box.settle()
    assert [s.taken for s in box.steps] == [0, 0, 0]
    assert {record["reason"] for record in box.events("step_skipped")} == {"dry_run"}
    assert box.broker.last[1] is RunOutcome.DRY_RUN, "nobody is paged for a cleanup that was not tried"
    assert box.tick() is None, "and is not repeated at every tick"


@on_loop
async def test_under_the_goal_nothing_is_needed(box):
    box.memory.used = 690 * MIB
    assert box.tick() is None
    assert box.broker.held == "not_needed"
    assert box.events("run_start") == []


@on_loop
async def test_memory_that_fell_before_the_run_began_makes_it_not_needed(box):
    box.tick()
    box.memory.used = 500 * MIB
    await box.settle()
    assert box.broker.last[1] is RunOutcome.NOT_NEEDED
    assert [s.taken for s in box.steps] == [0, 0, 0]


@on_loop
async def test_a_run_that_worked_may_repeat_at_once(box):
    for _ in range(3):
        box.memory.used = 850 * MIB
        box.caches.frees = [300 * MIB]
        assert box.tick() is not None
        await box.settle()
    assert box.caches.taken == 3


@on_loop
async def test_a_run_in_vain_is_not_repeated_until_memory_has_risen(box):
    box.tick()
    await box.settle()
    assert box.broker.last[1] is RunOutcome.GOAL_NOT_REACHED
    assert box.tick() is None
    assert box.broker.held == "floor"
    box.memory.at += 3600
    box.memory.used += int(RISE * LIMIT) - 1
    assert box.tick() is None, "an hour later, at about the same level, it would be in vain again"
    box.memory.used += 1
    assert box.tick() is not None
    await box.settle()


@on_loop
async def test_a_floor_near_the_limit_is_exceeded_halfway_to_it(box):
    box.memory.used = 980 * MIB
    box.tick()
    await box.settle()
    box.memory.used = 989 * MIB
    assert box.tick() is None
    box.memory.used = 990 * MIB
    assert box.tick() is not None, "5 % above 98 % is never reached"
    await box.settle()


@on_loop
async def test_at_the_limit_a_run_in_vain_is_not_repeated_at_every_tick(box):
    box.memory.used = LIMIT + 10 * MIB
    box.tick()
    await box.settle()
    for _ in range(20):
        assert box.tick() is None


@on_loop
async def test_memory_that_fell_by_itself_takes_the_floor_with_it(box):
    box.memory.used = 940 * MIB
    box.tick()
    await box.settle()
    box.memory.used = 720 * MIB
    box.quiet()
    box.memory.used, box.memory.at = 800 * MIB, box.memory.at + 3600
    assert box.tick() is not None
    await box.settle()


@on_loop
async def test_each_run_in_vain_doubles_the_back_off(box):
    for wait, used in ((0.0, 705), (FIRST_BACKOFF, 760), (2 * FIRST_BACKOFF, 815)):
        box.memory.used = used * MIB
        if wait:
            box.memory.at += wait - 0.1
            assert box.tick() is None
            assert box.broker.held == "backoff"
            box.memory.at += 0.1
        assert box.tick() is not None
        await box.settle()


@on_loop
async def test_what_malloc_kept_and_a_trim_returned_counts_once(box):
    box.caches.retained = box.trim.retained = 0
    box.caches.retained = 26 * MIB
    box.trim.frees = [26 * MIB]
    run = box.tick()
    await box.settle()
    assert run.freed == 26 * MIB
    assert box.tick() is None, "26 MB are less than 5 %"


@on_loop
async def test_the_back_off_doubles_and_is_waived_at_a_critical_level(box):
    box.memory.used = 800 * MIB
    box.tick()
    await box.settle()
    box.memory.used = 860 * MIB
    assert box.tick() is None
    assert box.broker.held == "backoff"
    box.memory.at += FIRST_BACKOFF
    assert box.tick() is not None
    await box.settle()
    box.memory.used = 915 * MIB
    assert box.tick() is not None, "what can be tried in the last tenth is tried"
    await box.settle()


@on_loop
async def test_a_wish_for_more_steps_is_not_held_back_by_a_run_that_did_not_take_them(box):
    box.tick(steps=("caches",))
    await box.settle()
    assert box.tick(steps=("caches",)) is None
    assert box.tick(steps=("caches", "trim")) is not None
    await box.settle()
    assert box.trim.taken == 1


@on_loop
async def test_an_ineffective_step_is_in_its_cooldown_and_no_other_is(box):
    box.gc.frees = [200 * MIB]
    box.tick()
    await box.settle()
    box.memory.used = 850 * MIB
    box.gc.frees = [200 * MIB]
    box.tick()
    await box.settle()
    assert [s.taken for s in box.steps] == [1, 2, 0]
    assert box.events("step_skipped")[-1]["reason"] == "cooldown"


@on_loop
async def test_a_cooldown_ends_when_memory_has_risen(box):
    box.gc.frees = [200 * MIB]
    box.tick()
    await box.settle()
    box.memory.used = 910 * MIB
    box.tick()
    await box.settle()
    assert box.caches.taken == 2


@on_loop
async def test_what_malloc_keeps_is_trimmed_at_once_and_counts_as_freed(box):
    box.caches.retained = 300 * MIB
    box.trim.frees = [300 * MIB]
    box.tick()
    await box.settle()
    assert [s.taken for s in box.steps] == [1, 0, 1], "gc would give the application time to fill it again"
    assert box.outcomes() == {"caches": "retained", "trim": "effective"}


async def hurried(box, retained):
    box.memory.rate = 1000 * MIB
    box.trim.takes = (LIMIT - box.memory.used) / box.memory.rate + 0.1
    box.caches.retained = retained
    box.tick()
    await box.settle()
    return box.trim.taken


@on_loop
async def test_a_trim_that_takes_longer_than_memory_lasts_is_not_begun(box):
    assert await hurried(box, 0) == 0


@on_loop
async def test_what_malloc_keeps_is_filled_first_so_that_there_is_time_to_trim_it(box):
    assert await hurried(box, 300 * MIB) == 1, "the application fills it in 0.3 s"


@on_loop
async def test_a_run_whose_memory_the_application_took_again_may_repeat_at_once(box):
    box.caches.retained = 300 * MIB
    box.tick()
    await box.settle()
    assert box.broker.last[1] is RunOutcome.GOAL_NOT_REACHED
    assert box.tick() is not None
    await box.settle()


@on_loop
async def test_memory_that_rises_meanwhile_makes_a_step_inconclusive(box):
    box.caches.frees = [-50 * MIB]
    box.tick()
    await box.settle()
    assert box.outcomes()["caches"] == "inconclusive"


@on_loop
async def test_memory_that_cant_be_read_ends_the_run(box):
    box.tick()
    box.memory.readable = False
    await box.settle()
    assert box.broker.last[1] is RunOutcome.TARGET_GONE


async def ended(box):
    """A run for a person's goal; its steps' outcomes and bytes, its own outcome and bytes."""
    box.broker.order("manual", ("caches", "gc", "trim"), GOAL, box.memory.level())
    await box.settle()
    (end,) = box.events("run_end")
    steps = [(r["step"], r["outcome"], r["freed"]) for r in box.events("step_end")]
    return steps, end["outcome"], end["freed"]


def dies(box, *, told=True):
    """What the kernel does to the main process: its memory falls, and nobody has to have told the sidecar."""

    def die():
        box.memory.used -= 400 * MIB
        box.memory.kills += 1
        if told:
            box.memory.root = None
        return Performed(error="main: hook of process 41 went away")

    return die


@on_loop
async def test_a_target_that_is_killed_has_not_been_freed_of_anything(box):
    box.caches.then = dies(box)
    assert await ended(box) == ([("caches", "failed", 0)], "target_gone", 0)
    freed = {s.labels: s.value for s in box.counters.samples() if s.metric is STEP_FREED}
    assert set(freed.values()) == {0}
    assert (box.broker.restraint.floor, box.gc.taken) == (None, 0)


@on_loop
async def test_a_target_that_dies_a_moment_after_its_hook_is_waited_for(box):
    box.caches.then = dies(box, told=False)
    asyncio.get_running_loop().call_later(LAST_BREATH / 3, setattr, box.memory, "root", None)
    assert await ended(box) == ([("caches", "failed", 0)], "target_gone", 0)


@on_loop
async def test_the_memory_of_another_target_says_nothing_of_a_run(box):
    def restarted():
        box.memory.used -= 400 * MIB
        box.memory.root = ProcessId(42, 2)

    box.caches.then = restarted
    assert await ended(box) == ([("caches", "inconclusive", 0)], "target_gone", 0)


@on_loop
async def test_what_falls_because_the_kernel_killed_a_worker_is_not_the_steps_doing(box):
    def kill():
        box.memory.used -= 50 * MIB
        box.memory.kills += 1

    box.caches.then = kill
    box.gc.frees = [200 * MIB]
    steps, outcome, freed = await ended(box)
    assert steps == [("caches", "inconclusive", 0), ("gc", "effective", 200 * MIB)]
    assert (outcome, freed) == ("goal_reached", 200 * MIB)
    assert box.events("step_end")[0]["reason"] == "the kernel killed a process meanwhile"


@on_loop
async def test_a_step_that_no_process_did_frees_nothing_though_memory_fell(box):
    def fail():
        box.memory.used -= 50 * MIB
        return Performed(error="main: no answer")

    box.caches.then = fail
    box.memory.kills = None  # this kernel does not say
    steps, _, freed = await ended(box)
    assert (steps[0], freed) == (("caches", "failed", 0), 0)


@on_loop
async def test_a_step_that_raises_is_failed_and_the_next_one_is_taken(box):
    box.caches.raises = RuntimeError("boom")
    box.gc.frees = [200 * MIB]
    box.tick()
    await box.settle()
    assert box.outcomes() == {"caches": "failed", "gc": "effective"}
    assert "boom" in box.events("step_end")[0]["reason"]


@on_loop
async def test_a_step_that_would_take_longer_than_the_time_left_is_skipped_and_journaled(box):
    box.memory.rate = 150 * MIB
    box.gc.takes = 2.0
    box.trim.frees = [200 * MIB]
    box.tick()
    await box.settle()
    assert [s.taken for s in box.steps] == [1, 0, 1]
    assert [(r["step"], r["reason"]) for r in box.events("step_skipped")] == [("gc", "no_time")]


def test_without_a_hook_every_step_is_skipped_and_the_run_is_in_vain(tmp_path):
    async def run():
        box = Box(tmp_path, workers=False)
        box.tick()
        await box.settle()
        assert {r["reason"] for r in box.events("step_skipped")} == {"no_hook"}
        assert box.broker.last[1] is RunOutcome.GOAL_NOT_REACHED
        assert box.tick() is None

    asyncio.run(run())


@on_loop
async def test_a_person_is_not_held_back(box):
    box.tick()
    await box.settle()
    run = box.broker.order("manual", ("caches", "gc", "trim"), GOAL, box.memory.level())
    await box.settle()
    assert run.id == 2
    assert [s.taken for s in box.steps] == [2, 2, 2]


@on_loop
async def test_below_the_goal_the_floor_is_forgotten(box):
    box.tick()
    await box.settle()
    box.memory.used = 600 * MIB
    box.quiet()
    box.memory.used = 850 * MIB
    box.memory.at += box.caches.cooldown
    assert box.tick() is not None
    await box.settle()


@on_loop
async def test_a_run_that_is_broken_off_is_journaled_as_interrupted(box):
    box.caches.gate = asyncio.Event()
    box.tick()
    while not box.caches.taken:
        await asyncio.sleep(0)
    await box.broker.close()
    assert box.events("run_end")[0]["outcome"] == "interrupted"


@on_loop
async def test_a_sidecar_that_ends_with_its_target_has_the_run_say_why(box):
    box.caches.gate = asyncio.Event()
    box.caches.then = dies(box)
    box.tick()
    await asyncio.sleep(0)
    box.memory.root = None  # its supervisor has told already
    asyncio.get_running_loop().call_later(0.05, box.caches.gate.set)
    await box.broker.close()
    assert box.outcomes() == {"caches": "failed"}
    assert box.broker.last[1] is RunOutcome.TARGET_GONE


def test_a_new_sidecar_goes_on_where_the_journal_ends(tmp_path):
    async def first():
        box = Box(tmp_path)
        box.tick()
        await box.settle()
        box.caches.gate = asyncio.Event()
        box.memory.used = 920 * MIB
        box.tick()
        while not box.caches.taken:
            await asyncio.sleep(0)
        return list(box.journal.records)  # killed here: the journal's last word is a step that began

    async def second(past):
        box = Box(tmp_path / "later", past=past)
        assert box.events("run_end")[-1] | {"time": 0} == {
            "time": 0,
            "event": "run_end",
            "run": 2,
            "outcome": "interrupted",
        }
        assert box.tick() is None, "the floor of run 1 still holds"
        box.memory.used = 910 * MIB
        assert box.tick().id == 3
        await box.settle()

    asyncio.run(second(asyncio.run(first())))


@on_loop
async def test_counters_tell_what_steps_came_to(box):
    box.caches.frees = [200 * MIB]
    box.tick()
    await box.settle()
    values = {(s.metric.name, s.labels[1:]): s.value for s in box.counters.samples()}
    assert values["oomguard_cleanup_steps_total", ("caches", StepOutcome.EFFECTIVE.value)] == 1
    assert values["oomguard_cleanup_freed_bytes_total", ("caches",)] == 200 * MIB
    assert values["oomguard_cleanup_runs_total", ("goal_reached",)] == 1
    assert values["oomguard_cleanup_runs_total", ("target_gone",)] == 0


@on_loop
async def test_no_cooldown_holds_back_a_person_who_joins_a_run(box):
    box.tick()
    await box.settle()
    box.memory.used = 920 * MIB
    box.memory.at += 1.5  # of all cooldowns only that of caches is over
    box.caches.gate = asyncio.Event()
    run = box.tick(steps=("caches",))
    await asyncio.sleep(0)
    assert box.broker.order("manual", ("trim",), None, box.memory.level()) is run
    box.caches.gate.set()
    await box.settle()
    assert box.trim.taken == 2


@on_loop
async def test_what_rests_on_slow_readings_waits_after_a_run_for_the_next_one(box):
    wish = Wish("NodeHeapCritical", ("caches",), Threshold(ratio=0.01), instant=False)

    def ask():
        return box.broker.consider([wish], box.memory.level(), LIMITS)

    box.caches.frees = [100 * MIB] * 5
    assert ask() is not None
    await box.settle()
    for _ in range(200):
        assert ask() is None
    assert box.broker.held == "stale"
    box.broker.refreshed()
    assert ask() is not None
    await box.settle()
    assert box.caches.taken == 2


@on_loop
async def test_a_run_names_only_those_who_still_wish_for_something(box):
    wishes = [Wish("Met", ("gc",), Threshold(ratio=0.95)), Wish("MemoryHigh", ("caches",))]
    run = box.broker.consider(wishes, box.memory.level(), LIMITS)
    assert (run.alerts, run.steps) == (("MemoryHigh",), {"caches"})
    await box.settle()


@on_loop
async def test_a_ladder_that_breaks_is_not_climbed_again_at_once(box):
    async def broken(run):
        raise RuntimeError("boom")

    box.ladder.climb = broken
    box.tick()
    await box.settle()
    assert box.broker.last[1] is RunOutcome.GOAL_NOT_REACHED
    assert box.tick() is None
