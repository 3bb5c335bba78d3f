"""How late an event loop is, told to several readers, also while it is blocked."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
import weakref
from collections.abc import Callable

import pytest

from oomguard.hook.chores import Chores
from oomguard.hook.parts import Core, Released
from oomguard.hook.web.loop_lag import INTERVAL, LoopLag


def core() -> Core:
    nothing = Chores(lambda: None, lambda: None)
    return Core({}, nothing, threading.RLock(), lambda: Released(0, 0, 0.0, trims=True))  # type: ignore[arg-type]  # any lock does


def seconds(reading: dict[str, object]) -> float:
    lag = reading["lag"]
    assert isinstance(lag, float)
    return lag


def _uvloop() -> asyncio.AbstractEventLoop:
    import uvloop

    made: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return made


LOOPS = [asyncio.new_event_loop, pytest.param(_uvloop, id="uvloop")]


def run(make: Callable[[], asyncio.AbstractEventLoop], main: Callable[[], object]) -> None:
    loop = make()
    try:
        loop.run_until_complete(main())  # type: ignore[arg-type]  # a coroutine
    finally:
        loop.close()


@pytest.mark.parametrize("make", LOOPS)
def test_a_block_is_told_while_it_lasts_and_once_to_each_reader_afterwards(
    make: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    lag = LoopLag(core())
    during: list[float] = []

    def ask() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until and not during:
            time.sleep(0.02)
            during.extend(late for late in [seconds(lag.reading("another thread"))] if late > 1.0)
        enough.set()

    enough = threading.Event()

    async def main() -> None:
        lag.watch(asyncio.get_running_loop())
        others = [asyncio.ensure_future(asyncio.sleep(60)) for _ in range(5)]
        await asyncio.sleep(2.5 * INTERVAL)
        assert lag.reading("first")["tasks"] == 6
        threading.Thread(target=ask, daemon=True).start()
        enough.wait(70)  # blocks the loop
        await asyncio.sleep(0.01)  # what was due meanwhile comes first
        assert seconds(lag.reading("first")) > 1.0
        assert seconds(lag.reading("second")) > 1.0
        assert seconds(lag.reading("first")) < 1.0
        assert seconds(lag.reading("third")) > 1.0
        for other in others:
            other.cancel()

    run(make, main)
    assert during
    assert lag.reading()["status"] == "absent", "a closed loop is told no more"


def test_a_loop_that_was_stopped_and_runs_again_was_not_late() -> None:
    lag, loop = LoopLag(core()), asyncio.new_event_loop()

    async def beat(seconds: float) -> None:
        lag.watch(asyncio.get_running_loop())
        await asyncio.sleep(seconds)

    loop.run_until_complete(beat(0))
    time.sleep(3 * INTERVAL)
    assert lag.reading()["lag"] == 0.0
    loop.run_until_complete(beat(0.01))
    assert seconds(lag.reading()) < INTERVAL
    loop.close()


def test_a_loop_that_nobody_closed_is_not_kept_alive() -> None:
    class Loop(asyncio.SelectorEventLoop):
        pass

    lag, loop = LoopLag(core()), Loop()

    async def watch() -> None:
        lag.watch(asyncio.get_running_loop())

    loop.run_until_complete(watch())
    gone = weakref.ref(loop)
    del loop
    with pytest.warns(ResourceWarning):
        gc.collect()
    assert gone() is None
    assert lag.reading()["status"] == "absent"


def test_watching_twice_beats_once() -> None:
    lag, loop = LoopLag(core()), asyncio.new_event_loop()
    calls = []

    async def watch() -> None:
        there = asyncio.get_running_loop()
        there.call_later = lambda *given: calls.append(given)  # type: ignore[method-assign,assignment]  # counts only
        lag.watch(there)
        lag.watch(there)

    loop.run_until_complete(watch())
    loop.close()
    assert len(calls) == 1


def test_what_is_no_loop_of_asyncios_is_warned_about_and_raises_nothing() -> None:
    made = core()
    lag = LoopLag(made)
    lag.watch(object())  # type: ignore[arg-type]  # a loop of another kind
    lag.watch(object())  # type: ignore[arg-type]
    assert len(made.warnings) == 1
    assert "object can't be watched" in made.warnings[0]


def test_a_forked_child_begins_without_a_loop() -> None:
    lag, loop = LoopLag(core()), asyncio.new_event_loop()

    async def watch() -> None:
        lag.watch(asyncio.get_running_loop())

    loop.run_until_complete(watch())
    pid = os.fork()
    if not pid:
        lag.forked()
        os._exit(0 if lag.reading()["status"] == "absent" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert lag.reading()["status"] == "ok"
    loop.close()
