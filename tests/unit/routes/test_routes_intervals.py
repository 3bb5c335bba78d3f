"""Time intervals: when a route is muted."""

import time
from datetime import datetime, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from routes_samples import with_interval

from oomguard.routes.config import load


def interval(text):
    problems = []
    config = load(Path("am.yml"), problems, with_interval(text))
    assert problems == []
    return config.intervals["t"][0]


def at(text, zone=timezone.utc):
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("{times: [{start_time: '09:00', end_time: '17:00'}]}", "2026-03-02T09:00", "2026-03-02T17:00"),
        ("{times: [{start_time: '17:00', end_time: '24:00'}]}", "2026-03-02T23:59", "2026-03-03T00:00"),
        ("{weekdays: ['monday:friday']}", "2026-03-06T23:59", "2026-03-07T00:00"),
        ("{weekdays: [sunday]}", "2026-03-08T12:00", "2026-03-07T12:00"),
        ("{days_of_month: ['1:3']}", "2026-02-03T12:00", "2026-02-04T00:00"),
        ("{days_of_month: [-1]}", "2024-02-29T12:00", "2024-02-28T12:00"),
        ("{days_of_month: ['-3:-1']}", "2026-02-26T00:00", "2026-02-25T23:59"),
        ("{days_of_month: ['29:31']}", "2024-02-29T00:00", "2023-02-28T00:00"),
        ("{days_of_month: ['20:-5']}", "2026-04-26T12:00", "2026-04-27T12:00"),
        ("{months: ['january:march', '12']}", "2026-12-01T00:00", "2026-11-30T23:59"),
        ("{years: ['2025:2026']}", "2026-12-31T23:59", "2027-01-01T00:00"),
        ("{weekdays: [monday], months: [march]}", "2026-03-02T00:00", "2026-04-06T00:00"),
    ],
)
def test_an_interval_holds_its_times(text, inside, outside):
    assert interval(text).contains(at(inside))
    assert not interval(text).contains(at(outside))


def test_what_is_not_said_is_any_time_and_an_empty_list_is_none():
    assert interval("{}").contains(0)
    assert not interval("{weekdays: []}").contains(0)


def test_a_location_counts_with_its_summer_time():
    text = "{times: [{start_time: '09:00', end_time: '10:00'}], location: Europe/Berlin}"
    zone = ZoneInfo("Europe/Berlin")
    for day in ("2026-01-15", "2026-07-15"):
        assert interval(text).contains(at(f"{day}T09:30", zone))
        assert not interval(text).contains(at(f"{day}T09:30"))


def test_the_machines_own_zone_is_called_local(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        text = "{times: [{start_time: '09:00', end_time: '10:00'}], location: Local}"
        assert interval(text).contains(at("2026-01-15T00:30"))
    finally:
        monkeypatch.undo()
        time.tzset()
