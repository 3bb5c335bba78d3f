"""Goals and limits as people write them; the same forms as the sidecar's, which the hook may not import."""

from __future__ import annotations

import re

_UNITS = {
    "": 1,
    "b": 1,
    "k": 1 << 10, "ki": 1 << 10, "kib": 1 << 10, "kb": 1000,
    "m": 1 << 20, "mi": 1 << 20, "mib": 1 << 20, "mb": 1000**2,
    "g": 1 << 30, "gi": 1 << 30, "gib": 1 << 30, "gb": 1000**3,
    "t": 1 << 40, "ti": 1 << 40, "tib": 1 << 40, "tb": 1000**4,
}  # fmt: skip
_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(%|[A-Za-z]*)\s*", re.ASCII)
_LEAST = 1 << 20
"""A bare number above 1 and below this is no number of bytes that somebody meant."""
_LONGEST = 40


class Goal:
    """Where a cleanup stops: a part of the limit, or a size in bytes; exactly one of the two is set."""

    __slots__ = ("ratio", "size")

    def __init__(self, ratio: float | None = None, size: int | None = None) -> None:
        self.ratio = ratio
        self.size = size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Goal) and (self.ratio, self.size) == (other.ratio, other.size)

    def __hash__(self) -> int:
        return hash((self.ratio, self.size))

    def __repr__(self) -> str:
        return f"Goal(ratio={self.ratio}, size={self.size})"

    def of(self, limit: int | None) -> int | None:
        """Bytes under this limit; None for a part of a limit that is not known."""
        if self.ratio is not None:
            return None if limit is None else int(self.ratio * limit)
        assert self.size is not None
        return self.size if limit is None else min(self.size, limit)


def parse_goal(given: float | str) -> Goal:
    """Read a ratio (0.7), a percentage (``70%``) or a size (``450MiB``).

    Raises ValueError with a text that says what is expected.
    """
    text = str(given)[:_LONGEST]
    match = _NUMBER.fullmatch(text)
    if match is not None:
        number, unit = float(match[1]), match[2].lower()
        if unit == "%" and 0 < number <= 100:  # noqa: PLR2004 - per cent
            return Goal(ratio=number / 100)
        if not unit and 0 < number <= 1:
            return Goal(ratio=number)
        size = number * _UNITS.get(unit, 0)
        if size >= (1 if unit else _LEAST):
            return Goal(size=int(size))
    raise ValueError(
        f"goal {text!r} is neither a ratio (0.7), nor a percentage (70%), nor a size (450MiB) above zero"
    )


def parse_limit(size: str | None, megabytes: str | None) -> int | None:
    """Bytes of OOMGUARD_LIMIT, else of MEMORY_LIMIT_MB (units of 2^20); None where neither is a size.

    A part of the machine's memory (``80%``) is the sidecar's to resolve.
    """
    for text in (size, f"{megabytes}MiB" if megabytes else None):
        if text:
            try:
                return parse_goal(text).size
            except ValueError:
                return None
    return None
