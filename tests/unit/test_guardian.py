"""A fast tick, from the level to the broker: what is read, said and ordered, on a real event loop."""

import asyncio
import logging
from dataclasses import replace

import pytest

from oomguard import metrics as m
from oomguard.alerting import Alerting, loading
from oomguard.alerting.silencing import PAUSE
from oomguard.clock import UnixClock
from oomguard.config import Settings
from oomguard.counters import Counters
from oomguard.guardian import Guardian
from oomguard.hookmodel import CacheStats, Distribution, GcStats
from oomguard.journal import Journal
from oomguard.model import (
    HookReading,
    Level,
    LimitOrigin,
    Process,
    ProcessId,
    ProcessMemory,
    ProcessSample,
    Reading,
    Snapshot,
    Status,
    Tree,
    UsedKind,
)
from oomguard.sources.hooks import Hook, Question
from oomguard.state import State
from oomguard.store import Store

START = 1_795_000_000
"""Unix seconds at which the monotonic clock of these tests stood at 0."""
MIB = 1 << 20
LIMIT = 1000 * MIB
ABSENT = Reading(Status.ABSENT)


class Reader:
    def __init__(self):
        self.used = 100 * MIB
        self.limit = LIMIT
        self.rate = 0.0

    def read(self, at, *, tick=False):
        if self.used is None:
            return None
        return Level(at, self.used, self.limit, LimitOrigin.CGROUP, UsedKind.CGROUP, self.rate)

    def resident(self):
        return 123 * MIB


class Hooks:
    def __init__(self):
        self.hooks = []

    def members(self):
        return self.hooks


def process(slot, pid, ppid=1, uss=None, anon=10 * MIB):
    sample = ProcessSample(
        ProcessId(pid, 1),
        ppid,
        pid,
        "S",
        "app",
        50 * MIB,
        anon,
        0,
        0,
        900 * MIB,
        0,
        1,
        0.0,
        0.0,
        0,
        0,
        0.0,
        3,
    )
    memory = ABSENT if uss is None else Reading(Status.OK, ProcessMemory(uss, uss, uss, uss, 0))
    return Process(slot, sample, ("app",), memory, ABSENT)


def hook(pid, *, forked=False, frozen=False):
    made = Hook(pid, {"forked": forked, "runtime": "python"}, None)
    stats = GcStats((0, 0, 0), (0, 0, 0), (0, 0, 0), Distribution((), (0,), 0.0), None, frozen)
    reading = HookReading("x", pid, "python", "3", "0", forked, Reading(Status.OK, stats), ABSENT, (), 0.0)
    made.last = Reading(Status.OK, reading)
    return made


class Rig:
    """A guardian with the rules and routes that ship, over a memory and a clock that the test sets."""

    def __init__(self, tmp_path, loaded=None, **settings):
        self.at = 0.0
        self.reader, self.hooks = Reader(), Hooks()
        clock = UnixClock(lambda: START + self.at, lambda: self.at)
        self.state = State("t", Settings(**settings), clock)
        self.state.root = self.living = ProcessId(1, 1)
        self.journal = Journal(tmp_path / "j")
        store, counters = Store(), Counters("t")
        self.alerting = Alerting(
            loaded or loading.load(self.state.settings), store, counters, self.journal, target="t",
            write=store.live,
        )  # fmt: skip
        self.guardian = Guardian(
            self.state, self.reader, self.hooks, self.journal, counters, store, self.alerting,
            lives=lambda root: root == self.living, clock=lambda: self.at,
        )  # fmt: skip

    def tick(self, used, at=1.0):
        self.at = at
        self.reader.used = None if used is None else used * MIB
        return self.guardian._tick(at)

    def now(self):
        return self.state.clock.milliseconds()

    def pause(self):
        body = {
            "matchers": [dict(PAUSE)], "startsAt": "2026-11-18T00:00:00Z", "endsAt": "2036-01-01T00:00:00Z",
            "createdBy": "x", "comment": "y",
        }  # fmt: skip
        return self.alerting.silence(body, self.now())

    def runs(self):
        return [record for record in self.journal.records if record["event"] == "run_start"]

    def show(self, *processes):
        tree = Tree(ProcessId(1, 1), processes, 1, 0)
        self.state.snapshot = Snapshot(
            0, 0, "t", Reading(Status.OK, tree), ABSENT, ABSENT, ABSENT, ABSENT, ABSENT, ABSENT, ABSENT
        )

    def events(self):
        return [record["event"] for record in self.journal.records]


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def on_loop(test):
    def run(rig, caplog):
        async def body():
            await test(rig, caplog)
            await rig.guardian.broker.finished()

        with caplog.at_level(logging.INFO, "oomguard"):
            asyncio.run(body())

    run.__name__ = test.__name__
    return run


