"""The hook in a process: what it does by the clock, with and without a sidecar, and what its parts may rely on."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fake_sidecar import FakeSidecar

from oomguard.hook.guard import Guard
from oomguard.hook.process import Process

DEADLINE = 20.0


def until(condition: object) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it did not come in time"
        time.sleep(0.005)


@pytest.fixture
def process() -> Iterator[Process]:
    made = Process({})
    yield made
    made.stop()


class Counted:
    """A chore."""

    def __init__(self, every: float = 0.01) -> None:
        self.every = every
        self.times = 0
        self.threads: set[int] = set()

    def __call__(self, now: float) -> float:
        self.times += 1
        self.threads.add(threading.get_ident())
        return self.every


class Read:
    """A part."""

    def __init__(self) -> None:
        self.forks = 0

    def reading(self) -> object:
        return [{"forks": self.forks}]

    def forked(self) -> None:
        self.forks += 1


def test_without_a_sidecar_there_is_no_thread_until_something_is_due_by_the_clock(process: Process) -> None:
    process.begin()
    assert process.told[0] == "off"
    assert process._link is None
    chore = Counted()
    process.core.chores.add(chore)
    until(lambda: chore.times > 3)
    assert len(chore.threads) == 1
    assert threading.get_ident() not in chore.threads


def test_a_chore_that_is_hurried_comes_at_once(process: Process) -> None:
    chore = Counted(every=3600)
    process.core.chores.add(chore)
    until(lambda: chore.times == 1)
    process.core.chores.hurry(chore)
    until(lambda: chore.times == 2)


def test_a_chore_that_is_hurried_while_it_runs_comes_once_more(process: Process) -> None:
    inside, go_on = threading.Event(), threading.Event()
    times: list[float] = []

    def slow(now: float) -> float:
        times.append(now)
        inside.set()
        go_on.wait(DEADLINE)
        return 3600.0

    process.core.chores.add(slow)
    assert inside.wait(DEADLINE)
    process.core.chores.hurry(slow)
    go_on.set()
    until(lambda: len(times) == 2)


def test_a_chore_that_raises_even_systemexit_ends_nothing(process: Process) -> None:
    chore = Counted()

    def bad(now: float) -> float:
        raise SystemExit

    process.core.chores.add(bad)
    process.core.chores.add(chore)
    until(lambda: chore.times > 3)


def test_stopping_ends_the_chores_and_a_start_begins_them_again(process: Process) -> None:
    chore = Counted()
    process.begin()
    process.core.chores.add(chore)
    until(lambda: chore.times > 1)
    process.stop()
    before = chore.times
    time.sleep(0.1)
    assert chore.times <= before + 1
    process.begin()
    until(lambda: chore.times > before + 3)


def test_chores_go_on_in_a_forked_child_and_in_its_parent(process: Process) -> None:
    chore, part = Counted(), Read()
    process.part("read", lambda: part)
    process.core.chores.add(chore)
    until(lambda: chore.times > 1)
    pid = os.fork()
    if pid == 0:
        before = chore.times
        end = time.monotonic() + DEADLINE
        while chore.times < before + 3 and time.monotonic() < end:
            time.sleep(0.005)
        os._exit(0 if chore.times >= before + 3 and part.forks == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    before = chore.times
    until(lambda: chore.times > before + 3)
    assert part.forks == 0


def test_a_fork_while_a_chore_is_under_way_leaves_the_child_free(process: Process) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow(now: float) -> float:
        inside.set()
        go_on.wait(DEADLINE)
        return 3600.0

    process.core.chores.add(slow)
    assert inside.wait(DEADLINE)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if process.core.work.acquire(True, 5.0) else 1)
    go_on.set()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_start_that_finds_a_sidecar_later_connects(tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    guard = Guard(environ)
    guard.begin()
    assert guard.status()["state"] == "off"
    with FakeSidecar(tmp_path) as sidecar:
        environ.update(sidecar.environment)
        guard.begin()
        hook = sidecar.accept()
        assert hook.ask("ping")["ping"] == {}
        assert hook.reading()["gc"]["status"] == "ok"
        until(lambda: guard.status()["state"] == "connected")
        guard.stop()


def test_chores_go_on_while_no_sidecar_answers_and_after_one_has_refused(tmp_path: Path) -> None:
    environ = {"OOMGUARD_RUNTIME_DIR": str(tmp_path)}
    process, chore = Process(environ), Counted()
    process.begin()
    process.core.chores.add(chore)
    try:
        until(lambda: chore.times > 5)
        with FakeSidecar(tmp_path) as sidecar:
            hook = sidecar.accept()
            hook.send(b'{"error": "this sidecar speaks version 7"}\n')
            until(lambda: process.told[0] == "refused")
            before = chore.times
            until(lambda: chore.times > before + 3)
            assert sidecar.nobody(0.5)
    finally:
        process.stop()


def test_a_question_wakes_it_however_far_the_next_chore_is(tmp_path: Path) -> None:
    with FakeSidecar(tmp_path) as sidecar:
        process = Process(sidecar.environment)
        process.begin()
        process.core.chores.add(Counted(every=3600))
        try:
            assert sidecar.accept().ask("ping")["ping"] == {}
        finally:
            process.stop()


def test_a_part_is_made_once_however_many_threads_ask(process: Process) -> None:
    made: list[Read] = []

    def make() -> Read:
        made.append(Read())
        time.sleep(0.01)
        return made[-1]

    threads = [threading.Thread(target=lambda: process.part("read", make)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert process.answers.read()[0]["read"] == [{"forks": 0}]


def test_a_part_that_can_not_be_read_is_left_out_and_named(process: Process) -> None:
    class Broken(Read):
        def reading(self) -> object:
            raise ZeroDivisionError("of its own")

    process.part("broken", Broken)
    process.part("read", Read)
    reading, _ = process.answers.read()
    assert "broken" not in reading
    assert reading["read"] == [{"forks": 0}]
    assert process.answers.read()[0]["warnings"] == ["broken: can't be read: ZeroDivisionError: of its own"]


def test_of_more_than_a_hundred_caches_the_largest_are_told_and_the_rest_is_counted(process: Process) -> None:
    for number in range(130):
        process.answers.caches.register(f"cache {number}", list, lambda number=number: number, None)
    reading, _ = process.answers.read()
    assert [cache["bytes"] for cache in reading["caches"]] == list(range(129, 29, -1))
    assert reading["caches_omitted"] == 30
    assert reading["warnings"] == ["caches: the sidecar is told of the 100 largest only"]


def test_of_two_guards_in_a_process_one_is_connected_and_the_other_says_so(tmp_path: Path) -> None:
    with FakeSidecar(tmp_path) as sidecar:
        first, second = Guard(sidecar.environment), Guard(sidecar.environment)
        first.begin()
        second.begin()
        try:
            sidecar.accept()
            assert second.status()["state"] == "off"
            assert "another" in str(second.status()["reason"])
            assert sidecar.nobody(0.3)
        finally:
            second.stop()
            first.stop()


def test_freezing_before_a_fork_leaves_the_childs_heap_alone_and_its_step_allowed() -> None:
    guard = Guard({})
    guard.begin()
    pid = os.fork()
    if pid == 0:
        os._exit(0 if guard._process.answers.step("gc")["reason"] == "shared_heap" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    import gc

    vocabulary = [str(number) for number in range(300_000)]  # blocks that no collection looks at
    try:
        assert guard.freeze_before_fork() > 1000
        assert guard._process.answers.read()[0]["gc"]["frozen"] is True
        pid = os.fork()
        if pid == 0:
            os._exit(0 if guard._process.answers.step("gc")["status"] == "done" else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        gc.unfreeze()
        guard.stop()
        del vocabulary
