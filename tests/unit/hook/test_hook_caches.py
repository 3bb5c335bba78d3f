"""The registry of caches."""

from __future__ import annotations

import gc

import pytest

from oomguard.hook import caches
from oomguard.hook.caches.lru import Lru


def nothing() -> None:
    return None


def test_clearing_reports_what_the_sizes_tell() -> None:
    held = {1: b"x" * 100}
    registry = caches.Caches()
    registry.register("held", held.clear, lambda: sum(map(len, held.values())), lambda: len(held))
    registry.register("unknown", nothing, None, None)
    assert registry.reading()[0] == {"name": "held", "bytes": 100, "entries": 1}
    assert registry.reading()[1] == {"name": "unknown", "bytes": None, "entries": None}
    assert registry.clear(None) == {"cleared": ["held", "unknown"], "bytes": 100}
    assert held == {}


def test_one_cache_is_cleared_by_its_name() -> None:
    cleared: list[str] = []
    registry = caches.Caches()
    for name in ("one", "two"):
        registry.register(name, lambda name=name: cleared.append(name), None, None)
    assert registry.clear("two") == {"cleared": ["two"]}
    assert cleared == ["two"]


def test_bytes_are_left_out_where_no_size_is_known() -> None:
    registry = caches.Caches()
    registry.register("lies", nothing, lambda: -5, lambda: 1 << 80)
    assert registry.reading() == [{"name": "lies", "bytes": None, "entries": None}]
    assert "bytes" not in registry.clear(None)


def test_a_cache_registered_while_another_clears_waits_for_the_next_time() -> None:
    registry = caches.Caches()
    registry.register("enters", lambda: registry.register("new", nothing, None, None), None, None)
    assert registry.clear(None)["cleared"] == ["enters"]
    assert registry.names() == ["enters", "new"]


def test_a_name_that_is_taken_is_replaced_with_one_warning() -> None:
    cleared: list[int] = []
    registry = caches.Caches()
    for number in range(5):
        registry.register("same", lambda number=number: cleared.append(number), None, None)
    registry.clear(None)
    assert cleared == [4]
    assert len(registry.warnings) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("x", None, None, None), TypeError, "clear must be callable, not NoneType"),
        (("x", nothing, 5, None), TypeError, "size must be callable, not int"),
        (("x", nothing, None, "n"), TypeError, "entries must be callable, not str"),
        ((5, nothing, None, None), TypeError, "must be text"),
        (("", nothing, None, None), ValueError, "1 to 100 characters"),
        (("x" * 101, nothing, None, None), ValueError, "1 to 100 characters"),
    ],
)
def test_a_slip_of_the_pen_is_told_at_once(arguments: tuple, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        caches.Caches().register(*arguments)


def test_expired_entries_go_before_the_rest_and_are_counted() -> None:
    held = {"old": 1, "new": 2}
    seen: list[list[str]] = []

    def expire() -> int:
        held.pop("old", None)
        return 1

    def clear() -> None:
        seen.append(list(held))
        held.clear()

    registry = caches.Caches()
    registry.register("held", clear, None, lambda: len(held), expire)
    assert "expired" not in registry.reading()[0]
    assert registry.clear(None) == {"cleared": ["held"], "expired": 1}
    assert seen == [["new"]]
    assert registry.reading() == [{"name": "held", "bytes": None, "entries": 0, "expired": 1}]


def test_expired_entries_can_go_alone() -> None:
    held = {"old": 1, "older": 2, "new": 3}
    registry = caches.Caches()
    registry.register("plain", nothing, None, None)
    assert registry.expire() is None
    # It tells nothing itself, so that the number of entries does.
    registry.register(
        "held", held.clear, None, lambda: len(held), lambda: (held.pop("old"), held.pop("older"))
    )
    assert registry.expire() == 2
    assert held == {"new": 3}


def test_an_expire_that_raises_keeps_no_cache_from_being_cleared() -> None:
    held = {"a": 1}
    registry = caches.Caches()
    registry.register("held", held.clear, None, None, lambda: 1 / 0)
    registry.register("next", nothing, None, lambda: 0, lambda: 4)
    assert registry.expire() == 4
    assert "cache 'held': expire raised ZeroDivisionError" in registry.warnings[0]
    details = registry.clear(None)
    assert details["cleared"] == ["held", "next"]
    assert details["failed"] == {"held": "ZeroDivisionError: division by zero"}
    assert held == {}


def test_the_hooks_own_cache_tells_its_bound_and_is_emptied_under_pressure() -> None:
    registry = caches.Caches()
    vectors: Lru[str, bytes] = Lru("vectors", 1000, sizeof=len)
    registry.add(vectors)
    vectors["a"], vectors["b"] = bytes(600), bytes(500)
    assert registry.reading() == [
        {"name": "vectors", "bytes": 500, "entries": 1, "evictions": 1, "max_bytes": 1000}
    ]
    assert registry.clear("vectors") == {"cleared": ["vectors"], "bytes": 500}
    assert (len(vectors), vectors.evictions) == (0, 2)


def test_counters_begin_at_zero_in_a_forked_child() -> None:
    registry = caches.Caches()
    registry.register("held", nothing, None, None, lambda: 3)
    vectors: Lru[str, bytes] = Lru("vectors", 1000, sizeof=len)
    registry.add(vectors)
    registry.expire()
    vectors.evictions = 5
    registry.forked()
    held, own = registry.reading()
    assert (held["expired"], own["evictions"]) == (0, 0)


def test_a_size_that_fails_is_unknown_and_told_once(recwarn) -> None:
    async def later() -> int:
        return 5

    registry = caches.Caches()
    registry.register("later", nothing, later, later)  # type: ignore[arg-type]
    registry.register("raises", nothing, iter([]).__next__, lambda: "many")  # type: ignore[arg-type, return-value]
    registry.register("lies", nothing, lambda: -1, lambda: 3)
    for _ in range(3):
        assert [(one["bytes"], one["entries"]) for one in registry.reading()] == [
            (None, None),
            (None, None),
            (None, 3),
        ]
    registry.clear(None)
    asynchronous = "is asynchronous and was not run: the hook has no event loop, pass a plain function"
    assert registry.warnings == [
        f"cache 'later': size is unknown: TypeError: size {asynchronous}",
        f"cache 'later': entries is unknown: TypeError: entries {asynchronous}",
        "cache 'raises': size is unknown: StopIteration: ",
        "cache 'raises': entries is unknown: TypeError: 'str' object cannot be interpreted as an integer",
        "cache 'lies': size is unknown: what it says is no number of bytes",
    ]
    gc.collect()
    assert list(recwarn) == []  # "coroutine ... was never awaited"
