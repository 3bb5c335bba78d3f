"""The store: what was written is what is read, as PromQL reads it, in bounded memory."""

from hypothesis import given
from hypothesis import strategies as st

from oomguard.metrics import GC_PAUSE, MEMORY_RATIO, PROCESS_RSS
from oomguard.promql.series import Matcher
from oomguard.store import LONG_SLOTS, LONG_STEP, Sample, Store

MINUTE = 60_000


def sample(value, target="a"):
    return Sample(MEMORY_RATIO, (target,), value)


def only(store, name=MEMORY_RATIO.name):
    (series,) = store.select(name, ())
    return series


def test_history_is_oldest_first_with_its_times():
    store = Store(slots=10)
    for second in range(3):
        store.write(100.0 + second, [sample(second / 10)])
    assert store.history(MEMORY_RATIO.name, ("a",)) == [(100.0, 0.0), (101.0, 0.1), (102.0, 0.2)]
    assert store.history(MEMORY_RATIO.name, ("a",), since=101.5) == [(102.0, 0.2)]
    assert store.history(MEMORY_RATIO.name, ("nobody",)) == []


def test_a_series_that_was_not_seen_is_unknown_and_not_the_last_value():
    store = Store(slots=10)
    store.write(1.0, [sample(0.5), sample(0.6, "b")])
    store.write(2.0, [sample(0.7, "b")])
    assert [s.labels for s in store.latest()] == [("b",)]
    (gone,) = [series for series in store.select(None, ()) if ("target", "a") in series.labels]
    assert gone.at(2000, 0) is None
    assert gone.at(1500, 0) == (1000, 0.5)
    store.write(3.0, [sample(0.8)])
    assert store.history(MEMORY_RATIO.name, ("a",)) == [(1.0, 0.5), (3.0, 0.8)]


@given(
    st.integers(min_value=1, max_value=20),
    st.lists(st.dictionaries(st.sampled_from("abc"), st.floats(0, 1), max_size=3), max_size=60),
)
def test_the_last_slots_are_kept_and_not_many_more(slots, writes):
    store = Store(slots=slots)
    for time, values in enumerate(writes):
        store.write(float(time), [sample(value, name) for name, value in values.items()])
    for name in "abc":
        expected = [(float(t), v[name]) for t, v in enumerate(writes) if name in v]
        kept = store.history(MEMORY_RATIO.name, (name,))
        assert kept == expected[len(expected) - len(kept) :]
        oldest = len(writes) - slots
        assert [point for point in kept if point[0] >= oldest] == [
            point for point in expected if point[0] >= oldest
        ]
        assert len(kept) <= slots + max(1, slots // 8)


def test_windows_are_open_on_the_left():
    store = Store()
    for second in range(5):
        store.write(float(second), [sample(second)])
    times, values = only(store).window(1000, 3000)
    assert (list(times), list(values)) == ([2000, 3000], [2, 3])
    assert only(store).at(3999, 3000) is None
    assert only(store).at(3999, 2999) == (3000, 3)


def test_a_live_value_is_newer_than_any_slot_until_the_next_one():
    store = Store()
    store.write(1.0, [sample(0.1)])
    store.live(1500, [sample(0.9)])
    assert only(store).at(1600, 0) == (1500, 0.9)
    assert only(store).at(1400, 0) == (1000, 0.1)
    assert list(only(store).window(0, 1600)[1]) == [0.1, 0.9]
    store.write(2.0, [])
    assert only(store).at(2000, 0) is None, "the target has gone: its last value has, too"


def test_labels_are_sorted_pairs_with_the_name_and_without_empty_ones():
    store = Store()
    store.write(1.0, [Sample(GC_PAUSE, ("a", "main", "0.1"), 3.0, "_bucket"), sample(0.5, "")])
    assert {series.labels for series in store.select(None, ())} == {
        (
            ("__name__", "oomguard_gc_pause_seconds_bucket"),
            ("le", "0.1"),
            ("process", "main"),
            ("target", "a"),
        ),
        (("__name__", "oomguard_memory_used_ratio"),),
    }


def test_matchers_see_a_missing_label_as_empty():
    store = Store()
    store.write(1.0, [sample(0.5), sample(0.6, "b")])
    other = Matcher("target", "!=", "b", lambda value: value != "b")
    none = Matcher("job", "=", "", lambda value: value == "")
    assert [s.labels[1] for s in store.select(MEMORY_RATIO.name, (other, none))] == [("target", "a")]
    assert store.select("no_such_metric", ()) == []


def test_the_generation_changes_when_series_come():
    store = Store()
    store.write(1.0, [sample(0.5)])
    before = store.generation
    store.write(2.0, [sample(0.5)])
    assert store.generation == before
    store.write(3.0, [sample(0.5, "b")])
    assert store.generation != before


def test_what_rules_want_for_longer_is_kept_at_wider_steps():
    store = Store(slots=60)
    store.keep_long([MEMORY_RATIO.name])
    for second in range(7200):
        store.write(float(second), [sample(second), Sample(PROCESS_RSS, ("a", "main"), second)])
    now = 7199_000
    times, values = only(store).window(now - 30 * MINUTE, now)
    assert (len(times), times[1] - times[0]) == (120, LONG_STEP)
    assert [time / 1000 for time in times] == list(values)
    assert len(only(store, PROCESS_RSS.name).window(now - 30 * MINUTE, now)[0]) <= 68
    assert len(only(store).window(now - MINUTE // 2, now)[0]) == 30, "short windows have every slot"
    assert LONG_SLOTS * LONG_STEP == 6 * 60 * MINUTE


def test_a_series_that_rules_want_for_longer_from_now_on_keeps_what_it_has():
    store = Store()
    store.write(1.0, [sample(0.5)])
    store.keep_long([MEMORY_RATIO.name])
    store.write(2.0, [sample(0.6)])
    assert store.history(MEMORY_RATIO.name, ("a",)) == [(1.0, 0.5), (2.0, 0.6)]


def test_a_clock_that_is_set_back_keeps_the_order():
    store = Store()
    store.write(100.0, [sample(1)])
    store.write(50.0, [sample(2)])
    assert [value for _, value in store.history(MEMORY_RATIO.name, ("a",))] == [1, 2]


def test_a_full_store_refuses_new_series_and_counts_them():
    store = Store(slots=5, max_series=1)
    store.write(1.0, [sample(0.5), sample(0.5, "b")])
    store.write(2.0, [sample(0.6), sample(0.5, "c")])
    assert (len(store), store.refused) == (1, 2)
    assert store.history(MEMORY_RATIO.name, ("a",)) == [(1.0, 0.5), (2.0, 0.6)]


def test_series_that_are_long_gone_make_room():
    store = Store(slots=30)
    store.write(0.0, [Sample(PROCESS_RSS, ("a", "child-1"), 1.0)])
    for second in range(120):
        store.write(1.0 + second, [sample(0.5)])
    assert len(store) == 1
    assert store.select(PROCESS_RSS.name, ()) == []
