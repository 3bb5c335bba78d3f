"""Counting collections and their pauses."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from oomguard.hook import gcstats


@pytest.fixture
def watch() -> Iterator[gcstats.GcWatch]:
    made = gcstats.GcWatch()
    made.install()
    yield made
    made.remove()


def pauses(watch: gcstats.GcWatch) -> int:
    counts = watch.reading()["pause_counts"]
    assert isinstance(counts, list)
    return sum(counts)


def test_every_collection_has_a_pause_in_one_bucket(watch: gcstats.GcWatch) -> None:
    before = pauses(watch)
    for generation in (0, 1, 2):
        gc.collect(generation)
    reading = watch.reading()
    assert pauses(watch) >= before + 3
    assert len(reading["pause_counts"]) == len(reading["pause_bounds"]) + 1
    assert reading["pause_sum"] > 0


def test_only_a_full_collection_sets_the_last_full_pause(watch: gcstats.GcWatch) -> None:
    gc.disable()
    try:
        gc.collect(0)
        assert watch.last_full is None
        gc.collect()
        assert watch.last_full is not None
    finally:
        gc.enable()


def test_installing_twice_counts_once_and_removing_ends_it() -> None:
    watch = gcstats.GcWatch()
    watch.install()
    watch.install()
    gc.disable()
    try:
        gc.collect()
        assert pauses(watch) == 1
        watch.remove()
        watch.remove()
        gc.collect()
        assert pauses(watch) == 1
    finally:
        gc.enable()


def test_a_forked_child_begins_at_zero_and_keeps_the_last_full_pause(watch: gcstats.GcWatch) -> None:
    gc.collect()
    gc.disable()
    try:
        watch.forked()
        reading = watch.reading()
        assert reading["collections"] == [0, 0, 0]
        assert pauses(watch) == 0
        assert reading["pause_sum"] == 0
        assert watch.last_full is not None
    finally:
        gc.enable()


def test_a_callback_installed_in_the_middle_of_a_collection_ignores_its_end() -> None:
    watch = gcstats.GcWatch()
    watch._callback("stop", {"generation": 2})
    assert pauses(watch) == 0
    assert watch.last_full is None


def test_a_heap_counts_as_frozen_only_when_its_bulk_is() -> None:
    assert not gcstats.mostly_frozen()
    gc.freeze()
    try:
        assert gcstats.mostly_frozen()
    finally:
        gc.unfreeze()
