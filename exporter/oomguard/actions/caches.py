"""Step ``caches``: clear what the application registered as clearable. The cheapest there is."""

from __future__ import annotations

import asyncio

from oomguard.actions.step import Performed, Situation, keyed, order, summed


class Caches:
    """All processes side by side: clearing dictionaries neither stalls nor unshares anything of others."""

    name = "caches"
    cooldown = 1.0

    def expected(self, situation: Situation) -> float:  # noqa: ARG002 - a step's signature
        """Never held back for lack of time: it is the last hope as well as the first."""
        return 0.0

    async def perform(self, situation: Situation) -> Performed:
        """Order it from every hook at once."""
        workers = keyed(situation.workers)
        answers = await asyncio.gather(*(order(worker, self.name, situation) for _, worker in workers))
        return summed({slot: answer for (slot, _), answer in zip(workers, answers, strict=True)})
