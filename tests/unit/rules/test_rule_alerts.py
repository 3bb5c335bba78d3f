"""Alerts pass from state to state as in Prometheus."""

import json
import random
from pathlib import Path

import promtool
import pytest

from oomguard.promql import MemoryStorage, compile_expression, make_labels
from oomguard.promql.series import STALE
from oomguard.rules.alerts import AlertState, ChangeKind, RuleAlerts, RuleError
from oomguard.rules.engine import Engine, Lane
from oomguard.rules.files import load
from oomguard.rules.rule import AlertRule
from oomguard.rules.template import compile_template

API = make_labels("used_ratio", {"target": "api"})
WEB = make_labels("used_ratio", {"target": "web"})


def rule(hold=0, keep_firing=0, labels=None, annotations=None):
    return AlertRule(
        "High",
        compile_expression("used_ratio > 0.8"),
        hold,
        keep_firing,
        tuple((name, compile_template(text)) for name, text in sorted((labels or {}).items())),
        tuple((name, compile_template(text)) for name, text in sorted((annotations or {}).items())),
    )


def kinds(changes):
    return [change.kind for change in changes]


def test_without_for_an_alert_fires_at_once():
    alerts = RuleAlerts(rule())
    changes = alerts.update([(API, 0.9)], 1000)
    assert kinds(changes) == [ChangeKind.PENDING, ChangeKind.FIRING]
    assert changes[0].alert.labels == {"alertname": "High", "target": "api"}
    assert (changes[0].alert.active_at, changes[0].alert.fired_at) == (1000, 1000)


def test_a_condition_must_last_for_the_time_of_for():
    alerts = RuleAlerts(rule(hold=2000))
    assert kinds(alerts.update([(API, 0.9)], 1000)) == [ChangeKind.PENDING]
    assert alerts.update([(API, 0.9)], 2999) == []
    assert kinds(alerts.update([(API, 0.9)], 3000)) == [ChangeKind.FIRING]


def test_a_pending_alert_whose_condition_ends_is_dropped_and_begins_anew():
    alerts = RuleAlerts(rule(hold=2000))
    alerts.update([(API, 0.9)], 1000)
    assert kinds(alerts.update([], 2000)) == [ChangeKind.DROPPED]
    assert not alerts
    assert alerts.update([(API, 0.9)], 3000)[0].alert.active_at == 3000


def test_keep_firing_for_bridges_a_gap():
    alerts = RuleAlerts(rule(keep_firing=3000))
    alerts.update([(API, 0.9)], 1000)
    assert alerts.update([], 2000) == []
    assert alerts.update([], 4999) == []
    assert alerts.update([(API, 0.9)], 5000) == []
    assert alerts.update([], 6000) == []
    assert kinds(alerts.update([], 9000)) == [ChangeKind.RESOLVED]


def test_a_resolved_alert_is_told_once_and_remembered_for_15_minutes():
    alerts = RuleAlerts(rule())
    alerts.update([(API, 0.9)], 1000)
    (change,) = alerts.update([], 2000)
    assert (change.kind, change.alert.state, change.alert.resolved_at) == (
        ChangeKind.RESOLVED,
        AlertState.INACTIVE,
        2000,
    )
    assert alerts.update([], 2000 + 15 * 60_000) == []
    assert len(alerts.all()) == 1
    assert alerts.update([], 2001 + 15 * 60_000) == []
    assert not alerts


def test_a_resolved_alert_that_fires_again_is_a_new_one():
    alerts = RuleAlerts(rule())
    first = alerts.update([(API, 0.9)], 1000)[0].alert
    alerts.update([], 2000)
    again = alerts.update([(API, 0.9)], 3000)[0].alert
    assert again is not first
    assert (again.fired_at, again.resolved_at, first.resolved_at) == (3000, None, 2000)
    assert len(alerts.all()) == 1


