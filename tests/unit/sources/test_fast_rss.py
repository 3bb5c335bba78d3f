import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from family import Family

from oomguard.model import ProcessMemory, Reading, Status, UsedKind
from oomguard.sources import procfs
from oomguard.sources.fast_rss import FastRss
from oomguard.sources.tree import ProcessTree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
MIB = 1 << 20

HOG = """
import sys
blocks = []
print("ready", flush=True)
for line in sys.stdin:
    if line.strip() == "free":
        blocks.clear()
    else:
        blocks.append(bytearray(b"x") * (int(line) << 20))
    print("done", flush=True)
"""


def descriptors():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@pytest.fixture
def hog():
    process = subprocess.Popen(
        [sys.executable, "-c", HOG], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def tell(hog, what):
    hog.stdin.write(f"{what}\n")
    hog.stdin.flush()
    hog.stdout.readline()


def sample(pid):
    return ProcessTree().sample(procfs.process_id("/proc", pid)).value.processes


@pytest.fixture
def fast():
    reader = FastRss()
    yield reader
    reader.close()


def test_what_a_process_allocates_after_its_pss_was_taken_is_added(hog, fast):
    processes = sample(hog.pid)
    fast.update(processes)
    before = fast.read()
    assert abs(before - processes[0].memory.value.pss) < 2 * MIB
    tell(hog, 64)
    assert abs(fast.read() - before - 64 * MIB) < 2 * MIB
    tell(hog, "free")
    assert abs(fast.read() - before) < 2 * MIB


def test_an_update_without_a_new_pss_does_not_move_the_base(hog, fast):
    processes = sample(hog.pid)
    fast.update(processes)
    before = fast.read()
    tell(hog, 64)
    later = procfs.read_process("/proc", hog.pid)
    fast.update((dataclasses.replace(processes[0], sample=later),))
    assert abs(fast.read() - before - 64 * MIB) < 2 * MIB


def test_rss_is_the_sum_of_the_resident_sizes(fast):
    with Family() as family:
        family.ask("fork")
        family.ask("fork")
        processes = sample(family.pid)
        fast.update(processes)
        resident = sum(process.sample.rss for process in processes)
        assert abs(fast.read(kind=UsedKind.RSS) - resident) < MIB
        assert fast.read() < fast.read(kind=UsedKind.RSS)


def test_without_a_pss_a_process_counts_with_its_rss(hog, fast):
    (process,) = sample(hog.pid)
    fast.update((dataclasses.replace(process, memory=Reading(Status.FAILED, reason="denied")),))
    assert abs(fast.read() - process.sample.rss) < MIB


def test_a_process_that_ends_drops_out_and_the_last_one_is_an_error_not_a_zero(fast):
    with Family() as family:
        child = family.ask("fork")
        fast.update(sample(family.pid))
        both = fast.read(kind=UsedKind.RSS)
        family.end(child)
        assert 0 < fast.read(kind=UsedKind.RSS) < both
        family.parent.kill()
        # Not reaped: the zombie's statm can be read, and says 0.
        os.waitid(os.P_PID, family.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(ProcessLookupError):
            fast.read()


def test_a_sampled_zombie_does_not_count(hog, fast):
    (process,) = sample(hog.pid)
    fast.update((dataclasses.replace(process, sample=dataclasses.replace(process.sample, rss=None)),))
    with pytest.raises(ProcessLookupError):
        fast.read()


def test_the_descriptors_are_bounded_and_the_smaller_processes_count_as_sampled():
    before = descriptors()
    with Family() as family:
        for _ in range(4):
            family.ask("fork")
        processes = sample(family.pid)
        fast = FastRss(bound=2)
        fast.update(processes)
        assert descriptors() - before <= 2 + 2  # the family's two pipes
        resident = sum(process.sample.rss for process in processes)
        assert abs(fast.read(kind=UsedKind.RSS) - resident) < MIB
        pss = sum(process.memory.value.pss for process in processes)
        assert abs(fast.read() - pss) < 2 * MIB
        fast.close()
    assert descriptors() == before


def test_a_process_that_left_the_tree_is_closed(hog, fast):
    fast.update(sample(hog.pid))
    before = descriptors()
    fast.update(())
    assert descriptors() == before - 1


def test_growth_between_the_sample_and_its_pss_is_counted_rather_than_hidden(hog, fast):
    (process,) = sample(hog.pid)
    own = process.sample.rss_anon - 10 * MIB
    memory = Reading(Status.OK, ProcessMemory(rss=1, pss=50 * MIB, uss=1, private_dirty=1, swap_pss=0))
    earlier = dataclasses.replace(
        process, memory=memory, sample=dataclasses.replace(process.sample, rss_anon=own)
    )
    fast.update((earlier,))
    assert abs(fast.read() - 60 * MIB) < MIB
