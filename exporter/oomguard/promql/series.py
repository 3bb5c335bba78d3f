"""What an expression reads: labelled series, as the evaluator asks for them.

Times are Unix milliseconds, as in Prometheus; labels are sorted (name, value) pairs, ``__name__`` among them, so
that two equal label sets are equal tuples. A series that ended holds `STALE`, the very NaN that Prometheus uses,
which no calculation produces.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

Labels = tuple[tuple[str, str], ...]
"""Sorted by name; a label with an empty value is not there."""

METRIC_NAME: Final = "__name__"

STALE: Final[float] = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
"""Prometheus' stale marker (model/value/value.go, StaleNaN)."""


def is_stale(value: float) -> bool:
    """Whether a value is the stale marker; any other NaN is a value."""
    return value != value and struct.pack("<d", value) == _STALE_BYTES  # noqa: PLR0124 - the test for NaN


_STALE_BYTES = struct.pack("<Q", 0x7FF0000000000002)


class Series(Protocol):
    """One series of a storage."""

    @property
    def labels(self) -> Labels:
        """With ``__name__``."""

    def at(self, time: int, oldest: int) -> tuple[int, float] | None:
        """The latest sample in (oldest, time], with its time; None where there is none, or it is the stale marker."""

    def window(self, start: int, end: int) -> tuple[Sequence[int], Sequence[float]]:
        """Times and values of the samples in (start, end], oldest first; stale markers are left out."""


@dataclass(frozen=True, slots=True)
class Matcher:
    """One label matcher of a selector."""

    name: str
    op: str
    """``=``, ``!=``, ``=~`` or ``!~``."""
    value: str
    accepts: Callable[[str], bool] = field(compare=False, repr=False)
    """Whether a label's value matches; a label that is not there counts as empty."""


class Storage(Protocol):
    """What holds the series."""

    @property
    def generation(self) -> int:
        """Changes whenever a series comes or goes: what was selected before must be selected again."""

    def select(self, name: str | None, matchers: Sequence[Matcher]) -> Sequence[Series]:
        """The series of a metric name (None: of any) that all matchers accept."""
