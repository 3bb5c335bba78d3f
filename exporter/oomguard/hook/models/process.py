"""The process of an isolated model, as the application's sees it: starting it, talking to it, ending it."""

from __future__ import annotations

import _socket
import os
import posix
import signal
import subprocess
import sys
import time
from time import monotonic

from oomguard.hook import unpatched
from oomguard.hook.descriptors import Descriptor, above_stdio
from oomguard.hook.models import keeper
from oomguard.hook.models.channel import Channel, ChannelClosed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from oomguard.hook.models.channel import Segments

NUMBER = 3
"""The descriptor of the child's end, in the child."""
_LOOK = 1000
"""Milliseconds after which a caller that waits for an answer looks whether the process is there at all: a process that
was forked from the application without an exec may hold the other end open."""
_FIRST_POLL, _LAST_POLL = 0.001, 0.01
"""Seconds between two looks of a greenlet, which must let the others run."""

# The package is loaded from where this one lies: an injected one is not on the path.
_BOOT = """
import sys
home, parent, name = sys.argv[1:]
if "oomguard" not in sys.modules:
    from importlib.util import module_from_spec, spec_from_file_location
    spec = spec_from_file_location("oomguard", home + "/__init__.py", submodule_search_locations=[home])
    sys.modules["oomguard"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["oomguard"])
from oomguard.hook.models import child
child.main(int(parent), name)
"""


class Process:
    """One that runs. The turn of `Isolated` is held for whatever is called here."""

    def __init__(self, name: str) -> None:
        """Start it; raises OSError, and RuntimeError where no thread can be had."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
        channel = Channel(Descriptor(ours.detach()), self._wait)
        number = above_stdio(theirs.detach())
        try:
            self.pid = keeper.spawn(_command(name), dict(os.environ), _actions(number))
        except BaseException:
            channel.close()
            raise
        finally:
            os.close(number)
        self.channel = channel
        self._status: int | None = None
        self._ended = False
        self._handle = _handle(self.pid)
        self._calls = 0

    def ask(self, segments: Segments) -> Segments:
        """Send a message and wait for its answer; raises `ChannelClosed` where the process is gone.

        Answers to callers that were interrupted come first, and are dropped.
        """
        if self.channel.broken:
            raise ChannelClosed("half a message was sent")
        self._calls += 1
        self.channel.send(self._calls, segments)
        while True:
            number, answer = self.channel.receive()
            if number == self._calls:
                return answer

    def gone(self) -> bool:
        """Whether it has ended; it is reaped."""
        if not self._ended:
            try:
                pid, status = posix.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                self._ended = True  # the application reaps whatever it finds
            else:
                if pid:
                    self._ended, self._status = True, status
        return self._ended

    def killed(self) -> bool | None:
        """Whether SIGKILL ended it; None where somebody else has reaped it."""
        if self._status is None:
            return None
        return os.WIFSIGNALED(self._status) and os.WTERMSIG(self._status) == signal.SIGKILL

    def end(self, grace: float, sleep: Callable[[float], None]) -> None:
        """Close its channel, and kill it where it has not ended by itself `grace` seconds later."""
        self.channel.close()
        for patience, last in ((grace, False), (2.0, True)):
            deadline = monotonic() + patience
            while not self.gone() and monotonic() < deadline:
                sleep(0.005)
            if last or self.gone():
                break
            self._signal(signal.SIGKILL)
        if self._handle is not None:
            self._handle.close()
            self._handle = None

    def abandon(self) -> None:
        """In a forked child, whose parent's it is: close the numbers, end nothing."""
        self.channel.close()
        if self._handle is not None:
            self._handle.close()

    def memory(self) -> int | None:
        """Bytes that its end would free: its proportional share (Pss, proc_pid_smaps(5)), else resident; or None."""
        try:
            with open(f"/proc/{self.pid}/smaps_rollup", "rb") as file:  # noqa: PTH123 (pathlib costs 3 ms)
                for line in file:
                    if line.startswith(b"Pss:"):
                        return int(line.split()[1]) * 1024
        except (OSError, ValueError, IndexError):
            pass
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:  # noqa: PTH123 (as above)
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, ValueError, IndexError):
            return None

    def _signal(self, number: int) -> None:
        """Through a handle where there is one: its number could be another process's by now."""
        try:
            if self._handle is not None and self._handle.ours():
                signal.pidfd_send_signal(self._handle.number, number)
            elif not self.gone():
                os.kill(self.pid, number)
        except OSError:
            pass

    def _wait(self, number: int, writing: bool) -> None:
        poll = unpatched.poll()
        poll.register(number, 4 if writing else 1)  # POLLOUT, POLLIN
        seconds = _FIRST_POLL
        while True:
            green = unpatched.patched()
            if poll.poll(0 if green else _LOOK):
                return
            if green:
                time.sleep(seconds)  # gevent's: the others run
                seconds = min(seconds * 2, _LAST_POLL)
            if self.gone() and not poll.poll(0):
                raise ChannelClosed("the process is gone")


def _command(name: str) -> list[str]:
    import oomguard  # noqa: PLC0415 (where the package lies)

    flags: list[str] = getattr(subprocess, "_args_from_interpreter_flags", list)()  # as multiprocessing does
    home = os.path.dirname(os.path.abspath(oomguard.__file__))  # noqa: PTH100, PTH120 (pathlib costs 3 ms)
    return [sys.executable, *flags, "-c", _BOOT, home, str(os.getpid()), name]


def _actions(number: int) -> list[tuple[Any, ...]]:
    """Standard input is empty, output goes to standard error: a service may speak a protocol on its own."""
    actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    try:
        os.fstat(2)
        actions.append((os.POSIX_SPAWN_DUP2, 2, 1))
    except OSError:
        actions += [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_WRONLY, 0) for stream in (1, 2)]
    return [*actions, (os.POSIX_SPAWN_DUP2, number, NUMBER)]


def _handle(pid: int) -> Descriptor | None:
    """A pidfd (pidfd_open(2), Linux 5.3)."""
    try:
        return Descriptor(os.pidfd_open(pid))
    except (OSError, AttributeError):
        return None
