"""The payload: what a real Alertmanager 0.25.0 sent (tests/fixtures/alertmanager) is made again from its alerts."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from oomguard.model import Alert
from oomguard.routes.payload import NEVER, build, go_quote, group_key, rfc3339

RECORDED = Path(__file__).parents[2] / "fixtures" / "alertmanager"


def seconds(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def rebuilt(payload, route_key, receiver):
    """A payload's bytes, from nothing but its alerts, its group's labels and where it was sent."""
    alerts = [
        Alert(
            dict(reversed(alert["labels"].items())),
            dict(reversed(alert["annotations"].items())),
            seconds(alert["startsAt"]),
            None if alert["endsAt"] == NEVER else seconds(alert["endsAt"]),
            alert["generatorURL"],
        )
        for alert in payload["alerts"]
    ]
    return build(
        receiver=receiver,
        group_key=group_key(route_key, payload["groupLabels"]),
        group_labels=payload["groupLabels"],
        alerts=alerts,
        external_url=payload["externalURL"],
    )


@pytest.mark.parametrize("name", ["firing", "resolved"])
def test_recorded_payloads_are_made_again(name):
    text = (RECORDED / f"alertmanager-v4-{name}.json").read_text(encoding="utf-8")
    ours = rebuilt(json.loads(text), "{}", "hook")
    # They were recorded indented: fields, order and values are compared, the bytes below.
    assert json.dumps(json.loads(ours), indent=2) + "\n" == text


def test_a_recorded_body_full_of_odd_characters_is_made_again_byte_for_byte():
    body = (RECORDED / "alertmanager-v4-odd.body").read_bytes()
    key = r'{}/{case="both"}/{instance!="",text=~".*\\.x|a\"b(?s).*"}'
    assert rebuilt(json.loads(body), key, "se.co+nd") == body


def test_half_characters_become_the_replacement_character():
    alert = Alert({"alertname": "A", "x": "a\ud800b"}, {}, 0)
    body = build(receiver="r", group_key="", group_labels={}, alerts=[alert], external_url="")
    assert b"a\\ufffdb" in body


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1763697618.957, "2025-11-21T04:00:18.957Z"),
        (1763697618.9, "2025-11-21T04:00:18.9Z"),
        (1763697618.000001, "2025-11-21T04:00:18.000001Z"),
        (1763697618.9999999, "2025-11-21T04:00:19Z"),
    ],
)
def test_times_have_as_many_digits_as_needed(time, text):
    assert rfc3339(time) == text


def test_common_labels_are_those_of_the_alerts_that_are_sent():
    alerts = [Alert({"alertname": "A", "n": n, "job": "j"}, {"s": n, "t": "x"}, 0) for n in "112"]
    body = json.loads(
        build(receiver="r", group_key="k", group_labels={}, alerts=alerts, external_url="", max_alerts=2)
    )
    assert body["commonLabels"] == {"alertname": "A", "job": "j", "n": "1"}
    assert (len(body["alerts"]), body["truncatedAlerts"]) == (2, 1)


def test_the_status_is_that_of_the_alerts_that_are_sent():
    alerts = [Alert({"alertname": "A"}, {}, 0, ends_at=1), Alert({"alertname": "B"}, {}, 0)]
    made = {"receiver": "r", "group_key": "k", "group_labels": {}, "alerts": alerts, "external_url": ""}
    assert json.loads(build(**made))["status"] == "firing"
    assert json.loads(build(**made, max_alerts=1))["status"] == "resolved"


def test_labels_in_group_keys_are_quoted_as_by_go():
    assert go_quote('a"\\\n\a\x01\x7f\u2028é€😀\xa0\ue000') == r'"a\"\\\n\a\x01\x7f\u2028é€😀\u00a0\ue000"'
