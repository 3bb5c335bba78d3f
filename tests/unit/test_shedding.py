"""Turns restricted to one cache or model, and shedding: who wants it, when it is renewed, and what ends it."""

import asyncio
import json

import pytest
from tests.unit.test_broker import GOAL, LIMITS, MIB, FakeStep, Memory

from oomguard.actions import LADDER
from oomguard.actions.ladder import Ladder
from oomguard.actions.shed import HOLD
from oomguard.actions.step import Performed, Worker
from oomguard.broker import Broker
from oomguard.broker.inbox import Inbox
from oomguard.broker.requests import parse
from oomguard.broker.shedding import RENEWAL, Order, Shedding
from oomguard.broker.wishes import Action, Wish
from oomguard.counters import Counters
from oomguard.journal import Journal
from oomguard.metrics import STEPS
from oomguard.model import ProcessId, Reading, SkipReason, Status

NAMES = tuple(step.name for step in LADDER)


class Hook:
    """Answers every step with `done`, and keeps what it was ordered."""

    def __init__(self):
        self.ordered = []
        self.busy = False
        self.stalled = 0.0
        self.pid = 41
        self.last = Reading(Status.ABSENT)

    async def ask(self, question, timeout, **details):
        self.ordered.append((details["step"], details["name"]))
        return {"status": "done"}


class Named(FakeStep):
    """A step that keeps the names that it was restricted to."""

    async def perform(self, situation):
        names.append((self.name, situation.name))
        return await super().perform(situation)


names = []


class Box:
    """A broker with the whole ladder, over one process that does all that it is told."""

    def __init__(self, tmp_path):
        names.clear()
        self.memory = Memory(used=950 * MIB)
        self.hook = Hook()
        self.steps = tuple(Named(name, self.memory) for name in NAMES)
        self.journal = Journal(tmp_path / "journal.jsonl")
        self.counters = Counters("t")
        worker = Worker(self.hook, "main", 1, shared_heap=False)

        def ladder(held):
            return Ladder(
                self.steps, measure=self.memory.level, workers=lambda: [worker], held=held,
                root=lambda: ProcessId(41, 1), kills=lambda: None,
                journal=self.journal, counters=self.counters,
            )  # fmt: skip

        self.broker = Broker(self.steps, ladder=ladder, journal=self.journal, counters=self.counters)
        self.inbox = Inbox(
            self.broker, self.journal, self.counters, target="t", silenced=lambda labels: False
        )

    async def tick(self, *steps, after=0.0):
        """A fast tick `after` seconds, at which one alert asks for these steps (none: no alert fires)."""
        self.memory.at += after
        wishes = [Wish("MemoryCritical", steps)] if steps else []
        self.broker.stand(wishes, self.memory.level(), GOAL)
        run = self.broker.consider(wishes, self.memory.level(), LIMITS)
        await self.settle()
        return run

    async def post(self, status, after=0.0, **labels):
        self.memory.at += after
        alert = {
            "status": status, "startsAt": "2026-11-21T04:00:18Z", "endsAt": "2026-11-21T05:00:18Z",
            "labels": {"alertname": "A", "action": "cleanup", **labels},
        }  # fmt: skip
        body = json.dumps({"version": "4", "alerts": [alert]}).encode()
        request = parse(body, Action.CLEANUP)
        receipt = self.inbox.take(request, Action.CLEANUP, self.memory.level(), LIMITS, act=True)
        await self.settle()
        return receipt

    async def settle(self):
        await self.broker.finished()
        await asyncio.gather(*self.broker._telling)

    def taken(self):
        return [record["step"] for record in self.journal.records if record["event"] == "step_start"]


@pytest.fixture
def box(tmp_path):
    return Box(tmp_path)


def on_loop(test):
    def run(box):
        asyncio.run(asyncio.wait_for(test(box), 20))

    run.__name__ = test.__name__
    return run


@on_loop
async def test_a_run_with_every_step_takes_them_as_the_ladder_has_them(box):
    await box.tick(*NAMES)
    again = ["gc", "trim"]
    assert box.taken() == ["caches", "gc", "trim", "streams", *again, "models", *again, "shed"]


@on_loop
async def test_one_cache_is_cleared_by_its_name_and_nothing_else(box):
    await box.tick("caches:bulk", "gc")
    assert names == [("caches", "bulk"), ("gc", None)]
    assert box.taken() == ["caches:bulk", "gc"]


@on_loop
async def test_a_name_makes_no_series(box):
    await box.tick("caches:bulk")
    counted = {
        sample.labels[1] for sample in box.counters.samples() if sample.metric is STEPS and sample.value
    }
    assert counted == {"caches"}


