"""The supervisor's loop over signals and deadlines.

1. The sidecar starts, in a process group of its own. The target waits until it is ready, has died or has
   used up its time; only a sidecar that ends with 2 (the user's error) before it was ready keeps it back.
2. The target starts in a process group of its own, which is given the terminal where we had it.
3. Signals are forwarded, children reaped (adopted orphans too), a dead sidecar is started again, with
   ``restart`` a dead target as well.
4. When the target has ended for good the sidecar's control pipe is closed, and we exit with its code.
"""

import os
import time

from oomguard.supervisor.backoff import Backoff
from oomguard.supervisor.log import log
from oomguard.supervisor.sidecar import Sidecar
from oomguard.supervisor.signals import next_signal, signal
from oomguard.supervisor.spawn import NOT_EXECUTABLE, exit_code
from oomguard.supervisor.target import STOPS, Target
from oomguard.supervisor.terminal import Terminal

_USER_ERROR = 2
_BACKOFF_LONGEST = 60.0
_BACKOFF_RESET = 300.0
_RESTART_WINDOW = 3600.0
_READY_POLL = 0.01
_PARTING = ((0, 3.0), (signal.SIGTERM, 1.0), (signal.SIGKILL, 1.0))
"""What ends the sidecar at last, and for how many seconds it is waited for; first its closed pipe alone."""
_TTY_STOPS = frozenset((signal.SIGTTIN, signal.SIGTTOU))


