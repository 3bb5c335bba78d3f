"""Child processes that may be shot, and are started again for those who call them.

A child has one life after another. A call that finds the pipe broken ends that life, however many calls find the same
one broken; the first of them starts the next, the others wait for it or are told at once. Why a life ended is judged
from the kernel's counter of OOM kills (`oomguard.hook.oomkills`): whether it rose between the last moment in which
the child is known to have lived and the first in which it is known to be gone.
"""

from __future__ import annotations

from contextvars import ContextVar
from time import monotonic
from typing import Any, Generic, TypeVar

from oomguard.hook import unpatched
from oomguard.hook.children.broken import is_broken
from oomguard.hook.children.effects import Call, Pause, Wait, drive, drive_async
from oomguard.hook.children.lives import Life, kill
from oomguard.hook.children.resets import wants_one
from oomguard.hook.limits.waiting import TaskWaiter, ThreadWaiter
from oomguard.hook.oomkills import OomKills
from oomguard.hook.sizes import check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from oomguard.hook.children.effects import Course, Outcome
    from oomguard.hook.limits.waiting import Waiter
    from oomguard.hook.parts import Core

H = TypeVar("H")
R = TypeVar("R")

REASONS = ("oom_kill", "unknown")
_PAUSE = 1.0
"""Seconds between the two tries of an idempotent call."""
_PATIENCE = 60.0
"""Seconds that a call waits for a start which another call has begun."""


class ChildDied(OSError):  # noqa: N818 (the public name says what happened)
    """A child process was gone when it was called. `child` is its name, `reason` ``oom_kill`` or ``unknown``."""

    def __init__(self, text: str, *, child: str = "", reason: str = "unknown") -> None:
        super().__init__(text)
        self.child = child
        self.reason = reason


class _Flight:
    """A start that is under way, and who waits for it."""

    __slots__ = ("failure", "life", "waiters")

    def __init__(self) -> None:
        self.life: Life | None = None
        self.failure: BaseException | None = None
        self.waiters: list[Waiter] = []


_inside: ContextVar[tuple[_Flight, ...]] = ContextVar("oomguard_child_starts", default=())
"""The starts that the running code is part of: `reset` may call the child that it is the reset of."""


