"""The hook in this process: its thread and connection, its parts, and what ties them to the process's life."""

from __future__ import annotations

import atexit
import os
import sys
from time import monotonic

from oomguard import __version__
from oomguard.hook import protocol, unpatched
from oomguard.hook.allocator import Allocator
from oomguard.hook.caches import Caches
from oomguard.hook.chores import NEVER, Chores
from oomguard.hook.gcstats import GcWatch, mostly_frozen
from oomguard.hook.link import Link
from oomguard.hook.parts import Core, Released, Stopwatch, resident
from oomguard.hook.statm import Statm
from oomguard.hook.steps import Steps

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
_BUSY = 0.1
"""Seconds that a caller of /admin/memory waits for a step to end before it gets the last reading."""
_MOST_ENTRIES = 100
"""Of a list in a reading (docs/hook-protocol.md)."""
_OWNER = "_oomguard_process"
"""Where `sys` remembers whose the process is: a second copy of this package must not serve it as well."""


class Process:
    """One for a process. `environ` is looked at when something needs it: the application may fill it late."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.caches = Caches()
        self.parts: dict[str, Part] = {}
        self.followers: list[Callable[[], None]] = []
        """What else must begin anew in a forked child."""
        self.state = ("off", "not started")
        """State and reason while there is no connection to ask."""
        self.noted: Callable[[object], None] | None = None
        """Told of each reading that the sidecar asks for, and what it says with it of its thresholds."""
        self._chores = Chores(self._attend, self._wake)
        self.core = Core(environ, self._chores, unpatched.allocate_rlock(), self._release, self._retained)
        self._watch = GcWatch()
        self._statm = Statm()
        self._allocator: Allocator | None = None
        self._steps: Steps | None = None
        self._takes: dict[str, Take] = {}
        self._link: Link | None = None
        self._address: str | None = None
        self._last: tuple[float, dict[str, object]] | None = None
        """The last reading, and when it was taken (monotonic)."""
        self._forked = False
        self._shared_heap = False
        self._frozen = False
        """The application has frozen the heap through us: what is out of reach counts, however little it looks."""
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
        self._watch.remove()
        if sys.__dict__.get(_OWNER) is self:
            del sys.__dict__[_OWNER]

    def part(self, name: str, make: Callable[[], P]) -> P:
        """Return the part of this name, which is made when it is first asked for; `make` imports nothing.

        An import takes locks: one that waits for ours while we wait for it would never end.
        """
        found = self.parts.get(name)
        if found is None:
            with self.changing:
                found = self.parts.get(name)
                if found is None:
                    found = self.parts[name] = make()
                    self._register()
        return found  # type: ignore[return-value]  # of the type that `make` has made

    def take_in(self, parts: Mapping[str, Part], takes: Mapping[str, Take]) -> None:
        """Take in parts that were made together, and the steps that they take."""
        self.parts.update(parts)
        self._register()
        for step, take in takes.items():
            self.add_step(step, take)

    def add_step(self, step: str, take: Take) -> None:
        """Have a part take a step of the ladder."""
        self._takes[step] = take
        if self._steps is not None:
            self._steps.add(step, take)

    def step(self, step: str, name: str | None = None, within: float = NEVER) -> dict[str, object]:
        """Take a step; blocks while another is under way."""
        return self._step({"step": step, "name": name, "within": within})

    def turn(self, turn: str) -> dict[str, object]:
        """Take a step as people write it: ``caches``, or ``caches:bulk`` for one cache alone."""
        step, _, name = turn.partition(":")
        return self.step(step, name or None)

    def read(self) -> tuple[dict[str, object], float | None]:
        """Take a reading, or return the last one and its age in seconds while a step is under way."""
        work = self.core.work  # a callback that forks gets another one in the child
        if work.acquire(True, _BUSY):
            try:
                return self._reading(peek=True), 0.0
            finally:
                work.release()
        if self._last is None:
            return {}, None
        taken, reading = self._last
        return reading, monotonic() - taken

    def freeze(self) -> int:
        """Collect, trim, and put the whole heap out of reach of collections; the number of frozen objects."""
        import gc  # noqa: PLC0415 (in the application's thread)

        self._equip_once()
        work = self.core.work
        if work.acquire(True, _BUSY):  # else a callback of the application's is under way, which may hang
            try:
                self._release()
            finally:
                work.release()
        gc.freeze()
        self._frozen = True
        return gc.get_freeze_count()

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
        self._equip()
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
        self._equip_once()

    def _equip_once(self) -> None:
        if self._steps is None:
            self._equip()

    def _equip(self) -> None:
        """Everything that a thread needs is made here, in the host's thread, before there is one."""
        self._statm.open()
        if self._allocator is None:
            self._allocator = Allocator(self._statm)
            self._allocator.reading()  # the slack before the application has allocated anything
        steps = Steps(self.caches, self._watch, self._allocator, shared_heap=self._shared_heap)
        for step, take in self._takes.items():
            steps.add(step, take)
        self._steps = steps
        self._watch.install()

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
                return {"reading": self._reading()}
        if ask == "step":
            return {"step": self._step(question)}
        return {"error": f"unknown ask {str(ask)[:40]!r}"}

    def _step(self, question: dict[str, object]) -> dict[str, object]:
        self._equip_once()
        assert self._steps is not None
        with self.core.work:
            return self._steps.run(question)

    def _reading(self, *, peek: bool = False) -> dict[str, object]:
        """Take a reading; with `peek` it is a person's, and must not take from the sidecar what it has not seen yet."""
        self._equip_once()
        assert self._allocator is not None
        reading: dict[str, object] = {
            "gc": _guarded(self._gc),
            "allocator": _guarded(self._allocator.reading),
            "caches": self.caches.reading(),
        }
        for name, part in list(self.parts.items()):
            self._read_part(name, getattr(part, "peek", part.reading) if peek else part.reading, reading)
        for name, entries in list(reading.items()):
            if isinstance(entries, list) and len(entries) > _MOST_ENTRIES:
                reading[name] = sorted(entries, key=lambda one: one.get("bytes") or 0, reverse=True)[
                    :_MOST_ENTRIES
                ]
                reading[f"{name}_omitted"] = len(entries) - _MOST_ENTRIES
                self.core.warn(f"{name}: the sidecar is told of the {_MOST_ENTRIES} largest only")
        warnings = [*self.caches.warnings, *self.core.warnings]
        if warnings:
            reading["warnings"] = warnings
        self._last = (monotonic(), reading)
        return reading

    def _gc(self) -> dict[str, object]:
        reading = self._watch.reading()
        return {**reading, "frozen": True} if self._frozen else reading

    def _read_part(self, name: str, read: Callable[[], object], reading: dict[str, object]) -> None:
        try:
            reading[name] = read()
        except Exception as error:  # noqa: BLE001 (one part of a reading must not take the others along)
            self.core.warn(f"{name}: can't be read: {type(error).__name__}: {error}")

    def _release(self) -> Released:
        """See `Core.release`."""
        self._equip_once()
        assert self._steps is not None
        assert self._allocator is not None
        before, watch = resident(), Stopwatch()
        collected = self._steps.run({"step": "gc"})["details"]
        self._steps.run({"step": "trim"})
        after = resident()
        count = collected.get("collected") if isinstance(collected, dict) else None
        return Released(
            count if isinstance(count, int) else None,
            None if before is None or after is None else before - after,
            watch.read()[0],
            trims=self._allocator.trims,
        )

    def _retained(self) -> int | None:
        """See `Core.retained`."""
        self._equip_once()
        assert self._allocator is not None
        retained = self._allocator.reading().get("retained")
        return retained if isinstance(retained, int) else None

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
            self.core.work = unpatched.allocate_rlock()
            if self._link is not None:
                self._link.abandon()
                self._link = None
            self._statm.close()
            self._forked = True
            # Asked now: what the child allocates later would make the frozen part look small.
            self._shared_heap = not (self._frozen or mostly_frozen())
            self._watch.forked()
            self.caches.forked()
            for forked in (*self.followers, *(part.forked for part in list(self.parts.values()))):
                forked()
            self._here = True
            if not self._stopped and (self._address is not None or len(self._chores)):
                self._connect(delay=_FORK_DELAY)
            elif self._steps is not None:
                self._equip()
        except BaseException as error:  # noqa: BLE001 (a second Ctrl-C, too, would be printed by the interpreter)
            self.state = ("failed", str(error))

    def _at_exit(self) -> None:
        try:
            if self._link is not None:
                self._link.stop(_EXIT)
            self._watch.remove()
        except BaseException as error:  # noqa: BLE001 (a second Ctrl-C, too, would be printed by the interpreter)
            self.state = ("failed", str(error))


def _guarded(read: Callable[[], dict[str, object]]) -> dict[str, object]:
    try:
        return read()
    except Exception as error:  # noqa: BLE001 (one part of a reading must not take the others along)
        return {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:200]}


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
