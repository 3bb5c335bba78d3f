"""Step ``trim``: have malloc return what it keeps (malloc_trim(3)), one process at a time.

It stalls every thread that allocates, 0.3 to 0.4 s on 2 to 4 GB, so it is taken once a run.
"""

from __future__ import annotations

from oomguard.actions.step import Performed, Situation, worst_first

_SECONDS_PER_BYTE = 0.1 / (1 << 30)


class Trim:
    """Worst worker first, until the goal is reached."""

    name = "trim"
    cooldown = 10.0

    def expected(self, situation: Situation) -> float:
        """0.1 s a GB of the largest worker."""
        return max((worker.weight for worker in situation.workers), default=0) * _SECONDS_PER_BYTE

    async def perform(self, situation: Situation) -> Performed:
        """Stop at the goal."""
        return await worst_first(self.name, situation)
