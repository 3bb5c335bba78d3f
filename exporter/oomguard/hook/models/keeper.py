"""The thread that starts the processes of isolated models.

A child asks the kernel to be killed with its parent (prctl(2), PR_SET_PDEATHSIG), and there the parent is the
thread that started it, not the process. So one thread that lives as long as the process starts them all.
"""

from __future__ import annotations

import _queue
import posix

from oomguard.hook import unpatched

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


class _Job:
    __slots__ = ("actions", "argv", "done", "environ")

    def __init__(
        self, argv: list[str], environ: Mapping[str, str], actions: Sequence[tuple[Any, ...]]
    ) -> None:
        self.argv = argv
        self.environ = environ
        self.actions = actions
        self.done: _queue.SimpleQueue[int | OSError] = _queue.SimpleQueue()


class _Keeper:
    """The C modules are used: gevent replaces what `queue` and `os` offer, and a greenlet is no parent."""

    def __init__(self) -> None:
        self._jobs: _queue.SimpleQueue[_Job] = _queue.SimpleQueue()
        unpatched.start_thread(self._run)

    def do(self, job: _Job) -> int:
        self._jobs.put(job)
        result = job.done.get()
        if isinstance(result, OSError):
            raise result
        return result

    def _run(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                # This thread's signals are blocked; the child begins without a mask.
                pid = posix.posix_spawn(
                    job.argv[0], job.argv, job.environ, file_actions=job.actions, setsigmask=()
                )
            except OSError as error:
                job.done.put(error)
            except Exception as error:  # noqa: BLE001 (an environment that can't be passed on)
                job.done.put(OSError(f"{type(error).__name__}: {error}"))
            else:
                job.done.put(pid)
            del job


_keeper: _Keeper | None = None
_making = unpatched.allocate_lock()


def spawn(argv: list[str], environ: Mapping[str, str], actions: Sequence[tuple[Any, ...]]) -> int:
    """Start a process from the keeper's thread (posix_spawn(3)) and return its PID: a few milliseconds.

    Raises OSError, and RuntimeError where no thread can be had.
    """
    global _keeper  # noqa: PLW0603 (one for a process, as its parent is one)
    with _making:
        if _keeper is None:
            _keeper = _Keeper()
        keeper = _keeper
    return keeper.do(_Job(argv, environ, actions))


def forked() -> None:
    """In a forked child: the thread stayed behind."""
    global _keeper, _making  # noqa: PLW0603 (as above)
    _keeper = None
    _making = unpatched.allocate_lock()
