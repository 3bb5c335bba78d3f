"""Functions and aggregations, each against a value worked out by hand."""

import math

import pytest

from oomguard.errors import PromqlError
from oomguard.promql import MemoryStorage, compile_expression
from oomguard.promql.histogram import bucket_quantile, parse_bound

NOW = 1_700_000_000_000
INF, NAN = math.inf, math.nan


def at_seconds(*pairs):
    return [(NOW + round(second * 1000), float(value)) for second, value in pairs]


@pytest.fixture
def storage():
    made = MemoryStorage()
    made.add("counter_total", {}, at_seconds((-50, 10), (-40, 14), (-30, 2), (-20, 6), (-10, 8)))
    made.add("gauge", {}, at_seconds((-50, 5), (-40, 3), (-30, 3), (-20, 9), (-10, 7)))
    made.add("line", {}, at_seconds((-40, 100), (-30, 110), (-20, 120), (-10, 130)))
    made.add("flat", {}, at_seconds((-40, 0.1), (-30, 0.1), (-10, 0.1)))
    for number, value in enumerate((1.0, 2.0, 2.0, 7.0)):
        made.add("v", {"n": str(number), "g": "a" if number < 2 else "b"}, [(NOW, value)])
    for number, value in enumerate((NAN, 1.0, -INF, INF)):
        made.add("odd", {"n": str(number)}, [(NOW, value)])
    return made


def single(text, storage, time=NOW):
    found = compile_expression(text).evaluate(storage, time)
    assert len(found) == 1, found
    return found[0][1]


def result(text, storage):
    return [(dict(ls), v) for ls, v in compile_expression(text).evaluate(storage, NOW)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Samples span 40 s of 60; the first lies 10 s after the start and the last 10 s before the end: both gaps
        # are within 1.1 of the mean distance. 8 - 10 + 14 for the reset, times 60 / 40.
        ("increase(counter_total[1m])", 12 * 60 / 40),
        ("rate(counter_total[1m])", 12 * 60 / 40 / 60),
        ("delta(gauge[1m])", 2 * 60 / 40),
        ("irate(counter_total[1m])", 0.2),
        ("idelta(gauge[1m])", -2.0),
        ("resets(counter_total[1m])", 1.0),
        ("changes(gauge[1m])", 3.0),
        ("deriv(line[1m])", 1.0),
        ("predict_linear(line[1m], 60)", 200.0),
        ("predict_linear(line[1m] offset 30s, 60)", 200.0),
        ("deriv(flat[1m])", 0.0),
        ("predict_linear(flat[1m], 1e9)", 0.1),
        ("avg_over_time(gauge[1m])", 5.4),
        ("sum_over_time(gauge[1m])", 27.0),
        ("min_over_time(gauge[1m])", 3.0),
        ("max_over_time(gauge[1m])", 9.0),
        ("count_over_time(gauge[1m])", 5.0),
        ("last_over_time(gauge[1m])", 7.0),
        ("present_over_time(gauge[1m])", 1.0),
        ("stdvar_over_time(gauge[1m])", 5.44),
        ("stddev_over_time(flat[1m])", 0.0),
        ("quantile_over_time(0.5, gauge[1m])", 5.0),
        ("quantile_over_time(0.9, gauge[1m])", 8.2),
        ("quantile_over_time(-1, gauge[1m])", -INF),
        ("quantile_over_time(2, gauge[1m])", INF),
        ("quantile_over_time(NaN, gauge[1m])", NAN),
        ("sum(v)", 12.0),
        ("avg(v)", 3.0),
        ("min(v)", 1.0),
        ("max(v)", 7.0),
        ("count(v)", 4.0),
        ("group(v)", 1.0),
        ("stdvar(v)", 5.5),
        ("stddev(v)", math.sqrt(5.5)),
        ("quantile(0.5, v)", 2.0),
        ("max(odd)", INF),
        ("min(odd)", -INF),
        ("sum(odd)", NAN),
        ("scalar(v)", NAN),
        ("scalar(line)", 130.0),
        ("timestamp(line)", NOW / 1000 - 10),
        ("timestamp(line offset 20s)", NOW / 1000 - 20),
        ("timestamp(line + 0)", NOW / 1000),
        ("clamp(line, 0, 50)", 50.0),
        ("clamp_min(line, 200)", 200.0),
        ("clamp_max(line, 7)", 7.0),
        ("round(vector(2.5))", 3.0),
        ("round(vector(-2.5))", -2.0),
        ("round(vector(2.34), 0.1)", 2.3),
        ("round(vector(1), 0)", NAN),
        ("sgn(vector(-3))", -1.0),
        ("ln(vector(0))", -INF),
        ("ln(vector(-1))", NAN),
        ("log2(vector(8))", 3.0),
        ("log10(vector(10))", 1.0),
        ("log10(vector(Inf))", INF),
        ("sqrt(vector(-1))", NAN),
        ("exp(vector(1000))", INF),
        ("sinh(vector(-1000))", -INF),
        ("cosh(vector(-1000))", INF),
        ("acosh(vector(0.5))", NAN),
        ("atanh(vector(-1))", -INF),
        ("sin(vector(Inf))", NAN),
        ("deg(vector(pi()))", 180.0),
        ("rad(vector(180))", math.pi),
        ("floor(vector(-0.5))", -1.0),
        ("ceil(vector(NaN))", NAN),
        ("floor(vector(Inf))", INF),
        ("time()", NOW / 1000),
        ("minute()", 13.0),
        ("hour()", 22.0),
        ("day_of_week()", 2.0),
        ("year(vector(-1))", 1969.0),
        ("month(vector(951782400))", 2.0),
        ("day_of_month(vector(951782400))", 29.0),
        ("day_of_year(vector(951868800))", 61.0),
        ("days_in_month(vector(951782400))", 29.0),
        ("days_in_month(vector(4107456000))", 28.0),
        ("day_of_week(vector(-86400))", 3.0),
        ("year(vector(1e15))", 31690708.0),
        ("year(vector(NaN))", NAN),
    ],
)
def test_a_function_gives_its_value(text, expected, storage):
    found = single(text, storage)
    assert math.isnan(found) if math.isnan(expected) else found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["rate", "increase", "delta", "irate", "idelta", "deriv"])
