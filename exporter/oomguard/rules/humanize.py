"""Prometheus' functions that make numbers readable (template/template.go; prometheus/common, helpers/templates)."""

from __future__ import annotations

import math
import re
from datetime import datetime, timedelta, timezone
from typing import Final

from oomguard.rules.goformat import Value, general, type_name

_DIGITS = r"\d+(?:_\d+)*"
_NUMBER = re.compile(
    rf"[+-]?(?:(?:{_DIGITS}\.?(?:{_DIGITS})?|\.{_DIGITS})(?:e[+-]?{_DIGITS})?|inf|infinity|nan)",
    re.IGNORECASE | re.ASCII,
)
_HEXADECIMAL = re.compile(r"[+-]?0x(?:[\da-f]+\.?[\da-f]*|\.[\da-f]+)p[+-]?\d+", re.IGNORECASE | re.ASCII)
_LARGE: Final = ("k", "M", "G", "T", "P", "E", "Z", "Y")
_LARGE_1024: Final = ("ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi")
_SMALL: Final = ("m", "u", "n", "p", "f", "a", "z", "y")
_INT64: Final = 1 << 63
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def to_float(value: Value) -> float:
    """A number, or a text that holds one; ValueError as Prometheus words it."""
    if isinstance(value, str):
        try:
            if _HEXADECIMAL.fullmatch(value):
                return float.fromhex(value)
            if not _NUMBER.fullmatch(value):
                raise ValueError(f'strconv.ParseFloat: parsing "{value}": invalid syntax')
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isinf(number) and "inf" not in value.lower():
            raise ValueError(f'strconv.ParseFloat: parsing "{value}": value out of range')
        return number
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"can't convert {type_name(value)} to float")  # noqa: TRY004 - it is the template's fault
    return float(value)


def humanize(value: Value) -> str:
    """Four digits and a metric prefix: 1234567 is ``1.235M``."""
    number = to_float(value)
    if number == 0 or not math.isfinite(number):
        return general(number, 4)
    if abs(number) >= 1:
        return _scaled(number, _LARGE, 1000)
    return _enlarged(number)


def humanize1024(value: Value) -> str:
    """Four digits and a binary prefix: 1048576 is ``1Mi``."""
    number = to_float(value)
    if abs(number) <= 1 or not math.isfinite(number):
        return general(number, 4)
    return _scaled(number, _LARGE_1024, 1024)


def humanize_duration(value: Value) -> str:
    """Seconds as ``1d 2h 3m 4s``, below a second as ``250ms``."""
    number = to_float(value)
    if not math.isfinite(number):
        return general(number, 4)
    if number == 0:
        return general(number, 4) + "s"
    if abs(number) < 1:
        return _enlarged(number) + "s"
    sign = "-" if number < 0 else ""
    number = abs(number)
    # What does not fit Go's int64 becomes its smallest value on amd64; every part is then negative.
    whole, negative = (int(number), 1) if number < _INT64 else (_INT64, -1)
    seconds, minutes, hours, days = (
        negative * part for part in (whole % 60, whole // 60 % 60, whole // 3600 % 24, whole // 86400)
    )
    if days or hours or minutes:
        larger = (
            f"{days}d {hours}h {minutes}m" if days else f"{hours}h {minutes}m" if hours else f"{minutes}m"
        )
        return f"{sign}{larger} {seconds}s"
    return f"{sign}{general(number, 4)}s"


def humanize_percentage(value: Value) -> str:
    """A ratio as a percentage: 0.25 is ``25%``."""
    return general(to_float(value) * 100, 4) + "%"


def humanize_timestamp(value: Value) -> str:
    """Unix seconds as ``2026-01-31 12:00:00.5 +0000 UTC``; ValueError beyond the years 1678 to 2262."""
    number = to_float(value)
    if not math.isfinite(number):
        return general(number, 4)
    nanoseconds = number * 1e9
    if not -_INT64 <= nanoseconds < _INT64:
        raise ValueError(
            f"{general(number)} cannot be represented as a nanoseconds timestamp since it overflows int64"
        )
    milliseconds = int(math.copysign(abs(int(nanoseconds)) // 1_000_000, nanoseconds))
    moment = _EPOCH + timedelta(milliseconds=milliseconds)
    fraction = f".{moment.microsecond:06d}".rstrip("0").rstrip(".")
    return f"{moment:%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC"


def _scaled(number: float, prefixes: tuple[str, ...], step: int) -> str:
    prefix = ""
    for larger in prefixes:
        if abs(number) < step:
            break
        prefix = larger
        number /= step
    return general(number, 4) + prefix


def _enlarged(number: float) -> str:
    prefix = ""
    for smaller in _SMALL:
        if abs(number) >= 1:
            break
        prefix = smaller
        number *= 1000
    return general(number, 4) + prefix
