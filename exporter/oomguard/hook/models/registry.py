"""The models of this process: registering them, the timer of the idle ones, and the step `models`."""

from __future__ import annotations

from time import monotonic
from weakref import WeakSet

from oomguard.hook.chores import NEVER
from oomguard.hook.models import inside
from oomguard.hook.models.inprocess import InProcess
from oomguard.hook.models.model import BUSY, UNLOADED, Model
from oomguard.hook.parts import Stopwatch, answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import overload

    from oomguard.hook.models.isolated import Isolated
    from oomguard.hook.parts import Core

_NAME = 100
_COROUTINE = 0x80
"""inspect.CO_COROUTINE, without inspect."""
_PATIENCE = 2.0
"""Seconds that the step waits at most, for all models together, until they are not in use: the hook's thread answers
nobody meanwhile."""
RESIDENCY = 30.0
"""Seconds. Loading takes long and needs more memory than the model keeps: one unloaded right after its load, and wanted
again, would make matters worse."""


class Models:
    """The part of the guard that is made with the first model."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._models: dict[str, Model] = {}
        self._replaced: WeakSet[Model] = WeakSet()
        """Models whose name another took; the application may hold them still, and they are unloaded when idle."""

    if TYPE_CHECKING:

        @overload
        def register(
            self,
            name: str,
            load: None = None,
            *,
            idle_timeout: float | None = None,
            enabled: bool = True,
            fallback: Callable[[], object] | None = None,
            min_residency: float = RESIDENCY,
            unload: Callable[[object], object] | None = None,
            isolate: bool = False,
        ) -> Callable[[Callable[[], object]], Model]: ...

        @overload
        def register(
            self,
            name: str,
            load: Callable[[], object],
            *,
            idle_timeout: float | None = None,
            enabled: bool = True,
            fallback: Callable[[], object] | None = None,
            min_residency: float = RESIDENCY,
            unload: Callable[[object], object] | None = None,
            isolate: bool = False,
        ) -> Model: ...

    def register(
        self,
        name: str,
        load: Callable[[], object] | None = None,
        *,
        idle_timeout: float | None = None,
        enabled: bool = True,
        fallback: Callable[[], object] | None = None,
        min_residency: float = RESIDENCY,
        unload: Callable[[object], object] | None = None,
        isolate: bool = False,
    ) -> Model | Callable[[Callable[[], object]], Model]:
        """Add a model that `load()` makes; without `load` a decorator for it. Nothing is loaded yet.

        `idle_timeout`: seconds without a use after which it is unloaded (None: only the step does so).
        `min_residency`: seconds after a load in which neither does, unless the step names it. `fallback()` is
        given where the model can't be had, `enabled` false says that this is so from the start. `unload(value)`
        is called, in the hook's thread, before the value is dropped. `isolate`: run it in a process of its own,
        started anew for each load; `load` is sent there by its name.

        A name that is taken is replaced (a warning), unless `load` and `isolate` are the same: then that model is
        returned, and where the other arguments differ they count from now on (a warning).
        Raises TypeError or ValueError for what can only be a slip of the pen.
        """
        _check(name, load, idle_timeout, fallback, min_residency, unload, isolate=isolate)
        if load is None:
            return lambda load: self.register(
                name,
                load,
                idle_timeout=idle_timeout,
                enabled=enabled,
                fallback=fallback,
                min_residency=min_residency,
                unload=unload,
                isolate=isolate,
            )
        before = self._models.get(name)
        if before is not None:
            if before.load == load and before.place.isolated == isolate:
                options = {
                    "idle_timeout": idle_timeout,
                    "enabled": enabled,
                    "fallback": fallback,
                    "min_residency": min_residency,
                }
                self._renew(before, options, unload)
                return before
            self._core.warn(f"model {name!r} was registered again: the later one counts")
            self._replaced.add(before)
        model = Model(
            name,
            load,
            self._isolated(name, load) if isolate else InProcess(name, load, unload, self._core),
            idle_timeout=idle_timeout,
            enabled=enabled,
            fallback=fallback,
            min_residency=min_residency,
            loaded=self._hurry,
            warn=self._core.warn,
        )
        self._models[name] = model
        if idle_timeout is not None:
            self._core.chores.add(self.idle)
        return model

    def _renew(
        self, model: Model, options: Mapping[str, object], unload: Callable[[object], object] | None
    ) -> None:
        """Take what a later registration of the same model says."""
        changed = [what for what, value in options.items() if getattr(model, what) != value]
        for what in changed:
            setattr(model, what, options[what])
        if isinstance(model.place, InProcess) and model.place.callback != unload:
            changed.append("unload")
            model.place.callback = unload
        if "idle_timeout" in changed:
            self._core.chores.add(self.idle)
        if changed:
            self._core.warn(
                f"model {model.name!r} was registered again with another {', '.join(changed)}: the later one counts"
            )

    def _isolated(self, name: str, load: Callable[[], object]) -> Isolated:
        from oomguard.hook.models.isolated import Isolated  # noqa: PLC0415 (pickle and mmap: only its users pay)

        return Isolated(name, load, self._core)

    def __len__(self) -> int:
        return len(self._models)

    def names(self) -> list[str]:
        """The registered names, oldest first."""
        return list(self._models)

    def _hurry(self) -> None:
        self._core.chores.hurry(self.idle)

    def idle(self, now: float) -> float:
        """Unload what nobody used for its timeout; in how many seconds to look again. A chore of the hook's."""
        soonest = NEVER
        for model in [*self._models.values(), *self._replaced]:
            if model.idle_timeout is None or model.state in ("unloaded", "failed"):
                continue  # its next load hurries this chore
            idle = model.idle(now)
            left = max(model.idle_timeout - (idle or 0.0), model.fresh(now))
            if idle is not None and left <= 0:
                model.unload(0.0)
                left = model.idle_timeout
            soonest = min(soonest, max(left, 0.05))
        return soonest

    def take(self, name: str | None, within: float) -> dict[str, object]:
        """Take the step `models`: unload what is idle, the largest first, then wait for what is in use.

        The waiting is bounded by `within` and by 2 s. A model loaded less than its residency ago is left alone,
        unless it is named: then somebody wants just that.
        """
        if name is not None and name not in self._models:
            return answer("skipped", "nothing_registered", details={"missing": name[:_NAME]})
        chosen = [model for model in self._models.values() if name is None or model.name == name]
        now = monotonic()
        there = [model for model in chosen if model.state == "loaded"]
        if not there:
            return answer("skipped", "nothing_registered", details={"loaded": []})
        watch = Stopwatch()
        fresh = [model for model in there if name is None and model.fresh(now) > 0]
        queue = sorted(
            (model for model in there if model not in fresh),
            key=lambda model: (model.idle(now) is None, -(model.size or 0)),
        )
        given: dict[str, int | None] = {}
        busy: list[str] = []
        for model in queue:
            became = model.unload(max(0.0, min(_PATIENCE, within) - watch.read()[0]))
            if became == UNLOADED:
                given[model.name] = model.last_returned
            elif became == BUSY:
                busy.append(model.name)
        details: dict[str, object] = {
            "unloaded": given,
            "returned": sum(size or 0 for size in given.values()),
        }
        if busy:
            details["busy"] = busy
        if fresh:
            details["fresh"] = [model.name for model in fresh]
        seconds, stall = watch.read()
        return answer(
            "done" if given else "skipped", "" if given else "busy", seconds, stall, details=details
        )

    def reading(self) -> list[dict[str, object]]:
        """Take the `models` part of a reading; empty in an isolated model's own process."""
        if inside.name is not None:
            return []
        now = monotonic()
        return [model.reading(now) for model in list(self._models.values())]

    def children(self) -> list[dict[str, object]]:
        """What the isolated ones add to the `children` part of a reading; ask after `reading`."""
        children = [model.place.child() for model in list(self._models.values())]
        return [child for child in children if child is not None]

    def forked(self) -> None:
        """In a forked child."""
        for model in [*self._models.values(), *self._replaced]:
            model.forked()


