"""Step ``models``: unload idle models, one process at a time; gc and trim follow. ``models:NAME`` unloads one model."""

from __future__ import annotations

from oomguard.actions.step import Performed, Situation, worst_first


class Models:
    """Worst worker first, until the goal is reached. A model in use stays: its process says so."""

    name = "models"
    cooldown = 60.0

    def expected(self, situation: Situation) -> float:  # noqa: ARG002 - a step's signature
        """Never held back for lack of time: it gives back more than any step before it."""
        return 0.0

    async def perform(self, situation: Situation) -> Performed:
        """Stop at the goal."""
        return await worst_first(self.name, situation)
