"""The steps of the ladder, cheapest first. A new step is a new file and a line in `LADDER`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from oomguard.actions.caches import Caches
from oomguard.actions.gc import Gc
from oomguard.actions.models import Models
from oomguard.actions.shed import Shed
from oomguard.actions.step import Step, split
from oomguard.actions.streams import Streams
from oomguard.actions.trim import Trim

LADDER: Final[tuple[Step, ...]] = (Caches(), Gc(), Trim(), Streams(), Models(), Shed())
STEP_NAMES: Final = tuple(step.name for step in LADDER)
NAMED: Final = ("caches", "models")
"""Steps that can be restricted to one cache or model: ``caches:bulk``."""


def in_order(turns: Iterable[str]) -> tuple[str, ...]:
    """Turns of known steps in the order of the ladder, each once; a step as a whole comprises its parts."""
    asked = dict.fromkeys(turns)
    kept = [turn for turn in asked if split(turn)[1] is None or split(turn)[0] not in asked]
    return tuple(sorted(kept, key=lambda turn: STEP_NAMES.index(split(turn)[0])))
