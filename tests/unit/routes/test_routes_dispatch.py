"""When who is told: the waits, the notification log, muting, restarts. Compared with Alertmanager in tests/e2e."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from oomguard.model import Alert
from oomguard.routes.config import load
from oomguard.routes.dispatch import AlertState, Dispatcher
from oomguard.routes.groups import EMPTY_FOR
from oomguard.routes.silences import Silences

T = 1_800_000_000.0
FILE = """
route:
  receiver: hook
  group_by: [alertname]
  group_wait: 10s
  group_interval: 60s
  repeat_interval: 10m
  ROUTES
receivers:
- name: hook
  webhook_configs: [{url: 'http://127.0.0.1:1/'WEBHOOK}]
- {name: other, webhook_configs: [{url: 'http://127.0.0.1:1/'}]}
- {name: none}
TOP
"""


def make(routes="", webhook="", top=""):
    problems = []
    text = FILE.replace("ROUTES", routes).replace("WEBHOOK", webhook).replace("TOP", top)
    config = load(Path("am.yml"), problems, text)
    assert problems == []
    return Dispatcher(config, Silences())


def alert(name="A", start=T, **labels):
    return Alert({"alertname": name, **labels}, {"summary": "s"}, start)


def over(each, now):
    return replace(each, ends_at=now)


def told(notifications):
    """Instance (or name) and status of each alert of each notification."""
    return [
        [
            (each.labels.get("instance", each.name), "resolved" if each.ends_at else "firing")
            for each in notification.alerts
        ]
        for notification in notifications
    ]


def deliver(dispatcher, now):
    """What is due, delivered at once."""
    notifications = dispatcher.due(now)
    for notification in notifications:
        dispatcher.delivered(notification, now)
    return told(notifications)


def test_the_first_notification_waits_and_gathers():
    dispatcher = make()
    dispatcher.update([alert(instance="1")], T)
    dispatcher.update([alert(instance="2", start=T + 5)], T + 5)
    assert dispatcher.next_due() == T + 10
    assert deliver(dispatcher, T + 9.9) == []
    assert deliver(dispatcher, T + 10) == [[("1", "firing"), ("2", "firing")]]
    assert dispatcher.next_due() == T + 70


def test_an_alert_that_has_burned_for_longer_is_told_at_once():
    dispatcher = make()
    dispatcher.update([alert(start=T - 11)], T)
    assert deliver(dispatcher, T) == [[("A", "firing")]]


def test_groups_are_told_separately():
    dispatcher = make()
    dispatcher.update([alert("A"), alert("B")], T)
    assert sorted(deliver(dispatcher, T + 10)) == [[("A", "firing")], [("B", "firing")]]


def test_what_has_not_changed_is_told_again_only_after_the_repeat_interval():
    dispatcher = make()
    dispatcher.update([alert()], T)
    deliver(dispatcher, T + 10)
    at = [t for t in range(11, 1900) if deliver(dispatcher, T + t)]
    assert at == [
        670,
        1330,
    ]  # a repeat comes strictly after its interval, so one flush later, as in Alertmanager


def test_a_new_alert_in_a_group_is_told_at_the_next_flush():
    dispatcher = make()
    dispatcher.update([alert(instance="1")], T)
    deliver(dispatcher, T + 10)
    dispatcher.update([alert(instance="2", start=T + 20)], T + 20)
    assert deliver(dispatcher, T + 69) == []
    assert deliver(dispatcher, T + 70) == [[("1", "firing"), ("2", "firing")]]


def test_resolved_is_told_once_and_then_forgotten():
    dispatcher = make()
    dispatcher.update([alert()], T)
    deliver(dispatcher, T + 10)
    dispatcher.update([over(alert(), T + 20)], T + 20)
    assert deliver(dispatcher, T + 70) == [[("A", "resolved")]]
    assert deliver(dispatcher, T + 130) == []
    assert dispatcher.next_due() is None


def test_one_of_two_that_is_resolved_is_told_with_the_other():
    dispatcher = make()
    one, two = alert(instance="1"), alert(instance="2")
    dispatcher.update([one, two], T)
    deliver(dispatcher, T + 10)
    dispatcher.update([over(one, T + 20)], T + 20)
    assert deliver(dispatcher, T + 70) == [[("1", "resolved"), ("2", "firing")]]


def test_without_send_resolved_nothing_is_said_but_the_log_forgets():
    dispatcher = make(webhook=", send_resolved: false")
    dispatcher.update([alert()], T)
    deliver(dispatcher, T + 10)
    dispatcher.update([over(alert(), T + 20)], T + 20)
    assert deliver(dispatcher, T + 70) == []
    dispatcher.update([alert(start=T + 80)], T + 80)
    assert deliver(dispatcher, T + 130) == [[("A", "firing")]]


def test_what_began_and_ended_between_two_flushes_is_not_told():
    dispatcher = make()
    dispatcher.update([alert()], T)
    dispatcher.update([over(alert(), T + 5)], T + 5)
    assert deliver(dispatcher, T + 10) == []


def test_an_alert_that_comes_back_soon_waits_for_the_groups_interval_and_later_for_group_wait():
    dispatcher = make()
    dispatcher.update([alert()], T)
    deliver(dispatcher, T + 10)
    dispatcher.update([over(alert(), T + 20)], T + 20)
    deliver(dispatcher, T + 70)
    soon = T + 70 + EMPTY_FOR - 1
    dispatcher.update([alert(start=soon)], soon)
    assert dispatcher.next_due() == T + 130
    dispatcher.update([over(alert(start=soon), soon + 1)], soon + 1)
    deliver(dispatcher, T + 130)
    late = T + 130 + EMPTY_FOR  # and the group's clock went on ticking meanwhile
    dispatcher.update([alert(start=late)], late)
    assert dispatcher.next_due() == late + 10


def test_what_began_and_ended_between_two_flushes_is_not_told_the_second_time_either():
    dispatcher = make()
    dispatcher.update([alert()], T)
    deliver(dispatcher, T + 10)
    dispatcher.update([over(alert(), T + 20)], T + 20)
    deliver(dispatcher, T + 70)
    dispatcher.update([alert(start=T + 75)], T + 75)
    dispatcher.update([over(alert(start=T + 75), T + 76)], T + 76)
    assert deliver(dispatcher, T + 130) == []


def test_the_clock_of_an_empty_group_goes_on_ticking():
    dispatcher = make("routes: [{receiver: hook, group_interval: 8s}]")
    dispatcher.update([alert()], T)
    deliver(dispatcher, T + 10)
    dispatcher.update([over(alert(), T + 11)], T + 11)
    deliver(dispatcher, T + 18)
    dispatcher.update([alert(start=T + 36)], T + 36)
    assert dispatcher.next_due() == T + 42


def test_what_is_not_delivered_stays_wanted_until_it_is():
    dispatcher = make()
    dispatcher.update([alert()], T)
    (first,) = dispatcher.due(T + 10)
    assert dispatcher.due(T + 70) == []  # the same is on its way
    assert dispatcher.wanted(first)
    dispatcher.delivered(first, T + 75)
    assert not dispatcher.wanted(first)
    assert dispatcher.due(T + 130) == []


def test_a_newer_notification_replaces_one_that_waits():
    dispatcher = make()
    dispatcher.update([alert(instance="1")], T)
    (first,) = dispatcher.due(T + 10)
    dispatcher.update([alert(instance="2", start=T + 20)], T + 20)
    (second,) = dispatcher.due(T + 70)
    assert first.key == second.key
    assert not dispatcher.wanted(first)
    assert dispatcher.wanted(second)


def test_one_that_waits_is_given_up_when_all_is_over():
    dispatcher = make()
    dispatcher.update([alert()], T)
    (first,) = dispatcher.due(T + 10)
    dispatcher.update([over(alert(), T + 20)], T + 20)
    assert dispatcher.due(T + 70) == []
    assert not dispatcher.wanted(first)


def test_what_failed_is_made_again_at_the_next_flush_with_what_was_resolved_meanwhile():
    dispatcher = make()
    dispatcher.update([alert(instance="1"), alert(instance="2")], T)
    deliver(dispatcher, T + 10)
    dispatcher.update([over(alert(instance="1"), T + 20)], T + 20)
    (notification,) = dispatcher.due(T + 70)
    dispatcher.failed(notification)
    assert deliver(dispatcher, T + 130) == [[("1", "resolved"), ("2", "firing")]]
    assert deliver(dispatcher, T + 190) == []


def test_a_resolved_alert_that_comes_back_before_it_was_told_stays():
    dispatcher = make()
    dispatcher.update([alert()], T)
    deliver(dispatcher, T + 10)
    dispatcher.update([over(alert(), T + 20)], T + 20)
    (notification,) = dispatcher.due(T + 70)
    dispatcher.update([alert(start=T + 71)], T + 71)
    dispatcher.delivered(notification, T + 72)
    assert deliver(dispatcher, T + 130) == [[("A", "firing")]]


def test_what_one_webhook_has_not_heard_is_kept_for_it():
    dispatcher = make(webhook="}, {url: 'http://127.0.0.1:2/'")
    dispatcher.update([alert(instance="1"), alert(instance="2")], T)
    deliver(dispatcher, T + 10)
    dispatcher.update([over(alert(instance="1"), T + 20)], T + 20)
    first, second = dispatcher.due(T + 70)
    dispatcher.failed(second)
    dispatcher.delivered(first, T + 71)
    assert restarted(dispatcher, T + 80).next_due() == T + 80  # it is owed
    (again,) = dispatcher.due(T + 130)
    assert (again.index, told([again])) == (1, [[("1", "resolved"), ("2", "firing")]])
    dispatcher.delivered(again, T + 131)
    dispatcher.update([over(alert(instance="2"), T + 140)], T + 140)
    assert deliver(dispatcher, T + 190) == [[("2", "resolved")]] * 2


def test_without_send_resolved_only_what_fires_is_in_the_body_and_no_news_is_no_notification():
    dispatcher = make(webhook=", send_resolved: false")
    one, two = alert(instance="1"), alert(instance="2")
    dispatcher.update([one, two], T)
    deliver(dispatcher, T + 10)
    dispatcher.update([over(one, T + 20)], T + 20)
    assert deliver(dispatcher, T + 70) == []
    dispatcher.update([over(alert(instance="3"), T + 71), alert(instance="4", start=T + 71)], T + 71)
    assert deliver(dispatcher, T + 130) == [[("2", "firing"), ("4", "firing")]]


def test_each_webhook_has_its_own_log():
    dispatcher = make(webhook="}, {url: 'http://127.0.0.1:2/'")
    dispatcher.update([alert()], T)
    first, second = dispatcher.due(T + 10)
    assert (first.index, second.index) == (0, 1)
    dispatcher.delivered(first, T + 11)
    dispatcher.failed(second)
    (again,) = dispatcher.due(T + 70)
    assert again.index == 1


def test_an_unknown_alert_that_is_over_already_says_nothing():
    dispatcher = make()
    dispatcher.update([over(alert(), T)], T)
    assert deliver(dispatcher, T + 10) == []


def test_the_earliest_start_is_kept():
    dispatcher = make()
    dispatcher.update([alert(start=T)], T)
    dispatcher.update([alert(start=T + 5)], T + 5)
    (notification,) = dispatcher.due(T + 10)
    assert notification.alerts[0].starts_at == T


def test_a_silenced_alert_is_not_told_and_is_told_when_the_silence_ends():
    dispatcher = make()
    dispatcher._silences.set(
        {
            "matchers": [{"name": "instance", "value": "1", "isRegex": False}],
            "startsAt": "2020-01-01T00:00:00Z",
            "endsAt": "2027-01-15T08:01:00Z",
            "createdBy": "me",
            "comment": "",
        },
        T,
    )
    dispatcher.update([alert(instance="1"), alert(instance="2")], T)
    assert deliver(dispatcher, T + 10) == [[("2", "firing")]]
    assert dispatcher.status({"alertname": "A", "instance": "1"}, T).state is AlertState.SUPPRESSED
    assert [each.labels["instance"] for each in dispatcher.standing("hook", T)] == ["2"]
    assert [each.labels["instance"] for each in dispatcher.standing("hook", T + 60)] == ["1", "2"]
    assert deliver(dispatcher, T + 70) == [[("1", "firing"), ("2", "firing")]]


INHIBIT = """
inhibit_rules:
- {source_matchers: [severity=critical], target_matchers: [severity=warning], equal: [instance]}
"""


def test_inhibited_alerts_are_held_back_while_the_source_fires():
    dispatcher = make(top=INHIBIT)
    source = alert("S", instance="1", severity="critical")
    near, far = (alert("W", instance=name, severity="warning") for name in "12")
    dispatcher.update([near, far], T)
    assert len(dispatcher.standing("hook", T)) == 2
    dispatcher.update([source], T)
    assert [each.labels["instance"] for each in dispatcher.standing("hook", T)] == ["2", "1"]
    assert dispatcher.status(near.labels, T).inhibited
    assert sorted(deliver(dispatcher, T + 10)) == [[("1", "firing")], [("2", "firing")]]
    dispatcher.update([over(source, T + 20)], T + 20)
    assert [("1", "firing"), ("2", "firing")] in deliver(dispatcher, T + 70)


def test_an_alert_that_matches_both_sides_does_not_inhibit_its_like():
    dispatcher = make(top="inhibit_rules: [{source_matchers: [x=1], target_matchers: ['y=~.+']}]")
    both = [alert("A", x="1", y=name) for name in "ab"]
    dispatcher.update(both, T)
    assert len(dispatcher.standing("hook", T)) == 2
    dispatcher.update([alert("S", x="1")], T)
    dispatcher.update([alert("A", x="1", y="c")], T)  # comes after the one that inhibits, and changes nothing
    assert [each.name for each in dispatcher.standing("hook", T)] == ["S"]


MUTED = """
  routes:
  - {receiver: other, match: {x: '1'}, mute_time_intervals: [t]}
  - {receiver: other, match: {x: '2'}, active_time_intervals: [t]}
