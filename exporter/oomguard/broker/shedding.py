"""Who wants new requests turned away, and until when that was ordered. Pure state, no clock, no I/O.

The sidecar's own alerts are asked again at every fast tick. One that came in a payload stands until it is resolved
or `HOLD` has passed; a person's order is followed once. Whatever began it, the processes end it by themselves.
"""

from __future__ import annotations

import enum
from typing import Final

from oomguard.actions.shed import HOLD

RENEWAL: Final = 10.0
"""Seconds between two orders: a third of what one lasts, so that two may be lost."""
MOST: Final = 1000
"""Alerts of payloads that are remembered."""


class Order(enum.Enum):
    """What is to be ordered now."""

    RENEW = "renew"
    END = "end"


class Shedding:
    """Times are monotonic seconds."""

    def __init__(self) -> None:
        self._own = False
        """An alert of this sidecar's asks for it."""
        self._others: dict[str, float] = {}
        """Alerts of payloads by fingerprint, and until when each stands."""
        self._ordered: float | None = None
        """When it was ordered last; None while nothing is shed."""
        self._alerted = False
        """Alerts wanted it while it was on: it ends with them."""

    def asked(self, fingerprint: str, now: float) -> None:
        """An alert of a payload asks for it."""
        if len(self._others) < MOST:
            self._others[fingerprint] = now + HOLD

    def resolved(self, fingerprint: str) -> None:
        """An alert of a payload asks for nothing any more."""
        self._others.pop(fingerprint, None)

    def wanted(self, now: float) -> bool:
        """Whether any alert asks for it."""
        return self._own or any(until > now for until in self._others.values())

    def begun(self, now: float) -> None:
        """It was ordered."""
        self._ordered = now

    def ended(self) -> None:
        """A person has ended it; an alert that goes on asking begins it again."""
        self._ordered, self._alerted = None, False

    def stand(self, now: float, *, own: bool) -> Order | None:
        """Take what this sidecar's alerts ask for at a tick; returns what is to be ordered."""
        self._own = own
        self._others = {name: until for name, until in self._others.items() if until > now}
        if self._ordered is None:
            return None
        if now >= self._ordered + HOLD:
            self._ordered, self._alerted = None, False
            return None
        if self.wanted(now):
            self._alerted = True
            if own and now >= self._ordered + RENEWAL:
                self._ordered = now
                return Order.RENEW
        elif self._alerted:
            self._ordered, self._alerted = None, False
            return Order.END
        return None
