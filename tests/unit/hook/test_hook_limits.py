"""Limits: at most so many at once, the rest wait in order."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import pytest

from oomguard.hook.chores import Chores
from oomguard.hook.limits import Limit, Limits
from oomguard.hook.parts import Core


def core(environ: Mapping[str, str] | None = None) -> Core:
    return Core(environ or {}, Chores(int, int), threading.RLock(), int)  # type: ignore[arg-type]  # unused


@pytest.fixture
def limits() -> Limits:
    return Limits(core())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def counts(limit: Limit) -> tuple[object, object, object]:
    reading = limit.reading()
    return reading["in_use"], reading["waiting"], reading["waited"]


def test_the_rest_wait_in_the_order_in_which_they_came(limits: Limits) -> None:
    limit = limits.get("agents", 1)
    order: list[int] = []
    go = threading.Event()

    def work(number: int) -> None:
        with limit:
            order.append(number)
            go.wait(60)

    threads = []
    for number in range(6):
        threads.append(threading.Thread(target=work, args=(number,)))
        threads[-1].start()
        until(lambda number=number: sum(counts(limit)[:2]) == number + 1)
    assert limits.reading() == [{"name": "agents", "limit": 1, "in_use": 1, "waiting": 5, "waited": 5}]
    go.set()
    for thread in threads:
        thread.join(30)
    assert order == [0, 1, 2, 3, 4, 5]
    assert counts(limit) == (0, 0, 5)


def test_a_newcomer_never_overtakes_one_who_waits(limits: Limits) -> None:
    limit = limits.get("agents", 1)
    done: list[str] = []

    def wait() -> None:
        with limit:
            done.append("waited")

    with limit:
        thread = threading.Thread(target=wait)
        thread.start()
        until(lambda: counts(limit)[1] == 1)
    with limit:
        done.append("came later")
    thread.join(30)
    assert done == ["waited", "came later"]


def test_tasks_wait_without_stopping_their_loop(limits: Limits) -> None:
    limit = limits.get("agents", 2)
    inside, most, ticks = [0], [0], [0]

    async def work() -> None:
        async with limit:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            await asyncio.sleep(0.005)
            inside[0] -= 1

    async def tick() -> None:
        while True:
            ticks[0] += 1
            await asyncio.sleep(0.001)

    async def main() -> None:
        ticking = asyncio.create_task(tick())
        await asyncio.gather(*(work() for _ in range(20)))
        ticking.cancel()

    asyncio.run(main())
    assert most == [2]
    assert ticks[0] > 5
    assert counts(limit) == (0, 0, 18)


def test_threads_and_tasks_of_several_loops_share_one_limit(limits: Limits) -> None:
    limit = limits.get("agents", 3)
    inside: list[int] = []
    most: list[int] = []

    async def task() -> None:
        for _ in range(10):
            async with limit:
                inside.append(1)
                most.append(len(inside))
                await asyncio.sleep(0.001)
                inside.pop()

    async def tasks() -> None:
        await asyncio.gather(*(task() for _ in range(5)))

    def thread() -> None:
        for _ in range(20):
            with limit:
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    workers = [threading.Thread(target=thread) for _ in range(4)]
    workers += [threading.Thread(target=asyncio.run, args=(tasks(),)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert not worker.is_alive()
    assert max(most) == 3
    assert counts(limit)[:2] == (0, 0)


def test_a_cancelled_waiter_loses_no_slot(limits: Limits) -> None:
    limit = limits.get("agents", 1)

    async def enter() -> None:
        async with limit:
            pass

    async def main() -> None:
        async with limit:
            waiting = [asyncio.create_task(enter()) for _ in range(3)]
            while counts(limit)[1] < 3:
                await asyncio.sleep(0)
            waiting[0].cancel()  # while it waits
            await asyncio.wait({waiting[0]})
            assert counts(limit) == (1, 2, 3)
        # The slot has been handed to the second, which has not run since.
        assert counts(limit) == (1, 1, 3)
        waiting[1].cancel()
        await asyncio.wait_for(waiting[2], 30)
        assert waiting[1].cancelled()

    asyncio.run(main())
    assert counts(limit) == (0, 0, 3)


def test_a_waiter_whose_loop_is_closed_takes_no_slot(limits: Limits) -> None:
    limit = limits.get("agents", 1)

    async def enter() -> None:
        async with limit:
            pass

    with limit:
        loop = asyncio.new_event_loop()
        abandoned = loop.create_task(enter())
        loop.run_until_complete(asyncio.sleep(0))
        assert counts(limit) == (1, 1, 1)
        loop.close()
    assert counts(limit) == (0, 0, 1)
    abandoned._log_destroy_pending = False  # type: ignore[attr-defined]  # we know


def test_a_thread_that_is_interrupted_while_it_waits_leaves_the_queue(limits: Limits) -> None:
    limit = limits.get("agents", 1)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with limit:
            entered.set()
            leave.wait(60)

    def interrupt() -> None:
        until(lambda: counts(limit)[1] == 1)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

    def handler(*_: object) -> None:
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, handler)
    holder, interrupter = threading.Thread(target=hold), threading.Thread(target=interrupt)
    try:
        holder.start()
        assert entered.wait(30)
        interrupter.start()
        with pytest.raises(InterruptedError), limit:
            pass
        assert counts(limit) == (1, 0, 1)
    finally:
        leave.set()
        interrupter.join(30)
        holder.join(30)
        signal.signal(signal.SIGALRM, before)
    assert counts(limit)[0] == 0


def test_what_is_raised_inside_gives_the_slot_back(limits: Limits) -> None:
    limit = limits.get("agents", 1)
    with pytest.raises(ZeroDivisionError), limit:
        raise ZeroDivisionError
    with limit:
        assert counts(limit) == (1, 0, 0)


def test_the_same_name_is_the_same_limit_and_a_later_number_counts() -> None:
    parent = core()
    limits = Limits(parent)
    limit = limits.get("agents", 1)
    assert limits.get("agents", 1) is limits.get("agents") is limit
    assert parent.warnings == []
    with limit:
        thread = threading.Thread(target=limit.__enter__)
        thread.start()
        until(lambda: counts(limit)[1] == 1)
        limits.get("agents", 2)  # lets the one in that waits
        thread.join(30)
        assert counts(limit) == (2, 0, 1)
    assert parent.warnings == ["limit 'agents' was given another number, 2: the later one counts"]


@pytest.mark.parametrize(
    ("environ", "most", "warning"),
    [
        ({"MAX_CONCURRENT_AGENTS": "3"}, 3, ""),
        ({"MAX_CONCURRENT_AGENTS": "many"}, None, "MAX_CONCURRENT_AGENTS='many' is no number above 0"),
        ({"MAX_CONCURRENT_AGENTS": "0"}, None, "is no number above 0"),
        ({}, None, "MAX_CONCURRENT_AGENTS is not set: all are let in"),
    ],
)
def test_the_environment_says_how_many_where_the_code_does_not(environ, most, warning) -> None:
    parent = core(environ)
    limit = Limits(parent).get("agents")
    assert limit.most == most
    assert warning in "".join(parent.warnings)
    assert bool(warning) == bool(parent.warnings)
    with limit, limit:
        assert counts(limit) == (2, 0, 0)


@pytest.mark.parametrize("most", [0, -1, 1.5, "2", True])
def test_a_slip_of_the_pen_is_told_at_once(limits: Limits, most: object) -> None:
    with pytest.raises(ValueError, match="limit 'agents': must be a number above 0"):
        limits.get("agents", most)  # type: ignore[arg-type]


def test_tasks_that_use_the_wrong_form_never_stop_their_loop() -> None:
    parent = core()
    limit = Limits(parent).get("agents", 1)
    inside: list[int] = []

    async def work() -> None:
        with limit:
            inside.append(limit.reading()["in_use"])
            await asyncio.sleep(0.01)

    async def main() -> None:
        await asyncio.gather(work(), work(), work())

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert inside == [1, 2, 3]
    assert counts(limit) == (0, 0, 2)
    assert parent.warnings == [
        "limit 'agents': a task would have to wait in `with` and was let in above the limit: use `async with`"
    ]


def test_one_let_in_above_the_limit_is_made_up_for_before_another_enters(limits: Limits) -> None:
    limit = limits.get("agents", 1)
    limit.__enter__()

    async def main() -> None:
        with limit:
            waits = asyncio.create_task(wait())
            await asyncio.sleep(0)
            limit.__exit__(None, None, None)
            await asyncio.sleep(0.05)
            assert not waits.done()
            assert counts(limit) == (1, 1, 2)
        await asyncio.wait_for(waits, 30)

    async def wait() -> None:
        async with limit:
            pass

    asyncio.run(main())
    assert counts(limit) == (0, 0, 2)


def test_what_is_raised_while_it_enters_loses_no_slot(limits: Limits, monkeypatch) -> None:
    limit = limits.get("agents", 1)
    enter = Limit._enter

    def interrupted(*arguments: object) -> bool:
        enter(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(Limit, "_enter", interrupted)
    with pytest.raises(KeyboardInterrupt):
        limit.__enter__()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(limit.__aenter__())
    assert counts(limit) == (0, 0, 0)


def test_a_generator_that_another_thread_closes_gives_its_slot_back(limits: Limits) -> None:
    limit = limits.get("agents", 1)

    def generate() -> Iterator[int]:
        with limit:
            yield 1

    generator = generate()
    next(generator)
    thread = threading.Thread(target=generator.close)
    thread.start()
    thread.join(30)
    assert counts(limit) == (0, 0, 0)


def test_a_forked_child_begins_with_nothing_in_use(limits: Limits) -> None:
    limit = limits.get("agents", 1)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with limit, limit._lock, limits._lock:
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert entered.wait(30)
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        limits.forked()
        assert counts(limit) == (0, 0, 0)
        with limits.get("agents", 1):
            os._exit(0 if counts(limit) == (1, 0, 0) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    leave.set()
    thread.join()


def test_leaving_what_a_parent_entered_lets_nobody_in(limits: Limits) -> None:
    limit = limits.get("agents", 1)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with limit:
            entered.set()
            leave.wait(60)

    with limit:
        pid = os.fork()
        if pid == 0:
            signal.alarm(30)
            limits.forked()
            with limit:  # for the thread that forked, too, there is a slot
                pass
            thread = threading.Thread(target=hold)
            thread.start()
            entered.wait(30)
    if pid == 0:
        still = counts(limit)
        leave.set()
        thread.join(30)
        os._exit(0 if (still, counts(limit)) == ((1, 0, 0), (0, 0, 0)) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert counts(limit) == (0, 0, 0)


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import gevent, threading, time
from oomguard.hook.chores import Chores
from oomguard.hook.limits import Limits
from oomguard.hook.parts import Core

limit = Limits(Core({}, Chores(int, int), threading.RLock(), int)).get("agents", 1)
inside, most, order, ticks = [], [], [], []

def work(number):
    with limit:
        inside.append(1)
        most.append(len(inside))
        order.append(number)
        time.sleep(0.02)
        inside.pop()

def tick():
    while True:
        ticks.append(1)
        time.sleep(0.001)

ticking = gevent.spawn(tick)
workers = [gevent.spawn(work, number) for number in range(10)]
gevent.sleep(0.005)
workers[5].kill()
pool = gevent.get_hub().threadpool.spawn(work, "native thread")
gevent.joinall(workers, timeout=30)
pool.get(timeout=30)
reading = limit.reading()
assert max(most) == 1, most
assert [number for number in order if number != "native thread"] == [0, 1, 2, 3, 4, 6, 7, 8, 9], order
assert "native thread" in order
assert (reading["in_use"], reading["waiting"]) == (0, 0), reading
assert len(ticks) > 10, ticks
print("fine")
"""


@pytest.mark.real
def test_greenlets_wait_without_stopping_their_hub() -> None:
    done = subprocess.run([sys.executable, "-c", GREENLETS], capture_output=True, text=True, timeout=60)
    assert done.stdout == "fine\n", done.stderr
