"""The slow lane: when it looks again, and what it makes of kills, exits and hooks that are missing."""

import asyncio
import contextlib
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from oomguard import metrics as m
from oomguard.clock import UnixClock
from oomguard.collect import Collector, process_tree, rss_reader
from oomguard.counters import Counters
from oomguard.journal import Journal
from oomguard.level import LevelReader
from oomguard.model import CgroupEvents, ProcessId, Reading, Status, Tree
from oomguard.sampler import FastLane
from oomguard.slow import UNMATCHED_TICKS, SlowLane
from oomguard.sources.hooks import Hook, Hooks
from oomguard.sources.procfs import read_stat
from oomguard.state import State
from oomguard.store import Store


class Rig:
    """A slow lane over this machine's /proc, guarding this process; the wall clock is the test's."""

    def __init__(self, folder, worker):
        self.wall = 1_795_000_000.0
        self.state = State("t", clock=UnixClock(lambda: self.wall, lambda: 0.0))
        self.counters, self.journal, self.store = Counters("t"), Journal(None), Store()
        self.slots = self.first = 0
        self.reader = LevelReader(self.state, rss_reader("/proc"))
        self.fast = FastLane(lambda at: None, 1e9)
        self.hooks = Hooks(str(folder / "s"), lambda pid: False)
        tree = process_tree("/proc", adopted_by=None, excluded=frozenset())
        self.lane = SlowLane(
            self.state, Collector(tree), self.reader, self.hooks, self.fast, self.store, self.counters, self.journal,
            worker, follow=self.follow, first_level=self.first_seen, slot=lambda: (), written=self.written,
            watched="", proc="/proc",
        )  # fmt: skip

    async def follow(self):
        self.state.root = read_stat("/proc", os.getpid()).id

    def first_seen(self):
        self.first += 1

    def written(self):
        self.slots += 1

    def events(self, kills):
        return self.lane.notice_kills(Reading(Status.OK, CgroupEvents(None, kills, None, None, None)))

    def tick(self, exited, kills):
        """What a slow tick makes of these totals."""
        tree = Tree(ProcessId(1, 1), (), 0, exited)
        self.lane._notice_children(Reading(Status.OK, tree), self.events(kills))

    def exits(self):
        return {
            sample.labels[-1]: sample.value
            for sample in self.counters.samples()
            if sample.metric is m.CHILD_EXITS
        }

    def journaled(self, event):
        return [record["count"] for record in self.journal.records if record["event"] == event]


@pytest.fixture
def rig(tmp_path):
    with ThreadPoolExecutor(max_workers=1) as worker:
        yield Rig(tmp_path, worker)


def test_a_child_that_went_as_the_kernel_killed_was_shot(rig):
    rig.tick(exited=0, kills=0)
    rig.tick(exited=1, kills=1)
    assert rig.exits() == {"oom_kill": 1, "unknown": 0}
    assert rig.journaled("child_killed") == rig.journaled("oom_kill") == [1]


def test_a_child_that_ended_by_itself_was_not(rig):
    rig.tick(exited=0, kills=0)
    rig.tick(exited=2, kills=0)
    assert rig.exits() == {"oom_kill": 0, "unknown": 2}


def test_a_kill_is_counted_before_its_child_has_gone(rig):
    rig.tick(exited=0, kills=0)
    rig.tick(exited=0, kills=1)
    rig.tick(exited=0, kills=1)
    rig.tick(exited=1, kills=1)
    assert rig.exits() == {"oom_kill": 1, "unknown": 0}
    rig.tick(exited=2, kills=1)
    assert rig.exits() == {"oom_kill": 1, "unknown": 1}, "one kill, one child"


def test_a_kill_whose_victim_was_somebody_else_makes_no_later_exit_a_shot_one(rig):
    rig.tick(exited=0, kills=0)
    rig.tick(exited=0, kills=1)
    for _ in range(UNMATCHED_TICKS):
        rig.tick(exited=0, kills=1)
    rig.tick(exited=1, kills=1)
    assert rig.exits() == {"oom_kill": 0, "unknown": 1}


def test_a_kill_that_was_seen_when_the_processes_could_not_be_read_is_not_forgotten(rig):
    rig.tick(exited=0, kills=0)
    rig.lane._notice_children(Reading(Status.FAILED), rig.events(1))
    rig.tick(exited=1, kills=1)
    assert rig.exits() == {"oom_kill": 1, "unknown": 0}


