"""What the log and the journal hear of alerts that come and go faster than anybody reads."""

import pytest

from oomguard.alerting.telling import MOST, WINDOW, Teller
from oomguard.journal import Journal
from oomguard.promql import compile_expression
from oomguard.rules.alerts import ActiveAlert, Change, ChangeKind
from oomguard.rules.rule import AlertRule


@pytest.fixture
def journal():
    return Journal(None)


@pytest.fixture
def teller(journal):
    return Teller(journal)


def change(kind, name="Flaps", severity="warning"):
    rule = AlertRule(name=name, expression=compile_expression("vector(1)"))
    labels = {"alertname": name} | ({"severity": severity} if severity else {})
    return Change(kind, ActiveAlert(rule, labels, labels, 1.0, 0))


def told(journal):
    return [(record["alert"], record["event"].removeprefix("alert_")) for record in journal.records]


def test_an_alert_that_flaps_at_every_tick_is_told_a_few_times_in_a_window(journal, teller):
    for now in range(0, WINDOW, 5):
        teller.take([change(ChangeKind.RESOLVED if now % 10 else ChangeKind.FIRING)], now)
        teller.catch_up(now)
    assert told(journal) == [("Flaps", "firing"), ("Flaps", "resolved")] * (MOST // 2)


def test_its_last_word_is_told_when_the_window_ends(journal, teller):
    for now in range(MOST + 1):
        teller.take([change(ChangeKind.RESOLVED if now % 2 else ChangeKind.FIRING)], now)
    assert told(journal)[-1] == ("Flaps", "resolved")
    teller.catch_up(WINDOW - 1)
    assert len(journal.records) == MOST
    teller.catch_up(WINDOW)
    teller.catch_up(3 * WINDOW)
    assert told(journal)[MOST:] == [("Flaps", "firing")]


def test_a_last_word_that_was_said_already_is_not_said_again(journal, teller):
    for now in range(MOST + 2):
        teller.take([change(ChangeKind.RESOLVED if now % 2 else ChangeKind.FIRING)], now)
    teller.catch_up(WINDOW)
    assert len(journal.records) == MOST


def test_others_are_told_meanwhile_and_what_pages_nobody_never_is(journal, teller):
    for now in range(10):
        teller.take([change(ChangeKind.FIRING), change(ChangeKind.RESOLVED)], now)
    teller.take(
        [
            change(ChangeKind.FIRING, "Other", "critical"),
            change(ChangeKind.PENDING, "Waits"),
            change(ChangeKind.FIRING, "Acts", "none"),
            change(ChangeKind.FIRING, "Says nothing", ""),
        ],
        10,
    )
    assert told(journal)[MOST:] == [("Other", "firing")]