def test_one_sample_makes_no_slope(name, storage):
    assert result(f"{name}(line[15s])", storage) == []
    assert result("predict_linear(line[15s], 1)", storage) == []


def test_a_rate_is_extended_to_a_near_edge_and_half_a_step_to_a_far_one():
    storage = MemoryStorage()
    storage.add("c_total", {}, at_seconds((-40, 1000), (-30, 1010)))
    # 30 s before the end and 20 s after the start are further than 11 s: 5 s on each side.
    assert single("increase(c_total[1m])", storage) == pytest.approx(10 * 20 / 10)


def test_a_counter_is_not_extended_below_zero():
    storage = MemoryStorage()
    storage.add("c_total", {}, at_seconds((-20, 2), (-10, 12), (0, 22)))
    assert single("increase(c_total[30s])", storage) == pytest.approx(20 * 22 / 20)
    assert single("delta(c_total[30s])", storage) == pytest.approx(20 * 30 / 20)


def test_only_last_over_time_keeps_the_name(storage):
    assert result("last_over_time(gauge[1m])", storage) == [({"__name__": "gauge"}, 7.0)]
    assert result("max_over_time(gauge[1m])", storage) == [({}, 9.0)]


def test_nan_is_passed_over_by_minimum_and_maximum_unless_there_is_nothing_else():
    storage = MemoryStorage()
    storage.add("m", {}, at_seconds((-3, NAN), (-2, 1), (-1, NAN), (0, 2)))
    storage.add("n", {}, at_seconds((-1, NAN), (0, NAN)))
    assert single("min_over_time(m[1m])", storage) == 1.0
    assert single("max_over_time(m[1m])", storage) == 2.0
    assert math.isnan(single("max_over_time(n[1m])", storage))
    assert single("changes(n[1m])", storage) == 0.0


def test_sums_keep_what_a_plain_sum_would_lose():
    storage = MemoryStorage()
    storage.add("m", {}, at_seconds((-3, 1), (-2, 1e100), (-1, 1), (0, -1e100)))
    storage.add("big", {}, at_seconds((-1, 1.5e308), (0, 1.5e308)))
    assert single("sum_over_time(m[1m])", storage) == 2.0
    assert single("avg_over_time(m[1m])", storage) == 0.5
    assert single("sum_over_time(big[1m])", storage) == INF
    assert single("avg_over_time(big[1m])", storage) == pytest.approx(1.5e308)


def test_aggregations_group_by_labels_or_without_them(storage):
    assert result("sum by (g) (v)", storage) == [({"g": "a"}, 3.0), ({"g": "b"}, 9.0)]
    assert result("sum without (n) (v)", storage) == [({"g": "a"}, 3.0), ({"g": "b"}, 9.0)]
    assert result("count by (nothing) (v)", storage) == [({}, 4.0)]
    assert result("max by (__name__) (v)", storage) == [({"__name__": "v"}, 7.0)]
    assert result("sum(none)", storage) == []


def test_topk_and_bottomk_keep_whole_series_in_order_with_nan_last(storage):
    assert [v for _, v in result("topk(2, v)", storage)] == [7.0, 2.0]
    assert [v for _, v in result("bottomk by (g) (1, v)", storage)] == [1.0, 2.0]
    assert [str(v) for _, v in result("topk(9, odd)", storage)] == ["inf", "1.0", "-inf", "nan"]
    assert [str(v) for _, v in result("bottomk(9, odd)", storage)] == ["-inf", "1.0", "inf", "nan"]
    assert result("topk(1, v)", storage)[0][0] == {"__name__": "v", "n": "3", "g": "b"}
    assert result("topk(0, v)", storage) == []
    for k in ("NaN", "Inf"):
        with pytest.raises(PromqlError, match="topk"):
            result(f"topk({k}, v)", storage)