def _check(
    name: str,
    load: Callable[[], object] | None,
    idle_timeout: float | None,
    fallback: Callable[[], object] | None,
    min_residency: float,
    unload: Callable[[object], object] | None,
    *,
    isolate: bool,
) -> None:
    if not isinstance(name, str):
        raise TypeError(f"model name {name!r}: must be text")
    if not name or len(name) > _NAME:
        raise ValueError(f"model name {name[:_NAME]!r}: must have 1 to {_NAME} characters")
    for what, callback in (("load", load), ("fallback", fallback), ("unload", unload)):
        if callback is not None and not callable(callback):
            raise TypeError(f"model {name!r}: {what} must be callable, not {type(callback).__name__}")
        if getattr(getattr(callback, "__code__", None), "co_flags", 0) & _COROUTINE:
            raise TypeError(
                f"model {name!r}: {what} is asynchronous: pass a plain function, `async with` waits for it"
            )
    for what, seconds in (("idle_timeout", idle_timeout), ("min_residency", min_residency)):
        if seconds is not None and not (isinstance(seconds, int | float) and seconds >= 0):
            raise ValueError(f"model {name!r}: {what} must be seconds, 0 or more, not {seconds!r}")
    if isolate and unload is not None:
        raise ValueError(
            f"model {name!r}: leave out unload with isolate=True: the end of its process frees everything"
        )