def test_values_and_annotations_follow_every_evaluation():
    alerts = RuleAlerts(
        rule(annotations={"summary": "{{ $labels.target }} {{ $value | humanizePercentage }}"})
    )
    alert = alerts.update([(API, 0.9)], 1000)[0].alert
    assert alert.annotations == {"summary": "api 90%"}
    alerts.update([(API, 0.95)], 2000)
    assert (alert.value, alert.annotations) == (0.95, {"summary": "api 95%"})


def test_labels_of_the_rule_win_and_empty_ones_vanish():
    alerts = RuleAlerts(rule(labels={"target": "", "from": "{{ $labels.__name__ }}", "alertname": "Other"}))
    assert alerts.update([(API, 0.9)], 1000)[0].alert.labels == {"alertname": "High", "from": "used_ratio"}


def test_a_label_that_reads_the_value_makes_another_alert_whenever_it_changes():
    alerts = RuleAlerts(rule(labels={"value": "{{ $value }}"}))
    alerts.update([(API, 0.9)], 1000)
    changes = alerts.update([(API, 0.95)], 2000)
    assert sorted(kind.value for kind in kinds(changes)) == ["firing", "pending", "resolved"]


def test_two_series_with_the_same_alert_labels_fail_and_leave_the_alerts_alone():
    alerts = RuleAlerts(rule(labels={"target": "all"}))
    alerts.update([(API, 0.9)], 1000)
    with pytest.raises(RuleError, match="same labelset"):
        alerts.update([(API, 0.9), (WEB, 0.9)], 2000)
    assert [alert.state for alert in alerts.all()] == [AlertState.FIRING]


def test_more_alerts_than_the_limit_end_all_and_tell_of_those_that_had_fired():
    alerts = RuleAlerts(rule(), limit=1)
    alerts.update([(API, 0.9)], 1000)
    with pytest.raises(RuleError, match="exceeded limit of 1 with 2 alerts") as error:
        alerts.update([(API, 0.9), (WEB, 0.9)], 2000)
    assert [(change.kind, change.alert.labels["target"]) for change in error.value.changes] == [
        (ChangeKind.RESOLVED, "api")
    ]
    assert not alerts


def test_a_longer_for_after_a_reload_takes_a_firing_alert_back():
    former = RuleAlerts(rule())
    former.update([(API, 0.9)], 1000)
    alerts = RuleAlerts(rule(hold=5000))
    alerts.take_over(former)
    changes = alerts.update([(API, 0.9)], 2000)
    assert kinds(changes) == [ChangeKind.RESOLVED, ChangeKind.PENDING]
    assert kinds(alerts.update([(API, 0.9)], 6000)) == [ChangeKind.FIRING]


STEP = 40_000
"""Not a divisor of the lookback, for there Prometheus 2 and 3 differ."""
STEPS = 40


def _groups():
    """Rules of every kind of timing; the last reads what the engine says of alerts."""
    rules = [
        {"alert": f"For{hold}Keep{keep}", "expr": "x > 0", "for": f"{hold}s", "keep_firing_for": f"{keep}s"}
        for hold in (0, 40, 100, 200)
        for keep in (0, 40, 60, 200)
    ]
    rules.append({"record": "twice", "expr": "x * 2", "labels": {"by": "rule"}})
    rules.append(
        {
            "alert": "Recorded",
            "expr": "twice > 1",
            "for": "80s",
            "labels": {"was": "{{ $labels.by }}", "i": "{{ $labels.i }}!"},
        }
    )
    rules.append({"alert": "Value", "expr": "x", "labels": {"value": "v{{ $value }}"}})
    rules.append({"alert": "Gone", "expr": "absent(x{i='0'})", "for": "40s"})
    limited = [
        {"alert": "Few", "expr": "x > 0", "for": "40s", "keep_firing_for": "40s"},
        {"record": "few", "expr": "x > 0"},
    ]
    reading = [{"record": "known", "expr": "count(ALERTS) by (alertname, alertstate)"}]
    return {
        "groups": [
            {"name": "timing", "rules": rules},
            {"name": "limited", "limit": 6, "rules": limited},
            {"name": "reading", "rules": reading},
        ]
    }