class Supervisor:
    """The loop over signals and deadlines; `run` returns the exit code."""

    def __init__(self, settings: dict[str, str], sidecar: list[str], target: list[str]) -> None:
        mask = {int(number) for number in settings["mask"].split(",") if number}
        self.terminal = Terminal()
        self.sidecar = Sidecar(sidecar, mask)
        self.target = Target(target, mask, settings["oom_adj"] == "1", self.terminal)
        self.restart = settings["restart"] == "1"
        self.max_restarts = int(settings["max_restarts"])
        self.ready_timeout = float(settings["ready_timeout"])
        self.code: int | None = None
        """What to exit with, once that is known."""
        self._backoff = Backoff(float(settings["backoff"]), _BACKOFF_LONGEST, _BACKOFF_RESET)
        self._restarts: list[float] = []
        self._restarted = 0
        self._ended = ""
        """The last `exited` line, while no target runs."""
        self._start_at: float | None = None
        """When the target is due to start, monotonic; None while it runs."""

    def run(self) -> int:
        """Guard until the target has ended for good."""
        self.sidecar.start([])
        self._start_at = time.monotonic() + self.ready_timeout
        while self.code is None:
            self._handle(next_signal(self._patience()))
            if self.code is None:
                self._start_what_is_due(time.monotonic())
        self._end_sidecar()
        return self.code

    def _first_start(self) -> bool:
        return self._start_at is not None and not self._ended

    def _patience(self) -> float | None:
        due = [at for at in (self._start_at, self.sidecar.start_at) if at is not None]
        left = min(due) - time.monotonic() if due else None
        # Readiness comes through a pipe, which no signal announces.
        return _READY_POLL if self._first_start() else left

    def _start_what_is_due(self, now: float) -> None:
        if self.sidecar.start_at is not None and now >= self.sidecar.start_at:
            self.sidecar.start(self._state(now))
        if self._start_at is None:
            return
        first = self._first_start()
        if first and not self.sidecar.poll_ready() and self.sidecar.pid:
            if now < self._start_at:
                return
            log("warning", "sidecar not ready, starting the command", waited=f"{self.ready_timeout:g}s")
        elif not first and now < self._start_at:
            return
        self._start_target()

    def _start_target(self) -> None:
        self._start_at = None
        try:
            executed = self.target.start()
        except OSError as error:
            log("error", "no process can be started", error=error.strerror)
            self._target_ended(NOT_EXECUTABLE)
            return
        if executed:
            self.sidecar.send(f"target {self.target.pid} {self.target.ticks}")
        else:
            self.restart = False

    def _state(self, now: float) -> list[str]:
        if self.target.pid:
            return [f"target {self.target.pid} {self.target.ticks}"]
        if self._ended and self._start_at is not None:
            return [self._ended, f"restarting {max(0.0, self._start_at - now):g} {self._restarted}"]
        return []

    def _handle(self, number: int) -> None:
        if number == signal.SIGCHLD:
            self._reap()
        elif self.target.pid:
            if number == signal.SIGCONT:
                self.target.resume()
            elif number:
                self.target.forward(number)
        elif number in STOPS or number == signal.SIGHUP:
            self.code = 128 + number
        elif number == signal.SIGTSTP:
            self._stop_self()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if os.WIFSTOPPED(status):
                if pid == self.target.pid:
                    self._target_stopped(os.WSTOPSIG(status))
            elif pid == self.target.pid:
                self._target_ended(exit_code(status))
            elif pid == self.sidecar.pid:
                self._sidecar_ended(exit_code(status))

    def _sidecar_ended(self, code: int) -> None:
        if self.code is not None:
            self.sidecar.pid = 0
        elif code == _USER_ERROR and self._first_start() and not self.sidecar.poll_ready():
            self.sidecar.pid = 0
            self.code = _USER_ERROR
        else:
            self.sidecar.ended(code)

    def _target_ended(self, code: int) -> None:
        group, self.target.pid = self.target.pid, 0
        held_terminal = self.terminal.take(group)
        self._ended = f"exited {group} {code}"
        self.sidecar.send(self._ended)
        if not self.restart or self.target.meant_to_end(code, held_terminal):
            self.code = code
            return
        now = time.monotonic()
        self._restarts = [at for at in self._restarts if now - at < _RESTART_WINDOW]
        if len(self._restarts) >= self.max_restarts:
            log("error", "giving up on the command", code=code, restarts=len(self._restarts), within="1h")
            self.sidecar.send("giving-up")
            self.code = code
            return
        delay = self._backoff.after(now - self.target.started)
        self._restarts.append(now)
        self._restarted += 1
        self._start_at = now + delay
        log("warning", "command ended", code=code, restart_in=f"{delay:g}s", restart=self._restarted)
        self.sidecar.send(f"restarting {delay:g} {self._restarted}")
        try:
            # A leftover worker would hold the port that the next one needs.
            if group:
                os.killpg(group, signal.SIGTERM)
        except OSError:
            pass

    def _target_stopped(self, cause: int) -> None:
        """Follow a target that was stopped from the terminal, so that the shell shows its prompt."""
        if not self.terminal.present:
            return
        if cause in _TTY_STOPS and self.terminal.foreground() == self.terminal.group:
            # `fg` of a job that ran in the background: the shell gave us the terminal without a word.
            self.target.resume()
            return
        self._stop_self()
        # The kernel drops SIGTSTP in an orphaned process group and for PID 1, where nobody could ever
        # continue us; without us the target would not have stopped there either. One that was stopped for
        # reading in the background stays so: continued, it would read and stop again at once.
        if cause == signal.SIGTSTP and signal.SIGCONT not in signal.sigpending():
            self.target.resume()

    def _stop_self(self) -> None:
        # The whole group, as Ctrl-Z would: in `oomguard run … | tee log` tee is part of the job.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTSTP})
        os.kill(0, signal.SIGTSTP)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTSTP})

    def _end_sidecar(self) -> None:
        self.sidecar.close()
        for number, grace in _PARTING:
            if self.sidecar.pid and number:
                os.kill(self.sidecar.pid, number)
            deadline = time.monotonic() + grace
            while self.sidecar.pid and (left := deadline - time.monotonic()) > 0:
                if next_signal(left) == signal.SIGCHLD:
                    self._reap()
