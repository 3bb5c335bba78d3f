"""The engine evaluates rules by lane and in order, survives their faults, reloads and restarts."""

import json
import time
from pathlib import Path

import pytest

from oomguard.promql import MemoryStorage, make_labels
from oomguard.promql.series import STALE, is_stale
from oomguard.rules.alerts import AlertState, ChangeKind
from oomguard.rules.engine import Engine, Lane, generator_url
from oomguard.rules.files import load
from oomguard.rules.running import Health

RATIO = "oomguard_memory_used_ratio"
HIGH = {"alert": "High", "expr": f"{RATIO} > 0.8"}
PAGED = {"alert": "High", "expr": f"{RATIO} > 0.8", "labels": {"severity": "page"}}


def groups(*rules, name="g", limit=0):
    problems = []
    made = load(
        Path("r.yml"),
        problems,
        json.dumps({"groups": [{"name": name, "limit": limit, "rules": list(rules)}]}),
    )
    assert problems == []
    return made


def engine_on(samples, *rules):
    storage = MemoryStorage()
    for name, labels, value in samples:
        storage.add(name, labels, [(0, value)])
    return Engine(groups(*rules), storage), storage


def write(engine, storage, now):
    for labels, value in engine.recorded.items():
        held = dict(labels)
        storage.add(held.pop("__name__"), held, [(now, value)])


def told(changes):
    return [(change.kind, change.alert.labels["alertname"]) for change in changes]


@pytest.mark.parametrize(
    ("expr", "lane"),
    [
        (f"{RATIO} > 0.8", Lane.FAST),
        (f'{RATIO} >= ignoring (threshold) oomguard_memory_threshold_ratio{{threshold="high"}}', Lane.FAST),
        (f"rate({RATIO}[5m]) > 0", Lane.LIVE),
        (f"{RATIO} offset 1m > 0.8", Lane.LIVE),
        (f"{RATIO} > 0.8 and on (target) oomguard_streams_open > 5", Lane.LIVE),
        ('{__name__=~"oomguard_memory_used_.+"} > 1', Lane.LIVE),
        ('{__name__=~"oomguard_streams_.+"} > 1', Lane.ALL),
        ("oomguard_streams_open > 5", Lane.ALL),
        ("vector(1)", Lane.ALL),
    ],
)
def test_a_rule_runs_in_the_lane_of_what_it_reads(expr, lane):
    engine, _ = engine_on([], {"alert": "A", "expr": expr})
    assert engine.rules[0].lane is lane


def test_what_is_recorded_from_the_fast_lane_is_of_the_fast_lane():
    fast = {"record": "worst", "expr": f"max({RATIO})"}
    slow = {"record": "streams", "expr": "sum(oomguard_streams_open)"}
    mixed = {"record": "mixed", "expr": RATIO, "labels": {"a": "b"}}
    engine, _ = engine_on(
        [],
        {"alert": "Early", "expr": "worst > 0.8"},
        fast,
        slow,
        mixed,
        {"record": "mixed", "expr": "oomguard_streams_open"},
        {"alert": "Streams", "expr": "streams > 5"},
        {"alert": "Mixed", "expr": "mixed > 5"},
    )
    lanes = [running.lane for running in engine.rules]
    assert lanes == [Lane.FAST, Lane.FAST, Lane.ALL, Lane.FAST, Lane.ALL, Lane.ALL, Lane.ALL]


def test_a_lane_holds_the_faster_ones():
    engine, _ = engine_on(
        [(RATIO, {}, 0.9), ("oomguard_streams_open", {}, 9.0)],
        {"alert": "Slow", "expr": "oomguard_streams_open > 5"},
        {"alert": "Live", "expr": f"max_over_time({RATIO}[1m]) > 0.8"},
        {"alert": "Fast", "expr": f"{RATIO} > 0.8"},
    )
    assert told(engine.evaluate(Lane.FAST, 0)) == [(ChangeKind.PENDING, "Fast"), (ChangeKind.FIRING, "Fast")]
    assert told(engine.evaluate(Lane.LIVE, 1)) == [(ChangeKind.PENDING, "Live"), (ChangeKind.FIRING, "Live")]
    assert told(engine.evaluate(Lane.ALL, 2)) == [(ChangeKind.PENDING, "Slow"), (ChangeKind.FIRING, "Slow")]
    assert [alert.rule.name for alert in engine.firing()] == ["Slow", "Live", "Fast"]


