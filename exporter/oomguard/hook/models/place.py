"""Where a model lives, as `model.Model` sees it; for the type checker."""

from __future__ import annotations

from typing import Protocol


class Place(Protocol):
    """Where a model lives: in this process, or in one of its own."""

    isolated: bool

    @property
    def pid(self) -> int | None:
        """Of the model's own process, while there is one."""

    @property
    def lost(self) -> bool:
        """Whether a model that was loaded is no more."""

    @property
    def busy(self) -> bool:
        """Whether somebody uses it who is in no `with`."""

    def load(self) -> tuple[object, int | None]:
        """The model, and the bytes gained; raises what the application's `load` does."""

    def unload(self, held: list[object]) -> int | None:
        """Empty `held`; the bytes given back to the system. Never raises."""

    def check(self) -> None:
        """Look whether a loaded model is `lost`; in the hook's thread, about once a second."""

    def child(self) -> dict[str, object] | None:
        """One of the `children` of a reading."""

    def forked(self) -> bool:
        """In a forked child; whether a loaded model came along."""
