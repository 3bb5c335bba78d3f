"""A model in a process of its own: unloading it gives back everything, the imports of its libraries included.

Calls are sent there one at a time, in the order in which they come: others wait for their turn. A process that
vanishes in a call is started anew, once, and the call repeated. Arguments and answers are pickled outside the
turn, since that runs code of the application's.
"""

from __future__ import annotations

import _thread
import sys
import time
from contextlib import contextmanager
from time import monotonic

from oomguard.hook import unpatched
from oomguard.hook.models import inside, keeper, sent
from oomguard.hook.models.channel import ChannelClosed, encode
from oomguard.hook.models.errors import ModelProcessDied, ModelUnavailable
from oomguard.hook.models.process import Process
from oomguard.hook.oomkills import OomKills

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from oomguard.hook.models.channel import Segments
    from oomguard.hook.parts import Core

_GRACE = 2.0
"""Seconds in which the process may end by itself: what it registered with atexit runs."""
_DYING = 2.0
"""Seconds from the end of its channel to the end of the process: memory is given back in between."""
_LOOK = 0.05
"""Seconds; who waits for a turn looks so often whether a signal has come."""
_GREEN = 0.002
"""Seconds between two looks of a greenlet."""
_COUNTED = 1.0
"""Seconds after which the kernel's counter is read again (23 microseconds)."""