def test_a_later_rule_reads_what_an_earlier_one_has_just_recorded():
    engine, storage = engine_on(
        [(RATIO, {"target": "api"}, 0.9)],
        {"record": "percent", "expr": f"{RATIO} * 100", "labels": {"unit": "percent"}},
        {"alert": "High", "expr": "percent > 80"},
        {"alert": "Jump", "expr": "max_over_time(percent[1m]) - min_over_time(percent[1m]) > 50"},
    )
    series = make_labels("percent", {"target": "api", "unit": "percent"})
    assert (ChangeKind.FIRING, "High") in told(engine.evaluate(Lane.ALL, 0))
    assert engine.recorded == {series: 90.0}
    write(engine, storage, 0)
    storage.add(RATIO, {"target": "api"}, [(1000, 0.3)])
    changes = engine.evaluate(Lane.ALL, 1000)
    assert (ChangeKind.RESOLVED, "High") in told(changes)
    assert (ChangeKind.FIRING, "Jump") in told(changes)


def test_a_recorded_series_that_ends_is_marked_stale_once():
    engine, storage = engine_on(
        [(RATIO, {}, 0.9)], {"record": "high", "expr": f"{RATIO} > 0.8"}, {"alert": "High", "expr": "high"}
    )
    engine.evaluate(Lane.ALL, 0)
    write(engine, storage, 0)
    storage.add(RATIO, {}, [(1000, 0.3)])
    assert told(engine.evaluate(Lane.ALL, 1000)) == [(ChangeKind.RESOLVED, "High")]
    assert [is_stale(value) for value in engine.recorded.values()] == [True]
    write(engine, storage, 1000)
    assert engine.evaluate(Lane.ALL, 2000) == []
    assert engine.recorded == {}
    storage.add(RATIO, {}, [(3000, 0.9)])
    assert (ChangeKind.FIRING, "High") in told(engine.evaluate(Lane.ALL, 3000))


def test_rules_may_read_alerts():
    engine, storage = engine_on(
        [(RATIO, {}, 0.9)], HIGH, {"alert": "Many", "expr": 'count(ALERTS{alertstate="firing"}) > 0'}
    )
    changes = engine.evaluate(Lane.ALL, 0)
    assert (ChangeKind.FIRING, "Many") in told(changes)
    assert make_labels("ALERTS", {"alertname": "High", "alertstate": "firing"}) in engine.recorded
    write(engine, storage, 0)
    storage.add(RATIO, {}, [(1000, 0.3)])
    engine.evaluate(Lane.ALL, 1000)
    write(engine, storage, 1000)
    # Many counts itself: as in Prometheus, it goes on.
    assert [alert.rule.name for alert in engine.firing()] == ["Many"]


def test_the_copies_of_alerts_that_the_exporter_writes_are_not_counted_twice():
    engine, storage = engine_on(
        [(RATIO, {}, 0.9)], HIGH, {"record": "n", "expr": 'sum(ALERTS{alertname="High"})'}
    )
    engine.evaluate(Lane.ALL, 0)
    write(engine, storage, 0)
    copy = {"alertname": "High", "alertstate": "firing", "engine": "oomguard"}
    storage.add("ALERTS", copy, [(500, 1.0)])
    engine.evaluate(Lane.ALL, 1000)
    assert engine.recorded[make_labels("n")] == 1.0


