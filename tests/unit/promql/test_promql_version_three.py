"""Where Prometheus 3 differs from 2.42, which is what the property test asks: version 3's rule, by hand.

Ranges and lookback open on the left: test_promql_selectors.py. The dot that matches a line break:
test_promql_patterns.py. holt_winters, which is double_exponential_smoothing now: test_promql_refusals.py.
"""

import math

import pytest

from oomguard.errors import PromqlError
from oomguard.promql import MemoryStorage, compile_expression

NOW = 1_700_000_000_000


def result(text, storage):
    return compile_expression(text).evaluate(storage, NOW)


def test_atan2_drops_the_name():
    storage = MemoryStorage()
    storage.add("m", {"a": "1"}, [(NOW, 1.0)])
    assert result("m atan2 m", storage) == [((("a", "1"),), pytest.approx(math.pi / 4))]


def test_a_counter_that_begins_far_inside_the_range_is_extended_by_half_a_step_or_to_zero():
    storage = MemoryStorage()
    # 20 s after the start, 10 s apart, and 7 s from where it would be zero: 2.42 extends it by those 7 s.
    storage.add(
        "c_total", {}, [(NOW - 40_000, 7.0), (NOW - 30_000, 17.0), (NOW - 20_000, 27.0), (NOW - 10_000, 37.0)]
    )
    assert result("increase(c_total[1m])", storage)[0][1] == pytest.approx(30 * (30 + 5 + 10) / 30)


def test_the_variance_of_one_infinite_value_is_nan():
    assert math.isnan(result("stdvar(vector(Inf))", MemoryStorage())[0][1])
    assert result("stddev(vector(5))", MemoryStorage())[0][1] == 0.0


def test_buckets_that_differ_by_rounding_count_as_equal():
    storage = MemoryStorage()
    for le, value in (("1", 1.0), ("2", 1.0 + 2e-13), ("+Inf", 1.0 + 2e-13)):
        storage.add("h_bucket", {"le": le}, [(NOW, value)])
    assert result("histogram_quantile(1, h_bucket)", storage)[0][1] == 1.0


def test_the_smallest_parameters_of_topk_give_nothing():
    storage = MemoryStorage()
    storage.add("m", {}, [(NOW, 1.0)])
    assert result("topk(-Inf, m)", storage) == []
    with pytest.raises(PromqlError, match="overflows int64"):
        result("topk(1e19, m)", storage)


def test_durations_are_numbers_and_numbers_are_durations():
    storage = MemoryStorage()
    storage.add("m", {}, [(NOW - 90_000, 1.0), (NOW, 2.0)])
    assert result("5m + 0", storage) == [((), 300.0)]
    assert result("m offset 90", storage) == [((("__name__", "m"),), 1.0)]
    assert result("count_over_time(m[100])", storage) == [((), 2.0)]


def test_names_in_quotes_select():
    storage = MemoryStorage()
    storage.add("m", {"a": "1"}, [(NOW, 1.0)])
    assert len(result('{"m", a="1"}', storage)) == 1


def test_overflow_of_squares_is_infinite():
    storage = MemoryStorage()
    storage.add("m", {}, [(NOW - 1, 1e200), (NOW, -1e200)])
    assert result("stdvar_over_time(m[1m])", storage)[0][1] == math.inf
