"""What the kernel's OOM killer frees while a run is under way is not what the run has freed."""

from __future__ import annotations

import json
import signal
import urllib.request
from typing import Any

import pytest
from tests.support.boxes import MIB, BoxV1
from tests.support.guarded import Guarded, workload
from tests.support.supervised import wait_for

pytestmark = pytest.mark.real

LIMIT = 320 * MIB
QUIET = {"MEMORY_CLEANUP": "0"}
"""No alert joins the run: only what a person orders is done."""


def order(program: Guarded) -> None:
    """A person's cleanup down to a tenth of the limit, and no wait for its end."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{program.listen_port}/admin/cleanup",
        data=json.dumps({"steps": ["caches"], "goal": "10%"}).encode(),
        headers={"Authorization": f"Bearer {(program.runtime_dir / 'token').read_text().strip()}"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 202


def ended(program: Guarded, box: BoxV1) -> tuple[dict[str, Any], dict[str, Any]]:
    """The step and the end of the run in which the kernel struck."""
    (end,) = wait_for(lambda: program.journal("run_end"), "the end of the run")
    (step,) = program.journal("step_end")
    assert box.oom_kills() == 1
    return step, end


def test_a_killed_target_ends_the_run_and_nothing_was_freed() -> None:
    with BoxV1(LIMIT) as box, Guarded(box, workload("hungry_cache", "main"), env=QUIET) as program:
        program.next_line()
        program.wait_until_guarding(hooks=1)
        order(program)
        assert program.wait(60) == 128 + signal.SIGKILL
        step, end = ended(program, box)
        assert (step["outcome"], step["freed"]) == ("failed", 0)
        assert "went away" in step["reason"]
        assert (end["outcome"], end["freed"]) == ("target_gone", 0)


def test_a_killed_worker_makes_the_step_inconclusive_and_the_target_lives_on() -> None:
    with BoxV1(LIMIT) as box, Guarded(box, workload("hungry_cache", "worker"), env=QUIET) as program:
        program.next_line()
        program.wait_until_guarding(hooks=2)
        order(program)
        step, end = ended(program, box)
        assert (step["outcome"], step["freed"]) == ("inconclusive", 0)
        assert step["reason"] == "the kernel killed a process meanwhile"
        assert (end["outcome"], end["freed"]) == ("goal_not_reached", 0)
        assert program.metric("oomguard_cleanup_freed_bytes_total", step="caches") == 0
        assert program.process.poll() is None