def test_count_values_makes_a_label_of_the_value(storage):
    assert result('count_values("x", v)', storage) == [
        ({"x": "1"}, 1.0),
        ({"x": "2"}, 2.0),
        ({"x": "7"}, 1.0),
    ]
    assert result('count_values("x", vector(1e21))', storage) == [({"x": "1" + "0" * 21}, 1.0)]
    assert result('count_values("x", vector(-1e-7))', storage) == [({"x": "-0.0000001"}, 1.0)]
    assert {ls["x"] for ls, _ in result('count_values("x", odd)', storage)} == {"NaN", "1", "-Inf", "+Inf"}


def test_sorting_puts_nan_last_both_ways(storage):
    assert [str(v) for _, v in result("sort(odd)", storage)] == ["-inf", "1.0", "inf", "nan"]
    assert [str(v) for _, v in result("sort_desc(odd)", storage)] == ["inf", "1.0", "-inf", "nan"]


def test_absent_takes_its_labels_from_equalities(storage):
    assert result('absent(none{a="1", b!="2", c=~"3"})', storage) == [({"a": "1"}, 1.0)]
    assert result('absent(none{a="1", a="2", b="3"})', storage) == [({"b": "3"}, 1.0)]
    assert result('absent(sum(none{a="1"}))', storage) == [({}, 1.0)]
    assert result("absent(v)", storage) == []
    assert result('absent_over_time(none{a="1"}[5m])', storage) == [({"a": "1"}, 1.0)]
    assert result("absent_over_time(v[5m])", storage) == []


def test_label_replace_fills_a_template_where_the_whole_value_matches():
    storage = MemoryStorage()
    storage.add("m", {"src": "api-12"}, [(NOW, 1.0)])
    for pattern, template, expected in (
        ("(.*)-(\\\\d+)", "$2/$1", "12/api"),
        ("(?P<name>.*)-.*", "${name}x", "apix"),
        ("(.*)-.*", "$1x", None),
        ("api", "hit", None),
        ("api-.*", "$$1", "$1"),
        ("(x)?.*", "a$1-b", "a-b"),
        ("(.*)", "$01", None),
        (".*", "", None),
    ):
        labels, _ = result(f'label_replace(m, "dst", "{template}", "src", "{pattern}")', storage)[0]
        assert labels.get("dst") == expected, pattern
    assert result('label_replace(m, "__name__", "n", "", "")', storage)[0][0] == {
        "__name__": "n",
        "src": "api-12",
    }


def test_label_join_joins_what_is_there():
    storage = MemoryStorage()
    storage.add("m", {"a": "1", "b": "2"}, [(NOW, 1.0)])
    assert result('label_join(m, "c", "-", "a", "none", "b")', storage)[0][0]["c"] == "1--2"
    assert "a" not in result('label_join(m, "a", "-")', storage)[0][0]


@pytest.mark.parametrize(
    ("q", "buckets", "expected"),
    [
        (0.5, [(1, 10), (2, 20), (INF, 20)], 1.0),
        (0.75, [(1, 10), (2, 20), (INF, 20)], 1.5),
        (0.25, [(1, 10), (2, 20), (INF, 20)], 0.5),
        (0.25, [(-1, 10), (2, 20), (INF, 20)], -1.0),
        (1, [(1, 10), (INF, 20)], 1.0),
        (0.5, [(1, 10), (2, 20)], NAN),
        (0.5, [(INF, 20)], NAN),
        (0.5, [(1, 0), (INF, 0)], NAN),
        (0.5, [(1, 10), (2, 4), (3, 20), (INF, 20)], 1.0),
        (0.9, [(1, 10), (2, 4), (3, 20), (INF, 20)], 2.8),
        (0.5, [(1, 5), (1, 5), (2, 20), (INF, 20)], 1.0),
        (-0.1, [(1, 5), (INF, 5)], -INF),
        (1.1, [(1, 5), (INF, 5)], INF),
        (NAN, [(1, 5), (INF, 5)], NAN),
    ],
)
def test_a_quantile_is_interpolated_within_its_bucket(q, buckets, expected):
    found = bucket_quantile(q, [(float(bound), float(count)) for bound, count in buckets])
    assert math.isnan(found) if math.isnan(expected) else found == pytest.approx(expected)


def test_a_tiny_decrease_between_buckets_is_rounding_and_a_tiny_increase_too():
    assert bucket_quantile(1, [(1.0, 10.0), (2.0, 10.000000000000002), (INF, 10.000000000000002)]) == 1.0


@pytest.mark.parametrize(
    ("text", "bound"), [("0.5", 0.5), ("+Inf", INF), ("1e-3", 0.001), ("1_0", None), ("", None)]
)
def test_a_bucket_has_a_bound_only_if_go_reads_it_as_a_number(text, bound):
    assert parse_bound(text) == bound


def test_histograms_of_two_names_collide():
    storage = MemoryStorage()
    for name in ("a_bucket", "b_bucket"):
        storage.add(name, {"le": "+Inf"}, [(NOW, 1.0)])
    with pytest.raises(PromqlError, match="same labelset"):
        single('histogram_quantile(0.5, {__name__=~".*_bucket"})', storage)
