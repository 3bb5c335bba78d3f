"""Binary operators: Go's float arithmetic, comparisons, matching, and which names and labels results keep."""

import math

import pytest

from oomguard.errors import PromqlError
from oomguard.promql import MemoryStorage, compile_expression

NOW = 1_700_000_000_000


@pytest.fixture
def storage():
    made = MemoryStorage()
    for job, instance, value in (("api", "1", 10.0), ("api", "2", 20.0), ("web", "3", 30.0)):
        made.add("used", {"job": job, "instance": instance}, [(NOW, value)])
    for job, value in (("api", 15.0), ("web", 15.0)):
        made.add("limit", {"job": job, "zone": f"z-{job}"}, [(NOW, value)])
    for threshold, value in (("high", 5.0), ("critical", 40.0)):
        made.add("bound", {"job": "api", "instance": "1", "threshold": threshold}, [(NOW, value)])
    return made


def result(text, storage):
    return {tuple(f"{k}={v}" for k, v in ls): v for ls, v in compile_expression(text).evaluate(storage, NOW)}


def scalar(text):
    return compile_expression(text).evaluate(MemoryStorage(), NOW)[0][1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 / 0", math.inf),
        ("-1 / 0", -math.inf),
        ("1 / (0 * -1)", -math.inf),
        ("0 / 0", math.nan),
        ("5 % 0", math.nan),
        ("-5 % 3", -2.0),
        ("5 % -3", 2.0),
        ("Inf % 2", math.nan),
        ("2 ^ 3 ^ 2", 512.0),
        ("-1 ^ 2", -1.0),
        ("(-8) ^ (1 / 3)", math.nan),
        ("0 ^ -1", math.inf),
        ("0 ^ -Inf", math.inf),
        ("1 ^ NaN", 1.0),
        ("(-0) ^ -1", -math.inf),
        ("(0 * -1) ^ -3", -math.inf),
        ("10 ^ 400", math.inf),
        ("(-10) ^ 401", -math.inf),
        ("(-10) ^ 400", math.inf),
        ("1 atan2 1", math.pi / 4),
        ("1 == bool 1", 1.0),
        ("NaN == bool NaN", 0.0),
        ("NaN != bool NaN", 1.0),
        ("2 + 3 * 4 - 10 / 4", 11.5),
        ("0x1F + 1e1", 41.0),
        ("1h30m", 5400.0),
    ],
)
def test_numbers_behave_as_in_go(text, expected):
    found = scalar(text)
    assert found == expected or (math.isnan(found) and math.isnan(expected))


def test_arithmetic_drops_the_name_and_a_comparison_keeps_it(storage):
    assert result("used{instance='3'} * 2", storage) == {("instance=3", "job=web"): 60.0}
    assert result("1 - used{instance='3'}", storage) == {("instance=3", "job=web"): -29.0}
    assert result("used > 15", storage) == {
        ("__name__=used", "instance=2", "job=api"): 20.0,
        ("__name__=used", "instance=3", "job=web"): 30.0,
    }
    assert result("used > bool 15", storage)["instance=1", "job=api"] == 0.0
    assert result("-used{instance='3'}", storage) == {("instance=3", "job=web"): -30.0}


def test_a_comparison_keeps_the_vectors_value_whichever_side_it_stands_on(storage):
    assert result("25 < used", storage) == {("__name__=used", "instance=3", "job=web"): 30.0}


def test_one_to_one_matching_ignores_what_it_is_told_to(storage):
    assert result('used >= ignoring (threshold) bound{threshold="high"}', storage) == {
        ("__name__=used", "instance=1", "job=api"): 10.0
    }
    assert result('used >= on (instance) bound{threshold="high"}', storage) == {("instance=1",): 10.0}


def test_many_series_match_one_when_grouped(storage):
    assert result("used / on (job) group_left limit", storage) == {
        ("instance=1", "job=api"): 10 / 15,
        ("instance=2", "job=api"): 20 / 15,
        ("instance=3", "job=web"): 2.0,
    }
    assert result("used > on (job) group_left (zone) limit", storage) == {
        ("__name__=used", "instance=2", "job=api", "zone=z-api"): 20.0,
        ("__name__=used", "instance=3", "job=web", "zone=z-web"): 30.0,
    }
    assert result("limit < on (job) group_right used", storage) == {
        ("__name__=used", "instance=2", "job=api"): 15.0,
        ("__name__=used", "instance=3", "job=web"): 15.0,
    }


def test_set_operators_look_at_labels_only(storage):
    assert set(result("used and on (job) limit{job='web'}", storage)) == {
        ("__name__=used", "instance=3", "job=web")
    }
    assert set(result("used unless on (instance) bound", storage)) == {
        ("__name__=used", "instance=2", "job=api"),
        ("__name__=used", "instance=3", "job=web"),
    }
    assert len(result("used or limit", storage)) == 5
    assert len(result("used or on (job) limit", storage)) == 3
    assert result("none or vector(0)", storage) == {(): 0.0}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("used / on (job) limit", "many-to-one matching must be explicit"),
        ("limit / on (job) used", "found duplicate series for the match group .* on the right hand-side"),
        ("limit * on (job) group_right used * on (job) group_left used", "many-to-many matching not allowed"),
        ("used + ignoring (threshold) bound", "duplicate series"),
        ('{__name__=~"used|limit",job="web"} + 1 or -{__name__=~"a|used"}', None),
        ('abs({__name__=~"same_.*"})', "same labelset"),
        ('-{__name__=~"same_.*"}', "same labelset"),
        ('rate({__name__=~"same_.*"}[5m])', "same labelset"),
        ('label_replace(used, "instance", "x", "", "")', "same labelset"),
        (
            "bound > on (job) group_left (threshold) used{instance='1'}",
            "grouping labels must ensure unique matches",
        ),
    ],
)
def test_what_can_not_be_matched_is_an_error(text, error, storage):
    for name in ("same_a", "same_b"):
        storage.add(name, {"job": "x"}, [(NOW - 1000, 1.0), (NOW, 1.0)])
    storage.add("bound", {"job": "api", "instance": "1", "threshold": "third"}, [(NOW, 50.0)])
    expression = compile_expression(text)
    if error is None:
        expression.evaluate(storage, NOW)
        return
    with pytest.raises(PromqlError, match=error):
        expression.evaluate(storage, NOW)


def test_series_that_would_collide_at_different_steps_of_a_subquery_are_an_error_too():
    storage = MemoryStorage()
    storage.add("same_a", {"job": "x"}, [(NOW - 600_000, 1.0), (NOW - 590_000, 1.0)])
    storage.add("same_b", {"job": "x"}, [(NOW - 20_000, 1.0), (NOW - 10_000, 1.0)])
    text = 'max_over_time(rate({__name__=~"same_.*"}[1m])[15m:15s])'
    with pytest.raises(PromqlError, match="same labelset"):
        compile_expression(text).evaluate(storage, NOW)
