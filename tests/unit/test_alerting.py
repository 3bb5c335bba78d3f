"""Rules, routes and silences put together: what fires, what it asks for, who is told, what survives."""

import json
import logging

import pytest

from oomguard import metrics as m
from oomguard.alerting import Alerting, loading
from oomguard.alerting.silencing import PAUSE
from oomguard.config import Settings
from oomguard.counters import Counters
from oomguard.errors import UserError
from oomguard.journal import Journal
from oomguard.metrics import GAUGE, Metric
from oomguard.routes.deliver import Outcome
from oomguard.rules.engine import Lane
from oomguard.store import Sample, Store

T0 = 1_795_000_000_000
LEVEL = Metric("level", "level", GAUGE, "1", "x.", ("target",), own=True)
RULES = """
groups:
  - name: own
    rules:
      - record: twice
        expr: level * 2
      - alert: High
        expr: level > 5
        labels: {severity: none, action: cleanup, steps: "gc,caches", goal: 30%}
        annotations: {summary: "level {{ $value }}"}
      - alert: Page
        expr: twice > 10
        for: 10s
        labels: {severity: warning}
        annotations: {summary: "page of {{ $labels.target }}"}
"""
ROUTES = """
route:
  receiver: people
  group_by: [target]
  group_wait: 1s
  group_interval: 5s
  repeat_interval: 1h
  routes:
    - matchers: [action!=""]
      receiver: oomguard
receivers:
  - name: oomguard
    webhook_configs: [{url: "http://127.0.0.1:9/"}]
  - name: people
    webhook_configs: [{url: "http://127.0.0.1:9/people"}]
"""


class Rig:
    def __init__(self, folder, rules=RULES, routes=ROUTES, saved=None, now=T0):
        self.folder, self.now = folder, now
        self.sent, self.changes = [], 0
        self.store, self.counters, self.journal = Store(), Counters("t"), Journal(None)
        self.alerting = Alerting(
            self.load(rules, routes), self.store, self.counters, self.journal, target="t",
            send=self.sent.extend, changed=self.changed, write=self.store.live,
        )  # fmt: skip
        if saved is not None:
            self.alerting.restore(json.loads(json.dumps(saved)), self.now)

    def load(self, rules=RULES, routes=ROUTES):
        (self.folder / "rules.yml").write_text(rules)
        (self.folder / "routes.yml").write_text(routes)
        return loading.load(
            Settings(rules=str(self.folder / "rules.yml"), routes=str(self.folder / "routes.yml"))
        )

    def changed(self):
        self.changes += 1

    def at(self, seconds, level, target="t"):
        """A slow tick at so many seconds with this level."""
        self.now = T0 + round(seconds * 1000)
        slot = [] if level is None else [Sample(LEVEL, (target,), float(level))]
        self.store.write(self.now / 1000, slot)
        self.alerting.evaluate(Lane.ALL, self.now)

    def wishes(self):
        return list(self.alerting.wishes(self.now))

    def firing(self):
        return [
            alert["labels"]["alertname"] for alert in self.alerting.alerts() if alert["state"] == "firing"
        ]

    def count(self, metric, *labels):
        found = [sample for sample in self.counters.samples() if sample.metric is metric]
        return next((sample.value for sample in found if sample.labels == labels), None)

    def deliver(self, outcome=Outcome.DELIVERED):
        sent, self.sent[:] = list(self.sent), []
        for notification in sent:
            self.alerting.reported(notification, outcome, self.now)
        return [(each.receiver, [alert.name for alert in each.alerts]) for each in sent]

    def pause(self, seconds=3600):
        body = {
            "matchers": [dict(PAUSE)], "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2036-01-01T00:00:00Z",
            "createdBy": "x", "comment": "y",
        }  # fmt: skip
        return self.alerting.silence(body, self.now)


@pytest.fixture
def rig(tmp_path):
    return Rig(tmp_path)


def test_a_rule_and_a_route_make_a_wish_at_once(rig):
    rig.at(0, 4)
    assert rig.wishes() == []
    rig.at(1, 6)
    (wish,) = rig.wishes()
    assert (wish.alertname, wish.steps, wish.goal.ratio) == ("High", ("caches", "gc"), 0.3)
    assert rig.alerting.wishes(rig.now) is rig.alerting.wishes(rig.now + 5), (
        "nothing is made anew at each tick"
    )
    rig.at(2, 4)
    assert rig.wishes() == []
    assert rig.sent == [], "what is for the sidecar itself never leaves the process"


