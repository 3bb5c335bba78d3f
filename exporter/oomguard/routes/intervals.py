"""Time intervals that mute a route or confine it (Alertmanager, timeinterval/timeinterval.go)."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone, tzinfo
from typing import Final

from oomguard.documents import Node
from oomguard.errors import Problem
from oomguard.routes.reading import optional_text, texts

WEEKDAYS: Final = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
MONTHS: Final = tuple(name.lower() for name in calendar.month_name[1:])
_CLOCK = re.compile(r"((?:[01][0-9]|2[0-3]):[0-5][0-9]|24:00)")
_SHORTEST_MONTH = 28
_LONGEST_MONTH = 31

Range = tuple[int, int]
"""Both ends are in it, but for times of the day."""


@dataclass(frozen=True, slots=True)
class Interval:
    """What holds when all parts hold; None is any time, an empty part none."""

    times: tuple[Range, ...] | None = None
    """Minutes of the day; the end is not in it."""
    weekdays: tuple[Range, ...] | None = None
    """0 is Sunday."""
    days_of_month: tuple[Range, ...] | None = None
    """Negative ones count from the end: -1 is the last day."""
    months: tuple[Range, ...] | None = None
    years: tuple[Range, ...] | None = None
    location: tzinfo | None = timezone.utc
    """None is the machine's own."""

    def contains(self, time: float) -> bool:
        """Whether a moment (Unix seconds) lies in it."""
        at = datetime.fromtimestamp(time, self.location)
        minute = at.hour * 60 + at.minute
        return (
            (self.times is None or any(start <= minute < end for start, end in self.times))
            and (self.days_of_month is None or _on_days(at, self.days_of_month))
            and _within(at.month, self.months)
            and _within(at.isoweekday() % 7, self.weekdays)
            and _within(at.year, self.years)
        )


def _within(value: int, ranges: tuple[Range, ...] | None) -> bool:
    return ranges is None or any(begin <= value <= end for begin, end in ranges)


def _on_days(at: datetime, ranges: tuple[Range, ...]) -> bool:
    length = calendar.monthrange(at.year, at.month)[1]
    for begin, end in ranges:
        first = length + begin + 1 if begin < 0 else begin
        last = length + end + 1 if end < 0 else end
        if first <= at.day <= last:
            return True
    return False


Intervals = Mapping[str, tuple[Interval, ...]]


def any_contains(intervals: Intervals, names: Sequence[str], time: float) -> bool:
    """Whether a moment lies in any interval of these names."""
    return any(interval.contains(time) for name in names for interval in intervals[name])


_PARTS = ("times", "weekdays", "days_of_month", "months", "years", "location")


def read_intervals(
    nodes: Sequence[Node], problems: list[Problem], found: dict[str, tuple[Interval, ...]]
) -> None:
    """Add the named intervals of ``time_intervals`` or ``mute_time_intervals`` to what was found."""
    for node in nodes:
        parts = node.mapping(problems, "a time interval", ("name", "time_intervals"))
        name = optional_text(parts.get("name"), problems, "name of a time interval")
        if not name:
            problems.append(Problem(node.where, "a time interval lacks its name"))
        elif name in found:
            problems.append(Problem(node.where, f"time interval {name!r} is defined twice; rename one"))
        entries = (
            parts["time_intervals"].items(problems, "time_intervals") if "time_intervals" in parts else []
        )
        found[name] = tuple(_interval(entry, problems) for entry in entries)


def _interval(node: Node, problems: list[Problem]) -> Interval:
    parts = node.mapping(problems, "an entry of time_intervals", _PARTS)

    def ranges(key: str, read: Callable[[str], Range]) -> tuple[Range, ...] | None:
        if key not in parts or parts[key].value is None:
            return None
        read_all = (
            _read(entry, text, read, problems, key) for entry, text in texts(parts[key], problems, key)
        )
        return tuple(found for found in read_all if found is not None)

    return Interval(
        times=_times(parts["times"], problems)
        if "times" in parts and parts["times"].value is not None
        else None,
        weekdays=ranges("weekdays", _weekdays),
        days_of_month=ranges("days_of_month", _days_of_month),
        months=ranges("months", _months),
        years=ranges("years", _years),
        location=_location(parts["location"], problems) if "location" in parts else timezone.utc,
    )


def _read(
    node: Node, text: str, read: Callable[[str], Range], problems: list[Problem], what: str
) -> Range | None:
    try:
        return read(text.lower())
    except ValueError as error:
        problems.append(Problem(node.where, f"{what}: {error}"))
        return None


def _times(node: Node, problems: list[Problem]) -> tuple[Range, ...]:
    made = []
    for entry in node.items(problems, "times"):
        parts = entry.mapping(problems, "an entry of times", ("start_time", "end_time"))
        clocks = [optional_text(parts.get(key), problems, key) for key in ("start_time", "end_time")]
        wrong = [clock for clock in clocks if not _CLOCK.fullmatch(clock)]
        problems.extend(
            Problem(entry.where, f"times: {clock!r} is not a time of the day; write for example 09:00")
            for clock in wrong
        )
        if wrong:
            continue
        start, end = (int(clock[:2]) * 60 + int(clock[3:]) for clock in clocks)
        if start >= end:
            problems.append(
                Problem(entry.where, "times: start_time must be before end_time; use two for a night")
            )
        made.append((start, end))
    return tuple(made)


def _range(text: str, member: Callable[[str], int]) -> Range:
    begin, colon, end = text.partition(":")
    return (member(begin), member(end if colon else begin))


def _number(text: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,9}", text):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


def _named(names: Sequence[str], first: int, text: str) -> int:
    if text in names:
        return names.index(text) + first
    raise ValueError(f"{text!r} is none of {', '.join(names)}")


def _weekdays(text: str) -> Range:
    found = _range(text, lambda part: _named(WEEKDAYS, 0, part))
    return _forward(found, text)


def _months(text: str) -> Range:
    def month(part: str) -> int:
        return _number(part) if re.fullmatch(r"[+-]?[0-9]+", part) else _named(MONTHS, 1, part)

    return _forward(_range(text, month), text)


def _years(text: str) -> Range:
    return _forward(_range(text, _number), text)


def _forward(found: Range, text: str) -> Range:
    if found[0] > found[1]:
        raise ValueError(f"{text!r} ends before it begins; write two ranges")
    return found


def _days_of_month(text: str) -> Range:
    begin, end = _range(text, _number)
    if any(day == 0 or abs(day) > _LONGEST_MONTH for day in (begin, end)):
        raise ValueError(f"{text!r} is no day of a month; days are 1 to 31, or -31 to -1 from its end")
    if begin < 0 < end:
        raise ValueError(f"{text!r} begins from the end of the month; its end must be negative too")
    first, last = (_SHORTEST_MONTH + day if day < 0 else day for day in (begin, end))
    return _forward((first, last), text) and (begin, end)


def _location(node: Node, problems: list[Problem]) -> tzinfo | None:
    name = node.text(problems, "location")
    if name in ("", "UTC"):
        return timezone.utc
    if name == "Local":
        return None
    import zoneinfo  # noqa: PLC0415 - few configurations name a place

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        text = (
            f"{name!r} is not known here; write for example Europe/Berlin, and see that tzdata is installed"
        )
        problems.append(Problem(node.where, f"location: {text}"))
        return timezone.utc
