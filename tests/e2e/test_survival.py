"""A target that fills a box far faster than anybody could look: it lives guarded, and dies unguarded.

The box is a real memory cgroup of 512 MB that holds supervisor, sidecar and target. What is asserted is
survival; the rates that this machine reached are printed.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Sequence

import pytest
from tests.support.boxes import MIB, BoxV1
from tests.support.client import Pinger
from tests.support.files import drop_from_cache, large_file
from tests.support.guarded import Guarded, Program, workload

pytestmark = pytest.mark.real

LIMIT = 512 * MIB


def dies_unguarded(argv: Sequence[str]) -> None:
    """Show that the kernel kills the same command in the same box when nobody guards it."""
    with BoxV1(LIMIT) as box, Program(box, argv) as program:
        assert program.wait(90) == -signal.SIGKILL
        assert box.oom_kills() == 1


def lives_guarded(argv: Sequence[str], seconds: float) -> dict[str, float]:
    """Run it under oomguard to its end; every request meanwhile must be answered. Returns its last line."""
    with BoxV1(LIMIT) as box, Guarded(box, argv) as program:
        port = program.port()
        # The server goes when the workload ends: stop asking before that.
        with Pinger(port) as pinger, contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(seconds - 2)
        result = program.next_line(60)
        code = program.wait(30)
        kills, runs = box.oom_kills(), program.journal("run_end")
    print(
        f"\n{result['rate'] / 1e6:.0f} MB/s over {result['seconds']:.0f} s (fastest tenth of a second "
        f"{result['fastest_rate'] / 1e6:.0f} MB/s), {result['cleared']} times cleared; {pinger.summary()}"
    )
    assert kills == 0
    assert code == 0
    assert pinger.failures == []
    assert len(pinger.seconds) > 10
    assert result["allocated"] > 3 * LIMIT
    assert runs
    return result


def test_200_megabytes_a_second_for_half_a_minute_are_survived():
    argv = workload("clearable_cache", "--rate", 200, "--seconds", 30)
    dies_unguarded(argv)
    lives_guarded(argv, 30)


def test_1000_megabytes_a_second_are_survived():
    argv = workload("clearable_cache", "--rate", 1000, "--seconds", 10)
    dies_unguarded(argv)
    lives_guarded(argv, 10)


def test_small_objects_from_eight_threads_on_a_full_page_cache_above_a_high_baseline_are_survived():
    baseline = 0.6 * LIMIT / 1e6
    with large_file(2 * LIMIT) as file:
        argv = workload(
            "fragmenting_cache", "--rate", 200, "--seconds", 20, "--baseline", baseline, "--file", file
        )
        dies_unguarded(argv)
        drop_from_cache(file)
        lives_guarded(argv, 20)
