"""Step ``caches``: clear what the application registered as clearable. The cheapest there is."""

from __future__ import annotations

import asyncio

from oomguard.actions.step import Answer, Performed, Situation, keyed, order, summed

STRAGGLERS = 0.1
"""Seconds for which the others are waited for once one process has done it: a worker that hangs must not keep
the ladder from the next step while another one fills its cache again."""


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
        tasks = {asyncio.create_task(order(worker, self.name, situation)): slot for slot, worker in workers}
        pending, one_did = set(tasks), False
        while pending:
            done, pending = await asyncio.wait(
                pending, timeout=STRAGGLERS if one_did else None, return_when=asyncio.FIRST_COMPLETED
            )
            one_did = one_did or any(task.result().status == "done" for task in done)
            if not done:
                break
        for task in pending:
            task.cancel()
        late = Answer("failed", f"no answer {STRAGGLERS:g} s after the others'")
        return summed({slot: late if task in pending else task.result() for task, slot in tasks.items()})
