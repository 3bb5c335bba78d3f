import sys

import pytest
from family import Family, wait_for

from oomguard.model import ProcessId, Status
from oomguard.sources import machine, portable, procfs, tree


def test_the_tree_has_the_same_processes_and_names_as_the_one_from_proc():
    with Family() as family:
        family.ask("fork")
        family.ask("spawn")
        proc = tree.ProcessTree()
        wait_for(lambda: len(proc.sample(procfs.process_id("/proc", family.pid)).value.processes) == 3)
        seen = proc.sample(procfs.process_id("/proc", family.pid)).value.processes
        other = portable.ProcessTree().sample(portable.process_id(family.pid)).value.processes
        assert [(one.slot, one.sample.id.pid, one.cmdline) for one in other] == [
            (one.slot, one.sample.id.pid, one.cmdline) for one in seen
        ]
        for left, right in zip(other, seen, strict=True):
            assert abs(left.sample.rss - right.sample.rss) < 1 << 20
            assert (left.sample.vms, left.sample.threads) == (right.sample.vms, right.sample.threads)
            assert (left.sample.ppid, left.sample.pgrp) == (right.sample.ppid, right.sample.pgrp)
            assert left.sample.state == right.sample.state
            assert left.sample.open_fds == right.sample.open_fds
            assert abs(left.sample.start_time - right.sample.start_time) < 2
            assert (left.memory.status, left.mappings.status) == (Status.UNSUPPORTED, Status.UNSUPPORTED)


def test_who_comes_and_goes_is_counted():
    with Family() as family:
        sampler, root = portable.ProcessTree(), portable.process_id(family.pid)
        child = family.ask("fork")
        sampler.sample(root)
        family.end(child)
        reading = sampler.sample(root).value
        assert (reading.started_total, reading.exited_total) == (2, 1)


def test_a_root_that_is_gone_or_another_process_is_absent():
    with Family() as family:
        root = portable.process_id(family.pid)
        assert (
            portable.ProcessTree().sample(ProcessId(root.pid, root.start_ticks - 500)).status is Status.ABSENT
        )
    assert portable.ProcessTree().sample(root).status is Status.ABSENT
    assert portable.process_id(family.pid) is None


def test_the_fast_reader_sums_up_rss_and_raises_when_nobody_is_left():
    with Family() as family:
        family.ask("fork")
        reading = portable.ProcessTree().sample(portable.process_id(family.pid)).value
        fast = portable.FastRss()
        fast.update(reading.processes)
        assert abs(fast.read() - sum(process.sample.rss for process in reading.processes)) < 1 << 20
    fast.update(())
    with pytest.raises(ProcessLookupError):
        fast.read()


@pytest.mark.skipif(sys.platform != "linux", reason="compares with /proc")
def test_the_machine_has_the_same_memory():
    one, other = portable.read_machine().value, machine.read_machine().value
    assert (one.total, one.swap_total) == (other.total, other.swap_total)
    assert abs(one.available - other.available) < 512 << 20


def test_psutil_is_imported_only_when_it_is_used():
    import subprocess

    code = "import sys, oomguard.sources.portable; print('psutil' in sys.modules)"
    path = ":".join(sys.path)
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path}
    )
    assert said.stdout == "False\n", said.stderr
