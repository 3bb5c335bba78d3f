"""The child that guards, and the two pipes to it.

The environment names their descriptors:

``OOMGUARD_READY_FD``
    The sidecar writes ``ready`` and a newline once it listens.
``OOMGUARD_CONTROL_FD``
    The supervisor writes a line for each change; a sidecar that was started again gets the present state
    first. The pipe is never waited for: what does not fit is lost.

    ``target PID START_TICKS``  the target runs (field 22 of /proc/PID/stat; 0 where there is no /proc)
    ``exited PID CODE``         it has ended: its exit code, or 128 + signal
    ``restarting SECONDS N``    it starts again after that time, for the Nth time
    ``giving-up``               it has been restarted too often
    end of file                 nothing follows, or the supervisor was killed: the sidecar ends itself
"""

# ruff: noqa: SIM105
# contextlib would cost 0.6 MB of private dirty memory.

import os
import time

from oomguard.supervisor.backoff import Backoff
from oomguard.supervisor.log import STDERR, log
from oomguard.supervisor.signals import signal
from oomguard.supervisor.spawn import spawn

_BACKOFF = (0.1, 10.0, 60.0)
"""First delay, longest delay, and the life after which the first is due again: seconds."""


class Sidecar:
    """The child that guards: started again whenever it dies, and told what becomes of the target."""

    def __init__(self, argv: list[str], mask: set[int]) -> None:
        self.argv = argv
        self.mask = mask
        self.pid = 0
        self.ready = False
        self.start_at: float | None = None
        """When it is due to start again, monotonic; None: it runs, or has not been started."""
        self._started = 0.0
        self._backoff = Backoff(*_BACKOFF)
        self._control = -1
        self._ready_fd = -1

    def start(self, state: list[str]) -> None:
        """Start it and tell it the present state."""
        self.start_at = None
        self._started = time.monotonic()
        theirs: list[int] = []
        try:
            control, self._control = os.pipe()
            theirs.append(control)
            self._ready_fd, ready = os.pipe()
            theirs.append(ready)
            os.set_blocking(self._control, False)
            os.set_blocking(self._ready_fd, False)
            environment = {
                **os.environ,
                "OOMGUARD_HOOK": "0",
                "MALLOC_ARENA_MAX": "1",
                "OOMGUARD_CONTROL_FD": str(control),
                "OOMGUARD_READY_FD": str(ready),
            }
            self.pid, reports = spawn(
                self.argv, environment, self.mask, lambda report: self._prepare(theirs, report)
            )
        except OSError as error:
            self.ended(error.strerror)
            return
        finally:
            for fd in theirs:
                os.close(fd)
        for name, number in reports:
            log("error", "sidecar can't be started", step=name, error=os.strerror(number))
        for line in state:
            self.send(line)

    def _prepare(self, pipes: list[int], report: int) -> None:
        # stdin and stdout are the target's alone: a stdio MCP server speaks on them.
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(STDERR, 1)
        # Its group is never the foreground one: with `stty tostop` a line on stderr would stop it.
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        for fd in pipes:
            os.set_inheritable(fd, True)
        for fd in map(int, os.listdir("/dev/fd")):  # noqa: PTH208 - pathlib would cost 1 MB
            if fd > STDERR and fd not in (*pipes, report):
                try:
                    os.close(fd)
                except OSError:  # the listing's own descriptor
                    pass

    def poll_ready(self) -> bool:
        """Whether it has said that it listens."""
        if not self.ready and self._ready_fd >= 0:
            try:
                self.ready = os.read(self._ready_fd, 64).startswith(b"ready")
            except OSError:
                pass
        return self.ready

    def send(self, line: str) -> None:
        """Tell it; lost when it does not read."""
        if self._control >= 0:
            try:
                os.write(self._control, f"{line}\n".encode())
            except OSError:
                pass

    def ended(self, code: object) -> None:
        """Note that it died, and when to start it again."""
        now = time.monotonic()
        self.pid = 0
        self.close()
        delay = self._backoff.after(now - self._started)
        self.start_at = now + delay
        log("warning", "sidecar ended", code=code, restart_in=f"{delay:g}s")

    def close(self) -> None:
        """Close the pipes: the sidecar reads end of file and ends itself."""
        for fd in (self._control, self._ready_fd):
            if fd >= 0:
                os.close(fd)
        self._control = self._ready_fd = -1
