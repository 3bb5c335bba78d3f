import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oomguard.sources.budget import Budget

COSTS = st.lists(st.floats(1e-5, 0.1), min_size=1, max_size=25)


def run(budget, costs, tick, until):
    """Read whatever is due at every tick; the times of the reads by key."""
    reads = {key: [] for key in range(len(costs))}
    now = 0.0
    while now < until:
        for key, cost in enumerate(costs):
            if budget.due(key, now):
                now += cost
                budget.spent(key, now, cost)
                reads[key].append(now)
        now += tick
    return reads


def test_a_new_key_is_due_at_once():
    assert Budget(1 / 200).due("new", 0.0)


def test_a_read_is_not_repeated_before_two_hundred_times_its_cost():
    budget = Budget(1 / 200)
    budget.spent("a", 10.0, 0.041)
    assert not budget.due("a", 10.0 + 8.19)
    assert budget.due("a", 10.0 + 8.21)


def test_twenty_equal_workers_wait_twenty_times_as_long_as_one():
    budget = Budget(1 / 200)
    for key in range(20):
        budget.spent(key, 0.0, 0.001)
    assert budget.period(3) == pytest.approx(20 * 200 * 0.001)


def test_a_large_process_does_not_starve_the_small_ones():
    budget = Budget(1 / 200)
    for key, cost in (("large", 0.041), ("a", 0.0002), ("b", 0.0002), ("c", 0.0002)):
        budget.spent(key, 0.0, cost)
    assert budget.period("a") < 1
    assert 8.2 <= budget.period("large") < 11


def test_a_key_that_went_and_came_again_is_new_and_no_longer_weighs():
    budget = Budget(1 / 200)
    budget.spent("a", 0.0, 1.0)
    budget.spent("b", 0.0, 0.001)
    budget.keep(frozenset("b"))
    assert budget.due("a", 0.1)
    assert budget.period("b") == pytest.approx(0.2)


def test_a_cheap_read_waits_for_the_shortest_period():
    budget = Budget(1 / 200, at_least=2.0)
    budget.spent("a", 0.0, 1e-6)
    assert not budget.due("a", 1.9)
    assert budget.due("a", 2.0)


@given(COSTS)
def test_the_shares_of_all_keys_add_up_to_the_whole_and_none_exceeds_its_own(costs):
    budget = Budget(1 / 200)
    for key, cost in enumerate(costs):
        budget.spent(key, 0.0, cost)
    shares = [cost / budget.period(key) for key, cost in enumerate(costs)]
    assert math.fsum(shares) == pytest.approx(1 / 200)
    assert all(budget.period(key) >= 200 * cost * (1 - 1e-9) for key, cost in enumerate(costs))


@settings(max_examples=25, deadline=None)
@given(COSTS, st.floats(0.05, 2.0))
def test_repeated_reads_stay_within_the_share_and_every_key_is_read_again(costs, tick):
    budget = Budget(1 / 200)
    longest = 200 * math.sqrt(max(costs)) * math.fsum(map(math.sqrt, costs))
    until = 2.5 * longest + 5 * tick + sum(costs)
    reads = run(budget, costs, tick, until)
    repeated = sum(cost * (len(reads[key]) - 1) for key, cost in enumerate(costs))
    assert repeated <= until / 200 + sum(costs)
    assert all(len(times) >= 2 for times in reads.values())