@on_loop
async def test_far_below_every_threshold_the_next_one_sets_the_pace(rig, caplog):
    assert rig.tick(100) == (100 * MIB, (800 * MIB, 900 * MIB))
    assert rig.events() == []


@on_loop
async def test_growth_and_lateness_bring_the_next_threshold_nearer(rig, caplog):
    rig.guardian.lane.lateness.add(1.0, 0.1)
    rig.reader.rate = 200.0 * MIB
    assert rig.tick(600) == (600 * MIB, (780 * MIB, 880 * MIB))
    rig.reader.rate = 0.0
    assert rig.tick(600, 1.1)[1] == (800 * MIB, 900 * MIB)


@on_loop
async def test_a_fast_climb_acts_at_the_lowered_threshold(rig, caplog):
    rig.guardian.lane.lateness.add(1.0, 0.1)
    rig.reader.rate = 200.0 * MIB
    rig.tick(785)
    assert [run["alerts"] for run in rig.runs()] == [["MemoryHigh"]]


@on_loop
async def test_what_cant_be_read_decides_nothing(rig, caplog):
    assert rig.tick(None) is None
    assert rig.state.level is None


@on_loop
async def test_without_a_target_a_full_box_is_somebody_elses(rig, caplog):
    rig.state.root = None
    assert rig.tick(950) is None
    assert rig.state.level is None
    assert rig.events() == []


@on_loop
async def test_a_target_that_has_died_has_no_memory_that_a_run_could_measure(rig, caplog):
    assert rig.guardian.measure() is not None
    rig.living = None
    assert rig.state.root is not None, "nobody has told of it yet"
    assert rig.guardian.measure() is None


@on_loop
async def test_a_crossing_is_said_and_starts_a_run(rig, caplog):
    rig.show(process("main", 1))
    rig.tick(823)
    assert rig.events()[0] == "run_start"
    (line,) = [record for record in caplog.records if "memory usage" in record.message]
    assert line.message == "memory usage warning: 82.3% of limit (823 MB / 1000 MB)"
    assert line.fields == {"rss": "123 MB", "vms": "900 MB", "available": "177 MB"}


@on_loop
async def test_the_critical_crossing_is_an_error(rig, caplog):
    rig.tick(950)
    levels = [(r.levelname, r.message.split(":")[0]) for r in caplog.records if "memory usage" in r.message]
    assert levels == [("WARNING", "memory usage warning"), ("ERROR", "memory usage critical")]


@on_loop
async def test_an_alert_that_flaps_is_said_once_a_second(rig, caplog):
    for at in (1.0, 1.2, 1.4, 2.5):
        rig.tick(810, at)
        rig.tick(700, at + 0.1)
    assert sum("memory usage" in record.message for record in caplog.records) == 2


@on_loop
async def test_while_a_run_is_under_way_every_tick_is_the_fastest(rig, caplog):
    assert rig.tick(850) == (850 * MIB, ())
    assert rig.guardian.broker.active is not None


@on_loop
async def test_what_is_held_back_waits_for_its_floor_and_not_at_full_speed(rig, caplog):
    rig.tick(850)
    await rig.guardian.broker.finished()
    _, ahead = rig.tick(850)
    assert rig.guardian.broker.held == "floor"
    assert min(value for value in ahead if value > 850 * MIB) == 900 * MIB


