"""Step ``streams``: close the streams that have been idle longest, cleanly; their clients connect again."""

from __future__ import annotations

from oomguard.actions.step import Performed, Situation, worst_first


class Streams:
    """Worst worker first, until the goal is reached: each stream that is closed is somebody's."""

    name = "streams"
    cooldown = 10.0

    def expected(self, situation: Situation) -> float:  # noqa: ARG002 - a step's signature
        """Never held back for lack of time: asking takes milliseconds, and a hook waits no longer than there is."""
        return 0.0

    async def perform(self, situation: Situation) -> Performed:
        """Stop at the goal."""
        return await worst_first(self.name, situation)
