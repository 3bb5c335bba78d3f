"""Step ``shed``: turn new requests away (503 with Retry-After) while those under way are finished.
``shed:off`` lets them in again.

A process ends it by itself `HOLD` seconds after the last order, so that a sidecar that dies leaves no service shut.
What it gives is not memory but that memory grows no further: growth is what it is judged by.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from oomguard.actions.step import Performed, Situation, noise, side_by_side
from oomguard.model import Level

HOLD: Final = 30.0
"""Seconds for which a process sheds after an order (docs/hook-protocol.md)."""
OFF: Final = "off"
"""Name that ends it."""
ENDS: Final = f"shed:{OFF}"
WATCHED: Final = 0.5
"""Seconds of growth that tell: requests under way go on filling memory for as long as they take."""


class Shed:
    """All processes at once: what one turns away would come to the next."""

    name = "shed"
    cooldown = 0.0

    def expected(self, situation: Situation) -> float:  # noqa: ARG002 - a step's signature
        """Never held back for lack of time: it takes effect with the next request."""
        return 0.0

    async def perform(self, situation: Situation) -> Performed:
        """Order it, and see how memory grows from then on."""
        performed = await side_by_side(self.name, situation)
        if situation.name == OFF:
            return performed
        before = situation.measure()
        if not performed.done or before is None:
            return performed
        # Near the limit the next step, if there is one, must not wait for a figure.
        seconds = min(WATCHED, before.seconds_left / 4)
        await asyncio.sleep(seconds)
        after = situation.measure()
        growth = (after.used - before.used) / seconds if after is not None and seconds > 0 else None
        return replace(performed, growth=growth)


def slowed(before: Level, growth: float) -> bool:
    """Whether memory grows less than half as fast as before, or by what says nothing."""
    return growth <= max(noise(before.limit), before.rate / 2)