class Isolated:
    """Where such a model is, for `Model`. The turn is a native lock that only callers of the model wait for."""

    isolated = True

    def __init__(self, name: str, load: Callable[[], object], core: Core) -> None:
        self.name = name
        self._load_by_name = sent.name_of(name, load)
        self._kills = OomKills()
        if self._kills.group_kill():
            core.warn(
                f"model {name!r}: memory.oom.group is set here: the kernel kills the service together with the "
                "model's process"
            )
        self._process: Process | None = None
        self.methods: frozenset[str] = frozenset()
        """Of the model's class; whatever else is asked for may be a plain value."""
        self._turn = unpatched.allocate_lock()
        self._owner: int | None = None
        self._starts = 0
        self._exits = {"oom_kill": 0, "unknown": 0}
        self._count: int | None = None
        self._counted = 0.0

    @property
    def lost(self) -> bool:
        """Whether its process died."""
        return self._process is None

    @property
    def busy(self) -> bool:
        """Whether a proxy that somebody kept is being called."""
        return self._turn.locked()

    @property
    def pid(self) -> int | None:
        """Of the process, while there is one."""
        process = self._process
        return None if process is None else process.pid

    def load(self) -> tuple[object, int | None]:
        """Start a process and let it load; its proxy, and the memory of the whole process (bytes).

        Raises what the application's `load` does, `ModelProcessDied`, and OSError where no process can be had.
        """
        if inside.name is not None:
            raise ModelUnavailable(
                f"model {self.name!r} is asked for in the process of the isolated model {inside.name!r}: "
                "put its load into a module that asks for no model when it is imported"
            )
        with self._my_turn():
            if self._process is not None:  # a call outside of any `with` kept the last unload from ending it
                self._process.end(0.0, time.sleep)
                self._process = None
            try:
                process = self._start()
            except ChannelClosed:
                self._ended(_DYING, time.sleep)
                process = self._start_again()
            return Proxy(self), process.memory()

    def ask(self, kind: str, name: str, arguments: tuple[object, ...], keywords: dict[str, object]) -> Any:
        """Call a method there, or get an attribute; returns and raises what it does there.

        Raises `ModelProcessDied`, and `ModelUnavailable` for a model that was unloaded.
        """
        message = encode((kind, name, arguments, keywords))
        with self._my_turn():
            answer = self._ask(message)
        return sent.outcome(answer)

    def _ask(self, message: Segments) -> Segments:
        process = self._process
        if process is None:
            raise ModelUnavailable(f"model {self.name!r} was unloaded: call it only inside `with`")
        now = monotonic()
        stale = now - self._counted > _COUNTED
        count = self._kills.count() if stale else None
        try:
            answer = process.ask(message)
        except ChannelClosed:
            self._ended(_DYING, time.sleep)
        else:
            if stale:  # it answered after the counter was read, so it is not one of those counted
                self._count, self._counted = count, now
            return answer
        process = self._start_again()
        try:
            return process.ask(message)
        except ChannelClosed:
            raise ModelProcessDied(self.name, self._ended(_DYING, time.sleep)) from None

    def _start(self) -> Process:
        """Start a process and wait until it has loaded.

        Raises `ChannelClosed` where it vanishes, OSError or RuntimeError where none can be had, and what `load` does.
        """
        self._count, self._counted = self._kills.count(), monotonic()
        self._starts += 1
        process = self._process = Process(self.name)
        try:
            answer = process.ask(encode(("load", self._load_by_name, list(sys.path), list(sys.argv))))
            self.methods = frozenset(sent.outcome(answer))
        except ChannelClosed:
            raise
        except BaseException:  # of the application's load, or Ctrl-C
            self._process = None
            process.end(0.0, time.sleep)
            raise
        return process

    def _start_again(self) -> Process:
        """As `_start`, for the second process, which is the last one: raises `ModelProcessDied`."""
        try:
            return self._start()
        except ChannelClosed:
            raise ModelProcessDied(self.name, self._ended(_DYING, time.sleep)) from None

    def _ended(self, grace: float, sleep: Callable[[float], None]) -> str:
        """Count the end of the process that vanished; its reason, ``oom_kill`` or ``unknown``."""
        process, self._process = self._process, None
        assert process is not None
        process.end(grace, sleep)
        count = self._kills.count()
        rose = count is not None and self._count is not None and count > self._count
        # Where somebody else has reaped it, how it ended is not known: then the counter alone tells.
        reason = "oom_kill" if rose and process.killed() is not False else "unknown"
        self._exits[reason] += 1
        return reason

    # -- the hook's thread

    def unload(self, held: list[object]) -> int | None:
        """End the process; the bytes that it held."""
        held.clear()
        if not self._turn.acquire(False):
            return None
        try:
            process, self._process = self._process, None
            if process is None:
                return 0
            memory = process.memory()
            process.end(_GRACE, unpatched.sleep)
            return memory
        finally:
            self._turn.release()

    def check(self) -> None:
        """Notice and count a process that vanished while nobody called it."""
        if not self._turn.acquire(False):
            return
        try:
            if self._process is not None and self._process.gone():
                self._ended(0.0, unpatched.sleep)
        finally:
            self._turn.release()

    def child(self) -> dict[str, object]:
        """One of the `children` of a reading."""
        process = self._process
        return {
            "name": self.name,
            "alive": process is not None,
            "starts": self._starts,
            "exits": dict(self._exits),
            "pid": None if process is None else process.pid,
        }

    def forked(self) -> bool:
        """In a forked child: the process is the parent's."""
        process, self._process = self._process, None
        if process is not None:
            process.abandon()
        keeper.forked()
        self._turn, self._owner = unpatched.allocate_lock(), None
        self._starts = 0
        self._exits = dict.fromkeys(self._exits, 0)
        return False

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        """Wait for the turn and have it; greenlets let each other run meanwhile."""
        me = _thread.get_ident()  # of a greenlet, where gevent has patched
        if self._owner == me:
            raise ModelUnavailable(f"model {self.name!r} is asked for by what interrupted a call of it")
        turn = self._turn
        while not turn.acquire(False):
            if unpatched.patched():
                time.sleep(_GREEN)
            elif turn.acquire(True, _LOOK):
                break
        self._owner = me
        try:
            yield
        finally:
            self._owner = None
            turn.release()


class Proxy:
    """What `with` gives of an isolated model: calls and attributes are those of the model in its process.

    Arguments and answers are pickled; what they are made of is imported on both sides, so numpy's arrays are a
    better answer than torch's tensors. An exception of the model is raised here, with its traceback there as the
    cause; one of a class that is not imported here comes as a RuntimeError that names it. Attributes can be read,
    not set.
    """

    __slots__ = ("_isolated",)

    def __init__(self, isolated: Isolated) -> None:
        object.__setattr__(self, "_isolated", isolated)

    def __call__(self, *arguments: object, **keywords: object) -> Any:  # noqa: D102 (see the class)
        return self._isolated.ask("call", "__call__", arguments, keywords)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(f"{name} of an isolated model can't be asked for")
        isolated: Isolated = self._isolated
        if name not in isolated.methods:
            found, value = isolated.ask("get", name, (), {})
            if found:
                return value
        return lambda *arguments, **keywords: isolated.ask("call", name, arguments, keywords)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} of an isolated model can't be set from here: set it in load")

    def __repr__(self) -> str:
        return f"<isolated model {self._isolated.name!r}, process {self._isolated.pid}>"
