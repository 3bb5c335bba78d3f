"""A model that lives in this process: loading it, dropping it, and what each did to resident memory."""

from __future__ import annotations

import sys
import weakref

from oomguard.hook.models.errors import text_of
from oomguard.hook.parts import resident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from oomguard.hook.parts import Core


class InProcess:
    """Where a model is, for `Model`: the other one is `isolated.Isolated`."""

    isolated = False
    pid: int | None = None
    lost = busy = False

    def __init__(
        self,
        name: str,
        load: Callable[[], object],
        unload: Callable[[object], object] | None,
        core: Core,
    ) -> None:
        self._name = name
        self._load = load
        self._unload = unload
        self._core = core

    def load(self) -> tuple[object, int | None]:
        """The model, and the bytes gained; what `load` raises is passed on."""
        before = resident()
        value = self._load()
        after = resident()
        return value, None if before is None or after is None else max(0, after - before)

    def unload(self, held: list[object]) -> int | None:
        """Empty `held`, the last reference of ours; the bytes by which resident memory fell.

        In the hook's thread, with `work` held. What the callback raises becomes a warning.
        """
        before = resident()
        seen = _reference(held[0])
        if self._unload is not None:
            try:
                self._unload(held[0])
            except BaseException as error:  # noqa: BLE001 (SystemExit too: nothing may end the hook's thread)
                self._core.warn(f"model {self._name!r}: unload raised {text_of(error)}")
        held.clear()
        self._core.release()
        _empty_cuda()
        if seen is not None and seen() is not None:
            self._core.warn(
                f"model {self._name!r} lived on after its unload: something else holds it, "
                "use it only inside `with`"
            )
        after = resident()
        return None if before is None or after is None else max(0, before - after)

    def check(self) -> None:
        """Do nothing: here it always is where it was."""

    def child(self) -> None:
        """Return nothing: it has no process of its own."""

    def forked(self) -> bool:
        """In a forked child; whether a loaded model came along: the heap is shared."""
        return True


def _reference(value: object) -> weakref.ref[object] | None:
    try:
        return weakref.ref(value)
    except TypeError:
        return None


def _empty_cuda() -> None:
    """Give back what torch caches of the GPU's memory; torch is never imported for it."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    try:
        if cuda is not None and cuda.is_initialized():
            cuda.empty_cache()
    except Exception:  # noqa: BLE001, S110 (a torch that is half imported, or a driver that is gone)
        pass
