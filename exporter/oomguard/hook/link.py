"""The hook's one thread: connects to the sidecar, answers it, connects again, and does what is due by the clock.

Rules that everything here keeps to:

- Nothing is imported in the thread. An import takes locks that another thread may hold for long (the main
  thread does, while it runs site's files), and a fork during one would leave them held in the child for ever.
- Every wait ends by itself, and a byte in the wake-up pipe ends it at once.
- Descriptors are plain numbers that are checked before each use (see descriptors): a socket object would
  close, when it is collected, a number that may be another's by then.
- No exception leaves the thread. During interpreter shutdown anything can be raised anywhere.
"""

from __future__ import annotations

import contextlib
import os
import sys
from select import POLLIN, POLLOUT
from time import monotonic

from oomguard.hook import protocol, unpatched
from oomguard.hook.connect import connect
from oomguard.hook.descriptors import Descriptor, pipe, stdio_is_open

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Message = dict[str, object]

_FIRST_BACK_OFF = 0.1
_LONGEST_BACK_OFF = 2.0
_LONGEST = 60.0
"""Seconds that it waits where only a byte in the pipe can bring work."""
_CHECK = 2.0
"""Seconds after which a silent connection is checked: the host may have closed its number."""
_SEND = 1.0
"""Seconds that the sidecar has to take an answer."""
_STDIO_GRACE = 1.0
"""Seconds for a daemonizing process to open its 0 to 2 again, before a socket is made beside them."""
_CHUNK = 65_536
_COUNTED = sys.version_info >= (3, 12)
_SERVING = ("alone", "connecting", "connected", "refused")


