"""The hook in this process: its thread and connection, and what ties them to the process's life."""

from __future__ import annotations

import atexit
import os
import sys
from time import monotonic

from oomguard import __version__
from oomguard.hook import protocol, unpatched
from oomguard.hook.answers import Answers
from oomguard.hook.chores import NEVER, Chores
from oomguard.hook.link import Link

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeVar

    from oomguard.hook.parts import Part, Take

    P = TypeVar("P", bound=Part)

_FORK_DELAY = 0.05
"""Seconds. A child that only forks to exec is gone by then and leaves no trace at the sidecar."""
_PARK = 0.1
"""Seconds that a fork waits for the hook's thread; it goes on without it while a longer step is under way."""
_EXIT = 0.05
"""Seconds that the end of the process waits for it."""
_OWNER = "_oomguard_process"
"""Where `sys` remembers whose the process is: a second copy of this package must not serve it as well."""


class Process:
    """One for a process. `environ` is looked at when something needs it: the application may fill it late."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._chores = Chores(self._attend, self._wake)
        self.answers = Answers(environ, self._chores)
        self.core = self.answers.core
        self.followers: list[Callable[[], None]] = []
        """What else must begin anew in a forked child."""
        self.state = ("off", "not started")
        """State and reason while there is no connection to ask."""
        self.noted: Callable[[object], None] | None = None
        """Told of each reading that the sidecar asks for, and what it says with it of its thresholds."""
        self._link: Link | None = None
        self._address: str | None = None
        self._forked = False
        self._begun = False
        self._here = True
        """False in a process that only forks others: it holds nothing itself."""
        self._stopped = False
        self._registered = False
        self.changing = unpatched.allocate_rlock()
        """Held for the moment in which a thread or a part is made; a `__del__` may come in between."""

    # -- what the guard asks for

    def begin(self, *, here: bool = True, acts: bool = False) -> bool:
        """Start, as the environment says; with `here` false only in children that are forked from here.

        `acts`: it is to act without a sidecar. Done once, however many threads call; whether it has begun, which it
        has not where the hook is off or another copy serves the process. Never raises.
        """
        configured = bool(self.core.environ.get("OOMGUARD_RUNTIME_DIR"))
        if (self._begun and (self.configured or not configured)) or not self.changing.acquire(False):
            return self._begun
        try:
            return self._begin(here=here, acts=acts)
        except Exception as error:  # noqa: BLE001 (the host must start, whatever happens)
            self.state = ("failed", f"{type(error).__name__}: {error}"[:200])
            return False
        finally:
            self.changing.release()

    def _begin(self, *, here: bool, acts: bool) -> bool:
        environ = self.core.environ
        self._stopped = False
        if self.off:
            self.state = ("off", "OOMGUARD_HOOK=0")
            return False
        address = environ.get("OOMGUARD_RUNTIME_DIR") or None
        if address is None:
            self.state = ("off", "OOMGUARD_RUNTIME_DIR is not set: no sidecar")
        if (address is not None or acts) and sys.__dict__.setdefault(_OWNER, self) is not self:
            self.state = ("off", "another copy of oomguard serves this process")
            return False
        self._address = address
        self._register()
        self._begun = True
        self._here = here
        if self._link is not None:
            self._link.stop(_PARK)  # it has served the clock alone
        if here and (self._address is not None or len(self._chores)):
            self._connect(delay=0.0)
        return True

    @property
    def off(self) -> bool:
        """Whether the environment turns the hook off."""
        return self.core.environ.get("OOMGUARD_HOOK") == "0"

    @property
    def configured(self) -> bool:
        """Whether there should be a sidecar."""
        return self._address is not None

    @property
    def told(self) -> tuple[str, str]:
        """State and reason, for people."""
        link = self._link
        if link is None:
            return self.state
        if not self.configured:
            return link.state, "there is no sidecar: only what is due by the clock is done"
        return link.state, link.reason

    def stop(self) -> None:
        """End the thread and the connection, here and in children yet to come; `begin` begins again."""
        self._begun = False
        self._stopped = True
        self.state = ("stopped", "")
        link, self._link = self._link, None
        if link is not None:
            link.stop(_PARK)
        self.answers.stop()
        if sys.__dict__.get(_OWNER) is self:
            del sys.__dict__[_OWNER]

    def part(self, name: str, make: Callable[[], P]) -> P:
        """Return the part of this name, which is made when it is first asked for; `make` imports nothing.

        An import takes locks: one that waits for ours while we wait for it would never end.
        """
        parts = self.answers.parts
        found = parts.get(name)
        if found is None:
            with self.changing:
                found = parts.get(name)
                if found is None:
                    found = parts[name] = make()
                    self._register()
        return found  # type: ignore[return-value]  # of the type that `make` has made

    def take_in(self, parts: Mapping[str, Part], takes: Mapping[str, Take]) -> None:
        """Take in parts that were made together, and the steps that they take."""
        self.answers.parts.update(parts)
        self._register()
        for step, take in takes.items():
            self.answers.add_step(step, take)

    # -- the thread

    def _attend(self) -> None:
        """There is something to do by the clock: somebody must."""
        if self._link is not None or self.off or self._stopped or not self._here:
            return
        with self.changing:
            if self._link is None:
                self._register()
                try:
                    self._connect(delay=0.0)
                except Exception as error:  # noqa: BLE001 (the application goes on without)
                    self.core.warn(f"no thread could be started: {type(error).__name__}: {error}")

    def _wake(self) -> None:
        link = self._link
        if link is not None:
            link.wake()

    def _connect(self, delay: float) -> None:
        self.answers.equip()
        link = Link(self._address, self._hello(), self._answer, self._attended, delay)
        self._link = link
        try:
            link.start()
        except BaseException:
            self._link = None
            raise

    def _attended(self) -> float:
        """Do what is due by the clock; seconds until more is."""
        if not len(self._chores):
            return NEVER
        with self.core.work:
            return self._chores.run(monotonic())

    def _register(self) -> None:
        if self._registered:
            return
        self._registered = True
        os.register_at_fork(
            before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._in_child
        )
        atexit.register(self._at_exit)

    def equip(self) -> None:
        """Make what steps and readings need, and follow forks, though there may be no thread."""
        self._register()
        self.answers.ready()

    # -- what the sidecar is told

    def _hello(self) -> dict[str, object]:
        return {
            "hello": protocol.VERSION,
            "pid": os.getpid(),
            "start_ticks": _start_ticks(),
            "pidns": _pid_namespace(),
            "target": self.core.environ.get("OOMGUARD_TARGET", ""),
            "runtime": "python",
            "runtime_version": ".".join(map(str, sys.version_info[:3])),
            "hook_version": __version__,
            "forked": self._forked,
        }

    def _answer(self, question: dict[str, object]) -> dict[str, object]:
        ask = question["ask"]
        if ask == "ping":
            return {"ping": {}}
        if ask == "reading":
            if self.noted is not None:
                self.noted(question.get("thresholds"))
            with self.core.work:
                return {"reading": self.answers.reading()}
        if ask == "step":
            return {"step": self.answers.run(question)}
        return {"error": f"unknown ask {str(ask)[:40]!r}"}

    # -- the life of the process; none of these may raise: Python would print it in the host's name

    def _before_fork(self) -> None:
        try:
            if self._link is not None:
                self._link.park(_PARK)
        except BaseException as error:  # noqa: BLE001 (a second Ctrl-C, too, would be printed by the interpreter)
            self.state = ("failed", str(error))

    def _after_fork(self) -> None:
        try:
            if self._link is not None:
                self._link.resume()
        except BaseException as error:  # noqa: BLE001 (a second Ctrl-C, too, would be printed by the interpreter)
            self.state = ("failed", str(error))

    def _in_child(self) -> None:
        try:
            self.changing = unpatched.allocate_rlock()  # its holder may not have come along
            if self._link is not None:
                self._link.abandon()
                self._link = None
            self._forked = True
            self.answers.forked()
            for forked in self.followers:
                forked()
            self._here = True
            if not self._stopped and (self._address is not None or len(self._chores)):
                self._connect(delay=_FORK_DELAY)
        except BaseException as error:  # noqa: BLE001 (a second Ctrl-C, too, would be printed by the interpreter)
            self.state = ("failed", str(error))

    def _at_exit(self) -> None:
        try:
            if self._link is not None:
                self._link.stop(_EXIT)
            self.answers.stop()
        except BaseException as error:  # noqa: BLE001 (a second Ctrl-C, too, would be printed by the interpreter)
            self.state = ("failed", str(error))


def _start_ticks() -> int | None:
    """Field 22 of /proc/self/stat (proc_pid_stat(5)); comm may hold spaces and parentheses."""
    try:
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 (pathlib costs 3 ms)
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _pid_namespace() -> int | None:
    try:
        return os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 (as above)
    except OSError:
        return None
