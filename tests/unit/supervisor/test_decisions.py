from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from oomguard.supervisor.backoff import Backoff
from oomguard.supervisor.log import log
from oomguard.supervisor.spawn import exit_code, start_ticks
from oomguard.supervisor.target import Target
from oomguard.supervisor.terminal import Terminal


def test_delays_double_up_to_the_longest() -> None:
    backoff = Backoff(1, 60, 300)

    assert [backoff.after(0) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_delays_begin_anew_after_a_long_enough_life() -> None:
    backoff = Backoff(1, 60, 300)

    assert [backoff.after(lived) for lived in (0, 0, 299, 300, 0)] == [1, 2, 4, 1, 2]


@pytest.mark.parametrize(("status", "code"), [(0, 0), (7 << 8, 7), (9, 137), (11 | 0x80, 139)])
def test_a_wait_status_is_told_as_a_shell_does(status: int, code: int) -> None:
    assert exit_code(status) == code


def test_start_ticks_are_those_of_proc_and_0_for_a_process_that_is_gone() -> None:
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()

    assert start_ticks(os.getpid()) == int(fields[19])
    assert start_ticks(4194305) == 0


TERM, INT, QUIT, HUP, USR1 = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
)


@pytest.mark.parametrize(
    ("code", "forwarded", "held_terminal", "meant"),
    [
        (0, (), False, True),
        (1, (), False, False),
        (137, (), False, False),
        (3, (TERM,), False, True),
        (137, (TERM,), False, True),
        (130, (INT,), False, True),
        # Ctrl-C and Ctrl-\ on the target's own terminal, which the supervisor never sees.
        (130, (), True, True),
        (131, (), True, True),
        (129, (), True, True),
        (130, (), False, False),
        # Many servers reload at SIGHUP: only where it killed was it meant to.
        (129, (HUP,), False, True),
        (1, (HUP,), False, False),
        (138, (USR1,), False, False),
    ],
)
def test_a_restart_follows_only_an_end_that_nobody_wanted(
    code: int, forwarded: tuple[int, ...], held_terminal: bool, meant: bool
) -> None:
    target = Target(["x"], set(), oom_adj=False, terminal=Terminal())
    target.forwarded.update(forwarded)

    assert target.meant_to_end(code, held_terminal) is meant


def test_a_message_is_one_line_whatever_its_values_hold(capfd: pytest.CaptureFixture[str]) -> None:
    log("error", "command failed", command='a "b" \\ c\nd', code=3)

    stamp, _, line = capfd.readouterr().err.partition(" ")
    assert re.fullmatch(r"ts=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
    assert line == ('level=error msg="command failed" command="a \\"b\\" \\\\ c?d" code=3\n')
