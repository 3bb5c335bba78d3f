import ctypes
import os
import sys

import pytest
from family import Family, FileTree, wait_for

from oomguard.model import ProcessId, Status
from oomguard.sources import procfs
from oomguard.sources.tree import ProcessTree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def slots(tree, root):
    return {process.slot: process.sample.id.pid for process in tree.sample(root).value.processes}


def identity(family):
    return procfs.process_id("/proc", family.pid)


def test_forks_are_workers_and_other_programs_are_children():
    with Family() as family:
        worker, child = family.ask("fork"), family.ask("spawn")
        tree = ProcessTree()
        wait_for(lambda: slots(tree, identity(family)).get("child-1"))
        assert slots(tree, identity(family)) == {"main": family.pid, "worker-1": worker, "child-1": child}


def test_a_fork_that_executes_a_program_later_turns_from_worker_to_child(tmp_path):
    proc = FileTree(tmp_path / "proc")
    root = proc.add(10, 1, stack=7000)
    proc.add(11, 10, stack=7000)
    tree = ProcessTree(proc.path)
    assert slots(tree, root) == {"main": 10, "worker-1": 11}
    proc.add(11, 10, stack=9000, cmdline="grep")
    assert slots(tree, root) == {"main": 10, "child-1": 11}
    assert tree.sample(root).value.processes[1].cmdline == ("grep",)
    assert tree.sample(root).value.exited_total == 0


def test_without_a_known_stack_the_command_line_decides(tmp_path):
    proc = FileTree(tmp_path / "proc")
    root = proc.add(10, 1, cmdline="serve")
    proc.add(11, 10, cmdline="serve")
    proc.add(12, 10, cmdline="grep")
    assert slots(ProcessTree(proc.path), root) == {"main": 10, "worker-1": 11, "child-1": 12}


def test_a_worker_that_changed_its_title_is_still_a_worker(tmp_path):
    proc = FileTree(tmp_path / "proc")
    root = proc.add(10, 1, stack=7000, cmdline="gunicorn: master")
    proc.add(11, 10, stack=7000, cmdline="gunicorn: worker")
    assert slots(ProcessTree(proc.path), root) == {"main": 10, "worker-1": 11}


def test_a_zombie_keeps_its_slot_until_it_is_reaped(tmp_path):
    proc = FileTree(tmp_path / "proc")
    root = proc.add(10, 1, stack=7000)
    proc.add(11, 10, stack=7000)
    tree = ProcessTree(proc.path)
    tree.sample(root)
    proc.add(11, 10, stack=0, state="Z", cmdline="")
    (proc.path / "11" / "status").write_text("Name:\tx\n")
    reading = tree.sample(root).value
    assert [(process.slot, process.sample.rss) for process in reading.processes] == [
        ("main", 102400),
        ("worker-1", None),
    ]
    assert reading.exited_total == 0


def test_who_comes_and_goes_is_counted_and_slots_are_used_again():
    with Family() as family:
        tree, root = ProcessTree(), identity(family)
        first, second = family.ask("fork"), family.ask("fork")
        tree.sample(root)
        family.end(first)
        assert slots(tree, root) == {"main": family.pid, "worker-2": second}
        third = family.ask("fork")
        assert slots(tree, root)["worker-1"] == third
        reading = tree.sample(root).value
        assert (reading.started_total, reading.exited_total) == (4, 1)
        assert reading.root == reading.processes[0].sample.id == root


def test_beyond_the_bound_processes_share_other(tmp_path):
    proc = FileTree(tmp_path / "proc")
    root = proc.add(10, 1)
    for pid in range(11, 41):
        proc.add(pid, 10)
    names = [process.slot for process in ProcessTree(proc.path).sample(root).value.processes]
    assert (len(names), names.count("other"), len(set(names))) == (31, 15, 17)


def test_an_orphan_stays_in_the_tree_once_it_was_seen():
    with Family() as family:
        tree, root = ProcessTree(), identity(family)
        child = family.ask("fork")
        tree.sample(root)
        family.end(child)
        orphan = family.ask("orphan")
        # It was orphaned before any sample: under watch that one is lost, and that is documented.
        assert orphan not in slots(tree, root).values()


