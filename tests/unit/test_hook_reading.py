"""A hook's reading, from JSON to records: all of it, what an earlier hook leaves out, and what can't be true."""

import contextlib
import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomguard.hookmodel import AppStats, BudgetState, ModelState
from oomguard.model import Status
from oomguard.sources import hook_reading
from oomguard.sources.hook_reading import LONGEST_NAME, LONGEST_TEXT, MOST, app_stats, caches

FULL = {
    "gc": {"status": "ok", "collections": [3, 2, 1], "collected": [9, 0, 4], "uncollectable": [0, 0, 0],
           "pause_bounds": [0.001, 0.1], "pause_counts": [4, 1, 1], "pause_sum": 0.3, "pause_last_full": 0.2,
           "frozen": False},
    "allocator": {"status": "ok", "name": "glibc", "in_use": 1000, "free": 200, "mmapped": 0, "retained": 150,
                  "arenas": 12, "seconds": 0.001},
    "caches": [{"name": "vectors", "bytes": 10, "entries": 3, "evictions": 7, "expired": 2, "max_bytes": 100}],
    "models": [{"name": "jina", "state": "loaded", "bytes": 3000, "load_seconds": 2.5, "idle": 720.0, "uses": 9,
                "in_use": 0, "loads": 2, "failures": 1, "unloads": 1, "busy": 1, "returned": 2500, "isolated": True,
                "pid": 77, "enabled": True}],
    "constructions": [{"class": "fastembed.TextEmbedding", "made": 41, "live": 3, "bytes": 900}],
    "children": [{"name": "tools", "alive": True, "starts": 3, "exits": {"oom_kill": 1, "unknown": 1}, "pid": 78}],
    "streams": {"open": 12, "limit": 20, "opened": 50, "closed": {"client": 30, "server": 5, "evicted": 2, "error": 1},
                "rejected": 4, "oldest_age": 10800.0,
                "duration": {"bounds": [1.0, 60.0], "counts": [5, 30, 3], "sum": 900.5}},
    "requests": {"in_flight": 2, "total": 1000,
                 "growth": {"bounds": [0, 1048576], "counts": [900, 90, 10], "sum": 5000}},
    "shed": {"on": True, "refused": 17},
    "budgets": [{"name": "weights", "limit": 200, "reserved": 170, "refused": 1, "state": "warning"}],
    "limits": [{"name": "agents", "limit": 2, "in_use": 2, "waiting": 1, "waited": 8}],
    "loop": {"status": "ok", "lag": 0.3, "tasks": 14},
    "alone": {"on": False, "reason": "", "runs": 2, "freed": 5000},
    "heap": {"used": 60, "size": 80, "limit": 100, "external": 5, "array_buffers": 4,
             "spaces": [{"name": "old_space", "used": 40, "size": 50}]},
    "warnings": ["cache 'vectors' was registered again"],
    "something_newer": {"x": 1},
}  # fmt: skip
"""Everything that the protocol knows, in one reading."""
NODE_GC = {
    "status": "ok",
    "kinds": {"minor": {"counts": [5, 1], "sum": 0.02}, "major": {"counts": [0, 2], "sum": 0.3}},
    "pause_bounds": [0.01],
}


def test_everything_that_the_protocol_knows_is_read():
    app = app_stats(FULL)
    (model,) = app.models
    assert (model.name, model.state, model.bytes, model.idle) == ("jina", ModelState.LOADED, 3000, 720.0)
    assert (model.loads, model.failures, model.busy, model.returned, model.isolated) == (2, 1, 1, 2500, True)
    assert (app.constructions[0].cls, app.constructions[0].made) == ("fastembed.TextEmbedding", 41)
    assert app.children[0].exits == {"oom_kill": 1, "unknown": 1}
    assert (app.streams.open, app.streams.closed["evicted"], app.streams.duration.counts) == (
        12,
        2,
        (5, 30, 3),
    )
    assert (app.requests.in_flight, app.requests.growth.sum) == (2, 5000)
    assert (app.shed.on, app.shed.refused) == (True, 17)
    assert (app.budgets[0].state, app.limits[0].waited) == (BudgetState.WARNING, 8)
    assert (app.loop.lag, app.alone.on, app.heap.spaces[0].name) == (0.3, False, "old_space")
    assert app.warnings == ("cache 'vectors' was registered again",)
    (cache,) = caches(FULL)
    assert (cache.evictions, cache.expired, cache.max_bytes) == (7, 2, 100)
    assert hook_reading.allocator_reading(FULL).value.arenas == 12
    assert hook_reading.gc_reading(FULL).value.pauses.sum == 0.3


