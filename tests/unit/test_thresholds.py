from hypothesis import given
from hypothesis import strategies as st

from oomguard.config import Settings
from oomguard.model import Level, LimitOrigin, UsedKind
from oomguard.sizes import Threshold
from oomguard.thresholds import Thresholds, configured, in_force

LIMITS = Thresholds(800, 900, 700)


def at(rate, lateness):
    return in_force(LIMITS, Level(0.0, 500, 1000, LimitOrigin.CGROUP, UsedKind.CGROUP, rate), lateness)


def test_the_settings_say_where_they_are():
    assert configured(Settings(), 1000) == LIMITS
    assert configured(Settings(high=Threshold(ratio=0.4)), 1000) == Thresholds(400, 900, 350)


def test_a_late_sampler_acts_earlier_by_what_memory_grows_meanwhile():
    assert at(rate=200.0, lateness=0.05) == Thresholds(790, 890, 700)


def test_lateness_does_not_matter_while_memory_falls():
    assert at(rate=-5000.0, lateness=1.0) == LIMITS


@given(st.floats(-1e9, 1e9), st.floats(0, 100))
def test_however_late_nothing_is_lowered_to_the_goal(rate, lateness):
    lowered = at(rate, lateness)
    assert lowered.goal == 700
    assert 750 <= lowered.high <= 800
    assert 800 <= lowered.critical <= 900
