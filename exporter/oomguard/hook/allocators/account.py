"""What every malloc is asked for, and what it answers."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Malloc(Protocol):
        """One implementation of malloc. Asked by one thread at a time."""

        name: str
        trims: bool
        """Whether `release` can give memory back to the system."""
        reason: str
        """Why `account` is None, or `trims` False; empty where it tells and trims."""

        def account(self) -> Account | None:
            """What it holds now; None where it does not tell (`reason`)."""

        def release(self) -> None:
            """Give free pages back to the system. Raises OSError where it refuses."""

        def details(self) -> dict[str, object]:
            """What else goes into a reading."""


class Account:
    """Bytes. `mmapped` blocks have a mapping of their own each, and are not part of `in_use`."""

    __slots__ = ("free", "in_use", "mmapped", "reclaimable")

    def __init__(self, in_use: int, free: int, mmapped: int, reclaimable: int) -> None:
        self.in_use = in_use
        self.free = free
        self.mmapped = mmapped
        self.reclaimable = reclaimable
        """What `release` can give back at most: whole pages where that is known, else all that is free."""
