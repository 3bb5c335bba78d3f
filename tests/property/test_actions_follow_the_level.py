"""Whatever memory does: nothing is done below the goal or during a pause, and above critical it acts at the next tick.

The guardian, the rules and routes that ship, the broker and the ladder are the real ones; memory, the clock and what a
step frees are generated.
"""

import asyncio
import functools

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.test_guardian import LIMIT, MIB, Rig, hook

from oomguard.actions import ladder
from oomguard.alerting import loading
from oomguard.config import Settings

GOAL, CRITICAL = 700 * MIB, 900 * MIB
GAPS = (0.005, 0.25, 2.0, 30.0)

ticks = st.tuples(
    st.integers(0, 110).map(lambda part: part * 10),  # MiB used
    st.sampled_from(GAPS),  # seconds since the tick before
    st.tuples(*[st.integers(0, 40).map(lambda part: part * 10)] * 3),  # MiB that the next steps free
    st.sampled_from(["on", "on", "on", "wait", "wait", "pause", "unreadable"]),
)


@functools.cache
def shipped():
    return loading.load(Settings())


class Freeing:
    """A hook whose steps free what the test says."""

    def __init__(self, rig):
        self.rig = rig
        self.frees = []
        real = hook(1)
        self.pid, self.last, self.busy, self.forked = real.pid, real.last, False, False

    async def ask(self, question, timeout, **details):
        await asyncio.sleep(0)
        if self.frees and self.rig.reader.used is not None:
            self.rig.reader.used = max(0, self.rig.reader.used - self.frees.pop(0) * MIB)
        return {"status": "done", "seconds": 0.001, "stall": 0.0}


async def drive(rig, moves):
    freeing = Freeing(rig)
    rig.hooks.hooks = [freeing]
    broker, silence, at = rig.guardian.broker, None, 1.0
    for used, gap, frees, move in moves:
        at += gap
        if move == "pause":
            await broker.finished()
            if silence is None:
                silence = rig.pause()
            else:
                rig.alerting.expire(silence, rig.now())
                silence = None
        freeing.frees = list(frees)
        before = len(rig.runs())
        rig.tick(None if move == "unreadable" else used, at)
        if move == "unreadable" or silence is not None:
            assert len(rig.runs()) == before
        elif used * MIB >= CRITICAL:
            assert broker.active is not None or (broker.held and before), broker.held
        if move == "wait":
            await broker.finished()
        await asyncio.sleep(0)
    await broker.finished()


@settings(max_examples=150, deadline=None)
@given(moves=st.lists(ticks, min_size=1, max_size=10))
def test_it_acts_above_critical_and_never_below_the_goal(tmp_path_factory, moves):
    rig = Rig(tmp_path_factory.mktemp("rig"), shipped())
    settle, ladder.SETTLE = ladder.SETTLE, 0.0
    try:
        asyncio.run(asyncio.wait_for(drive(rig, moves), 30))
    finally:
        ladder.SETTLE = settle
        rig.journal.close()
    for record in rig.journal.records:
        if record["event"] in ("run_start", "step_start"):
            assert record["used"] > GOAL, record
        if record["event"] == "run_start":
            assert record["used"] >= 800 * MIB
            assert record["limit"] == LIMIT
    starts = [record["run"] for record in rig.journal.records if record["event"] == "run_start"]
    ends = [record["run"] for record in rig.journal.records if record["event"] == "run_end"]
    assert starts == ends, "one run at a time, and each ends"
