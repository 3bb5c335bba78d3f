"""Budgets, and files that are read under one."""

from __future__ import annotations

import contextlib
import copy
import gc
import logging
import os
import pickle
import signal
import sys
import threading
from pathlib import Path

import pytest

from oomguard.hook.chores import Chores
from oomguard.hook.limits.budgets import Budget, BudgetExceeded, Budgets, Reservation
from oomguard.hook.limits.chunks import read_chunks
from oomguard.hook.parts import Core

MIB = 1 << 20


def core() -> Core:
    return Core({}, Chores(int, int), threading.RLock(), int)  # type: ignore[arg-type]  # release is not used


@pytest.fixture
def budgets() -> Budgets:
    return Budgets(core())


def reserved(budget: Budget) -> int:
    return budget.reading()["reserved"]  # type: ignore[return-value]


def test_what_is_reserved_is_given_back_at_the_end(budgets: Budgets) -> None:
    budget = budgets.get("weights", "200MiB")
    with pytest.raises(ZeroDivisionError), budget.reserve(150 * MIB):
        raise ZeroDivisionError(budgets.reading())
    with budget.reserve(150 * MIB):
        assert budgets.reading() == [
            {"name": "weights", "limit": 200 * MIB, "reserved": 150 * MIB, "refused": 0, "state": "ok"}
        ]
    kept = budget.reserve(7)
    assert reserved(budget) == 7
    kept.release()
    kept.release()
    assert reserved(budget) == 0


def test_one_over_the_limit_is_told_what_asked_how_much_and_what_is_left(budgets: Budgets) -> None:
    budget = budgets.get("weights", "200MiB")
    with budget.reserve(150 * MIB):
        assert budget.can_reserve(50 * MIB)
        assert not budget.can_reserve(50 * MIB + 1)
        with pytest.raises(MemoryError) as told:
            budget.reserve(150 * MIB)
    error = told.value
    assert str(error) == "budget 'weights': 150 MiB asked for, 50 MiB of 200 MiB left"
    assert isinstance(error, BudgetExceeded)
    assert (error.budget, error.asked, error.left, error.limit) == ("weights", 150 * MIB, 50 * MIB, 200 * MIB)
    assert (reserved(budget), budget.reading()["refused"]) == (0, 1)
    same = pickle.loads(pickle.dumps(error))
    assert (str(same), same.left) == (str(error), 50 * MIB)
    assert copy.copy(error).asked == 150 * MIB


def test_a_reservation_that_nobody_holds_any_more_counts_no_more(budgets: Budgets) -> None:
    budget = budgets.get("weights", 100)
    budget.reserve(100)
    gc.collect()
    assert reserved(budget) == 0


def test_a_reservation_that_was_never_finished_is_dropped_without_a_word(
    budgets: Budgets, monkeypatch
) -> None:
    told: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", told.append)
    Reservation.__new__(Reservation)  # as one that a signal's handler interrupted
    Reservation(60)
    gc.collect()
    assert told == []
    assert reserved(budgets.get("weights", 100)) == 0


def test_a_budget_that_runs_short_is_logged_once_per_level(budgets: Budgets, caplog) -> None:
    caplog.set_level(logging.WARNING, "oomguard.budgets")
    budget = budgets.get("weights", "1000MiB")
    states = []
    for _ in range(3):
        with budget.reserve(799 * MIB), budget.reserve(1 * MIB):
            states.append(budget.reading()["state"])
            with budget.reserve(100 * MIB):
                states.append(budget.reading()["state"])
        states.append(budget.reading()["state"])
    assert states == ["warning", "critical", "ok"] * 3
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "budget 'weights' is at 80 %: 800 MiB of 1000 MiB are reserved"),
        ("CRITICAL", "budget 'weights' is at 90 %: 900 MiB of 1000 MiB are reserved"),
    ]


