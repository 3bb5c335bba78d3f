"""Sizes and thresholds as people write them, and sizes as people read them; standard library only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf

_UNITS = {
    "": 1,
    "b": 1,
    "k": 1 << 10, "ki": 1 << 10, "kib": 1 << 10, "kb": 1000,
    "m": 1 << 20, "mi": 1 << 20, "mib": 1 << 20, "mb": 1000**2,
    "g": 1 << 30, "gi": 1 << 30, "gib": 1 << 30, "gb": 1000**3,
    "t": 1 << 40, "ti": 1 << 40, "tib": 1 << 40, "tb": 1000**4,
}  # fmt: skip
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([A-Za-z]*)\s*")
_PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*%\s*")


_TOO_LARGE = 1 << 63
"""Bytes; a float of many digits is infinite, and no int."""
MIN_BARE = 1 << 20
"""A bare number below this is no number of bytes that somebody meant."""


def parse_size(text: str | int) -> int:
    """Bytes of ``512MiB``, ``512MB`` (10^6), ``0.5GiB``, ``512M`` (2^20, as docker takes it) or a number of bytes.

    Raises ValueError with a text that says what is expected.
    """
    match = _SIZE.fullmatch(str(text))
    if match is None or (factor := _UNITS.get(match[2].lower())) is None:
        raise ValueError(f"{text!r} is not a size; write for example 512MiB, 512MB or 0.5GiB")
    size = float(match[1]) * factor
    if not 1 <= size < _TOO_LARGE:
        raise ValueError(
            f"{str(text)[:40]!r} is not a size between a byte and 8 EiB; write for example 512MiB"
        )
    return int(size)


@dataclass(frozen=True, slots=True)
class Threshold:
    """A part of the limit, or a size of its own: exactly one of the two is set."""

    ratio: float | None = None
    size: int | None = None

    def of(self, limit: int) -> int:
        """The threshold in bytes under this limit; a size above the limit counts as the limit."""
        if self.size is not None:
            return min(self.size, limit)
        assert self.ratio is not None
        return int(self.ratio * limit)

    def __str__(self) -> str:
        return f"{self.ratio:.0%}" if self.ratio is not None else format_size(self.size or 0)


def parse_threshold(text: str | float) -> Threshold:
    """A ratio (``0.9``, at most 1), a percentage (``90%``) or a size (``4.5GB``).

    Raises ValueError with a text that says what is expected.
    """
    if match := _PERCENT.fullmatch(str(text)):
        ratio = float(match[1]) / 100
    else:
        try:
            ratio = float(text)
        except ValueError:
            ratio = 2.0
        except OverflowError:  # a JSON integer may have any number of digits
            ratio = inf
        if ratio > 1:
            if str(text).strip().replace(".", "", 1).isdecimal() and ratio < MIN_BARE:
                meant = f"{text}% or {text}MiB" if ratio <= 100 else f"{text}MiB"  # noqa: PLR2004 - per cent
                raise ValueError(f"{text!r} alone would be bytes; write {meant}")
            try:
                return Threshold(size=parse_size(str(text)))
            except ValueError:
                raise ValueError(
                    f"{str(text)[:40]!r} is not a threshold; write a ratio (0.9), a percentage (90%) or a size (450MiB)"
                ) from None
    if not 0 < ratio <= 1:
        raise ValueError(f"{text!r} is not between 0 and the limit; write for example 0.9 or 90%")
    return Threshold(ratio=ratio)


def format_size(size: float) -> str:
    """A size for people, in binary units: ``214.3 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if abs(size) < 1024:  # noqa: PLR2004 - the step between binary units
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"


def megabytes(size: float) -> str:
    """A size in MB of 2^20 bytes without a fraction, as log lines give it: ``1684 MB``."""
    return f"{size / (1 << 20):.0f} MB"