def test_several_at_once_are_told_apart(rig):
    rig.tick(exited=4, kills=7)
    rig.tick(exited=7, kills=9)
    assert rig.exits() == {"oom_kill": 2, "unknown": 1}


def test_what_was_before_the_first_look_counts_for_nothing(rig):
    rig.tick(exited=5, kills=3)
    assert (rig.exits(), list(rig.journal.records)) == ({"oom_kill": 0, "unknown": 0}, [])


def test_another_target_begins_anew(rig):
    rig.tick(exited=0, kills=0)
    rig.tick(exited=0, kills=1)
    rig.lane.target_started()
    rig.tick(exited=9, kills=50)
    rig.tick(exited=10, kills=50)
    assert rig.exits() == {"oom_kill": 0, "unknown": 1}


def test_a_kernel_without_the_counter_says_nothing_of_kills(rig):
    rig.tick(exited=0, kills=None)
    rig.tick(exited=1, kills=None)
    assert rig.exits() == {"oom_kill": 0, "unknown": 1}
    assert rig.lane.notice_kills(Reading(Status.FAILED)) == 0


def test_a_hook_that_stalls_again_and_again_is_told_once_in_a_while(rig, monkeypatch):
    hook = Hook(41, {}, None)
    for _ in range(5):
        rig.lane.hook_stalled(hook)
        rig.lane.hook_answered(hook, 0.6)
    told = [record["event"] for record in rig.journal.records]
    assert told == ["hook_stalled", "hook_answered"]
    monkeypatch.setattr("oomguard.slow.STALL_QUIET", 0.0)
    rig.lane.hook_stalled(hook)
    assert [record["event"] for record in rig.journal.records][2:] == ["hook_stalled"]


def test_a_stalled_hook_that_goes_is_told_apart_from_one_that_answers(rig, monkeypatch):
    hook = Hook(41, {}, None)
    rig.lane.hook_stalled(hook)
    monkeypatch.setattr(Hook, "stalled", 3.0)
    rig.lane.hook_answered(hook, 3.0)
    assert [record["event"] for record in rig.journal.records] == ["hook_stalled", "hook_gone"]


def on_loop(test):
    async def body(rig):
        stop = asyncio.Event()
        lane = asyncio.get_running_loop().create_task(rig.lane.run(stop))
        try:
            await asyncio.wait_for(test(rig), 20)
        finally:
            stop.set()
            rig.lane.wake()
            await lane
            rig.reader.close()

    def run(rig):
        asyncio.run(body(rig))

    run.__name__ = test.__name__
    return run


async def until(look):
    while not look():
        await asyncio.sleep(0.005)


@on_loop
async def test_it_reads_this_process_and_looks_again_when_woken(rig):
    await until(lambda: rig.slots == 1)
    snapshot = rig.state.snapshot
    assert snapshot.tree.value.root.pid == os.getpid()
    assert snapshot.own.ok
    assert rig.first == 1
    rig.lane.wake()
    await until(lambda: rig.slots == 2)
    assert next(s.value for s in rig.counters.samples() if s.metric is m.TICKS) == 2


@on_loop
async def test_slots_go_forward_where_the_wall_clock_is_set_back(rig):
    await until(lambda: rig.slots == 1)
    first = rig.state.snapshot.time
    rig.wall -= 3600
    rig.lane.wake()
    await until(lambda: rig.slots == 2)
    assert rig.state.snapshot.time >= first


@on_loop
async def test_a_tick_that_fails_is_not_the_last(rig):
    failures = iter([RuntimeError("once")])
    follow = rig.follow

    async def fails_once():
        for failure in failures:
            raise failure
        await follow()

    await until(lambda: rig.slots)
    rig.lane._follow = fails_once
    before = rig.slots
    with contextlib.suppress(RuntimeError):
        rig.lane.wake()
    await asyncio.sleep(0.1)
    rig.lane.wake()
    await until(lambda: rig.slots > before)


def test_no_hook_is_said_once_with_its_cause(rig, caplog, monkeypatch):
    monkeypatch.setattr("oomguard.slow.HOOK_GRACE", 0.0)

    @on_loop
    async def test(rig):
        await until(lambda: rig.slots >= 1)
        rig.lane.wake()
        await until(lambda: rig.slots >= 2)

    test(rig)
    said = [record for record in caplog.records if record.message.startswith("no hook has connected")]
    assert len(said) == 1
    assert said[0].fields["reason"]
