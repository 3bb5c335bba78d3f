"""Which steps are taken, and which are not."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from oomguard.hook.caches import Caches
from oomguard.hook.gcstats import GcWatch
from oomguard.hook.steps import Steps


class Malloc:
    """An allocator that counts; free memory grows by 100 with every look."""

    name = "glibc"
    trims = True

    def __init__(self) -> None:
        self.free = 0
        self.trimmed = 0
        self.expected = 0.0

    def free_before(self) -> int:
        return self.free_now()

    def free_now(self) -> int:
        self.free += 100
        return self.free

    def trim_expected(self) -> float:
        return self.expected

    def trim(self) -> tuple[float, int]:
        self.trimmed += 1
        return 0.25, 4096


class Watch(GcWatch):
    def __init__(self, last: float | None) -> None:
        super().__init__()
        self._last_full[0] = last


Make = Callable[..., Steps]


def steps(malloc: Malloc | None = None, last: float | None = 0.01, *, shared_heap: bool = False) -> Steps:
    return Steps(Caches(), Watch(last), malloc or Malloc(), shared_heap=shared_heap)  # type: ignore[arg-type]


def test_a_collection_reports_its_stall_and_what_malloc_got_back() -> None:
    answer = steps().run({"step": "gc", "within": 1})
    assert answer["status"] == "done"
    assert answer["freed_in_allocator"] == 100
    assert answer["stall"] == answer["seconds"]


@pytest.mark.parametrize(
    ("made", "within", "reason"),
    [
        ({"shared_heap": True}, 10, "shared_heap"),
        ({"last": 0.3}, 10, "long_pause"),
        ({"last": 0.1}, 0.05, "no_time"),
        ({"last": None}, 0, "no_time"),
    ],
)
def test_a_collection_that_would_do_harm_is_skipped(made: dict, within: float, reason: str) -> None:
    answer = steps(**made).run({"step": "gc", "within": within})
    assert (answer["status"], answer["reason"]) == ("skipped", reason)


def test_a_shared_heap_that_is_frozen_is_collected() -> None:
    gc.freeze()
    try:
        assert steps(shared_heap=True).run({"step": "gc", "within": 10})["status"] == "done"
    finally:
        gc.unfreeze()


def test_a_trim_reports_what_came_back_and_is_not_begun_without_the_time() -> None:
    malloc = Malloc()
    answer = steps(malloc).run({"step": "trim", "within": 1})
    assert (answer["status"], answer["stall"], answer["details"]) == ("done", 0.25, {"returned": 4096})
    malloc.expected = 0.4
    assert steps(malloc).run({"step": "trim", "within": 0.3})["reason"] == "no_time"
    assert malloc.trimmed == 1


@pytest.mark.parametrize("within", [None, "soon", True])
def test_without_a_number_within_there_is_no_bound(within: object) -> None:
    malloc = Malloc()
    malloc.expected = 0.4 if within is not True else 0.0
    assert steps(malloc).run({"step": "trim", "within": within})["status"] == "done"


def test_trimming_another_allocator_is_unsupported() -> None:
    malloc = Malloc()
    malloc.trims, malloc.reason = False, "musl has no malloc_trim"
    answer = steps(malloc).run({"step": "trim"})
    assert (answer["status"], answer["reason"]) == ("unsupported", "musl has no malloc_trim")


def test_a_step_that_fails_inside_is_answered_as_failed() -> None:
    malloc = Malloc()
    malloc.trim = lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    answer = steps(malloc).run({"step": "trim"})
    assert (answer["status"], answer["reason"]) == ("failed", "ZeroDivisionError: division by zero")


def test_a_cache_step_fails_only_when_nothing_could_be_cleared() -> None:
    taken = steps()
    assert taken.run({"step": "caches"})["reason"] == "nothing_registered"
    taken._caches.register("bad", lambda: 1 / 0, None, None)
    assert taken.run({"step": "caches"})["status"] == "failed"
    taken._caches.register("good", list, None, None)
    answer = taken.run({"step": "caches"})
    assert (answer["status"], answer["reason"]) == ("done", "1 raised")
    assert taken.run({"step": "caches", "name": "other"})["details"] == {"missing": "other"}