def test_an_alert_of_another_target_asks_for_nothing_here(rig):
    rig.at(0, 6, target="other")
    assert (rig.firing(), rig.wishes()) == (["High"], [])


def test_a_label_that_a_template_made_wrong_is_said_and_the_others_are_followed(tmp_path, caplog):
    rig = Rig(tmp_path, RULES.replace('steps: "gc,caches"', 'steps: "{{ $labels.target }}"'))
    rig.at(0, 6)
    assert rig.wishes() == []
    assert [record.message for record in caplog.records] == ["alert can't be followed"]


def test_who_is_to_be_paged_hears_after_for_and_group_wait_and_once(rig, caplog):
    caplog.set_level(logging.INFO, "oomguard")
    for second in range(11):
        rig.at(second, 6)
    assert "Page" in rig.firing()
    assert rig.deliver() == []
    rig.at(11, 6)
    assert rig.deliver() == [("people", ["Page"])]
    for second in range(12, 60):
        rig.at(second, 6)
    assert rig.deliver() == []
    assert rig.count(m.NOTIFICATIONS, "people", "delivered") == 1
    (record,) = [record for record in rig.journal.records if record["event"] == "alert_firing"]
    assert (record["alert"], record["severity"], record["summary"]) == ("Page", "warning", "page of t")
    assert [(r.levelname, r.message) for r in caplog.records] == [("WARNING", "alert firing: page of t")]


def test_that_it_is_over_is_told_journaled_and_logged(rig, caplog):
    caplog.set_level(logging.INFO, "oomguard")
    for second in range(12):
        rig.at(second, 6)
    rig.deliver()
    for second in range(12, 20):
        rig.at(second, 1)
    ((receiver, _),) = rig.deliver()
    assert receiver == "people"
    assert rig.journal.records[-1]["event"] == "alert_resolved"
    assert caplog.records[-1].message == "alert resolved: page of t"


def test_what_acts_is_neither_journaled_nor_logged_as_an_alert(rig, caplog):
    rig.at(0, 6)
    rig.at(1, 1)
    assert (list(rig.journal.records), caplog.records) == ([], [])


def test_a_notification_that_failed_is_made_again(rig):
    for second in range(12):
        rig.at(second, 6)
    assert rig.deliver(Outcome.REJECTED) == [("people", ["Page"])]
    for second in range(12, 18):
        rig.at(second, 6)
    assert rig.deliver() == [("people", ["Page"])]


def test_routes_that_lead_nowhere_are_said(tmp_path, caplog):
    rig = Rig(tmp_path, routes=ROUTES.replace("receiver: oomguard", "receiver: people"))
    rig.at(0, 9)
    assert (rig.firing(), rig.wishes()) == (["High"], [])
    assert caplog.records[0].message.startswith("no route leads to the receiver 'oomguard'")


def test_a_recorded_series_is_exported_and_ends(rig):
    rig.at(0, 3)
    made = {sample.metric.name: sample.value for sample in rig.alerting.samples(rig.now, exported=True)}
    assert made["twice"] == 6
    rig.at(1, None)
    assert "twice" not in {sample.metric.name for sample in rig.alerting.samples(rig.now, exported=True)}


def test_alerts_are_exported_with_the_engines_name(rig):
    rig.at(0, 6)
    (sample,) = [
        s
        for s in rig.alerting.samples(rig.now, exported=True)
        if s.metric.name == "ALERTS" and "High" in s.labels
    ]
    assert dict(zip(sample.metric.label_names, sample.labels, strict=True)) == {
        "action": "cleanup", "alertname": "High", "alertstate": "firing", "engine": "oomguard", "goal": "30%",
        "severity": "none", "steps": "gc,caches", "target": "t",
    }  # fmt: skip


def test_a_pause_silences_wishes_and_nothing_else(rig):
    rig.at(0, 6)
    silence = rig.pause()
    assert (rig.firing(), rig.wishes()) == (["High"], [])
    assert rig.alerting.paused_until(rig.now) == 2_082_758_400.0
    assert [alert["held"] for alert in rig.alerting.alerts_held(rig.now) if alert["state"] == "firing"] == [
        "silenced"
    ]
    samples = {(s.metric.name, s.labels): s.value for s in rig.alerting.samples(rig.now, exported=True)}
    assert samples["oomguard_paused", ()] == 1
    assert samples["oomguard_silences", ("active",)] == 1
    for second in range(1, 12):
        rig.at(second, 6)
    assert rig.deliver() == [("people", ["Page"])], "people are told all the same"
    rig.alerting.expire(silence, rig.now)
    assert len(rig.wishes()) == 1
    assert rig.alerting.paused_until(rig.now) is None
    assert [record["event"] for record in rig.journal.records] == ["silence", "alert_firing", "silence_ended"]