def _patterns():
    """Series that come and go: values, gaps, stale markers, long silence."""
    dice = random.Random(7)
    for i in range(6):
        line = []
        while len(line) < STEPS:
            line += [dice.choice(["0", "1", "1", "2", "_", "stale"])] * dice.choice([1, 1, 2, 3, 4, 9])
        yield i, line[:STEPS]


QUERIES = ("ALERTS", "ALERTS_FOR_STATE", "twice", "few", "known")


@pytest.mark.real
def test_promtool_sees_the_same_alerts_at_every_step(tmp_path):
    patterns = list(_patterns())
    theirs = promtool.query(
        tmp_path,
        _groups(),
        [(f'x{{i="{i}"}}', " ".join(line)) for i, line in patterns],
        [(query, step * STEP) for step in range(STEPS) for query in QUERIES],
        f"{STEP // 1000}s",
    )
    problems = []
    groups = load(Path("rules.yml"), problems, json.dumps(_groups()))
    assert problems == []
    storage = MemoryStorage()
    engine = Engine(groups, storage)
    queries = {query: compile_expression(query) for query in QUERIES}
    pending = firing = 0
    for step in range(STEPS):
        now = step * STEP
        for i, line in patterns:
            if line[step] != "_":
                storage.add(
                    "x", {"i": str(i)}, [(now, STALE if line[step] == "stale" else float(line[step]))]
                )
        engine.evaluate(Lane.ALL, now)
        for labels, value in engine.recorded.items():
            held = dict(labels)
            storage.add(held.pop("__name__"), held, [(now, value)])
        for query, expression in queries.items():
            ours = {tuple(sorted(labels)): value for labels, value in expression.evaluate(storage, now)}
            assert ours == theirs[query, now], (query, step)
        pending += sum(alert.state is AlertState.PENDING for alert in engine.alerts())
        firing += len(engine.firing())
    print(f"{STEPS} steps, {pending} times pending, {firing} times firing")
    assert pending > 100
    assert firing > 1000
    assert [running.last_error for running in engine.rules if running.failures] == []


@pytest.mark.real
@pytest.mark.parametrize(
    ("limit", "rule"),
    [
        (2, {"alert": "Few", "expr": "x > 0"}),
        (3, {"alert": "Few", "expr": "x > 0", "for": "80s"}),
        (3, {"alert": "Few", "expr": "x > 0", "keep_firing_for": "120s"}),
        (3, {"record": "few", "expr": "x > 0"}),
        (0, {"alert": "Same", "expr": "x == 1", "labels": {"i": "one"}}),
        (0, {"record": "same", "expr": "x == 1", "labels": {"i": "one"}}),
        (0, {"record": "same", "expr": "x + on() x"}),
    ],
)
def test_promtool_sees_the_same_rule_fail_at_the_same_step(tmp_path, limit, rule):
    values = ["1 2 0 0 1", "0 0 0 1 1", "0 1 1 1 1", "0 0 1 1 1"]
    rules = {"groups": [{"name": "failing", "limit": limit, "rules": [rule]}]}
    series = [(f'x{{i="{i}"}}', line) for i, line in enumerate(values)]
    theirs = promtool.failure(tmp_path, rules, series, 4 * STEP, f"{STEP // 1000}s")
    problems = []
    engine = Engine(load(Path("rules.yml"), problems, json.dumps(rules)), storage := MemoryStorage())
    assert problems == []
    moments = {0: "0s", STEP: "40s", 2 * STEP: "1m20s", 3 * STEP: "2m0s", 4 * STEP: "2m40s"}
    for step, (now, shown) in enumerate(moments.items()):
        for i, line in enumerate(values):
            storage.add("x", {"i": str(i)}, [(now, float(line.split()[step]))])
        engine.evaluate(Lane.ALL, now)
        (running,) = engine.rules
        if running.failures:
            assert theirs is not None
            assert shown == theirs[0]
            assert running.last_error == theirs[1] or "on()" in rule["expr"]
            return
    pytest.fail("our rule did not fail")