@on_loop
async def test_what_the_whole_step_has_cleared_is_not_cleared_once_more_by_name(box):
    await box.tick("caches", "caches:bulk", "models:jina")
    assert names == [("caches", None), ("models", "jina"), ("gc", None), ("trim", None)]


@on_loop
async def test_a_part_of_what_was_in_vain_starts_no_run(box):
    await box.tick("caches", "gc")
    assert await box.tick("caches:bulk", after=100) is None
    assert box.broker.held == "floor"
    assert await box.tick("models:jina", after=1) is not None


@on_loop
async def test_a_cooldown_of_all_caches_holds_each_of_them(box):
    await box.tick("caches", "gc")
    box.broker.restraint.floor = None
    await box.tick("caches:bulk", "models", after=0.5)
    assert ("caches", "bulk") not in names
    assert ("models", None) in names


@on_loop
async def test_shedding_is_renewed_while_an_alert_asks_for_it(box):
    await box.tick("shed")
    assert names == [("shed", None)]
    await box.tick("shed", after=RENEWAL - 0.1)
    assert box.hook.ordered == []
    await box.tick("shed", after=0.2)
    await box.tick("shed", after=0.2)
    assert box.hook.ordered == [("shed", None)]


@on_loop
async def test_shedding_ends_with_the_last_alert_that_asks_for_it(box):
    await box.tick("shed")
    await box.tick("shed", after=0.1)
    await box.tick("caches", after=0.1)
    assert box.hook.ordered == [("shed", "off")]
    assert [record["event"] for record in box.journal.records].count("shed_end") == 1
    await box.tick(after=0.1)
    assert box.hook.ordered == [("shed", "off")], "once"


@on_loop
async def test_below_the_goal_nobody_asks_for_shedding(box):
    await box.tick("shed")
    await box.tick("shed", after=0.1)
    box.memory.used = GOAL
    await box.tick("shed", after=0.1)
    assert box.hook.ordered == [("shed", "off")]


@on_loop
async def test_a_persons_order_to_shed_is_not_ended_by_alerts_that_never_asked(box):
    box.broker.order("manual", ["shed"], None, box.memory.level())
    await box.settle()
    await box.tick("caches", after=1)
    await box.tick(after=HOLD)
    assert box.hook.ordered == [], "the process ends it by itself"


@on_loop
async def test_a_run_does_not_shed_once_its_alert_is_resolved(box):
    box.steps[0].gate = asyncio.Event()
    wish = [Wish("MemoryCritical", ("caches", "shed"))]
    box.broker.stand(wish, box.memory.level(), GOAL)
    box.broker.consider(wish, box.memory.level(), LIMITS)
    await asyncio.sleep(0)
    box.broker.stand([], box.memory.level(), GOAL)
    box.steps[0].gate.set()
    await box.settle()
    skipped = [record for record in box.journal.records if record["event"] == "step_skipped"]
    assert [(record["step"], record["reason"]) for record in skipped] == [("shed", SkipReason.RESOLVED.value)]


@on_loop
async def test_a_resolved_alert_of_a_payload_ends_the_shedding_that_it_asked_for(box):
    await box.post("firing", steps="shed")
    assert names == [("shed", None)]
    await box.tick(after=0.1)
    await box.post("resolved", steps="shed", after=1)
    await box.tick(after=0.1)
    assert box.hook.ordered == [("shed", "off")]


@on_loop
async def test_another_targets_resolved_alert_ends_nothing(box):
    await box.post("firing", steps="shed")
    await box.post("resolved", steps="dance", target="another", after=1)
    await box.tick(after=0.1)
    assert box.hook.ordered == []


@on_loop
async def test_a_payload_that_is_never_resolved_sheds_for_no_longer_than_the_hold(box):
    await box.post("firing", steps="shed")
    for _ in range(4):
        await box.tick(after=HOLD / 3)
    assert [order for order in box.hook.ordered if order[1] is None] == []
    assert not box.broker.shedding.wanted(box.memory.at)


@on_loop
async def test_shedding_that_no_process_did_is_not_renewed(box):
    async def skipped(situation):
        return Performed(skip=SkipReason.UNSUPPORTED)

    box.steps[-1].perform = skipped
    await box.tick("shed")
    await box.tick("shed", after=RENEWAL + 1)
    assert box.hook.ordered == []


def test_payloads_are_remembered_up_to_a_bound():
    shedding = Shedding()
    for number in range(3000):
        shedding.asked(str(number), 0.0)
    assert len(shedding._others) == 1000
    shedding.begun(0.0)
    assert shedding.stand(1.0, own=False) is None
    assert shedding.stand(HOLD - 0.1, own=True) is Order.RENEW
    assert shedding.stand(HOLD + 1, own=False) is Order.END
    assert shedding._others == {}