def test_a_pause_ends_by_itself(rig):
    rig.at(0, 6)
    body = {
        "matchers": [dict(PAUSE)], "startsAt": "2026-11-18T10:00:00Z", "endsAt": "2026-11-18T11:00:00Z",
        "createdBy": "x", "comment": "y",
    }  # fmt: skip
    end = 1_795_000_000 + 7
    body["endsAt"] = "2026-11-18T11:06:47Z"
    rig.alerting.silence(body, rig.now)
    until = rig.alerting.paused_until(rig.now)
    assert until == end
    assert rig.wishes() == []
    rig.now = end * 1000
    assert len(rig.wishes()) == 1


def test_an_unknown_silence_cant_be_ended_and_a_wrong_one_not_set(rig):
    with pytest.raises(LookupError):
        rig.alerting.expire("none", rig.now)
    with pytest.raises(UserError):
        rig.alerting.silence({"matchers": []}, rig.now)


def test_a_rule_that_fails_is_counted_said_once_and_the_others_guard(tmp_path, caplog):
    twice = "      - alert: High\n        expr: level * on () group_left level2\n"
    rig = Rig(tmp_path, RULES.replace("    rules:\n", "    rules:\n" + twice + twice))
    other = Metric("level2", "level2", GAUGE, "1", "x.", ("a",), own=True)
    for second in range(3):
        rig.now = T0 + 1000 * second
        rig.store.write(
            rig.now / 1000,
            [Sample(LEVEL, ("t",), 6.0), Sample(other, ("1",), 1.0), Sample(other, ("2",), 1.0)],
        )
        rig.alerting.evaluate(Lane.ALL, rig.now)
    assert rig.count(m.RULE_FAILURES, "High") == 6, "of both rules of that name"
    assert [record.message for record in caplog.records] == ["rule can't be evaluated"] * 2
    assert len(rig.wishes()) == 1
    rig.alerting.reload(rig.load(), rig.now)
    rig.at(4, 6)
    assert rig.count(m.RULE_FAILURES, "High") == 6


def test_what_is_saved_goes_on_in_another_process(tmp_path):
    rig = Rig(tmp_path)
    for second in range(6):
        rig.at(second, 6)
    rig.pause()
    saved = rig.alerting.dump(rig.now)
    after = Rig(tmp_path, saved=saved, now=rig.now)
    assert after.alerting.paused_until(rig.now) is not None
    for second in range(7, 10):
        after.at(second, 6)
        assert "Page" not in after.firing()
    after.at(10, 6)
    assert "Page" in after.firing(), "10 s after it became pending in the process before"


def test_who_was_told_is_not_told_again_by_the_next_process_and_who_was_not_is(tmp_path):
    for outcome, told in ((Outcome.DELIVERED, []), (None, [("people", ["Page"])])):
        rig = Rig(tmp_path)
        for second in range(12):
            rig.at(second, 6)
        if outcome is not None:
            rig.deliver(outcome)
        after = Rig(tmp_path, saved=rig.alerting.dump(rig.now), now=rig.now)
        for second in range(12, 30):
            after.at(second, 6)
        assert after.deliver() == told


def test_what_was_resolved_while_nobody_watched_is_told(tmp_path):
    rig = Rig(tmp_path)
    for second in range(12):
        rig.at(second, 6)
    rig.deliver()
    after = Rig(tmp_path, saved=rig.alerting.dump(rig.now), now=rig.now)
    for second in range(20, 400, 2):
        after.at(second, 1)
    assert after.deliver() == [("people", ["Page"])]


@pytest.mark.parametrize(
    "saved",
    [
        {},
        {"rules": None, "routes": None, "silences": None},
        {"rules": [], "routes": {}, "silences": {}},
        {"rules": {"version": 99}, "routes": {"log": 3, "alerts": [{}], "groups": []}, "silences": [[]]},
    ],
)
def test_saved_state_that_cant_be_read_does_not_disarm(tmp_path, saved):
    rig = Rig(tmp_path, saved=saved)
    rig.at(0, 6)
    assert len(rig.wishes()) == 1


