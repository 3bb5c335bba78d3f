"""Which samples a selector sees: lookback, staleness, offset, @, ranges and subqueries, with their left edges open."""

import math

import pytest

from oomguard.promql import MemoryStorage, compile_expression
from oomguard.promql.series import STALE

NOW = 1_700_000_000_000


def storage_of(*samples, name="m", labels=None):
    storage = MemoryStorage()
    storage.add(name, labels, samples)
    return storage


def values(text, storage, time=NOW):
    return [value for _, value in compile_expression(text).evaluate(storage, time)]


def test_the_latest_sample_counts_for_five_minutes_and_not_a_millisecond_more():
    storage = storage_of((NOW - 300_000, 1.0))
    assert values("m", storage, NOW - 1) == [1.0]
    assert values("m", storage, NOW) == []


def test_a_sample_at_the_very_time_counts_and_a_later_one_does_not():
    storage = storage_of((NOW, 1.0), (NOW + 1, 2.0))
    assert values("m", storage) == [1.0]


def test_a_range_is_open_on_the_left_and_closed_on_the_right():
    storage = storage_of(*((NOW - second * 1000, float(second)) for second in range(60, -1, -15)))
    assert values("count_over_time(m[1m])", storage) == [4.0]
    assert values("max_over_time(m[1m])", storage) == [45.0]
    assert values("count_over_time(m[1m1ms])", storage) == [5.0]
    assert values("min_over_time(m[1m])", storage) == [0.0]


def test_a_subquery_is_open_on_the_left_too():
    aligned = NOW - NOW % 60_000
    storage = storage_of((aligned - 600_000, 1.0))
    assert values("count_over_time(vector(1)[5m:1m])", storage, aligned) == [5.0]
    assert values("count_over_time(vector(1)[5m:1m])", storage, aligned + 1) == [5.0]
    assert values("count_over_time(vector(1)[5m1ms:1m])", storage, aligned) == [6.0]


def test_a_subquery_steps_on_multiples_of_its_step_and_by_a_minute_without_one():
    steps = compile_expression("max_over_time(vector(time())[2m:])").evaluate(MemoryStorage(), 1_000_030_000)
    assert steps == [((), 999_960.0 + 60)]
    assert values("min_over_time(vector(time())[100s:40s])", MemoryStorage(), 1_000_030_000) == [999_960.0]


def test_a_series_that_ended_is_gone_at_once():
    storage = storage_of((NOW - 20_000, 1.0), (NOW - 10_000, STALE))
    assert values("m", storage, NOW - 10_001) == [1.0]
    assert values("m", storage) == []


def test_stale_markers_are_no_samples_of_a_range_but_nan_is():
    storage = storage_of((NOW - 3000, 1.0), (NOW - 2000, STALE), (NOW - 1000, math.nan), (NOW, 3.0))
    assert values("count_over_time(m[1m])", storage) == [3.0]
    assert math.isnan(values("m", storage, NOW - 500)[0])


def test_an_offset_looks_back_and_a_negative_one_ahead():
    storage = storage_of((NOW - 600_000, 1.0), (NOW, 2.0))
    assert values("m offset 10m", storage) == [1.0]
    assert values("m offset -10m", storage, NOW - 600_000) == [2.0]
    assert values("count_over_time(m[1m] offset 10m)", storage) == [1.0]


def test_at_fixes_the_time_and_the_offset_counts_from_there():
    storage = storage_of((NOW - 600_000, 1.0), (NOW, 2.0))
    fixed = f"{NOW / 1000:.3f}"
    assert values(f"m @ {fixed}", storage, NOW + 86_400_000) == [2.0]
    assert values(f"m @ {fixed} offset 10m", storage, 0) == [1.0]
    assert values(f"m offset 10m @ {fixed}", storage, 0) == [1.0]
    assert values("m @ end()", storage) == values("m @ start()", storage) == [2.0]


def test_start_is_the_outer_time_inside_a_subquery():
    storage = storage_of(*((NOW - minute * 60_000, float(minute)) for minute in range(10, -1, -1)))
    assert values("max_over_time((m @ start())[5m:1m])", storage) == [0.0]


def test_all_four_kinds_of_matchers_select():
    storage = MemoryStorage()
    for job in ("api", "web", ""):
        storage.add("m", {"job": job}, [(NOW, 1.0)])
    for text, count in {
        'm{job="api"}': 1,
        'm{job!="api"}': 2,
        'm{job=~"api|web"}': 2,
        'm{job!~"a.*"}': 2,
        'm{job=""}': 1,
        'm{job=~"a"}': 0,
        '{job=~".+"}': 2,
        '{__name__="m",job="web"}': 1,
        '{__name__=~"m|n"}': 3,
        '{__name__="m",__name__!="m"}': 0,
    }.items():
        assert len(values(text, storage)) == count, text


def test_series_that_come_later_are_seen():
    storage = storage_of((NOW, 1.0))
    expression = compile_expression("sum(m)")
    assert expression.evaluate(storage, NOW) == [((), 1.0)]
    storage.add("m", {"job": "new"}, [(NOW, 5.0)])
    assert expression.evaluate(storage, NOW) == [((), 6.0)]
    assert expression.evaluate(storage_of((NOW, 7.0)), NOW) == [((), 7.0)]


def test_what_an_expression_reads_is_told():
    found = compile_expression(
        'm{job="a"} and rate(n[4m] offset 1m) > max_over_time(o[5m:30s]) or {job=~"x"}'
    )
    assert [(s.name, s.reach, s.instant) for s in found.selectors] == [
        ("m", 0, True),
        ("n", 300_000, False),
        ("o", 300_000, False),
        (None, 0, True),
    ]
    assert found.reach == 300_000
    assert [(matcher.name, matcher.op, matcher.value) for matcher in found.selectors[0].matchers] == [
        ("job", "=", "a")
    ]


def test_reach_adds_up_over_subqueries_and_a_negative_offset_takes_from_it():
    assert compile_expression("max_over_time(rate(m[1m] offset 2m)[10m:] offset 5m)").reach == 18 * 60_000
    assert compile_expression("m offset -1m").reach == 0
    fixed = compile_expression(
        "max_over_time((m[1m:] @ 1000)[10m:])" if False else "sum_over_time(m[1m] @ 1000)"
    )
    assert (fixed.reach, fixed.selectors[0].at) == (60_000, 1_000_000)


@pytest.mark.parametrize(
    ("text", "kind"), [("m", "vector"), ("1 + time()", "scalar"), ('"text"', "string"), ("m[5m]", "matrix")]
)
def test_the_kind_of_an_expression_is_known(text, kind):
    assert compile_expression(text).kind == kind


def test_a_memory_series_takes_samples_in_order_only():
    series = MemoryStorage().series("m")
    series.append(2, 1.0)
    with pytest.raises(ValueError, match="sample at 2 does not come after the one at 2"):
        series.append(2, 1.0)
