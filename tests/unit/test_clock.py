"""Unix time that never goes back, whatever becomes of the wall clock."""

from hypothesis import given
from hypothesis import strategies as st

from oomguard.clock import UnixClock


class Clocks:
    def __init__(self):
        self.wall, self.monotonic = 1_795_000_000.0, 50.0
        self.clock = UnixClock(lambda: self.wall, lambda: self.monotonic)

    def pass_by(self, seconds, *, step=0.0):
        self.monotonic += seconds
        self.wall += seconds + step


def test_it_is_the_wall_clock_while_that_moves_forward():
    clocks = Clocks()
    clocks.pass_by(10.0)
    assert clocks.clock.now() == clocks.wall
    clocks.pass_by(0.0, step=3600.0)
    assert clocks.clock.now() == clocks.wall, "a clock that was late is believed"


def test_a_clock_that_is_set_back_does_not_stop_it():
    clocks = Clocks()
    clocks.pass_by(10.0)
    before = clocks.clock.now()
    clocks.pass_by(5.0, step=-3600.0)
    assert clocks.clock.now() == before + 5.0
    clocks.pass_by(300.0)
    assert clocks.clock.now() == before + 305.0, "a for of 5 minutes takes 5 minutes"


def test_milliseconds_are_whole():
    clocks = Clocks()
    clocks.pass_by(0.0015)
    assert clocks.clock.milliseconds() == round(clocks.wall * 1000)


@given(st.lists(st.tuples(st.floats(0, 1000), st.floats(-1e6, 1e6)), max_size=30))
def test_it_never_goes_back(steps):
    clocks = Clocks()
    last = clocks.clock.now()
    for seconds, step in steps:
        clocks.pass_by(seconds, step=step)
        now = clocks.clock.now()
        assert now >= last + seconds - 1e-3
        last = now
