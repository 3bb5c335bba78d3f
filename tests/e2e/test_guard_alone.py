"""A service in a real box of 256 MB lives by the hook alone, where it dies without it.

There is no sidecar at all, or one that was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.boxes import MIB, BoxV1
from tests.support.command import OBEDIENT, Running, environment
from tests.support.guarded import Program
from tests.support.supervised import runs, wait_for

pytestmark = pytest.mark.real

LIMIT = 256 * MIB

AUTONOMOUS = """
import json, sys, time
from oomguard import hook
rate, seconds = 200, 10
cache, cleared = [], 0
def clear():
    global cleared
    cleared += 1
    cache.clear()
guard = hook.start(autonomous=True)
guard.cache("pieces", clear=clear, size=lambda: len(cache) << 20)
end = time.monotonic() + seconds
pieces = 0
while time.monotonic() < end:
    cache.append(b"\\x01" * (1 << 20))
    pieces += 1
    time.sleep(1 / rate)
print(json.dumps({"pieces": pieces, "cleared": cleared}), flush=True)
"""


class Ordered:
    """The obedient workload in a box, with its stderr in a file; ended on exit."""

    def __init__(self, box: BoxV1, folder: Path, **env: str) -> None:
        self._errors = folder / "stderr.log"
        with self._errors.open("wb") as errors:
            self.process: subprocess.Popen[str] = box.run(
                OBEDIENT,
                env=environment(**env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self.pid = int(self._answer()["pid"])

    def __enter__(self) -> Ordered:  # noqa: PYI034 - typing.Self needs Python 3.11
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()

    def order(self, text: str) -> dict[str, Any]:
        """Tell it something; raises ValueError where it has died of that."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        return self._answer()

    def stderr(self) -> str:
        """What it has said on stderr so far."""
        return self._errors.read_text()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told


def test_an_autonomous_hook_saves_its_service_without_any_sidecar() -> None:
    service = [sys.executable, "-c", AUTONOMOUS]
    with BoxV1(LIMIT) as box, Program(box, service, env={"OOMGUARD_HOOK": "0"}) as program:
        assert program.wait(90) == -signal.SIGKILL
        assert box.oom_kills() == 1
    with BoxV1(LIMIT) as box, Program(box, service) as program:
        result = program.next_line(90)
        assert program.wait(30) == 0
        assert box.oom_kills() == 0
    print(f"\n{result}")
    assert result["pieces"] * MIB > 3 * LIMIT
    assert result["cleared"] >= 3


def fill(service: Ordered) -> None:
    """Put 600 MB into the cache, which is more than twice what the box holds."""
    for _ in range(60):
        service.order("cache 10")


def test_the_hook_goes_on_alone_when_the_sidecar_is_killed_and_stands_down_for_the_next_one(
    tmp_path: Path,
) -> None:
    with BoxV1(LIMIT) as box, Ordered(box, tmp_path, OOMGUARD_HOOK="0") as service:
        service.order("register")
        with pytest.raises(ValueError):
            fill(service)
        assert service.process.wait(30) == -signal.SIGKILL
        assert box.oom_kills() == 1

    runtime = tmp_path / "run"
    runtime.mkdir()
    with BoxV1(LIMIT) as box, Ordered(box, tmp_path, OOMGUARD_RUNTIME_DIR=str(runtime)) as service:
        service.order("register")
        with Running("watch", "--pid", str(service.pid), runtime_dir=runtime) as watching:
            watching.until_guarding(hooks=1)
            os.kill(watching.sidecar, signal.SIGKILL)
            watching.process.wait(30)
        wait_for(
            lambda: "guarding memory alone: no sidecar has asked" in service.stderr(), "the guard alone", 60
        )

        fill(service)

        assert runs(service.pid)
        assert box.oom_kills() == 0
        assert "caches" in service.stderr()
        assert "guarding memory no longer" not in service.stderr()
        with Running("watch", "--pid", str(service.pid), runtime_dir=runtime) as watching:
            watching.until_guarding(hooks=1)
            wait_for(
                lambda: "guarding memory no longer: a sidecar reads" in service.stderr(), "standing down"
            )
            ran = wait_for(
                lambda: watching.metric("oomguard_hook_alone_runs_total"), "the runs it made alone"
            )
            assert ran >= 1
            assert watching.metric("oomguard_hook_alone") == 0
        print(f"\n{service.stderr()}")
