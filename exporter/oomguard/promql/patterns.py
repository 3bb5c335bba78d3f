"""Regular expressions of Go's RE2 syntax, as Python's `re` where both mean the same; anything else is refused."""

from __future__ import annotations

import re

from oomguard.errors import PromqlError


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern for `fullmatch`; PromqlError where Python would match otherwise than Prometheus."""
    try:
        return re.compile(pattern, re.DOTALL | re.ASCII)
    except re.error as error:
        raise PromqlError(f"invalid regular expression {pattern!r}: {error}") from None
