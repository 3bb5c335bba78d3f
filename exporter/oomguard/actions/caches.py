"""Step ``caches``: clear what the application registered as clearable, with ``caches:NAME`` one of it. Cheapest."""

from __future__ import annotations

from oomguard.actions.step import Performed, Situation, side_by_side


class Caches:
    """All processes side by side: clearing dictionaries neither stalls nor unshares anything of others."""

    name = "caches"
    cooldown = 1.0

    def expected(self, situation: Situation) -> float:  # noqa: ARG002 - a step's signature
        """Never held back for lack of time: it is the last hope as well as the first."""
        return 0.0

    async def perform(self, situation: Situation) -> Performed:
        """Order it from every hook at once."""
        return await side_by_side(self.name, situation)