def test_a_reload_keeps_the_alerts_of_rules_that_are_the_same(rig):
    for second in range(6):
        rig.at(second, 6)
    rig.alerting.reload(rig.load(RULES.replace("level > 5", "level > 7")), rig.now)
    for second in range(6, 11):
        rig.at(second, 6)
        assert rig.wishes() == [], "High is judged by what it says now"
    assert rig.firing() == ["Page"]


def test_the_alerts_of_a_rule_that_is_gone_are_resolved(rig):
    for second in range(12):
        rig.at(second, 6)
    rig.deliver()
    rig.alerting.reload(rig.load(RULES[: RULES.index("      - alert: Page")]), rig.now)
    for second in range(12, 20):
        rig.at(second, 6)
    assert rig.deliver() == [("people", ["Page"])]
    assert rig.firing() == ["High"]


def test_receivers_that_a_reload_brings_have_their_counters(rig):
    rig.alerting.reload(rig.load(routes=ROUTES.replace("people", "others")), rig.now)
    assert rig.count(m.NOTIFICATIONS, "others", "delivered") == 0


def test_every_change_is_told_to_who_keeps_it(rig):
    rig.at(0, 4)
    before = rig.changes
    rig.at(1, 4)
    assert rig.changes == before
    rig.at(2, 6)
    assert rig.changes > before
    before = rig.changes
    rig.pause()
    assert rig.changes > before


def test_silences_are_found_by_their_matchers(rig):
    body = {
        "matchers": [{"name": "alertname", "value": "MemoryHigh", "isRegex": False}],
        "startsAt": "2020-01-01T00:00:00Z", "endsAt": "2100-01-01T00:00:00Z", "createdBy": "me", "comment": "",
    }  # fmt: skip
    made = rig.alerting.silence(body, rig.now)
    assert [silence["id"] for silence in rig.alerting.silences_json(rig.now, ["alertname=~Memory.*"])] == [
        made
    ]
    assert rig.alerting.silences_json(rig.now, ['alertname="Other"']) == []
    assert rig.alerting.silence_json(made, rig.now)["id"] == made
    with pytest.raises(LookupError):
        rig.alerting.silence_json("none", rig.now)
    with pytest.raises(UserError, match="filter: "):
        rig.alerting.silences_json(rig.now, ["="])


def test_a_nan_that_a_rule_records_is_a_value_for_other_rules_and_for_no_scrape(tmp_path):
    rig = Rig(tmp_path, "groups: [{name: own, rules: [{record: none, expr: level * NaN}]}]")
    rig.at(0, 1)
    rig.at(1, 1)
    rig.store.write(rig.now / 1000 + 1, rig.alerting.samples(rig.now + 1000, exported=False))
    assert [series.at(rig.now + 1000, rig.now)[0] for series in rig.store.select("none", [])] == [
        rig.now + 1000
    ]
    assert "none" not in {
        sample.metric.name for sample in rig.alerting.samples(rig.now + 1000, exported=True)
    }


def test_an_alert_from_before_a_restart_is_measured_again_before_it_is_followed(tmp_path):
    """A cache that was too large when the sidecar died may have been emptied since."""
    before = Rig(tmp_path)
    before.at(0, 9)
    assert [wish.alertname for wish in before.wishes()] == ["High"]
    saved = before.alerting.dump(before.now)
    for level, followed in ((9, ["High"]), (1, [])):
        after = Rig(tmp_path, saved=saved, now=T0 + 2000)
        after.alerting.evaluate(Lane.ALL, after.now)
        assert after.firing() == ["High"], "it is not resolved unheard"
        assert after.wishes() == [], "nor followed"
        after.at(3, level)
        assert [wish.alertname for wish in after.wishes()] == followed
        assert after.firing() == followed


def test_a_sign_of_life_keeps_pending_time(tmp_path):
    rig = Rig(tmp_path)
    rig.at(0, 9)
    saved, began = rig.alerting.dump(rig.now), rig.alerting.engine.alerts()[1].active_at
    after = Rig(tmp_path)
    after.alerting.restore(saved, rig.now + 8000, alive_until=rig.now + 7000)
    assert after.alerting.engine.alerts()[1].active_at == began + 1000, "a second without anybody, not eight"
