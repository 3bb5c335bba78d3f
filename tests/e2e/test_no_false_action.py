"""What looks like a full box and is none: oomguard must leave it alone.

Each target fills a real memory cgroup of 512 MB, or seems to, with what the kernel can reclaim, what counts
once only, or what no cleanup can drop.
"""

from __future__ import annotations

import contextlib
import subprocess
import time

import pytest
from tests.support.boxes import MIB, BoxV1
from tests.support.files import drop_from_cache, large_file
from tests.support.guarded import Guarded, workload
from tests.support.supervised import wait_for

pytestmark = pytest.mark.real

LIMIT = 512 * MIB
SECONDS = 15


@pytest.fixture(scope="module")
def weights():
    """A file of twice the box, as page cache or as a model's weights."""
    with large_file(2 * LIMIT) as file:
        yield file


def assert_left_alone(program: Guarded) -> None:
    """The target ended well, the guard saw it, and no run of the ladder was ever begun."""
    assert program.wait(60) == 0
    assert program.journal("target_start")
    assert program.journal("run_start", "oom_kill") == []


def highest_usage(box: BoxV1, program: Guarded, seconds: float) -> int:
    """The box's highest usage over some seconds, or until the program ends."""
    highest, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        highest = max(highest, box.usage())
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(0.1)
            break
    return highest


@pytest.mark.parametrize("program_name", ["page_cache", "mapped_model"])
def test_a_file_that_fills_the_box_is_left_alone(weights, program_name):
    drop_from_cache(weights)
    argv = workload(program_name, "--file", weights, "--seconds", SECONDS)
    with BoxV1(LIMIT) as box, Guarded(box, argv) as program:
        program.port()
        assert highest_usage(box, program, SECONDS) > 0.97 * LIMIT
        assert_left_alone(program)


def test_a_heap_shared_by_six_children_is_counted_once():
    argv = workload("shared_heap", "--size", 150, "--children", 6, "--seconds", SECONDS)
    with BoxV1(LIMIT) as box, Guarded(box, argv) as program:
        program.port()
        program.wait_until_guarding(hooks=7)
        status = program.status()
        assert sum(process["rss"] for process in status["processes"]) > 2 * LIMIT
        assert status["level"]["used"] < 0.6 * LIMIT
        assert_left_alone(program)


def test_300_megabytes_in_dev_shm_are_shared_memory_and_left_alone():
    argv = workload("shm", "--size", 300, "--seconds", SECONDS)
    with BoxV1(LIMIT) as box, Guarded(box, argv) as program:
        program.port()
        program.wait_until_guarding()
        shared = wait_for(
            lambda: (
                (size := program.metric("oomguard_cgroup_memory_part_bytes", part="shmem") or 0) >= 300e6
                and size
            ),
            "the slow lane's look at 300 MB of shared memory",
        )
        assert shared < 310e6
        used = program.metric("oomguard_memory_used_bytes")
        assert used is not None
        assert used > shared
        assert_left_alone(program)