class Child(Generic[H]):
    """One child process; may be called by any number of threads, greenlets and tasks. Made by `Children.register`."""

    def __init__(
        self,
        name: str,
        start: Callable[[], Any],
        reset: Callable[..., object] | None,
        core: Core,
        kills: OomKills,
        *,
        told: bool,
        pause: float,
        patience: float,
    ) -> None:
        self.name = name
        self.start = start
        self.reset = reset
        self._core = core
        self._kills = kills
        self._told = told
        """Whether `reset` wants the old handle."""
        self._pause = pause
        self._patience = patience
        self._inherited: list[Life] = []
        self._begin()

    def call(self, function: Callable[[H], R], *, idempotent: bool = False) -> R:
        """Call `function` with what `start` returned, and return what it returns.

        The child is started by the first call. If the pipe breaks under a call (see `broken.py`), the child
        is started again and `reset` is called, with the handle of the dead one if it has a parameter for it;
        what `reset` raises becomes a warning. The call is then tried once more, 1 s later, if it is
        `idempotent`; otherwise, or if that fails in the same way, ChildDied is raised. All other errors of
        `function`, and those of the first start, are raised as they are.

        A handle with a `pid` and a `kill` (subprocess.Popen) that still runs although its pipe is broken is killed:
        nobody can speak to it any more.
        """
        result: R = drive(self._course(function, ThreadWaiter, idempotent=idempotent))
        return result

    async def call_async(
        self, function: Callable[[H], Awaitable[R]] | Callable[[H], R], *, idempotent: bool = False
    ) -> R:
        """As `call`, for a task: `function`, `start` and `reset` may be coroutine functions.

        A plain `start` or `reset` runs in a thread of the loop's executor.
        """
        result: R = await drive_async(self._course(function, TaskWaiter, idempotent=idempotent))
        return result

    def reading(self, kills: int | None) -> dict[str, object]:
        """What the sidecar is told. A child that has gone meanwhile is noticed here, long before it is called."""
        life = self._life
        alive = life is not None and life.runs()
        if life is not None:
            if alive:
                life.look(monotonic(), kills)
            else:
                self._judge(life, self._kills.count())  # once more: the first may be from before its end
        return {
            "name": self.name,
            "alive": alive,
            "starts": self._starts,
            "exits": dict(self._exits),
            "pid": life.pid if life is not None and alive else None,
        }

    def forked(self) -> None:
        """Begin anew in a forked child: the parent's children are not its own, and two must not use one pipe."""
        if self._life is not None:
            self._inherited.append(
                self._life
            )  # never let go of: asyncio's transports kill in their finalizers
        self._begin()

    def _begin(self) -> None:
        self._lock = unpatched.allocate_rlock()
        self._life: Life | None = None
        self._flight: _Flight | None = None
        self._gone: Life | None = None
        """The last one that was buried, until `reset` has been told."""
        self._starts = 0
        self._exits = dict.fromkeys(REASONS, 0)

    # -- a call

    def _course(self, function: Callable[[H], Any], kind: type[Waiter], *, idempotent: bool) -> Course:
        own = self._own_flight()
        if own is not None:
            return (yield from self._from_within(own, function))
        died: ChildDied | None = None
        for again in (idempotent, False):
            life, failure = yield from self._ready(kind)
            if failure is not None:
                return None, _because(died, failure)
            kills = self._kills.count()
            value, error = yield self._call_of(function, life)
            if not is_broken(error):
                if error is None:
                    life.answered(kills)
                return value, error
            died = self._bury(life, error, again=again)
            _, failure = yield from self._ready(kind, only_lead=True)
            if again and (failure is None or isinstance(failure, Exception)):
                _, failure = yield Pause(self._pause)
                if failure is None:
                    continue
            return None, _because(died, failure)
        raise AssertionError("the second try has returned")

    def _from_within(self, flight: _Flight, function: Callable[[H], Any]) -> Course:
        """A call by `start` or `reset`, which others wait for: it starts nothing."""
        life = flight.life
        if life is None:
            return None, RuntimeError(
                f"child {self.name!r}: called by its own start, before there is a child"
            )
        value, error = yield self._call_of(function, life)
        return (None, self._bury(life, error, again=False)) if is_broken(error) else (value, error)

    def _call_of(self, function: Callable[[H], Any], life: Life) -> Call:
        return Call(f"child {self.name!r}: what is called", function, life.handle)

    def _own_flight(self) -> _Flight | None:
        flight = self._flight
        return flight if flight is not None and flight in _inside.get() else None

    # -- the end of a life

    def _bury(self, life: Life, error: BaseException | None, *, again: bool) -> ChildDied:
        """End a life because its pipe is broken; the error for the caller."""
        reason = self._judge(life, self._kills.count())
        with self._lock:
            if self._life is life:
                self._life = None
            first, life.buried = not life.buried, True
            if first:
                self._gone = life
        if first:
            kill(life.handle)
        why = "was killed by the kernel's OOM killer" if reason == "oom_kill" else "is gone, nobody knows why"
        tried = "" if again else "; if the call may be repeated, pass idempotent=True"
        died = ChildDied(f"child {self.name!r} {why} ({_text(error)}){tried}", child=self.name, reason=reason)
        died.__cause__ = error
        return died

    def _judge(self, life: Life, kills: int | None) -> str:
        """Say why a life ended, the first time that somebody sees that it has; counted once."""
        with self._lock:
            if life.reason is None:
                rose = kills is not None and life.kills is not None and kills > life.kills
                life.reason = "oom_kill" if rose else "unknown"
                self._exits[life.reason] += 1
            return life.reason

    # -- the beginning of one

    def _ready(
        self, kind: type[Waiter], *, only_lead: bool = False
    ) -> Generator[Call | Pause | Wait, Outcome, tuple[Any, BaseException | None]]:
        """A life, or the error that kept it from beginning; `only_lead`: nothing, where another is at it already."""
        while True:
            waiter = None
            with self._lock:
                if self._life is not None:
                    return self._life, None
                flight = self._flight
                leads = flight is None
                if flight is None:
                    flight = self._flight = _Flight()
                elif not only_lead:
                    waiter = kind()
                    flight.waiters.append(waiter)
            if leads:
                return (yield from self._lead(flight))
            if waiter is None:
                return None, None
            woken, interrupted = yield Wait(waiter, self._patience)
            if interrupted is not None:
                return None, interrupted
            if not woken:
                text = f"child {self.name!r} has been starting for {self._patience:g} s"
                return None, ChildDied(text, child=self.name)
            if isinstance(flight.failure, Exception):
                return None, flight.failure

    def _lead(
        self, flight: _Flight
    ) -> Generator[Call | Pause | Wait, Outcome, tuple[Any, BaseException | None]]:
        outside = _inside.get()
        _inside.set((*outside, flight))
        failure: BaseException | None = None
        try:
            kills = self._kills.count()
            handle, failure = yield Call(f"child {self.name!r}: start", self.start, abandoned=kill)
            if failure is None:
                flight.life = Life(handle, kills)
                old, self._gone = self._gone, None
                if self._starts and self.reset is not None:
                    handles = (old.handle,) if self._told and old is not None else ()
                    _, failed = yield Call(f"child {self.name!r}: reset", self.reset, *handles, abandoned=str)
                    if isinstance(failed, Exception):
                        self._core.warn(f"child {self.name!r}: reset failed: {_text(failed)}")
                    else:
                        failure = failed
        finally:
            _inside.set(outside)
            self._land(flight, failure)
        return flight.life, failure

    def _land(self, flight: _Flight, failure: BaseException | None) -> None:
        with self._lock:
            flight.failure = failure
            if self._flight is flight:  # else this is a child, forked meanwhile
                self._flight = None
                if flight.life is not None:
                    self._starts += 1
                    if flight.life.reason is None:
                        self._life = flight.life
            waiters, flight.waiters = flight.waiters, []
        for waiter in waiters:
            waiter.wake()


