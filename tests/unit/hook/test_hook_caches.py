"""The registry of caches."""

from __future__ import annotations

import pytest

from oomguard.hook import caches


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
