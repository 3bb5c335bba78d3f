"""What the hook answers: readings and steps, its own and those of the parts, to the sidecar and to /admin."""

from __future__ import annotations

from time import monotonic

from oomguard.hook import unpatched
from oomguard.hook.allocator import Allocator
from oomguard.hook.caches import Caches
from oomguard.hook.chores import NEVER
from oomguard.hook.gcstats import GcWatch, mostly_frozen
from oomguard.hook.parts import Core, Released, Stopwatch, resident
from oomguard.hook.statm import Statm
from oomguard.hook.steps import Steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from oomguard.hook.chores import Chores
    from oomguard.hook.parts import Part, Take

_BUSY = 0.1
"""Seconds that a caller of /admin/memory waits for a step to end before it gets the last reading."""
_MOST_ENTRIES = 100
"""Of a list in a reading (docs/hook-protocol.md)."""


class Answers:
    """One for a process. Whoever asks may be any thread: `core.work` is held for a reading or a step."""

    def __init__(self, environ: Mapping[str, str], chores: Chores) -> None:
        self.caches = Caches()
        self.parts: dict[str, Part] = {}
        """By their names in a reading."""
        self.core = Core(environ, chores, unpatched.allocate_rlock(), self._release, self._retained)
        self._watch = GcWatch()
        self._statm = Statm()
        self._allocator: Allocator | None = None
        self._steps: Steps | None = None
        self._takes: dict[str, Take] = {}
        self._last: tuple[float, dict[str, object]] | None = None
        """The last reading, and when it was taken (monotonic)."""
        self._shared_heap = False
        self._frozen = False
        """The application has frozen the heap through us: what is out of reach counts, however little it looks."""

    def equip(self) -> None:
        """Make what a thread needs, in the host's thread, before there is one; again after a fork."""
        self._statm.open()
        if self._allocator is None:
            self._allocator = Allocator(self._statm)
            self._allocator.reading()  # the slack before the application has allocated anything
        steps = Steps(self.caches, self._watch, self._allocator, shared_heap=self._shared_heap)
        for step, take in self._takes.items():
            steps.add(step, take)
        self._steps = steps
        self._watch.install()

    def forked(self) -> None:
        """Begin anew in a forked child, with a lock of its own."""
        self.core.work = unpatched.allocate_rlock()
        self._statm.close()
        # Asked now: what the child allocates later would make the frozen part look small.
        self._shared_heap = not (self._frozen or mostly_frozen())
        self._watch.forked()
        self.caches.forked()
        for part in list(self.parts.values()):
            part.forked()
        if self._steps is not None:
            self.equip()

    def stop(self) -> None:
        """Count collections no more."""
        self._watch.remove()

    def add_step(self, step: str, take: Take) -> None:
        """Have a part take a step of the ladder."""
        self._takes[step] = take
        if self._steps is not None:
            self._steps.add(step, take)

    def step(self, step: str, name: str | None = None, within: float = NEVER) -> dict[str, object]:
        """Take a step; blocks while another is under way."""
        return self.run({"step": step, "name": name, "within": within})

    def turn(self, turn: str) -> dict[str, object]:
        """Take a step as people write it: ``caches``, or ``caches:bulk`` for one cache alone."""
        step, _, name = turn.partition(":")
        return self.step(step, name or None)

    def read(self) -> tuple[dict[str, object], float | None]:
        """Take a reading, or return the last one and its age in seconds while a step is under way."""
        work = self.core.work  # a callback that forks gets another one in the child
        if work.acquire(True, _BUSY):
            try:
                return self.reading(peek=True), 0.0
            finally:
                work.release()
        if self._last is None:
            return {}, None
        taken, reading = self._last
        return reading, monotonic() - taken

    def freeze(self) -> int:
        """Collect, trim, and put the whole heap out of reach of collections; the number of frozen objects."""
        import gc  # noqa: PLC0415 (in the application's thread)

        self.ready()
        work = self.core.work
        if work.acquire(True, _BUSY):  # else a callback of the application's is under way, which may hang
            try:
                self._release()
            finally:
                work.release()
        gc.freeze()
        self._frozen = True
        return gc.get_freeze_count()

    def run(self, question: dict[str, object]) -> dict[str, object]:
        """Take the step that a question of the sidecar's names."""
        self.ready()
        assert self._steps is not None
        with self.core.work:
            return self._steps.run(question)

    def reading(self, *, peek: bool = False) -> dict[str, object]:
        """Take a reading, with `core.work` held; with `peek` it is a person's, and takes nothing from the sidecar's."""
        self.ready()
        assert self._allocator is not None
        reading: dict[str, object] = {
            "gc": _guarded(self._gc),
            "allocator": _guarded(self._allocator.reading),
            "caches": self.caches.reading(),
        }
        for name, part in list(self.parts.items()):
            self._read_part(name, getattr(part, "peek", part.reading) if peek else part.reading, reading)
        for name, entries in list(reading.items()):
            if isinstance(entries, list) and len(entries) > _MOST_ENTRIES:
                reading[name] = sorted(entries, key=lambda one: one.get("bytes") or 0, reverse=True)[
                    :_MOST_ENTRIES
                ]
                reading[f"{name}_omitted"] = len(entries) - _MOST_ENTRIES
                self.core.warn(f"{name}: the sidecar is told of the {_MOST_ENTRIES} largest only")
        warnings = [*self.caches.warnings, *self.core.warnings]
        if warnings:
            reading["warnings"] = warnings
        self._last = (monotonic(), reading)
        return reading

    def _gc(self) -> dict[str, object]:
        reading = self._watch.reading()
        return {**reading, "frozen": True} if self._frozen else reading

    def _read_part(self, name: str, read: Callable[[], object], reading: dict[str, object]) -> None:
        try:
            reading[name] = read()
        except Exception as error:  # noqa: BLE001 (one part of a reading must not take the others along)
            self.core.warn(f"{name}: can't be read: {type(error).__name__}: {error}")

    def _release(self) -> Released:
        """See `Core.release`."""
        self.ready()
        assert self._steps is not None
        assert self._allocator is not None
        before, watch = resident(), Stopwatch()
        collected = self._steps.run({"step": "gc"})["details"]
        self._steps.run({"step": "trim"})
        after = resident()
        count = collected.get("collected") if isinstance(collected, dict) else None
        return Released(
            count if isinstance(count, int) else None,
            None if before is None or after is None else before - after,
            watch.read()[0],
            trims=self._allocator.trims,
        )

    def _retained(self) -> int | None:
        """See `Core.retained`."""
        self.ready()
        assert self._allocator is not None
        retained = self._allocator.reading().get("retained")
        return retained if isinstance(retained, int) else None

    def ready(self) -> None:
        """Make it if nobody has."""
        if self._steps is None:
            self.equip()


def _guarded(read: Callable[[], dict[str, object]]) -> dict[str, object]:
    try:
        return read()
    except Exception as error:  # noqa: BLE001 (one part of a reading must not take the others along)
        return {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:200]}