def test_a_log_handler_that_raises_or_reserves_harms_nobody(budgets: Budgets) -> None:
    budget = budgets.get("weights", 100)

    class Bad(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            with budget.reserve(1):
                raise RuntimeError("full disk")

    handler = Bad()
    logging.getLogger("oomguard.budgets").addHandler(handler)
    try:
        with budget.reserve(95):
            assert reserved(budget) == 95
    finally:
        logging.getLogger("oomguard.budgets").removeHandler(handler)


def test_the_same_name_is_the_same_budget_and_a_later_limit_counts() -> None:
    parent = core()
    budgets = Budgets(parent)
    first = budgets.get("weights", "1MiB")
    assert budgets.get("weights", MIB) is first
    assert parent.warnings == []
    assert budgets.get("weights", "2MiB") is first
    assert first.limit == 2 * MIB
    assert parent.warnings == ["budget 'weights' was given another limit, 2 MiB: the later one counts"]


def test_a_limit_below_what_is_reserved_leaves_nothing(budgets: Budgets) -> None:
    budget = budgets.get("weights", 100)
    with budget.reserve(80):
        budgets.get("weights", 50)
        with pytest.raises(BudgetExceeded, match="1 byte asked for, 0 bytes of 50 bytes left"):
            budget.reserve(1)


def test_threads_never_take_more_than_there_is(budgets: Budgets) -> None:
    budget = budgets.get("weights", 5)
    most = []

    def work() -> None:
        for _ in range(2000):
            with contextlib.suppress(BudgetExceeded), budget.reserve(2):
                most.append(reserved(budget))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) <= 5
    assert reserved(budget) == 0
    assert budget.reading()["refused"] == 8000 - len(most)


def test_a_forked_child_begins_with_nothing_reserved(budgets: Budgets) -> None:
    budget = budgets.get("weights", 100)
    taken = budget.reserve(60)
    locked, go = threading.Event(), threading.Event()

    def hold() -> None:
        with budget._lock, budgets._lock:
            locked.set()
            go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert locked.wait(30)
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        budgets.forked()
        mine = budget.reserve(90)
        taken.release()
        budgets.get("other", 5).reserve(5).release()
        os._exit(0 if reserved(budget) == mine.size == 90 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    go.set()
    thread.join()
    assert reserved(budget) == taken.size


def test_what_a_parent_reserved_is_not_given_back_in_its_child(budgets: Budgets) -> None:
    budget = budgets.get("weights", 100)
    inherited = budget.reserve(60)
    budgets.forked()
    inherited.release()
    assert reserved(budget) == 0


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("weights", "lots"), ValueError, "budget 'weights': 'lots' is not a size; write for example"),
        (("weights", 0), ValueError, "budget 'weights': 0 is not a size"),
        (("weights", None), TypeError, "budget 'weights': must be a number of bytes or text"),
        (("weights", 1.5), TypeError, "not float"),
        (("", 1), ValueError, "1 to 100 characters"),
        ((None, 1), TypeError, "budget name None: must be text"),
    ],
)
def test_a_slip_of_the_pen_is_told_at_once(budgets: Budgets, arguments, error, text) -> None:
    with pytest.raises(error, match=text):
        budgets.get(*arguments)


def test_only_a_number_of_bytes_can_be_reserved(budgets: Budgets) -> None:
    budget = budgets.get("weights", 100)
    with pytest.raises(TypeError, match="a number of bytes is needed, not str"):
        budget.reserve("10")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="-1 is no number of bytes"):
        budget.reserve(-1)
    with budget.reserve(0):
        assert reserved(budget) == 0


# -- read_chunks


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_file_is_read_in_chunks_that_the_budget_knows(tmp_path: Path, budgets: Budgets) -> None:
    file = tmp_path / "weights.bin"
    content = os.urandom(250_000)
    file.write_bytes(content)
    budget = budgets.get("weights", 65536)
    got = []
    for chunk in read_chunks(file, budget=budget):
        got.append(chunk)
        assert reserved(budget) == 65536
    assert b"".join(got) == content
    assert max(map(len, got)) == 65536
    assert reserved(budget) == 0
    assert b"".join(read_chunks(str(file), 1000)) == content


def test_a_file_that_the_budget_has_no_room_for_is_closed(tmp_path: Path, budgets: Budgets) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(bytes(100))
    budget = budgets.get("weights", 50)
    before = open_files()
    chunks = read_chunks(file, 51, budget=budget)
    with pytest.raises(BudgetExceeded):
        next(chunks)
    assert open_files() == before


def test_an_iteration_that_is_given_up_closes_the_file_and_gives_back(
    tmp_path: Path, budgets: Budgets
) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(bytes(100))
    budget = budgets.get("weights", 50)
    before = open_files()
    chunks = read_chunks(file, 10, budget=budget)
    next(chunks)
    assert (open_files(), reserved(budget)) == (before + 1, 10)
    del chunks
    gc.collect()
    assert (open_files(), reserved(budget)) == (before, 0)
    given_up = read_chunks(file, 10, budget=budget)
    next(given_up)
    given_up.close()  # type: ignore[attr-defined]  # a generator
    assert (open_files(), reserved(budget)) == (before, 0)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size must be a number of bytes above 0, not 0"):
        read_chunks(tmp_path / "x", 0)
    with pytest.raises(FileNotFoundError):
        next(read_chunks(tmp_path / "x"))
