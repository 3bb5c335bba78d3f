"""What would have happened: rules and routes over moments that a test, or a sidecar, has recorded."""

import pytest

from oomguard.alerting import loading
from oomguard.alerting.replay import Replay
from oomguard.config import Settings
from oomguard.promql.series import METRIC_NAME, STALE
from oomguard.recording import Moment

T = 1_795_000_000_000
MIB = 1 << 20
USED = ((METRIC_NAME, "oomguard_memory_used_bytes"), ("kind", "cgroup"), ("target", "t"))
LIMIT = ((METRIC_NAME, "oomguard_memory_limit_bytes"), ("origin", "cgroup"), ("target", "t"))
RATIO = ((METRIC_NAME, "oomguard_memory_used_ratio"), ("target", "t"))
THRESHOLD = "oomguard_memory_threshold_ratio"
RULES = """
groups:
  - name: own
    rules:
      - alert: Slow
        expr: oomguard_memory_used_ratio > 0.5
        for: 3s
        labels: {severity: warning}
        annotations: {summary: "{{ $value | humanizePercentage }} used"}
      - alert: Acts
        expr: oomguard_memory_used_ratio > 0.8
        labels: {action: cleanup, steps: "trim,caches", goal: 60%}
      - alert: Odd
        expr: oomguard_memory_used_ratio * on () group_left () {__name__=~"oomguard_memory_(used|limit)_bytes"} > 0
"""
ROUTES = """
route: {receiver: people, group_by: [alertname], group_wait: 0s, group_interval: 1s, repeat_interval: 1h,
        routes: [{matchers: ['action!=""'], receiver: oomguard}]}
receivers: [{name: oomguard}, {name: people, webhook_configs: [{url: "http://127.0.0.1:9/"}]}]
"""


def slot(seconds, ratio, **more):
    values = {USED: ratio * 1000 * MIB, LIMIT: 1000.0 * MIB, RATIO: ratio, **more}
    for name, value in (("high", 0.8), ("critical", 0.9), ("goal", 0.7)):
        values[((METRIC_NAME, THRESHOLD), ("target", "t"), ("threshold", name))] = value
    return Moment(T + round(1000 * seconds), True, values)


def live(seconds, ratio):
    return Moment(T + round(1000 * seconds), False, {USED: ratio * 1000 * MIB, RATIO: ratio})


@pytest.fixture
def replay(tmp_path):
    (tmp_path / "rules.yml").write_text(RULES)
    (tmp_path / "routes.yml").write_text(ROUTES)
    return Replay(
        loading.load(Settings(rules=str(tmp_path / "rules.yml"), routes=str(tmp_path / "routes.yml"))), "t"
    )


def told(replay, *moments, kinds=None):
    return [
        ((event.time - T) / 1000, event.kind, event.text)
        for event in replay.events(moments)
        if kinds is None or event.kind in kinds
    ]


def test_alerts_go_through_their_states_at_the_recordings_time(replay):
    events = told(
        replay, *(slot(at, 0.6) for at in range(5)), slot(5, 0.1), slot(6, 0.1),
        kinds=("pending", "firing", "resolved", "notification"),
    )  # fmt: skip
    assert events == [
        (0.0, "pending", "Slow: 60% used"),
        (3.0, "firing", "Slow: 60% used"),
        (3.0, "notification", "to people: Slow"),
        (5.0, "resolved", "Slow"),
        (5.0, "notification", "to people: Slow"),
    ]


def test_one_crossing_is_one_action_and_a_second_climb_another(replay):
    steps = [slot(0, 0.7), live(0.2, 0.85), live(0.3, 0.9), live(0.4, 0.55), slot(1, 0.55), live(1.1, 0.82)]
    assert told(replay, *steps, kinds=("action",)) == [
        (0.2, "action", "caches, trim for Acts: 850.0 MiB of 1000.0 MiB used, goal 600.0 MiB"),
        (1.1, "action", "caches, trim for Acts: 820.0 MiB of 1000.0 MiB used, goal 600.0 MiB"),
    ]