def test_alerts_that_a_limit_ended_are_marked_stale_when_their_rule_is_well_again():
    storage = MemoryStorage()
    storage.add(RATIO, {"target": "a"}, [(0, 0.9)])
    counting = {"record": "n", "expr": "count(ALERTS)"}
    engine = Engine(groups(HIGH, counting, limit=1), storage)
    engine.evaluate(Lane.ALL, 0)
    write(engine, storage, 0)
    storage.add(RATIO, {"target": "b"}, [(1000, 0.9)])
    assert told(engine.evaluate(Lane.ALL, 1000)) == [(ChangeKind.RESOLVED, "High")]
    assert engine.firing() == ()
    write(engine, storage, 1000)
    storage.add(RATIO, {"target": "a"}, [(2000, 0.1)])
    storage.add(RATIO, {"target": "b"}, [(2000, 0.1)])
    engine.evaluate(Lane.ALL, 2000)
    assert all(is_stale(value) for value in engine.recorded.values())
    assert len(engine.recorded) == 3


def test_alerts_are_not_recorded_where_no_rule_reads_them():
    engine, _ = engine_on([(RATIO, {}, 0.9)], HIGH)
    engine.evaluate(Lane.ALL, 0)
    assert engine.recorded == {}
    assert engine.samples() == {
        make_labels("ALERTS", {"alertname": "High", "alertstate": "firing"}): 1.0,
        make_labels("ALERTS_FOR_STATE", {"alertname": "High"}): 0.0,
    }


def test_a_rule_that_fails_keeps_its_alerts_and_holds_nobody_up():
    twice = {"alert": "Twice", "expr": "a + on() group_left b"}
    engine, storage = engine_on([("a", {}, 1.0), ("b", {}, 1.0), (RATIO, {}, 0.9)], twice, HIGH)
    engine.evaluate(Lane.ALL, 0)
    storage.add("b", {"other": "one"}, [(500, 1.0)])
    assert engine.evaluate(Lane.ALL, 1000) == []
    failing, other = engine.rules
    assert (failing.health, failing.failures, other.health, other.failures) == (Health.ERR, 1, Health.OK, 0)
    assert "many-to-many" in failing.last_error or "duplicate" in failing.last_error
    assert [alert.rule.name for alert in engine.firing()] == ["Twice", "High"]
    storage.add("b", {"other": "one"}, [(1500, STALE)])
    engine.evaluate(Lane.ALL, 2000)
    assert (failing.health, failing.last_error, failing.failures, failing.last_evaluation) == (
        Health.OK,
        "",
        1,
        2000,
    )


def test_firing_is_the_same_tuple_until_an_alert_comes_or_goes():
    engine, storage = engine_on([(RATIO, {}, 0.9)], HIGH)
    assert engine.firing() == ()
    engine.evaluate(Lane.FAST, 0)
    before = engine.firing()
    storage.add(RATIO, {}, [(5, 0.95)])
    engine.evaluate(Lane.FAST, 5)
    assert engine.firing() is before
    assert before[0].value == 0.95
    storage.add(RATIO, {}, [(10, 0.1)])
    engine.evaluate(Lane.FAST, 10)
    assert engine.firing() == ()
    assert [alert.resolved_at for alert in engine.resolved()] == [10]
    assert engine.alerts() == []


def test_an_alert_goes_out_with_times_in_seconds_and_a_link():
    rule = {**HIGH, "for": "1s", "annotations": {"summary": "at {{ $value }}"}}
    storage = MemoryStorage()
    storage.add(RATIO, {"target": "api"}, [(0, 0.9)])
    engine = Engine(groups(rule), storage, external_url="http://localhost:10512/")
    engine.evaluate(Lane.FAST, 500)
    engine.evaluate(Lane.FAST, 1500)
    alert = engine.to_alert(engine.firing()[0])
    assert alert.labels == {"alertname": "High", "target": "api"}
    assert alert.annotations == {"summary": "at 0.9"}
    assert (alert.starts_at, alert.ends_at) == (1.5, None)
    assert alert.generator_url == f"http://localhost:10512/graph?g0.expr={RATIO}+%3E+0.8&g0.tab=1"


def test_links_are_escaped_as_go_does():
    assert (
        generator_url("", 'a{b=~"c/d é*~"}') == "/graph?g0.expr=a%7Bb%3D~%22c%2Fd+%C3%A9%2A~%22%7D&g0.tab=1"
    )