class Children:
    """All of them, by name. `pause` and `patience` are seconds (see `Child.call`)."""

    def __init__(
        self, core: Core, kills: OomKills | None = None, *, pause: float = _PAUSE, patience: float = _PATIENCE
    ) -> None:
        self._core = core
        self._kills = OomKills() if kills is None else kills
        self._pause = pause
        self._patience = patience
        self._children: dict[str, Child[Any]] = {}
        self._replaced: list[Child[Any]] = []
        self.others: Callable[[], list[dict[str, object]]] = list
        """More of the same kind, for the reading: the processes of isolated models."""

    def register(
        self,
        name: str,
        start: Callable[[], H | Awaitable[H]],
        reset: Callable[[], object] | Callable[[H], object] | None = None,
    ) -> Child[H]:
        """A child of this name, which its first call starts; the one that there is where the callbacks are the same.

        A `reset` with one parameter that has no default is called with what `start` had returned for the child that is
        gone, so that it can close what belongs to it. It has been killed by then, if it was a process.

        Another one under a name that is taken counts from now on, with a warning. Raises TypeError or ValueError for
        a name that can't be one or a callback that can't be called.
        """
        check_name("child", name)
        if not callable(start):
            raise TypeError(f"child {name!r}: start must be callable, not {type(start).__name__}")
        if reset is not None and not callable(reset):
            raise TypeError(f"child {name!r}: reset must be callable, not {type(reset).__name__}")
        known = self._children.get(name)
        if known is not None:
            if (known.start, known.reset) == (start, reset):
                return known
            self._core.warn(f"child {name!r} was registered again: the later one counts")
            self._replaced.append(known)
        if self._kills.group_kill():
            self._core.warn(
                f"child {name!r}: memory.oom.group is set, so the kernel kills the whole group when memory is full, "
                "this process with the child: no call will learn of it"
            )
        child: Child[H] = Child(
            name,
            start,
            reset,
            self._core,
            self._kills,
            told=reset is not None and wants_one(name, reset),
            pause=self._pause,
            patience=self._patience,
        )
        self._children[name] = child
        return child

    def reading(self) -> list[dict[str, object]]:
        """The part `children` of a reading."""
        kills = self._kills.count()
        return [*(child.reading(kills) for child in list(self._children.values())), *self.others()]

    def forked(self) -> None:
        """Begin anew in a forked child."""
        for child in (*self._children.values(), *self._replaced):
            child.forked()


def _because(died: ChildDied | None, failure: BaseException | None) -> BaseException | None:
    """The error of a call: why the child died, and that it could not be started again, if that was tried in vain."""
    if died is None or (failure is not None and not isinstance(failure, Exception)):
        return failure
    if failure is None:
        return died
    text = f"{died}; it could not be started again: {_text(failure)}"
    error = ChildDied(text, child=died.child, reason=died.reason)
    error.__cause__ = failure
    return error


def _text(error: BaseException | None) -> str:
    try:
        return f"{type(error).__name__}: {error}"[:150]
    except Exception:  # noqa: BLE001 (an exception whose __str__ raises)
        return type(error).__name__
