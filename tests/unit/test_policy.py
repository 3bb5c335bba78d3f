from hypothesis import given
from hypothesis import strategies as st

from oomguard import policy
from oomguard.actions import STEP_NAMES
from oomguard.config import Settings
from oomguard.model import Level, LimitOrigin, UsedKind

LIMIT = 1000
RULES = policy.rules(Settings(), STEP_NAMES)


def level(used, rate=0.0):
    return Level(0.0, used, LIMIT, LimitOrigin.CGROUP, UsedKind.CGROUP, rate)


def firing(used, rate=0.0, lateness=0.0):
    return [rule.alertname for rule in policy.firing(level(used, rate), RULES, 700, lateness)]


def test_alerts_fire_from_their_threshold_on():
    assert firing(799) == []
    assert firing(800) == ["MemoryHigh"]
    assert firing(899) == ["MemoryHigh"]
    assert firing(900) == ["MemoryHigh", "MemoryCritical"]


def test_a_late_sampler_acts_earlier_by_what_memory_grows_meanwhile():
    assert firing(790, rate=200.0, lateness=0.05) == ["MemoryHigh"]
    assert firing(789, rate=200.0, lateness=0.05) == []


def test_lateness_does_not_matter_while_memory_falls():
    assert firing(799, rate=-5000.0, lateness=1.0) == []


@given(st.integers(0, LIMIT), st.floats(-1e9, 1e9), st.floats(0, 100))
def test_nothing_fires_at_or_below_the_goal(used, rate, lateness):
    if used <= 700:
        assert firing(used, rate, lateness) == []


def test_no_rule_ever_wishes_for_a_restart():
    assert all("restart" not in rule.steps for rule in RULES)
