"""The steps of the ladder that a process takes itself: `caches`, `gc` and `trim`; those of parts are added."""

from __future__ import annotations

import gc
import sys
from time import perf_counter, thread_time

from oomguard.hook.allocator import Allocator
from oomguard.hook.caches import Caches
from oomguard.hook.gcstats import GcWatch, mostly_frozen
from oomguard.hook.parts import answer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from oomguard.hook.parts import Take

_LONG_PAUSE = 0.2
"""Seconds of the last full collection from which on `gc` is not taken: requests would time out."""

_SECONDS_PER_BLOCK = 65e-9
"""A full collection takes about 65 ms per million containers; each is at least one block of pymalloc's."""

OF_PARTS = ("streams", "models", "shed")
"""Steps that a part takes, where the application has such a one; until then nothing is registered for them."""

_FREEING = ("streams", "models")


class Steps:
    """Takes one step at a time, in the hook's thread; answers are the protocol's `step` objects.

    `shared_heap`: the process was forked from a parent that had not frozen its heap.
    """

    def __init__(self, caches: Caches, watch: GcWatch, allocator: Allocator, *, shared_heap: bool) -> None:
        self._caches = caches
        self._watch = watch
        self._allocator = allocator
        self._shared_heap = shared_heap
        self._steps: dict[str, Take] = {
            "caches": self._clear,
            "gc": self._collect,
            "trim": self._trim,
            **dict.fromkeys(OF_PARTS, _nothing),
        }

    def add(self, step: str, take: Take) -> None:
        """Have a part take this step from now on."""
        self._steps[step] = take

    def run(self, question: dict[str, object]) -> dict[str, object]:
        """Take the step that the question names; an unknown one, or another host's, is `unsupported`."""
        step = str(question.get("step"))
        name = question.get("name")
        within = question.get("within")
        limit = float(within) if isinstance(within, int | float) else float("inf")
        take = self._steps.get(step)
        if take is None:
            taken = answer("unsupported", f"this hook has no step {step[:40]!r}")
        else:
            try:
                taken = self._measured(step, take, name if isinstance(name, str) else None, limit)
            except Exception as error:  # noqa: BLE001 (the sidecar is told; the host must not notice)
                taken = answer("failed", f"{type(error).__name__}: {error}"[:200])
        return {"step": step[:40], **taken}

    def _measured(self, step: str, take: Take, name: str | None, within: float) -> dict[str, object]:
        """Take a step; of those that parts take, see here what it left in malloc's hands."""
        if step not in _FREEING:
            return take(name, within)
        free = self._allocator.free_before()
        taken = take(name, within)
        if taken["status"] == "done" and taken["freed_in_allocator"] is None:
            taken["freed_in_allocator"] = self._freed(free)
        return taken

    def _clear(self, name: str | None, within: float) -> dict[str, object]:  # noqa: ARG002 (nobody knows how long)
        if name is not None and name not in self._caches.names():
            return answer("skipped", "nothing_registered", details={"missing": name[:100]})
        if not len(self._caches):
            return answer("skipped", "nothing_registered")
        free = self._allocator.free_before()
        started, cpu = perf_counter(), thread_time()
        details = self._caches.clear(name)
        # A callback that waits lets the others run; one that computes holds the interpreter.
        seconds, stall = perf_counter() - started, thread_time() - cpu
        failed = details.get("failed")
        status = "failed" if failed and not details["cleared"] else "done"
        reason = f"{len(failed)} raised" if isinstance(failed, dict) else ""
        return answer(status, reason, seconds, min(seconds, stall), freed=self._freed(free), details=details)

    def _collect(self, name: str | None, within: float) -> dict[str, object]:  # noqa: ARG002 (one face for all)
        if self._shared_heap and not mostly_frozen():
            return answer("skipped", "shared_heap")
        last = self._watch.last_full
        if last is not None and last > _LONG_PAUSE:
            return answer("skipped", "long_pause", details={"last_full": last})
        expected = last if last is not None else sys.getallocatedblocks() * _SECONDS_PER_BLOCK
        if expected > within:
            return answer("skipped", "no_time", details={"expected": expected})
        free = self._allocator.free_before()
        started = perf_counter()
        collected = gc.collect()
        seconds = perf_counter() - started
        return answer("done", "", seconds, seconds, freed=self._freed(free), details={"collected": collected})

    def _trim(self, name: str | None, within: float) -> dict[str, object]:  # noqa: ARG002 (as above)
        if not self._allocator.trims:
            return answer("unsupported", self._allocator.reason)
        expected = self._allocator.trim_expected()
        if expected > within:
            return answer("skipped", "no_time", details={"expected": expected})
        seconds, returned = self._allocator.trim()
        # Whoever allocates meanwhile waits for the arena that is being trimmed.
        return answer(
            "done", "", seconds, seconds, details={} if returned is None else {"returned": returned}
        )

    def _freed(self, before: int | None) -> int | None:
        after = self._allocator.free_now()
        return None if before is None or after is None else after - before


def _nothing(name: str | None, within: float) -> dict[str, object]:  # noqa: ARG001 (one face for all)
    return answer("skipped", "nothing_registered")
