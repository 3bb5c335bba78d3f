"""The guarded command: started, signalled, and judged by how it ended."""

import os
import sys
import time

from oomguard.supervisor.log import log
from oomguard.supervisor.signals import signal
from oomguard.supervisor.spawn import spawn, start_ticks
from oomguard.supervisor.terminal import Terminal

_OOM_SCORE_STEP = 100
_OOM_SCORE_MAX = 1000
"""OOM_SCORE_ADJ_MAX of linux/oom.h."""

STOPS = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT))
"""A target that ends after one of these was forwarded was meant to end."""
_TERMINAL_ENDS = frozenset((signal.SIGHUP, signal.SIGINT, signal.SIGQUIT))
_TO_GROUP = frozenset((signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP))
"""What a terminal sends, it sends to a whole process group."""


class Target:
    """The guarded command."""

    def __init__(self, argv: list[str], mask: set[int], oom_adj: bool, terminal: Terminal) -> None:
        self.argv = argv
        self.mask = mask
        self.oom_adj = oom_adj
        self.terminal = terminal
        self.pid = 0
        self.ticks = 0
        self.started = 0.0
        self.forwarded: set[int] = set()
        """Signals that it was sent through us."""
        self._told = False

    def start(self) -> bool:
        """Start it; False, with a line on stderr, if it could not be executed."""
        self.forwarded.clear()
        self.started = time.monotonic()
        self.pid, reports = spawn(self.argv, dict(os.environ), self.mask, self._prepare)
        self.ticks = start_ticks(self.pid)
        executed = True
        for name, number in reports:
            reason = os.strerror(number)
            if name == "exec":
                executed = False
                log("error", "command can't be executed", command=self.argv[0], error=reason)
            elif not self._told:
                self._told = True
                log("warning", "oom_score_adj can't be raised", error=reason)
        return executed

    def _prepare(self, report: int) -> None:
        self.terminal.give(os.getpid())
        if self.oom_adj and sys.platform == "linux":
            try:
                fd = os.open("/proc/self/oom_score_adj", os.O_RDWR)
                score = min(int(os.read(fd, 16)) + _OOM_SCORE_STEP, _OOM_SCORE_MAX)
                os.pwrite(fd, b"%d" % score, 0)
                os.close(fd)
            except OSError as error:
                os.write(report, b"oom_score_adj %d\n" % (error.errno or 0))

    def forward(self, number: int) -> None:
        """Send it a signal; what a terminal would send goes to its whole group."""
        self.forwarded.add(number)
        self._kill(number, whole_group=number in _TO_GROUP)

    def resume(self) -> None:
        """Continue its group, in the foreground if we are there."""
        self.terminal.give(self.pid)
        self._kill(signal.SIGCONT, whole_group=True)

    def _kill(self, number: int, *, whole_group: bool) -> None:
        try:
            # Safe from reused PIDs: until we reap it, the number stays its own.
            (os.killpg if whole_group else os.kill)(self.pid, number)
        except OSError as error:
            log("warning", "signal can't be forwarded", signal=number, error=error.strerror)

    def meant_to_end(self, code: int, held_terminal: bool) -> bool:
        """Whether an end with `code` was wanted, so that no restart may follow."""
        if code == 0 or self.forwarded & STOPS:
            return True
        # Ctrl-C reaches the foreground group without us; how the target ended is all we see of it.
        killer = code - 128
        return killer in _TERMINAL_ENDS and (held_terminal or killer in self.forwarded)
