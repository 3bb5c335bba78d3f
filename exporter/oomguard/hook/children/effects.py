"""One course of action for threads and for tasks: a generator says what is to be done, a driver does it.

The generator gets back what came of each effect as a pair, (value, error), and returns such a pair; the driver then
returns the value or raises the error. Nothing is thrown into it, so that a StopIteration of the application's stays
one. After an error that is no Exception (a cancellation, Ctrl-C) the generator asks for no more.
"""

from __future__ import annotations

import time

from oomguard.hook.limits.waiting import TaskWaiter, ThreadWaiter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    Outcome = tuple[Any, BaseException | None]
    Course = Generator["Call | Pause | Wait", Outcome, Outcome]


class Call:
    """Call something of the application's, which a task may await.

    `what` names it in an error. `abandoned`: it is a plain function that may take long, so it leaves the loop free;
    called with what it returned if nobody waits for it any more.
    """

    __slots__ = ("abandoned", "arguments", "function", "what")

    def __init__(
        self,
        what: str,
        function: Callable[..., Any],
        *arguments: object,
        abandoned: Callable[[Any], object] | None = None,
    ) -> None:
        self.what = what
        self.function = function
        self.arguments = arguments
        self.abandoned = abandoned

    def run(self) -> Any:
        """Call it in this thread; raises what it raises, and TypeError for what must be awaited."""
        result = self.function(*self.arguments)
        if hasattr(type(result), "__await__") and hasattr(result, "close"):
            result.close()  # else Python warns that it was never awaited
            raise TypeError(f"{self.what} is asynchronous: use `await ….call_async(…)`")
        return result

    async def await_(self) -> Any:
        """Call it from a task; raises what it raises."""
        from inspect import isawaitable, iscoroutinefunction  # noqa: PLC0415 (asyncio has loaded it)

        if self.abandoned is None or iscoroutinefunction(self.function):
            result = self.function(*self.arguments)
        else:
            result = await self._in_a_thread(self.abandoned)
        return await result if isawaitable(result) else result

    async def _in_a_thread(self, abandoned: Callable[[Any], object]) -> Any:
        """Run it in one of the loop's own threads: they live on, which PR_SET_PDEATHSIG of a child needs (prctl(2))."""
        import asyncio  # noqa: PLC0415 (whoever runs a task has it)
        from contextvars import copy_context  # noqa: PLC0415

        context = copy_context()
        future = asyncio.get_running_loop().run_in_executor(
            None, lambda: context.run(self.function, *self.arguments)
        )

        def let_go(done: asyncio.Future[Any]) -> None:
            if not done.cancelled() and done.exception() is None:
                abandoned(done.result())

        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(let_go)
            raise


class Pause:
    """Wait for some seconds."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def run(self) -> None:
        """Sleep, as the application's threads or greenlets do."""
        time.sleep(self.seconds)

    async def await_(self) -> None:
        """Sleep, in a task."""
        import asyncio  # noqa: PLC0415 (as above)

        await asyncio.sleep(self.seconds)


class Wait:
    """Wait for a waiter that the driver's kind has made; gives whether it was woken."""

    __slots__ = ("seconds", "waiter")

    def __init__(self, waiter: ThreadWaiter | TaskWaiter, seconds: float) -> None:
        self.waiter = waiter
        self.seconds = seconds

    def run(self) -> bool:
        """Wait in a thread or greenlet."""
        assert isinstance(self.waiter, ThreadWaiter)
        return self.waiter.wait(self.seconds)

    async def await_(self) -> bool:
        """Wait in a task."""
        assert isinstance(self.waiter, TaskWaiter)
        return await self.waiter.wait(self.seconds)


def drive(course: Course) -> Any:
    """Do all of it in this thread."""
    outcome: Outcome = (None, None)
    effect: Call | Pause | Wait | None = None
    try:
        effect = next(course)
        while True:
            try:
                outcome = effect.run(), None
            except BaseException as error:  # noqa: BLE001 (it is raised again, below)
                outcome = None, error
            effect = course.send(outcome)
    except StopIteration as end:
        outcome = end.value
    try:
        return _settle(outcome)
    finally:
        del outcome, effect  # as in _settle


async def drive_async(course: Course) -> Any:
    """Do all of it in this task."""
    outcome: Outcome = (None, None)
    effect: Call | Pause | Wait | None = None
    try:
        effect = next(course)
        while True:
            try:
                outcome = await effect.await_(), None
            except BaseException as error:  # noqa: BLE001 (as above)
                outcome = None, error
            effect = course.send(outcome)
    except StopIteration as end:
        outcome = end.value
    try:
        return _settle(outcome)
    finally:
        del outcome, effect  # as in _settle


def _settle(outcome: Outcome) -> Any:
    value, error = outcome
    if error is None:
        return value
    try:
        raise error
    finally:
        del outcome, error  # else the error would hold this frame, and the frame the error