def test_a_rule_that_cant_be_evaluated_is_told_once(replay):
    failed = told(replay, *(slot(at, 0.2) for at in range(3)), kinds=("failed",))
    assert [(time, text.partition(":")[0]) for time, _, text in failed] == [(0.0, "Odd")]


def test_without_memory_in_the_recording_there_are_alerts_and_no_actions(replay):
    moments = [Moment(T + 1000 * at, True, {RATIO: 0.9}) for at in range(5)]
    assert {kind for _, kind, _ in told(replay, *moments)} == {"firing", "pending", "notification"}


def test_a_series_that_has_ended_resolves_its_alert(replay):
    moments = [*(slot(at, 0.6) for at in range(4)), Moment(T + 4000, True, {RATIO: STALE})]
    assert (4.0, "resolved", "Slow") in told(replay, *moments)


def test_moments_that_go_back_are_left_out(replay):
    events = told(
        replay, slot(5, 0.4), slot(1, 0.95), slot(5, 0.95), slot(6, 0.4), kinds=("action", "firing")
    )
    assert events == []


def test_the_shipped_rules_act_at_80_percent_and_join_at_90():
    shipped = Replay(loading.load(Settings()), "t")
    moments = [slot(0, 0.5), live(0.1, 0.81), live(0.2, 0.92), slot(1, 0.3)]
    events = told(shipped, *moments, kinds=("firing", "action"))
    names = [text.partition(":")[0] for _, kind, text in events if kind == "firing"]
    assert [name for name in names if name.startswith("Memory")] == ["MemoryHigh", "MemoryCritical"]
    (action,) = [text for _, kind, text in events if kind == "action"]
    assert action == "caches, gc, trim for MemoryHigh: 810.0 MiB of 1000.0 MiB used, goal 700.0 MiB"


def test_for_another_target_nothing_would_be_done(tmp_path):
    other = Replay(loading.load(Settings()), "other")
    assert told(other, slot(0, 0.95), kinds=("action",)) == []


MADE = """
groups:
  - name: own
    rules:
      - record: used:ratio
        expr: oomguard_memory_used_ratio
      - alert: Climbs
        expr: delta(used:ratio[1m]) > 0.1
      - alert: High
        expr: oomguard_memory_used_ratio > 0.8
        labels: {severity: none, action: cleanup}
"""


def of_rules(tmp_path, rules, target):
    (tmp_path / "rules.yml").write_text(rules)
    (tmp_path / "routes.yml").write_text(ROUTES)
    return Replay(
        loading.load(Settings(rules=str(tmp_path / "rules.yml"), routes=str(tmp_path / "routes.yml"))), target
    )


@pytest.mark.parametrize("recorded", [{}, {((METRIC_NAME, "used:ratio"), ("target", "t")): 0.3}])
def test_windows_see_what_recording_rules_make_and_not_what_they_made_then(tmp_path, recorded):
    moments = [
        Moment(slot(at, 0.1 + at / 100).time, True, slot(at, 0.1 + at / 100).values | recorded)
        for at in range(30)
    ]
    assert told(of_rules(tmp_path, MADE, "t"), *moments, kinds=("firing",)) == [(10.0, "firing", "Climbs")]


def test_actions_are_judged_by_the_memory_of_their_own_target(tmp_path):
    def of(target, moment):
        return {
            tuple((name, target if name == "target" else text) for name, text in labels): value
            for labels, value in moment.values.items()
        }

    both = Moment(T, True, of("t", slot(0, 0.9)) | of("other", slot(0, 0.1)))
    assert told(of_rules(tmp_path, MADE, "t"), both, kinds=("action",)) == [
        (0.0, "action", "caches, gc, trim for High: 900.0 MiB of 1000.0 MiB used, goal 700.0 MiB")
    ]
    assert not told(of_rules(tmp_path, MADE, "other"), both, kinds=("action",))
