import math

from hypothesis import given
from hypothesis import strategies as st

from oomguard.metrics import MEMORY_RATIO, PROCESS_RSS
from oomguard.store import Sample, Store


def sample(value, target="a"):
    return Sample(MEMORY_RATIO, (target,), value)


def test_history_is_oldest_first_with_its_times():
    store = Store(slots=10)
    for second in range(3):
        store.write(100.0 + second, [sample(second / 10)])
    assert store.history(MEMORY_RATIO.name, ("a",)) == [(100.0, 0.0), (101.0, 0.1), (102.0, 0.2)]
    assert store.history(MEMORY_RATIO.name, ("a",), since=101.5) == [(102.0, 0.2)]


def test_a_series_that_was_not_seen_is_unknown_and_not_the_last_value():
    store = Store(slots=10)
    store.write(1.0, [sample(0.5), sample(0.6, "b")])
    store.write(2.0, [sample(0.7, "b")])
    assert [s.labels for s in store.latest()] == [("b",)]
    store.write(3.0, [sample(0.8)])
    assert store.history(MEMORY_RATIO.name, ("a",)) == [(1.0, 0.5), (3.0, 0.8)]


@given(
    st.integers(min_value=1, max_value=7),
    st.lists(st.dictionaries(st.sampled_from("abc"), st.floats(0, 1), max_size=3), max_size=40),
)
def test_the_ring_holds_just_the_last_slots(slots, writes):
    store = Store(slots=slots)
    for time, values in enumerate(writes):
        store.write(float(time), [sample(value, name) for name, value in values.items()])
    for name in "abc":
        expected = [
            (float(t), v[name]) for t, v in enumerate(writes) if name in v and t >= len(writes) - slots
        ]
        assert store.history(MEMORY_RATIO.name, (name,)) == expected


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
    assert not any(math.isnan(value) for _, value in store.history(MEMORY_RATIO.name, ("a",)))