class Link:
    """One process's connection. A fork needs `park` and `resume` around it; the child makes a new Link."""

    def __init__(
        self,
        address: str | None,
        hello: Message,
        answer: Callable[[Message], Message],
        attended: Callable[[], float],
        delay: float,
    ) -> None:
        """`address` None: there is no sidecar, only the clock. `attended` does what is due by it, never raises for
        a callback of the application's, and says in how many seconds more will be.
        """
        self._address = address
        self._hello = hello
        self._answer = answer
        self._attended = attended
        self._due = 0.0
        self._woken = False
        self._retry = monotonic() + delay
        """When it may connect (again)."""
        self._mutex = unpatched.allocate_lock()
        self._alive = False
        """A thread runs, or is about to; changed under the mutex, together with what ends it."""
        self._leave = False
        self._stopped = False
        self._ended = unpatched.allocate_lock()
        """Held while the thread runs."""
        self._thread = 0
        self._task = 0
        self._wake: tuple[Descriptor, Descriptor] | None = None
        self._connection: Descriptor | None = None
        self._received = b""
        self._asked = 0
        self._back_off = _FIRST_BACK_OFF
        self._low_since: float | None = None
        self.state = "connecting" if address is not None else "alone"
        """``alone``, ``connecting``, ``connected``, ``refused``, ``stopped`` or ``failed``; for people."""
        self.reason = ""

    def start(self) -> None:
        """Start the thread; raises RuntimeError where none can be had. Called in the host's thread."""
        self._open_wake()
        self._leave = False
        self._launch()

    def stop(self, wait: float) -> None:
        """End the thread and the connection; a thread that is busy is left after `wait` seconds."""
        self._stopped = True
        ended = self._end(wait)
        self.state = "stopped"
        if ended:
            self.abandon()  # else the thread does it as its last act

    def park(self, wait: float) -> None:
        """Before a fork: end the thread, keep the connection.

        So the child copies no half-done work, and the interpreter (3.12 and later), which counts threads at
        a fork, does not warn a program of one thread that it had two. (Patch releases without
        python/cpython#137109, such as 3.13.0, count after `resume` and warn all the same.) A fork takes
        0.3 ms longer for it.
        """
        if self._end(wait) and _COUNTED:
            self._await_exit()

    def resume(self) -> None:
        """After a fork, in the parent: start the thread again, unless it was too busy to be parked."""
        with self._mutex:
            self._leave = False
            alive = self._alive
        if not alive and self.state in _SERVING:
            self._launch()

    def wake(self) -> None:
        """Have the thread look what is due; callable from any thread, and from a fork's child."""
        self._woken = True
        self._ring()

    def abandon(self) -> None:
        """Close the numbers that are still ours; the parent's connection, in a forked child."""
        self._leave = True
        connection, self._connection = self._connection, None
        wake, self._wake = self._wake, None
        for descriptor in (connection, *(wake or ())):
            if descriptor is not None:
                descriptor.close()

    # -- the host's side

    def _launch(self) -> None:
        if not self._ended.acquire(True, _SEND):
            raise RuntimeError("the thread before this one does not end")
        self._alive = True
        try:
            unpatched.start_thread(self._run)
        except BaseException:
            self._alive = False
            self._ended.release()
            raise

    def _end(self, wait: float) -> bool:
        """Ask the thread to end; whether it did."""
        with self._mutex:
            self._leave = True
            if not self._alive:
                return True
        if self._thread == unpatched.get_ident():
            return False  # a callback of the application's, in our thread, forks or stops the hook
        if not self._ring():
            return False  # nobody hears; it ends by itself within a few seconds
        if not self._ended.acquire(True, wait):
            return False
        self._ended.release()
        return True

    def _ring(self) -> bool:
        """Write a byte into the wake-up pipe; whether it will be heard."""
        wake = self._wake
        if wake is None or not wake[1].ours():
            return False
        try:
            os.write(wake[1].number, b"w")
        except BlockingIOError:
            return True  # it is full of bytes that nobody has read yet
        except OSError:
            return False
        return True

    def _await_exit(self) -> None:
        """Wait until the kernel has forgotten the thread: some microseconds after its last line."""
        until = monotonic() + 0.01
        try:
            while monotonic() < until:
                os.stat(f"/proc/self/task/{self._task}")  # noqa: PTH116 (lets the thread have the interpreter)
        except OSError:
            return

    # -- the thread's side

    def _run(self) -> None:
        try:
            self._thread = unpatched.get_ident()
            self._task = unpatched.get_native_id()
            self._loop()
        except BaseException as error:  # noqa: BLE001 (see the top of this file)
            self.state, self.reason = "failed", type(error).__name__
            self._alive = False
        finally:
            if self._stopped:
                self.abandon()
            self._ended.release()

    def _loop(self) -> None:
        while not self._leaving():
            try:
                if self._attend():
                    continue
                if self._address is None or self.state == "refused":
                    self._wait(_LONGEST)
                elif self._connection is None:
                    self._connect()
                else:
                    self._serve()
            except protocol.RefusedError as refused:
                self._drop("refused", str(refused))
            except Exception as error:  # noqa: BLE001 (MemoryError is not unlikely: the box may be full)
                self._drop("connecting", str(error)[:200] or type(error).__name__)
                self._retry = monotonic() + self._back_off
                self._back_off = min(2 * self._back_off, _LONGEST_BACK_OFF)

    def _attend(self) -> bool:
        """Do what is due; whether something was."""
        if not self._woken and monotonic() < self._due:
            return False
        self._woken = False
        left = self._attended()
        self._due = monotonic() + left
        return True

    def _leaving(self) -> bool:
        with self._mutex:
            if self._leave:
                self._alive = False
            return self._leave

    def _connect(self) -> None:
        """Connect, or wait for the time to."""
        assert self._address is not None
        now = monotonic()
        if now < self._retry:
            self._wait(self._retry - now)
            return
        if not stdio_is_open():
            self._low_since = self._low_since or now
            if now - self._low_since < _STDIO_GRACE:
                self._retry = now + _FIRST_BACK_OFF
                return
        self._low_since = None
        self._connection = connect(self._address)
        self._received = b""
        self._asked = 0
        self._send(protocol.encode(self._hello))
        self.state, self.reason = "connected", ""

    def _serve(self) -> None:
        """Answer one question, or wait for more of it."""
        line, newline, rest = self._received.partition(b"\n")
        if newline:
            self._received = rest
            question = protocol.parse(line, first=self._asked == 0)
            self._asked += 1
            answer = self._answer(question)
            if self._connection is None and self._leave:
                return  # the callback forked, and this is the child: the question was the parent's
            self._send(protocol.encode({"id": question["id"], **answer}))
            self._back_off = _FIRST_BACK_OFF
            return
        if len(line) >= protocol.MAX_LINE:
            raise protocol.MalformedError(f"a line longer than {protocol.MAX_LINE} bytes")
        self._wait(_CHECK)
        number = self._number()
        try:
            data = os.read(number, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionResetError("the sidecar closed the connection")
        self._received += data

    def _send(self, line: bytes) -> None:
        until = monotonic() + _SEND
        rest = memoryview(line)
        while rest:
            number = self._number()
            try:
                rest = rest[os.write(number, rest) :]
            except BlockingIOError:
                left = until - monotonic()
                if left <= 0:
                    raise TimeoutError("the sidecar takes no answer") from None
                poll = unpatched.poll()
                poll.register(number, POLLOUT)
                poll.poll(left * 1000)

    def _number(self) -> int:
        """Return the connection's number, after a look that it is still the connection's."""
        if self._connection is None or not self._connection.ours():
            self._connection = None
            raise ConnectionResetError("the host closed the connection")
        return self._connection.number

    def _drop(self, state: str, reason: str) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
        self.state, self.reason = state, reason

    def _wait(self, seconds: float) -> None:
        """Until the connection has something, a byte comes through the wake-up pipe, or the time is over."""
        self._open_wake()
        poll = unpatched.poll()
        connection, wake = self._connection, self._wake
        if connection is not None:
            if not connection.ours():
                return
            poll.register(connection.number, POLLIN)
        if wake is not None:
            poll.register(wake[0].number, POLLIN)
        else:
            seconds = min(seconds, _CHECK)
        left = max(0.0, min(seconds, self._due - monotonic()))
        for number, _ in poll.poll(left * 1000):
            if wake is not None and number == wake[0].number and wake[0].ours():
                with contextlib.suppress(BlockingIOError):
                    os.read(number, _CHUNK)

    def _open_wake(self) -> None:
        """Make the wake-up pipe, or make it again where the host has closed it."""
        wake = self._wake
        if wake is not None and wake[0].ours() and wake[1].ours():
            return
        self.abandon_wake()
        try:
            self._wake = pipe() if stdio_is_open() or not self._alive else None
        except OSError:
            self._wake = None  # no descriptor left: waits end by themselves

    def abandon_wake(self) -> None:
        """Close what is left of the wake-up pipe."""
        wake, self._wake = self._wake, None
        for descriptor in wake or ():
            descriptor.close()