@on_loop
async def test_a_cache_that_has_filled_since_lifts_what_holds_a_run_back(rig, caplog):
    steady = hook(1)
    rig.hooks.hooks = [steady]
    rig.tick(850)
    await rig.guardian.broker.finished()
    rig.tick(850)
    assert rig.guardian.broker.held == "floor"
    reading = replace(steady.last.value, caches=(CacheStats("late", 60 * MIB, 1),))
    steady.last = Reading(Status.OK, reading)
    rig.tick(850)
    assert [record["run"] for record in rig.journal.records if record["event"] == "run_start"] == [1, 2]


def test_with_cleanup_off_it_warns_and_orders_nothing(tmp_path, caplog):
    async def body():
        rig = Rig(tmp_path, act=False)
        with caplog.at_level(logging.INFO, "oomguard"):
            _, ahead = rig.tick(950)
        assert LIMIT in ahead, "and does not look 200 times a second"
        assert rig.events() == []
        assert any("critical" in record.message for record in caplog.records)

    asyncio.run(body())


@on_loop
async def test_a_limit_that_is_resized_moves_the_thresholds(rig, caplog):
    rig.tick(700)
    rig.reader.limit = 800 * MIB
    rig.tick(700)
    assert rig.events()[0] == "run_start"


@on_loop
async def test_every_run_is_the_consequence_of_a_rule(rig, caplog):
    rig.tick(850)
    assert [(run["alerts"], run["steps"]) for run in rig.runs()] == [
        (["MemoryHigh"], ["caches", "gc", "trim"])
    ]
    rig.tick(950, 1.01)
    await rig.guardian.broker.finished()
    assert rig.journal.latest["run_end"]["alerts"] == ["MemoryHigh", "MemoryCritical"]


def of(rules="", routes="", **settings):
    """A test with a rig on rules and routes of its own, and those that ship otherwise."""

    def decorate(test):
        def run(tmp_path, caplog):
            for name, text in (("rules", rules), ("routes", routes)):
                if text:
                    settings[name] = str(tmp_path / f"{name}.yml")
                    (tmp_path / f"{name}.yml").write_text(text)
            with caplog.at_level(logging.INFO, "oomguard"):
                rig = Rig(tmp_path, **settings)
            on_loop(test)(rig, caplog)

        run.__name__ = test.__name__
        return run

    return decorate


OWN = """
groups:
  - name: own
    rules:
      - alert: HalfFull
        expr: oomguard_memory_used_ratio > 0.5
        labels: {severity: none, action: cleanup, steps: caches, goal: 30%}
"""


@of(rules=OWN)
async def test_without_memory_high_nothing_is_done_at_85_percent_but_what_ones_own_rule_says(rig, caplog):
    rig.tick(490)
    assert rig.runs() == []
    rig.tick(510, 1.005)
    (run,) = rig.runs()
    assert (run["alerts"], run["steps"], run["goal"]) == (["HalfFull"], ["caches"], 300 * MIB)


@of(rules=OWN.replace("0.5", "0.99"))
async def test_a_level_that_no_rule_speaks_of_is_only_said(rig, caplog):
    rig.tick(950)
    assert rig.runs() == []
    assert any(record.message.startswith("memory usage critical") for record in caplog.records)


@of(routes="route: {receiver: nobody}\nreceivers: [{name: nobody}, {name: oomguard}]\n")
async def test_where_no_route_leads_here_nothing_is_done_and_that_is_said(rig, caplog):
    rig.tick(950)
    assert rig.runs() == []
    assert any("no route leads to the receiver 'oomguard'" in record.message for record in caplog.records)


@on_loop
async def test_a_pause_holds_everything_back_and_its_end_lets_it_act_at_once(rig, caplog):
    silence = rig.pause()
    rig.tick(950, 1.0)
    rig.tick(950, 1.5)
    assert rig.runs() == []
    rig.alerting.expire(silence, rig.now())
    rig.tick(950, 1.505)
    assert len(rig.runs()) == 1


@on_loop
async def test_a_second_climb_acts_again(rig, caplog):
    rig.tick(850)
    await rig.guardian.broker.finished()
    rig.tick(600, 1.01)
    rig.tick(850, 1.02)
    await rig.guardian.broker.finished()
    assert len(rig.runs()) == 2