def test_a_reload_keeps_the_alerts_of_rules_that_stay_and_ends_those_that_go():
    other = {"alert": "Other", "expr": f"{RATIO} > 0.1"}
    engine, _ = engine_on([(RATIO, {}, 0.9)], HIGH, other)
    engine.evaluate(Lane.ALL, 0)
    kept = engine.firing()[0]
    changed = {**HIGH, "expr": f"{RATIO} > 0.85", "annotations": {"summary": "new"}}
    changes = engine.reload(groups({"alert": "First", "expr": "up"}, changed), 1000)
    assert told(changes) == [(ChangeKind.RESOLVED, "Other")]
    assert changes[0].alert.resolved_at == 1000
    assert engine.firing() == (kept,)
    assert kept.annotations == {"summary": "new"}
    assert engine.evaluate(Lane.ALL, 2000) == []
    assert kept.fired_at == 0


def test_a_rule_with_other_labels_is_another_rule():
    engine, _ = engine_on([(RATIO, {}, 0.9)], HIGH)
    engine.evaluate(Lane.ALL, 0)
    assert told(engine.reload(groups(PAGED), 1000)) == [(ChangeKind.RESOLVED, "High")]


def test_a_reload_marks_the_series_of_a_gone_recording_rule_stale():
    engine, _ = engine_on([(RATIO, {}, 0.9)], {"record": "worst", "expr": f"max({RATIO})"})
    engine.evaluate(Lane.ALL, 0)
    engine.reload(groups(HIGH), 1000)
    assert [(labels, is_stale(value)) for labels, value in engine.recorded.items()] == [
        (make_labels("worst"), True)
    ]


def restarted(engine, dumped_at, restored_at, *rules, samples=()):
    data = json.loads(json.dumps(engine.dump(dumped_at)))
    fresh, storage = engine_on(samples, *rules)
    return fresh, storage, fresh.restore(data, restored_at)


def test_state_survives_a_restart():
    pending = {"alert": "Pending", "expr": "up > 0", "for": "10s"}
    engine, _ = engine_on([(RATIO, {"target": "api"}, 0.9), ("up", {}, 1.0)], HIGH, pending)
    engine.evaluate(Lane.ALL, 1000)
    fresh, storage, ended = restarted(engine, 4000, 9000, HIGH, pending)
    assert ended == []
    (firing,) = fresh.firing()
    assert (firing.labels, firing.value, firing.fired_at) == (
        {"alertname": "High", "target": "api"},
        0.9,
        1000,
    )
    storage.add("up", {}, [(9000, 1.0)])
    storage.add(RATIO, {"target": "api"}, [(9000, 0.9)])
    # 3 s were pending before the restart; the 5 s in which nobody looked do not count.
    assert fresh.evaluate(Lane.ALL, 15_999) == []
    assert told(fresh.evaluate(Lane.ALL, 16_000)) == [(ChangeKind.FIRING, "Pending")]
    assert fresh.firing()[0] is firing


def test_a_clock_that_was_set_back_over_a_restart_takes_no_alert_back():
    rule = {**HIGH, "for": "10s"}
    engine, _ = engine_on([(RATIO, {}, 0.9)], rule)
    engine.evaluate(Lane.ALL, 100_000)
    engine.evaluate(Lane.ALL, 110_000)
    fresh, storage, _ = restarted(engine, 120_000, 20_000, rule)
    storage.add(RATIO, {}, [(20_000, 0.9)])
    assert fresh.evaluate(Lane.ALL, 20_000) == []
    assert [(alert.active_at, alert.fired_at) for alert in fresh.firing()] == [(0, 10_000)]


def test_after_a_restart_an_empty_store_resolves_nothing_until_its_sources_are_heard():
    grows = {"alert": "Grows", "expr": "increase(oom_total[10m]) > 0"}
    waits = {"alert": "Waits", "expr": "up > 0", "for": "1s"}
    engine, storage = engine_on(
        [("oom_total", {}, 0.0), ("up", {}, 1.0), (RATIO, {}, 0.9)], grows, waits, HIGH
    )
    storage.add("oom_total", {}, [(30_000, 4.0)])
    engine.evaluate(Lane.ALL, 30_000)
    fresh, _, _ = restarted(engine, 30_000, 40_000, grows, waits, HIGH)
    # The fast lane's own series are there at the first tick: what they do not say is not so.
    assert told(fresh.evaluate(Lane.ALL, 40_100)) == [(ChangeKind.RESOLVED, "High")]
    assert told(fresh.evaluate(Lane.ALL, 40_000 + 14_999)) == []
    assert [alert.rule.name for alert in fresh.alerts()] == ["Grows", "Waits"]
    assert told(fresh.evaluate(Lane.ALL, 40_000 + 15_000)) == [(ChangeKind.DROPPED, "Waits")]
    assert fresh.evaluate(Lane.ALL, 40_000 + 314_999) == []
    assert told(fresh.evaluate(Lane.ALL, 40_000 + 315_000)) == [(ChangeKind.RESOLVED, "Grows")]


