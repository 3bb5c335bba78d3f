import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomguard.sampler import (
    FASTEST,
    LATENESS_HALF_LIFE,
    SLOWEST,
    FastLane,
    Growth,
    Lateness,
    interval,
    measure_fill_rate,
)

MIB = 1 << 20


@given(
    st.integers(0, 1 << 34),
    st.lists(st.integers(1, 1 << 34), max_size=4).map(tuple),
    st.floats(1e6, 1e11),
)
def test_memory_cant_cross_a_threshold_between_two_ticks(used, thresholds, fill_rate):
    pause = interval(used, thresholds, fill_rate)
    assert FASTEST <= pause <= SLOWEST
    ahead = [threshold for threshold in thresholds if threshold > used]
    if ahead and pause > FASTEST:
        assert used + fill_rate * pause <= min(ahead) * (1 + 1e-9)


def test_above_the_last_threshold_every_tick_is_the_fastest():
    assert interval(500, (400,), 1e9) == FASTEST


def test_far_from_every_threshold_a_tick_a_second_is_enough():
    assert interval(0, (8 << 30,), 2e9) == SLOWEST


def test_growth_is_measured_over_the_last_ticks():
    growth = Growth()
    assert growth.add(0.0, 100 * MIB) == 0.0
    assert growth.add(0.1, 110 * MIB) == pytest.approx(100 * MIB)
    for tick in range(1, 40):
        rate = growth.add(0.1 + tick * 0.005, 110 * MIB)
    assert rate == 0.0, "what was 200 ms ago is forgotten"


def test_falling_memory_has_a_negative_rate():
    growth = Growth()
    growth.add(0.0, 100)
    assert growth.add(1.0, 40) == -60


def test_lateness_is_a_maximum_that_decays():
    lateness = Lateness()
    lateness.add(0.0, 0.08)
    lateness.add(1.0, 0.001)
    assert lateness.now(1.0) == pytest.approx(0.08, rel=0.05)
    assert lateness.now(LATENESS_HALF_LIFE) == pytest.approx(0.04, rel=0.05)


def test_a_machine_hands_out_memory_at_some_gigabytes_a_second():
    assert 1 << 30 <= measure_fill_rate() <= 16 << 30


def test_a_tick_that_fails_does_not_stop_the_lane():
    async def run():
        ticks = []

        def tick(at):
            ticks.append(at)
            if len(ticks) == 1:
                raise RuntimeError("once")
            return (0, (10,))

        lane = FastLane(tick, fill_rate=1000.0)
        lane.start()
        while len(ticks) < 3:
            await asyncio.sleep(0.01)
        lane.stop()
        stopped_at = lane.ticks
        await asyncio.sleep(0.05)
        assert lane.ticks == stopped_at

    asyncio.run(asyncio.wait_for(run(), 10))


def test_hurry_ticks_at_once():
    async def run():
        seen = []
        lane = FastLane(lambda at: seen.append(at) or (0, (1 << 40,)), fill_rate=1.0)
        lane.start()
        assert lane.interval == SLOWEST
        lane.hurry()
        assert len(seen) == 2
        lane.stop()

    asyncio.run(run())


def test_late_ticks_are_counted_and_remembered():
    now = [0.0]

    async def run():
        lane = FastLane(lambda _: (0, (1 << 40,)), fill_rate=1.0, clock=lambda: now[0])
        lane.start()
        now[0] = lane.interval + 0.079
        lane._run()
        lane.stop()
        assert lane.late == 1
        assert lane.lateness.now(now[0]) == pytest.approx(0.079)

    asyncio.run(run())
