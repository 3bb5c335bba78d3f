"""Step ``gc``: a full collection, one process at a time, and nowhere once it makes things worse.

In forked workers that share a heap a collection writes to every object's header and so unshares it:
226 MB became 596 MB with four workers. It is left out there (``shared_heap``), and also in the
process they were forked from.
"""

from __future__ import annotations

from oomguard.actions.step import Answer, Performed, Situation, keyed, noise, order, summed
from oomguard.model import SkipReason

_FIRST_GUESS = 0.05
"""Seconds; about 65 ms a million containers. After the first collection the hook knows better."""


class Gc:
    """One worker after the other, until the goal is reached."""

    name = "gc"
    cooldown = 30.0

    def expected(self, situation: Situation) -> float:
        """As long as the last full collection of the slowest of those that would be collected."""
        seconds = []
        for worker in situation.workers:
            reading = worker.hook.last.value
            stats = reading.gc.value if reading is not None else None
            if not worker.shared_heap:
                seconds.append((stats.pause_last_full if stats else None) or _FIRST_GUESS)
        return max(seconds, default=0.0)

    async def perform(self, situation: Situation) -> Performed:
        """Stop at the goal, and at the first sign that usage rises by it."""
        answers: dict[str, Answer] = {}
        before = situation.level
        for slot, worker in keyed(situation.workers):
            if worker.shared_heap:
                answers[slot] = Answer("skipped", SkipReason.SHARED_HEAP.value)
                continue
            answers[slot] = await order(worker, self.name, situation)
            after = situation.measure()
            if after is None or after.used <= situation.goal or after.used > before.used + noise(after.limit):
                break
            before = after
        return summed(answers)
