from hypothesis import given
from hypothesis import strategies as st

from oomguard.model import ProcessId
from oomguard.sources.slots import Kind, Slots


def one(pid):
    return ProcessId(pid, pid * 10)


def test_names_count_up_by_kind():
    slots = Slots()
    slots.assign_main(one(1))
    assert [
        slots.assign(one(pid), kind) for pid, kind in ((2, Kind.WORKER), (3, Kind.CHILD), (4, Kind.WORKER))
    ] == [
        "worker-1",
        "child-1",
        "worker-2",
    ]


def test_the_lowest_free_number_is_used_again_only_after_its_process_went():
    slots = Slots()
    for pid in (1, 2, 3):
        slots.assign(one(pid), Kind.WORKER)
    slots.keep(frozenset({one(1), one(3)}))
    assert slots.assign(one(4), Kind.WORKER) == "worker-2"
    assert slots.name(one(3)) == "worker-3"


def test_beyond_the_bound_processes_share_other_and_keep_it():
    slots = Slots(bound=2)
    slots.assign_main(one(1))
    assert [slots.assign(one(pid), Kind.WORKER) for pid in (2, 3, 4)] == ["worker-1", "other", "other"]
    slots.keep(frozenset({one(1), one(3), one(4)}))
    assert slots.name(one(3)) == "other"
    assert slots.assign(one(5), Kind.WORKER) == "worker-1"


def test_a_reused_pid_is_another_process():
    slots = Slots()
    slots.assign(ProcessId(7, 1), Kind.CHILD)
    assert slots.name(ProcessId(7, 2)) is None


@given(
    st.lists(st.tuples(st.integers(1, 30), st.sampled_from(["worker", "child", "exit"]))), st.integers(1, 6)
)
def test_no_two_living_processes_share_a_name_but_other(steps, bound):
    slots, alive = Slots(bound), {}
    for pid, what in steps:
        if what == "exit":
            alive.pop(one(pid), None)
            slots.keep(frozenset(alive))
        elif one(pid) not in alive:
            alive[one(pid)] = slots.assign(one(pid), Kind(what))
        named = [name for name in alive.values() if name != "other"]
        assert len(named) == len(set(named)) <= bound
        assert all(slots.name(process) == name for process, name in alive.items())
