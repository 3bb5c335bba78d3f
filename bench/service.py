"""Runs a service of `bench.served` in a process of its own, and a stand-in for its sidecar that can be told to rest.

A real sidecar would be a third process beside two cores, and would ask in the rounds of others too.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from tests.support.client import wait_for
from tests.support.fake_sidecar import FakeSidecar, Hook

ROOT = Path(__file__).parents[1]
TOKEN = "bench"
_ASK = 1.0
"""Seconds between two readings, as the sidecar takes them."""


def environment() -> dict[str, str]:
    """This process's, without what is oomguard's; modules may be compiled to files, or each start would pay for it."""
    unwanted = ("OOMGUARD_", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}


def two_cores() -> tuple[int, int]:
    """One for the service and one for all the rest; raises RuntimeError where there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise RuntimeError(
            f"two cores are needed, one for the service and one for its load; there is {cores}"
        )
    return cores[0], cores[1]


@contextlib.contextmanager
def kept_to(core: int) -> Iterator[None]:
    """Keep this thread, and the threads and processes that it starts, to one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Service:
    """``with Service("starlette", "mounted", core=0) as service:``; what each word means stands in `bench.served`.

    The stand-in asks for a reading every second while `awake`, else every 5 s: a hook that nobody asks for 10 s guards
    the process alone.
    """

    def __init__(
        self, kind: str, how: str, *, core: int | None = None, max_streams: int = 5, path: str = "/"
    ) -> None:
        self.how = how
        self.path = path
        words = [sys.executable, "-m", "bench.served", kind, how, str(max_streams)]
        self._command = ["taskset", "-c", str(core), *words] if core is not None else words
        self._stack = contextlib.ExitStack()
        self._stop = threading.Event()
        self.awake = threading.Event()
        self.awake.set()

    def __enter__(self) -> Service:  # noqa: PYI034 - typing.Self needs Python 3.11
        with contextlib.ExitStack() as stack:
            # Strings hash alike in all of them: dictionaries of other shapes would make one faster than another.
            env = {**environment(), "OOMGUARD_TOKEN": TOKEN, "PYTHONHASHSEED": "0"}
            sidecar = None
            if self.how != "plain":
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="oomguard-bench-"))
                sidecar = stack.enter_context(FakeSidecar(folder))
                env |= sidecar.environment
            self.process = stack.enter_context(
                subprocess.Popen(
                    self._command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            )
            stack.callback(self.process.kill)
            self.pid = self.process.pid
            assert self.process.stdout is not None
            self.port = int(self.process.stdout.readline())
            wait_for(self.port, self.path, timeout=30)
            if sidecar is not None:
                thread = threading.Thread(target=self._ask, args=(sidecar.accept_pid(self.pid),))
                thread.start()
                stack.callback(thread.join)
                stack.callback(self._stop.set)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _ask(self, hook: Hook) -> None:
        for tick in itertools.count():
            if self._stop.wait(_ASK):
                return
            if self.awake.is_set() or tick % 5 == 0:
                hook.reading()

    def cpu_seconds(self) -> float:
        """Time on a processor so far, of all threads (Documentation/scheduler/sched-stats.rst: nanoseconds)."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
