"""Step ``models``: have idle models unloaded, one process at a time; gc and trim follow, for they leave garbage."""

from __future__ import annotations

from oomguard.actions.step import Answer, Performed, Situation, keyed, order, summed


class Models:
    """Worst worker first, until the goal is reached. A model in use stays: its process says so."""

    name = "models"
    cooldown = 60.0

    def expected(self, situation: Situation) -> float:  # noqa: ARG002 - a step's signature
        """Never held back for lack of time: it gives back more than any step before it."""
        return 0.0

    async def perform(self, situation: Situation) -> Performed:
        """Stop at the goal."""
        answers: dict[str, Answer] = {}
        for slot, worker in keyed(situation.workers):
            answers[slot] = await order(worker, self.name, situation)
            after = situation.measure()
            if after is not None and after.used <= situation.goal:
                break
        return summed(answers)