@on_loop
async def test_the_worst_worker_comes_first(rig, caplog):
    rig.show(
        process("main", 1, uss=5 * MIB),
        process("worker-1", 2, 1, uss=90 * MIB),
        process("worker-2", 3, 1, anon=40 * MIB),
    )
    rig.hooks.hooks = [hook(1), hook(2), hook(3), hook(99)]
    assert [(w.slot, w.weight // MIB) for w in rig.guardian.workers()] == [
        ("worker-1", 90),
        ("worker-2", 40),
        ("main", 5),
        ("other", 0),
    ]


@on_loop
async def test_those_who_share_a_heap_are_the_forked_and_whom_they_were_forked_from(rig, caplog):
    rig.show(process("main", 1, 0), process("worker-1", 2, 1), process("child-1", 3, 1))
    rig.hooks.hooks = [hook(1), hook(2, forked=True), hook(3)]
    shared = {worker.slot: worker.shared_heap for worker in rig.guardian.workers()}
    assert shared == {"main": True, "worker-1": True, "child-1": False}


@on_loop
async def test_a_heap_that_was_frozen_before_the_fork_is_not_shared_for_gc(rig, caplog):
    rig.show(process("main", 1, 0), process("worker-1", 2, 1))
    rig.hooks.hooks = [hook(1, frozen=True), hook(2, forked=True, frozen=True)]
    assert not any(worker.shared_heap for worker in rig.guardian.workers())


@on_loop
async def test_without_a_target_nothing_is_measured(rig, caplog):
    assert rig.guardian.measure().used == 100 * MIB
    rig.state.root = None
    assert rig.guardian.measure() is None


def evaluations(rig):
    """Evaluations of the instant rules alone so far."""
    counts = rig.alerting._counters.samples()
    (count,) = [s.value for s in counts if s.metric is m.RULE_EVALUATIONS and s.labels == ("fast",)]
    return count


@on_loop
async def test_memory_as_it_was_is_not_evaluated_again_until_all_rules_are(rig, caplog):
    rig.tick(790, 1.0)
    for at in (1.005, 1.01, 1.2):
        rig.tick(790, at)
    assert evaluations(rig) == 0
    rig.tick(791, 1.21)
    rig.tick(790, 1.22)
    assert evaluations(rig) == 2


@on_loop
async def test_thresholds_that_have_come_nearer_are_evaluated_on_memory_as_it_was(rig, caplog):
    rig.reader.rate = 200.0 * MIB
    rig.tick(790, 1.0)
    assert rig.runs() == []
    rig.guardian.lane.lateness.add(1.005, 0.1)
    rig.tick(790, 1.005)
    assert len(rig.runs()) == 1


@on_loop
async def test_a_target_that_has_come_back_is_evaluated_whatever_the_one_before_used(rig, caplog):
    rig.tick(790, 1.0)
    rig.tick(None, 1.005)
    rig.tick(790, 1.01)
    assert evaluations(rig) == 1


@of(
    """
groups: [{name: g, rules: [{alert: Patient, expr: oomguard_memory_used_ratio > 0.5, for: 1s,
  labels: {severity: warning}}]}]
"""
)
async def test_a_hold_that_passes_while_memory_stays_ends_at_the_next_live_evaluation(rig, caplog):
    for tick in range(260):
        rig.tick(600, 1.0 + 0.005 * tick)
    assert rig.journal.latest["alert_firing"]["alert"] == "Patient"


def test_a_process_that_does_not_answer_is_the_last_to_be_ordered_anything(rig):
    rig.show(process("main", 1, uss=500 * MIB), process("worker-1", 2, ppid=1, uss=50 * MIB))
    rig.hooks.hooks = [hook(1), hook(2)]
    assert [worker.slot for worker in rig.guardian.workers()] == ["main", "worker-1"]
    rig.hooks.hooks[0]._open[1] = Question("ping", 0.0, 0.1)
    assert [worker.slot for worker in rig.guardian.workers()] == ["worker-1", "main"]
    assert [(slot, hook.stalled > 0) for slot, hook in rig.guardian.hooks()] == [
        ("main", True),
        ("worker-1", False),
    ]