"""
MINUTE = """
time_intervals:
- {name: t, time_intervals: [{times: [{start_time: '08:01', end_time: '08:02'}]}]}
"""


def test_time_intervals_mute_a_route_or_confine_it():
    dispatcher = make(MUTED, top=MINUTE)
    dispatcher.update([alert(x="1"), alert(x="2")], T)  # T is 08:00:00
    assert [each.labels["x"] for each in dispatcher.standing("other", T + 59)] == ["1"]
    assert [each.labels["x"] for each in dispatcher.standing("other", T + 60)] == ["2"]
    assert [each.labels["x"] for each in dispatcher.standing("other", T + 120)] == ["1"]
    assert len(deliver(dispatcher, T + 10)) == 1
    assert len(deliver(dispatcher, T + 70)) == 1


def test_standing_knows_nothing_of_waits_and_forgets_at_once():
    dispatcher = make("routes: [{receiver: other, match: {x: '1'}, continue: true}]")
    dispatcher.update([alert(x="1"), alert(x="2")], T)
    assert [each.labels["x"] for each in dispatcher.standing("other", T)] == ["1"]
    assert len(dispatcher.standing("hook", T)) == 1
    dispatcher.update([over(alert(x="1"), T + 1)], T + 1)
    assert dispatcher.standing("other", T + 1) == ()
    assert dispatcher.standing("nobody", T + 1) == ()


def test_standing_costs_next_to_nothing_while_nothing_changes():
    dispatcher = make()
    dispatcher.update([alert(instance=str(number)) for number in range(100)], T)
    first = dispatcher.standing("hook", T)
    assert dispatcher.standing("hook", T + 1) is first
    best = 1.0
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(100):
            dispatcher.standing("hook", T)
        best = min(best, time.perf_counter() - start)
    assert best / 100 < 5e-6


def restarted(dispatcher, now):
    """A new dispatcher that knows what the old one dumped, by way of JSON."""
    again = Dispatcher(dispatcher.config, Silences())
    again.restore(json.loads(json.dumps(dispatcher.dump())), now)
    return again


def test_after_a_restart_nothing_is_told_twice():
    dispatcher = make()
    dispatcher.update([alert()], T)
    deliver(dispatcher, T + 10)
    again = restarted(dispatcher, T + 30)
    assert deliver(again, T + 70) == []
    assert [each.name for each in again.standing("hook", T + 70)] == ["A"]
    assert [t for t in range(71, 700) if deliver(again, T + t)] == [670]


def test_after_a_restart_what_waited_is_told_at_once():
    dispatcher = make()
    dispatcher.update([alert()], T)
    (lost,) = dispatcher.due(T + 10)
    again = restarted(dispatcher, T + 20)
    assert not again.wanted(lost)
    assert deliver(again, T + 20) == [[("A", "firing")]]


def test_after_a_restart_what_was_resolved_and_not_told_is_told():
    dispatcher = make()
    dispatcher.update([alert()], T)
    deliver(dispatcher, T + 10)
    dispatcher.update([over(alert(), T + 20)], T + 20)
    assert deliver(restarted(dispatcher, T + 30), T + 70) == [[("A", "resolved")]]


def test_after_a_restart_a_group_keeps_its_ticks_for_alerts_that_are_new():
    dispatcher = make()
    dispatcher.update([alert(instance="1")], T)
    deliver(dispatcher, T + 10)
    again = restarted(dispatcher, T + 30)
    again.update([alert(instance="2", start=T + 15)], T + 31)
    assert again.next_due() == T + 70


def test_after_a_restart_a_group_that_waits_goes_on_waiting():
    dispatcher = make()
    dispatcher.update([alert()], T)
    again = restarted(dispatcher, T + 3)
    assert again.next_due() == T + 10


def test_alerts_that_nobody_speaks_for_any_more_are_resolved():
    dispatcher = make()
    dispatcher.update([alert("A"), alert("B")], T)
    deliver(dispatcher, T + 10)
    dispatcher.reconcile([alert("B")], T + 20)
    assert [each.name for each in dispatcher.standing("hook", T + 20)] == ["B"]
    assert deliver(dispatcher, T + 70) == [[("A", "resolved")]]


def test_a_clock_that_is_set_back_does_not_stop_the_groups():
    dispatcher = make()
    dispatcher.update([alert()], T)
    dispatcher.update([], T + 5)
    dispatcher.update([], T - 3600)
    assert dispatcher.next_due() == T - 3600 + 5


def test_a_late_caller_skips_the_flushes_it_missed():
    dispatcher = make()
    dispatcher.update([alert()], T)
    deliver(dispatcher, T + 1000)
    assert dispatcher.next_due() == T + 1060


def test_a_storm_of_a_thousand_alerts_is_one_notification():
    dispatcher = make()
    alerts = [alert(instance=f"{number:04}") for number in range(1000)]
    dispatcher.update(alerts, T)
    (notification,) = dispatcher.due(T + 10)
    assert [each.labels["instance"] for each in notification.alerts] == [
        f"{number:04}" for number in range(1000)
    ]
    assert len(json.loads(notification.payload("http://x"))["alerts"]) == 1000


@pytest.mark.parametrize("receiver", ["none"])
def test_a_receiver_without_webhooks_swallows(receiver):
    dispatcher = make(f"routes: [{{receiver: {receiver}, match: {{x: '1'}}}}]")
    dispatcher.update([alert(x="1")], T)
    assert deliver(dispatcher, T + 10) == []
    assert len(dispatcher.standing(receiver, T)) == 1
