"""What ``oomguard pause`` sets: one silence over every alert that asks for an action, in Alertmanager's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

PAUSE: Final[Mapping[str, Any]] = {"name": "action", "value": ".+", "isRegex": True, "isEqual": True}
"""The one matcher of a pause."""


def is_pause(silence: Mapping[str, Any]) -> bool:
    """Whether a silence, as the API tells it, is a pause."""
    return bool(silence["matchers"] == [dict(PAUSE)])
