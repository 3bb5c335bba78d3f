"""The steps against hooks that answer as the test says, and what an outcome is judged by."""

import asyncio

import pytest

from oomguard.actions import LADDER, STEP_NAMES
from oomguard.actions.caches import Caches
from oomguard.actions.gc import Gc
from oomguard.actions.ladder import judge
from oomguard.actions.models import Models
from oomguard.actions.shed import Shed
from oomguard.actions.step import LEAST_PATIENCE, MOST_PATIENCE, Performed, Situation, Worker
from oomguard.actions.streams import Streams
from oomguard.actions.trim import Trim
from oomguard.errors import HookError
from oomguard.model import Level, LimitOrigin, Reading, SkipReason, Status, StepOutcome, UsedKind

MIB = 1 << 20
LIMIT = 1000 * MIB


def level(used, rate=0.0):
    return Level(0.0, used, LIMIT, LimitOrigin.CGROUP, UsedKind.CGROUP, rate)


class Hook:
    """Answers each step with what it was given, and does `then` to the memory."""

    def __init__(self, answer, then=None):
        self.answer = answer
        self.then = then
        self.asked = []
        self.names = []
        self.last = Reading(Status.ABSENT)
        self.busy = False
        self.pid = 41

    async def ask(self, question, timeout, **details):
        self.asked.append((details["step"], timeout))
        self.names.append(details["name"])
        self.within = details["within"]
        await asyncio.sleep(0)
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.then is not None:
            self.then()
        return self.answer


def done(**fields):
    return {"status": "done", "seconds": 0.01, "stall": 0.01, **fields}


class Box:
    def __init__(self, *hooks, used=850 * MIB, goal=700 * MIB, shared=(), rate=0.0, name=None):
        self.used = used
        self.rate = rate
        workers = [
            Worker(hook, f"worker-{index}", 100 * MIB, shared_heap=index in shared)
            for index, hook in enumerate(hooks)
        ]
        self.situation = Situation(
            workers, goal, level(used, rate), lambda: level(self.used, self.rate), name
        )

    def take(self, step):
        return asyncio.run(step.perform(self.situation))

    def frees(self, size):
        def free():
            self.used -= size

        return free


def test_the_ladder_is_cheapest_first_and_has_no_restart():
    assert STEP_NAMES == ("caches", "gc", "trim", "streams", "models", "shed")
    assert len({step.name for step in LADDER}) == len(LADDER)


def test_caches_are_cleared_in_all_processes_side_by_side():
    hooks = [
        Hook(done(freed_in_allocator=10, details={"bytes": 5})),
        Hook({"status": "skipped", "reason": "nothing_registered"}),
    ]
    performed = Box(*hooks).take(Caches())
    assert (performed.done, performed.skip, performed.retained) == (1, None, 10)
    assert performed.details["worker-0"] == {"status": "done", "bytes": 5}
    assert performed.details["worker-1"] == {"status": "skipped", "reason": "nothing_registered"}


def test_a_step_that_no_process_takes_is_skipped_with_its_reason():
    performed = Box(Hook({"status": "skipped", "reason": "nothing_registered"})).take(Caches())
    assert performed.skip is SkipReason.NOTHING_REGISTERED
    assert (
        Box(Hook({"status": "unsupported", "reason": "musl has no malloc_trim"})).take(Trim()).skip
        is SkipReason.UNSUPPORTED
    )
    assert Box().take(Caches()).skip is SkipReason.NO_HOOK


def test_a_process_that_hangs_does_not_keep_the_others_waiting():
    class Hanging(Hook):
        async def ask(self, question, timeout, **details):
            await asyncio.sleep(60)

    performed = Box(Hanging(None), Hook(done())).take(Caches())
    assert performed.done == 1
    assert performed.error.startswith("worker-0: no answer 0.1 s after")


def test_a_hook_that_owes_a_step_is_not_given_another():
    hook = Hook(done())
    hook.busy = True
    performed = Box(hook).take(Trim())
    assert (performed.done, hook.asked) == (0, [])
    assert "still busy with an earlier step" in performed.error


def test_a_hook_that_fails_does_not_keep_the_others():
    performed = Box(Hook(HookError("no answer")), Hook(done())).take(Caches())
    assert (performed.done, performed.error) == (1, "worker-0: no answer")


def test_gc_goes_from_worker_to_worker_until_the_goal():
    box = Box(Hook(done()), Hook(done()), Hook(done()))
    hooks = [worker.hook for worker in box.situation.workers]
    hooks[1].then = box.frees(200 * MIB)
    assert box.take(Gc()).done == 2
    assert hooks[2].asked == []


def test_gc_leaves_out_who_shares_a_heap():
    box = Box(Hook(done()), Hook(done()), shared={0})
    performed = box.take(Gc())
    assert performed.details["worker-0"] == {"status": "skipped", "reason": "shared_heap"}
    assert box.situation.workers[0].hook.asked == []
    assert Box(Hook(done()), shared={0}).take(Gc()).skip is SkipReason.SHARED_HEAP