def test_under_a_subreaper_no_orphan_is_lost_and_the_excluded_is_left_out():
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
    try:
        with Family() as family, Family() as sidecar:
            tree = ProcessTree(adopted_by=os.getpid(), excluded=frozenset({sidecar.pid}))
            sidecar.ask("fork")
            orphan = family.ask("orphan")
            found = slots(tree, identity(family))
            assert set(found.values()) == {family.pid, orphan}
            assert found["main"] == family.pid
            family.kill(orphan)
            os.waitpid(orphan, 0)
            family.made.remove(orphan)
    finally:
        libc.prctl(36, 0, 0, 0, 0)


def test_a_root_that_is_gone_or_a_zombie_is_absent():
    tree = ProcessTree()
    with Family() as family:
        root = identity(family)
        assert tree.sample(root).ok
        family.parent.kill()
        os.waitid(os.P_PID, family.pid, os.WEXITED | os.WNOWAIT)
        assert tree.sample(root).status is Status.ABSENT
    reading = tree.sample(root)
    assert (reading.status, reading.reason) == (Status.ABSENT, f"process {root.pid} has gone")


def test_a_reused_pid_is_not_the_root():
    with Family() as family:
        root = identity(family)
        assert ProcessTree().sample(ProcessId(root.pid, root.start_ticks - 1)).status is Status.ABSENT


def test_a_new_root_starts_with_new_slots_and_the_totals_go_on(tmp_path):
    proc = FileTree(tmp_path / "proc")
    first = proc.add(10, 1)
    proc.add(11, 10)
    proc.add(12, 10)
    tree = ProcessTree(proc.path)
    tree.sample(first)
    for pid in (10, 11, 12):
        proc.remove(pid)
    assert tree.sample(first).status is Status.ABSENT
    second = proc.add(20, 1)
    proc.add(21, 20)
    assert slots(tree, second) == {"main": 20, "worker-1": 21}
    reading = tree.sample(second).value
    assert (reading.started_total, reading.exited_total) == (5, 3)


def test_orphans_of_the_last_root_are_named_anew_under_the_new_one(tmp_path):
    proc = FileTree(tmp_path / "proc")
    proc.add(5, 1)
    first = proc.add(10, 5)
    proc.add(11, 10)
    tree = ProcessTree(proc.path, adopted_by=5)
    assert slots(tree, first) == {"main": 10, "worker-1": 11}
    proc.remove(10)
    proc.add(11, 5)
    second = proc.add(20, 5)
    proc.add(21, 20)
    assert slots(tree, second) == {"main": 20, "child-1": 11, "worker-1": 21}
    reading = tree.sample(second).value
    assert (reading.started_total, reading.exited_total) == (4, 1)


def test_a_proc_that_is_missing_fails_with_its_path(tmp_path):
    reading = ProcessTree(tmp_path / "none").sample(ProcessId(1, 1))
    assert reading.status is Status.FAILED
    assert str(tmp_path / "none") in reading.reason


def test_costly_readings_are_taken_once_for_a_new_process_and_kept_until_they_are_due():
    clock = Clock()
    with Family() as family:
        tree, root = ProcessTree(clock=clock), identity(family)
        first = tree.sample(root).value.processes[0]
        assert first.memory.value.pss > 0
        assert first.mappings.ok
        worker = family.ask("fork")
        clock.now += 0.5
        main, forked = tree.sample(root).value.processes
        assert main.memory is first.memory
        assert forked.sample.id.pid == worker
        assert forked.memory.ok
        # Long enough for a few milliseconds' reads of two processes.
        clock.now += 3600
        again = tree.sample(root).value.processes[0]
        assert again.memory is not first.memory
        assert again.mappings is not first.mappings


def test_a_process_that_vanishes_while_it_is_read_is_left_out(tmp_path):
    proc = FileTree(tmp_path / "proc")
    root = proc.add(10, 1)
    proc.add(11, 10)
    (proc.path / "11" / "status").unlink()
    assert slots(ProcessTree(proc.path), root) == {"main": 10}