def test_a_resolved_alert_is_still_told_after_a_restart():
    engine, storage = engine_on([(RATIO, {}, 0.9)], HIGH)
    engine.evaluate(Lane.ALL, 0)
    storage.add(RATIO, {}, [(1000, 0.1)])
    engine.evaluate(Lane.ALL, 1000)
    fresh, _, _ = restarted(engine, 2000, 3000, HIGH)
    assert [(alert.resolved_at, alert.state) for alert in fresh.resolved()] == [(1000, AlertState.INACTIVE)]
    assert fresh.evaluate(Lane.ALL, 4000) == []


def test_what_fired_for_a_rule_that_is_gone_after_a_restart_is_returned_as_resolved():
    rule = {**HIGH, "annotations": {"summary": "at {{ $value }}"}}
    engine, _ = engine_on([(RATIO, {}, 0.9)], rule)
    engine.evaluate(Lane.ALL, 1000)
    fresh, _, (ended,) = restarted(engine, 2000, 9000, PAGED)
    assert (ended.labels, ended.annotations) == ({"alertname": "High"}, {"summary": "at 0.9"})
    assert (ended.starts_at, ended.ends_at) == (1.0, 9.0)
    assert RATIO in ended.generator_url
    assert fresh.firing() == ()


def test_values_that_json_lacks_survive_a_restart():
    engine, _ = engine_on([("up", {}, float("inf"))], {"alert": "A", "expr": "up"})
    engine.evaluate(Lane.ALL, 0)
    fresh, _, _ = restarted(engine, 0, 0, {"alert": "A", "expr": "up"})
    assert fresh.firing()[0].value == float("inf")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: None,
        lambda _: [],
        lambda data: {**data, "version": 2},
        lambda data: {**data, "time": "now"},
        lambda data: {**data, "rules": {}},
        lambda data: {**data, "rules": [1]},
        lambda data: {**data, "rules": [{"rule": "x", "alerts": []}]},
        lambda data: {**data, "rules": [{**data["rules"][0], "alerts": [5]}]},
        *(
            lambda data, bad=bad: {
                **data, "rules": [{**(old := data["rules"][0]), "alerts": [{**old["alerts"][0], **bad}]}]
            }
            for bad in ({"state": "odd"}, {"active_at": 1.5}, {"active_at": None}, {"labels": {"a": 1}}, {"value": "x"})
        ),
    ],
)  # fmt: skip
def test_saved_state_that_is_not_ours_changes_nothing(spoil):
    engine, _ = engine_on([(RATIO, {}, 0.9)], HIGH)
    engine.evaluate(Lane.ALL, 0)
    fresh, _ = engine_on([], HIGH)
    with pytest.raises(ValueError, match=r"saved|labels|AlertState|float"):
        fresh.restore(spoil(engine.dump(0)), 0)
    assert fresh.alerts() == []


def test_the_engine_costs_little_beside_its_expressions():
    engine, _ = engine_on([], *({"alert": f"A{n}", "expr": f"{RATIO} > 0.{n}"} for n in range(3)))
    for running in engine.rules:
        running.query = lambda _storage, _time: []
    spent = []
    for _ in range(20):
        start = time.process_time()
        for now in range(1000):
            engine.evaluate(Lane.FAST, now)
        spent.append((time.process_time() - start) / 1000)
    print(f"engine: {1e6 * min(spent):.2f} µs for three rules")
    assert min(spent) < 20e-6