def test_what_an_earlier_hook_does_not_tell_stays_unknown():
    earlier = {name: FULL[name] for name in ("gc", "allocator")}
    assert app_stats(earlier) == AppStats()
    assert caches(earlier) == ()
    assert caches({"caches": [{"name": "v", "bytes": 10, "entries": None}]})[0].evictions is None


def test_v8s_collections_are_apart_from_pythons():
    told = {**FULL, "gc": NODE_GC}
    assert hook_reading.gc_reading(told).status is Status.UNSUPPORTED
    assert {kind: pauses.counts for kind, pauses in app_stats(told).v8_pauses.items()} == {
        "minor": (5, 1),
        "major": (0, 2),
    }


def test_a_part_that_is_not_there_is_unknown_and_not_zero():
    app = app_stats({"loop": {"status": "absent", "reason": "no loop"}, "streams": None, "shed": {}})
    assert (app.loop, app.streams, app.shed) == (None, None, None)


def test_lists_and_texts_are_bounded():
    many = [{"name": "m" * 5000, "state": "unloaded"}] * 5000
    app = app_stats({"models": many, "warnings": ["w" * 5000] * 5000})
    assert (len(app.models), len(app.models[0].name)) == (MOST, LONGEST_NAME)
    assert (len(app.warnings), len(app.warnings[0])) == (MOST, LONGEST_TEXT)


def test_a_lone_surrogate_in_a_name_can_be_written():
    (model,) = app_stats(json.loads('{"models": [{"name": "a\\ud800", "state": "loaded"}]}')).models
    assert model.name.encode()


def paths(value, path=()):
    """Every place in a reading."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from paths(inner, (*path, index))


def changed(path, to):
    reading = copy.deepcopy(FULL)
    place = reading
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return reading


def read(reading):
    return (
        hook_reading.gc_reading(reading),
        hook_reading.allocator_reading(reading),
        caches(reading),
        app_stats(reading),
    )


@pytest.mark.parametrize(
    ("path", "to"),
    [
        (("models", 0, "state"), "asleep"),
        (("models", 0, "bytes"), -1),
        (("models", 0, "idle"), "long"),
        (("models", 0, "loads"), True),
        (("models", 0, "name"), None),
        (("models", 0), []),
        (("models",), {}),
        (("constructions", 0, "made"), 1e300),
        (("children", 0, "exits"), [1]),
        (("streams", "closed", "client"), "many"),
        (("streams", "duration", "counts"), [1]),
        (("streams", "duration", "bounds"), [60.0, 1.0, 1.0]),
        (("streams", "oldest_age"), -3.0),
        (("requests",), [1]),
        (("requests", "growth", "sum"), -5.0),
        (("requests", "growth", "sum"), None),
        (("budgets", 0, "state"), "burning"),
        (("heap", "spaces"), "none"),
        (("loop", "lag"), 10**400),
    ],
)
def test_what_cant_be_true_is_refused(path, to):
    with pytest.raises((ValueError, TypeError, ArithmeticError)):
        read(changed(path, to))


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.just(10**400)
    | st.just(-(10**400)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from([path for path in paths(FULL) if path]), JUNK)
def test_garbage_anywhere_is_read_or_refused_and_nothing_else(path, junk):
    # What is suppressed is what `Hooks` counts as garbage.
    with contextlib.suppress(ArithmeticError, LookupError, TypeError, ValueError):
        read(changed(path, junk))
