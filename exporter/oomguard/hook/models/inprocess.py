"""A model that lives in this process: loading it, dropping it, and what each did to resident memory."""

from __future__ import annotations

import sys

from oomguard.hook.models.afterlife import watch
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
        self.callback = unload
        """What the application wants called before the model is dropped."""
        self._core = core

    def load(self) -> tuple[object, int | None]:
        """The model, and the bytes gained; what `load` raises is passed on."""
        before = resident()
        value = self._load()
        after = resident()
        return value, None if before is None or after is None else max(0, after - before)

    def unload(self, held: list[object]) -> int | None:
        """Empty `held`, the last reference of ours; the bytes by which resident memory fell.

        What others had freed already, and the trim gave back with it, does not count. In the hook's thread, with
        `work` held. What the callback raises becomes a warning.
        """
        free, before = self._core.retained(), resident()
        if self.callback is not None:
            try:
                self.callback(held[0])
            except BaseException as error:  # noqa: BLE001 (SystemExit too: nothing may end the hook's thread)
                self._core.warn(f"model {self._name!r}: unload raised {text_of(error)}")
        lives_on = watch(held)
        held.clear()
        released = self._core.release()
        _empty_cuda()
        if lives_on():
            self._core.warn(
                f"model {self._name!r} lived on after its unload: something else holds it, "
                "use it only inside `with`"
            )
        after = resident()
        if before is None or after is None:
            return None
        others = max(0, min(free or 0, released.returned or 0))
        return max(0, before - others - after)

    def check(self) -> None:
        """Do nothing: here it always is where it was."""

    def child(self) -> None:
        """Return nothing: it has no process of its own."""

    def forked(self) -> bool:
        """In a forked child; whether a loaded model came along: the heap is shared."""
        return True


def _empty_cuda() -> None:
    """Give back what torch caches of the GPU's memory; torch is never imported for it."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    try:
        if cuda is not None and cuda.is_initialized():
            cuda.empty_cache()
    except Exception:  # noqa: BLE001, S110 (a torch that is half imported, or a driver that is gone)
        pass
