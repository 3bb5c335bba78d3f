"""Date functions of Unix seconds, in UTC and the Gregorian calendar of all years, as Go's time package has it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

_DAY: Final = 86_400
_DAYS_IN_MONTH: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_INT64: Final = 2.0**63


def civil(seconds: int) -> tuple[int, int, int]:
    """Year, month and day of a Unix time (Hinnant, "chrono-compatible low-level date algorithms")."""
    days = seconds // _DAY + 719_468
    era, day_of_era = divmod(days, 146_097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    shifted = (5 * day_of_year + 2) // 153
    month = shifted + 3 if shifted < 10 else shifted - 9  # noqa: PLR2004 - the year begins in March there
    year = year_of_era + era * 400 + (month <= 2)  # noqa: PLR2004
    return year, month, day_of_year - (153 * shifted + 2) // 5 + 1


def _leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _days_in_month(seconds: int) -> int:
    year, month, _ = civil(seconds)
    return 29 if month == 2 and _leap(year) else _DAYS_IN_MONTH[month - 1]  # noqa: PLR2004 - February


def _day_of_year(seconds: int) -> int:
    year, month, day = civil(seconds)
    return sum(_DAYS_IN_MONTH[: month - 1]) + (month > 2 and _leap(year)) + day  # noqa: PLR2004 - after February


FUNCTIONS: Final[dict[str, Callable[[int], int]]] = {
    "day_of_month": lambda seconds: civil(seconds)[2],
    "day_of_week": lambda seconds: (seconds // _DAY + 4) % 7,
    "day_of_year": _day_of_year,
    "days_in_month": _days_in_month,
    "hour": lambda seconds: seconds % _DAY // 3600,
    "minute": lambda seconds: seconds % 3600 // 60,
    "month": lambda seconds: civil(seconds)[1],
    "year": lambda seconds: civil(seconds)[0],
}


def of_sample(name: str) -> Callable[[float], float]:
    """A date function of a sample's value.

    NaN, the infinities and what int64 can't hold give NaN: Go's result there depends on the processor.
    """
    function = FUNCTIONS[name]
    return lambda value: float(function(math.trunc(value))) if -_INT64 <= value < _INT64 else math.nan