def test_gc_stops_everywhere_once_usage_rises_by_it():
    box = Box(Hook(done()), Hook(done()))
    box.situation.workers[0].hook.then = box.frees(-40 * MIB)
    assert box.take(Gc()).done == 1


def test_trim_takes_the_next_process_only_above_the_goal():
    box = Box(Hook(done()), Hook(done()))
    box.situation.workers[0].hook.then = box.frees(200 * MIB)
    assert box.take(Trim()).done == 1


def test_streams_take_the_next_process_only_above_the_goal():
    box = Box(Hook(done()), Hook(done()))
    box.situation.workers[0].hook.then = box.frees(200 * MIB)
    assert box.take(Streams()).done == 1
    assert box.situation.workers[1].hook.asked == []


@pytest.mark.parametrize("step", [Caches(), Models()])
def test_one_cache_or_model_is_ordered_by_its_name(step):
    box = Box(Hook(done()), name="bulk")
    box.take(step)
    assert box.situation.workers[0].hook.names == ["bulk"]


def test_shedding_is_ordered_from_all_processes_and_judged_by_how_memory_grows_then(monkeypatch):
    monkeypatch.setattr("oomguard.actions.shed.WATCHED", 0.05)
    box = Box(Hook(done()), Hook(done()), rate=100.0 * MIB)
    performed = box.take(Shed())
    assert (performed.done, performed.growth) == (2, 0.0)
    assert [worker.hook.names for worker in box.situation.workers] == [[None], [None]]


def test_the_end_of_shedding_waits_for_no_growth_and_counts_once_it_is_done():
    box = Box(Hook(done()), name="off")
    performed = box.take(Shed())
    assert (performed.growth, box.situation.workers[0].hook.names) == (None, ["off"])
    assert judge("shed:off", level(850), level(850), performed, 0.1).outcome is StepOutcome.EFFECTIVE


def test_shedding_that_nobody_did_has_no_growth_to_show():
    performed = Box(Hook({"status": "unsupported", "reason": "nothing is mounted"})).take(Shed())
    assert (performed.growth, performed.skip) == (None, SkipReason.UNSUPPORTED)


def test_a_hook_is_given_less_time_when_the_limit_is_near():
    calm, urgent = Box(Hook(done())), Box(Hook(done()), rate=10_000.0 * MIB)
    calm.take(Caches())
    urgent.take(Caches())
    assert calm.situation.workers[0].hook.asked == [("caches", MOST_PATIENCE)]
    assert urgent.situation.workers[0].hook.asked == [("caches", LEAST_PATIENCE)]
    assert urgent.situation.workers[0].hook.within == pytest.approx(0.015), "its steps may take what is left"


def test_caches_are_never_left_out_for_lack_of_time():
    assert Caches().expected(Box(Hook(done())).situation) == 0.0


def test_an_answer_that_makes_no_sense_is_a_failure():
    assert "worker-0" in Box(Hook({"status": "splendid"})).take(Trim()).error
    assert (
        Box(Hook({"status": "done", "stall": "long", "freed_in_allocator": None, "details": 3}))
        .take(Trim())
        .done
        == 1
    )


@pytest.mark.parametrize(
    ("before", "after", "performed", "outcome"),
    [
        (850, 700, Performed(done=1), StepOutcome.EFFECTIVE),
        (850, 849, Performed(done=1), StepOutcome.INEFFECTIVE),
        (850, 851, Performed(done=1), StepOutcome.INEFFECTIVE),
        (850, 860, Performed(done=1), StepOutcome.INCONCLUSIVE),
        (850, None, Performed(done=1), StepOutcome.INCONCLUSIVE),
        (850, 860, Performed(done=1, retained=300 * MIB), StepOutcome.RETAINED),
        (850, 700, Performed(done=1, retained=300 * MIB), StepOutcome.EFFECTIVE),
        (850, 700, Performed(error="no answer"), StepOutcome.FAILED),
        (850, None, Performed(error="no answer"), StepOutcome.FAILED),
        (850, 700, Performed(skip=SkipReason.NO_HOOK), StepOutcome.SKIPPED),
        (850, 700, Performed(done=1, error="worker-2: no answer"), StepOutcome.EFFECTIVE),
        (850, 870, Performed(done=1, growth=0.0), StepOutcome.EFFECTIVE),
        (850, 840, Performed(done=1, growth=80.0 * MIB), StepOutcome.INEFFECTIVE),
    ],
)
def test_what_counts_is_what_was_measured(before, after, performed, outcome):
    report = judge(
        "caches", level(before * MIB), None if after is None else level(after * MIB), performed, 0.1
    )
    assert report.outcome is outcome
    gave = outcome in (StepOutcome.EFFECTIVE, StepOutcome.INEFFECTIVE, StepOutcome.RETAINED)
    assert report.freed == (max(0, before - after) * MIB if gave else 0)
