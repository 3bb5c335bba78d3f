"""Silences in the form of Alertmanager's API v2."""

import json

import pytest

from oomguard.routes.payload import rfc3339
from oomguard.routes.silences import (
    MOST_EXPIRED,
    MOST_LIVE,
    RETENTION,
    SilenceError,
    SilenceNotFoundError,
    Silences,
    SilenceState,
    parse_time,
)

NOW = 1_800_000_000.0
LABELS = {"alertname": "MemoryHigh", "target": "api"}


def body(start=0.0, end=3600.0, **changes):
    made = {
        "matchers": [{"name": "alertname", "value": "Memory.*", "isRegex": True, "isEqual": True}],
        "startsAt": rfc3339(NOW + start),
        "endsAt": rfc3339(NOW + end),
        "createdBy": "me",
        "comment": "deploy",
        **changes,
    }
    return {key: value for key, value in made.items() if value is not ...}


def test_a_silence_holds_from_its_start_to_its_end():
    silences = Silences()
    silence = silences.set(body(10, 20), NOW)
    assert [bool(silences.silenced(LABELS, NOW + t)) for t in (9, 10, 19, 20)] == [False, True, True, False]
    assert [silence.state(NOW + t).value for t in (9, 10, 20)] == ["pending", "active", "expired"]
    assert silences.silenced({"alertname": "Other"}, NOW + 10) == []
    assert [silences.next_change(NOW + t) for t in (0, 10, 20)] == [NOW + 10, NOW + 20, None]


def test_it_is_told_as_by_alertmanager():
    silences = Silences(new_id=lambda: "id-1")
    assert silences.set(body(), NOW).to_json(NOW) == {
        "id": "id-1",
        "status": {"state": "active"},
        "updatedAt": rfc3339(NOW),
        "comment": "deploy",
        "createdBy": "me",
        "endsAt": rfc3339(NOW + 3600),
        "startsAt": rfc3339(NOW),
        "matchers": [{"isEqual": True, "isRegex": True, "name": "alertname", "value": "Memory.*"}],
    }


def test_a_start_in_the_past_becomes_now():
    assert Silences().set(body(-100), NOW).starts_at == NOW


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"matchers": []}, "at least one matcher"),
        ({"matchers": ...}, "at least one matcher"),
        ({"matchers": [{"name": "a", "value": "", "isRegex": False}]}, "must not match the empty text"),
        ({"matchers": [{"name": "a", "value": ".*", "isRegex": True}]}, "must not match the empty text"),
        ({"matchers": [{"name": "a-b", "value": "x", "isRegex": False}]}, "not a label name"),
        ({"matchers": [{"name": "a", "value": "(", "isRegex": True}]}, "regular expression"),
        ({"matchers": [{"name": "a", "value": "x"}]}, "isRegex must be true or false"),
        ({"matchers": [{"name": "a", "value": 1, "isRegex": False}]}, "value must be a text"),
        ({"matchers": ["a=b"]}, "must be an object"),
        ({"startsAt": ...}, "startsAt must be a time"),
        ({"endsAt": "tomorrow"}, "endsAt must be a time"),
        ({"endsAt": "2026-01-01T00:00:00"}, "endsAt must be a time"),
        ({"endsAt": rfc3339(NOW - 1)}, "startsAt must be before endsAt"),
        ({"startsAt": rfc3339(NOW - 9), "endsAt": rfc3339(NOW - 1)}, "in the past"),
        ({"createdBy": ...}, "createdBy must be a text"),
        ({"comment": 5}, "comment must be a text"),
        ({"comment": "x" * 5000}, "longer than"),
    ],
)
def test_what_is_wrong_is_said(change, said):
    with pytest.raises(SilenceError, match=said):
        Silences().set(body(**change), NOW)


def test_a_body_that_is_no_object_is_refused():
    with pytest.raises(SilenceError):
        Silences().set([], NOW)


def test_an_end_can_be_moved_and_the_silence_stays_the_same():
    silences = Silences()
    first = silences.set(body(), NOW)
    longer = silences.set(body(0, 7200, id=first.id), NOW + 60)
    assert (longer.id, longer.ends_at) == (first.id, NOW + 7200)


def test_other_matchers_end_the_old_silence_and_make_a_new_one():
    silences = Silences()
    first = silences.set(body(), NOW)
    other = [{"name": "target", "value": "api", "isRegex": False}]
    second = silences.set(body(id=first.id, matchers=other), NOW + 60)
    assert second.id != first.id
    assert silences.get(first.id).state(NOW + 60) is SilenceState.EXPIRED


def test_expiring_is_idempotent_and_needs_a_known_id():
    silences = Silences()
    silence = silences.set(body(), NOW)
    ended = silences.expire(silence.id, NOW + 1)
    assert silences.expire(silence.id, NOW + 2) == ended
    pending = silences.set(body(100, 200), NOW)
    assert silences.expire(pending.id, NOW + 1).state(NOW + 1) is SilenceState.EXPIRED
    for act in (silences.expire, lambda name, _: silences.get(name)):
        with pytest.raises(SilenceNotFoundError):
            act("nothing", NOW)
    with pytest.raises(SilenceNotFoundError):
        silences.set(body(id="nothing"), NOW)


def test_expired_ones_are_kept_for_a_time_and_in_number():
    silences = Silences()
    for _ in range(MOST_EXPIRED + 50):
        silences.expire(silences.set(body(), NOW).id, NOW)
    assert len(silences.listed(NOW)) == MOST_EXPIRED
    assert silences.count(NOW)[SilenceState.EXPIRED] == MOST_EXPIRED
    assert silences.listed(NOW + RETENTION) == []


def test_live_ones_are_bounded():
    silences = Silences()
    for _ in range(MOST_LIVE):
        silences.set(body(), NOW)
    with pytest.raises(SilenceError, match="expire some"):
        silences.set(body(), NOW)


def test_they_survive_a_restart():
    silences = Silences()
    silences.set(body(), NOW)
    silences.set(body(100, 200), NOW)
    again = Silences()
    again.restore([*json.loads(json.dumps(silences.dump())), {"broken": True}], NOW + 1)
    assert again.listed(NOW + 1) == silences.listed(NOW + 1)
    assert again.silenced(LABELS, NOW + 1)


def test_every_change_is_told():
    told = []
    silences = Silences(changed=lambda: told.append(1))
    silences.expire(silences.set(body(), NOW).id, NOW)
    assert len(told) == 2
    assert silences.version == 2


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-01-31T08:00:00Z", 1769846400),
        ("2026-01-31T08:00:00.5Z", 1769846400.5),
        ("2026-01-31T08:00:00.123456789Z", 1769846400.123456),
        ("2026-01-31T10:00:00+02:00", 1769846400),
        ("2026-01-31t08:00:00z", 1769846400),
    ],
)
def test_times_are_read_in_every_form_of_rfc_3339(text, time):
    assert parse_time(text) == time


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+10:00", "9999-12-31T23:59:59-10:00"])
def test_a_time_whose_offset_leads_out_of_the_calendar_is_no_time(text):
    with pytest.raises(ValueError, match="T"):
        parse_time(text)
