"""The steps of the ladder, cheapest first. A new step is a new file and a line in `LADDER`."""

from __future__ import annotations

from typing import Final

from oomguard.actions.caches import Caches
from oomguard.actions.gc import Gc
from oomguard.actions.models import Models
from oomguard.actions.step import Step
from oomguard.actions.trim import Trim

LADDER: Final[tuple[Step, ...]] = (Caches(), Gc(), Trim(), Models())
STEP_NAMES: Final = tuple(step.name for step in LADDER)
