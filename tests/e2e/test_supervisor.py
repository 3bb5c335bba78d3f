"""The real supervisor with real children, and a stand-in for the sidecar that speaks the two pipes."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.supervised import (
    ROOT,
    Supervised,
    children,
    lines,
    process_state,
    recorder,
    runs,
    wait_for,
)

Start = Callable[..., Supervised]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    begun: list[Supervised] = []

    def begin(*target: str, **settings: Any) -> Supervised:
        begun.append(Supervised(tmp_path, target, **settings))
        return begun[-1]

    yield begin
    for supervised in begun:
        supervised.end()


def shell(script: str) -> tuple[str, str, str]:
    return ("/bin/sh", "-c", script)


def pids_in(path: Path) -> list[int]:
    return [int(line.split()[-1]) for line in lines(path)]


@pytest.mark.parametrize("code", [0, 1, 2, 77, 255])
def test_the_exit_code_of_the_target_is_passed_on(start: Start, code: int) -> None:
    assert start(*shell(f"exit {code}")).result()[0] == code


def test_a_target_killed_by_a_signal_ends_us_with_128_plus_its_number(start: Start) -> None:
    run = start(*shell("kill -KILL $$"))

    assert run.result()[0] == 128 + signal.SIGKILL
    assert re.fullmatch(r"exited \d+ 137", run.told()[-1])


def test_a_command_that_is_not_found_ends_us_with_127_and_one_line(start: Start) -> None:
    code, errors = start("/no/such command").result()

    assert code == 127
    assert errors.partition(" ")[2] == (
        'level=error msg="command can\'t be executed" command="/no/such command" '
        'error="No such file or directory"\n'
    )


def test_a_command_that_may_not_be_executed_ends_us_with_126(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")

    code, errors = start(str(script)).result()

    assert code == 126
    assert "Permission denied" in errors


def test_a_command_is_found_on_the_path(start: Start) -> None:
    assert start("true").result()[0] == 0


def test_the_sidecar_is_told_of_the_target_and_of_its_end(start: Start, tmp_path: Path) -> None:
    facts = tmp_path / "facts"
    run = start(*shell(f"cat /proc/$$/stat > {facts}; exit 3"))
    run.result()
    fields = facts.read_text().split()
    pid = fields[0]
    ticks = facts.read_text().rpartition(")")[2].split()[19]

    assert run.told() == [f"target {pid} {ticks}", f"exited {pid} 3"]
    assert lines(run.sidecar_log)[-1] == f"eof {run.sidecars()[0]}"


def test_the_target_starts_only_once_the_sidecar_is_ready(start: Start, tmp_path: Path) -> None:
    order = tmp_path / "sidecar.log"
    run = start(*shell(f"echo target-began 0 >> {order}"))
    run.result()
    log = lines(order)

    assert log[0].startswith("started ")
    assert log.index("target-began 0") > 0


def test_a_sidecar_that_is_never_ready_delays_the_target_but_does_not_keep_it_back(start: Start) -> None:
    run = start(*shell("exit 5"), kind="silent", ready_timeout=0.3)

    code, errors = run.result()

    assert code == 5
    assert 'msg="sidecar not ready, starting the command" waited=0.3s' in errors


def test_a_sidecar_that_ends_with_2_before_it_was_ready_keeps_the_target_from_starting(
    start: Start, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    run = start("touch", str(mark), kind="2")

    assert run.result() == (2, "the user's error\n")
    assert not mark.exists()


def test_a_sidecar_that_breaks_at_the_start_does_not_keep_the_target_back(start: Start) -> None:
    code, errors = start(*shell("exit 6"), kind="1").result()

    assert code == 6
    assert 'msg="sidecar ended" code=1 restart_in=0.1s' in errors


def test_a_sidecar_that_can_not_be_executed_does_not_keep_the_target_back(start: Start) -> None:
    code, errors = start(*shell("exit 6"), sidecar=["/no/sidecar"]).result()

    assert code == 6
    assert 'msg="sidecar can\'t be started"' in errors


def test_a_killed_sidecar_leaves_the_target_running_and_a_new_one_hears_of_the_target_first(
    start: Start,
) -> None:
    run = start("sleep", "1000")
    target = run.target()
    first = run.told()

    for killed in range(1, 4):
        os.kill(run.sidecars()[-1], signal.SIGKILL)
        wait_for(lambda killed=killed: len(run.told()) > killed, "the new sidecar's state")

    assert run.told() == first * 4
    assert len(set(run.sidecars())) == 4
    assert runs(target)
    run.send(signal.SIGTERM)
    code, errors = run.result()
    assert code == 143
    assert re.findall(r"restart_in=(\S+)", errors) == ["0.1s", "0.2s", "0.4s"]


def test_a_deaf_sidecar_is_killed_in_the_end(start: Start) -> None:
    run = start("true", kind="deaf")

    assert run.result()[0] == 0
    assert process_state(run.sidecars()[0]) == ""


def test_kill_9_of_the_supervisor_leaves_the_target_running_and_ends_the_sidecar(start: Start) -> None:
    run = start("sleep", "1000")
    target = run.target()
    try:
        run.send(signal.SIGKILL)
        run.process.wait()
        wait_for(lambda: lines(run.sidecar_log)[-1].startswith("eof "), "the sidecar's end")

        assert runs(target)
    finally:
        os.kill(target, signal.SIGKILL)


UNFORWARDED = {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}


def test_every_signal_that_can_be_caught_is_forwarded_once(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "signals"
    run = start(*recorder(log))
    wait_for(lambda: lines(log), "the target")
    sent: list[str] = []

    for number in sorted(signal.valid_signals() - UNFORWARDED):
        run.send(number)
        sent.append(str(int(number)))
        # One after the other: of signals that are pending together the lowest number goes first.
        wait_for(lambda: len(lines(log)) > len(sent), f"signal {number}")

    assert lines(log)[1:] == sent


def test_an_interrupt_goes_to_the_whole_group_and_sigterm_to_the_main_process_alone(
    start: Start, tmp_path: Path
) -> None:
    main, child = tmp_path / "main", tmp_path / "child"
    program = (
        "import subprocess, sys; from pathlib import Path\n"
        f"subprocess.Popen({recorder(child)!r})\n"
        f"import os; os.execv(sys.executable, {recorder(main)!r})\n"
    )
    run = start(sys.executable, "-c", program)
    wait_for(lambda: lines(main) and lines(child), "both processes")
    try:
        run.send(signal.SIGTERM)
        wait_for(lambda: len(lines(main)) == 2, "SIGTERM")
        run.send(signal.SIGINT)
        wait_for(lambda: len(lines(main)) == 3 and len(lines(child)) >= 2, "SIGINT")

        assert lines(main)[1:] == ["15", "2"]
        assert lines(child)[1:] == ["2"]
    finally:
        os.kill(pids_in(child)[0], signal.SIGKILL)


def test_a_signal_before_the_target_has_started_ends_us_without_it(start: Start, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    run = start("touch", str(mark), kind="silent", ready_timeout=600)
    wait_for(run.sidecars, "the sidecar")

    run.send(signal.SIGUSR1)
    run.send(signal.SIGTERM)

    assert run.result()[0] == 143
    assert not mark.exists()


def test_a_broken_control_pipe_does_not_send_the_target_a_sigpipe(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "signals"
    closes_its_pipe = (
        "import os, time; os.close(int(os.environ['OOMGUARD_CONTROL_FD']));"
        "os.write(int(os.environ['OOMGUARD_READY_FD']), b'ready\\n'); time.sleep(1000)"
    )
    run = start(*recorder(log), sidecar=[sys.executable, "-c", closes_its_pipe])
    wait_for(lambda: lines(log), "the target")

    run.send(signal.SIGUSR1)
    wait_for(lambda: len(lines(log)) > 1, "SIGUSR1")

    assert lines(log)[1:] == [str(int(signal.SIGUSR1))]


def test_a_sidecar_that_does_not_read_never_makes_the_supervisor_wait(start: Start) -> None:
    fills_its_pipe = """
import os, time
pipe = os.open(f"/proc/self/fd/{os.environ['OOMGUARD_CONTROL_FD']}", os.O_WRONLY | os.O_NONBLOCK)
try:
    while True:
        os.write(pipe, b"x" * 512)
except BlockingIOError:
    pass
os.write(int(os.environ["OOMGUARD_READY_FD"]), b"ready\\n")
time.sleep(1000)
"""
    run = start(*shell("exit 3"), sidecar=[sys.executable, "-c", fills_its_pipe])

    assert run.result()[0] == 3


OURS = sum(1 << (number - 1) for number in signal.valid_signals())
"""Without 32 and 33, which are glibc's own: who started us may have left them ignored."""


def test_the_target_has_default_dispositions_and_an_empty_mask(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "status"
    start(*shell(f"exec grep -E '^Sig(Blk|Ign)' /proc/self/status > {out}")).result()

    assert [int(line.split()[1], 16) & OURS for line in lines(out)] == [0, 0]


def test_an_ignored_hangup_stays_ignored_as_nohup_wants(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "status"
    start(
        *shell(f"exec grep '^SigIgn' /proc/self/status > {out}"),
        popen={"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)},
    ).result()

    assert [int(line.split()[1], 16) & OURS for line in lines(out)] == [1]


def test_orphans_are_adopted_and_reaped(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "orphans"
    # Each orphan's parent ends at once, and each orphan a moment later; the target goes on.
    script = f"for i in 1 2 3; do (sh -c 'echo $$ >> {log}; exec sleep 0.2' &); done; exec sleep 1000"
    run = start(*shell(script))
    orphans = wait_for(lambda: pids_in(log) if len(lines(log)) == 3 else None, "the orphans")

    wait_for(lambda: not any(process_state(pid) for pid in orphans), "the reaping")

    assert sorted(children(run.pid)) == sorted((run.target(), run.sidecars()[0]))


def test_an_orphan_belongs_to_the_supervisor_until_the_end(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "orphans"
    run = start(*shell(f"(sh -c 'echo $$ >> {log}; exec sleep 1000' &); exec sleep 1000"))
    orphan = wait_for(lambda: pids_in(log), "the orphan")[0]
    try:
        wait_for(lambda: orphan in children(run.pid), "the adoption")
    finally:
        os.kill(orphan, signal.SIGKILL)


def test_the_target_stands_before_the_supervisor_in_the_kernels_choice(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "score"
    before = int(Path("/proc/self/oom_score_adj").read_text())

    start(*shell(f"cat /proc/self/oom_score_adj > {out}")).result()
    assert int(out.read_text()) == min(1000, before + 100)

    start(*shell(f"cat /proc/self/oom_score_adj > {out}"), oom_adj=False).result()
    assert int(out.read_text()) == before


def test_a_raised_oom_score_never_passes_1000(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "score"
    raise_it = {"preexec_fn": lambda: Path("/proc/self/oom_score_adj").write_text("950")}

    code, errors = start(*shell(f"cat /proc/self/oom_score_adj > {out}"), popen=raise_it).result()

    assert (code, errors, out.read_text()) == (0, "", "1000\n")


def test_stdin_and_stdout_pass_through_untouched_and_belong_to_the_target_alone(start: Start) -> None:
    run = start("cat", kind="loud", popen={"stdin": subprocess.PIPE, "stdout": subprocess.PIPE})
    sent = bytes(range(256)) * 1000

    out, errors = run.process.communicate(sent, timeout=30)

    assert out == sent
    assert errors == b"noise\n"


def test_the_target_inherits_other_descriptors_and_the_sidecar_does_not(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        fd = server.fileno()
        inode = Path(f"/proc/self/fd/{fd}").readlink()
        run = start("sleep", "1000", popen={"pass_fds": (fd,)})
        target = run.target()
        held = {
            who: {path.readlink() for path in Path(f"/proc/{pid}/fd").iterdir()}
            for who, pid in (("target", target), ("sidecar", run.sidecars()[0]))
        }

    assert inode in held["target"]
    assert inode not in held["sidecar"]
    numbers = {path.name for path in Path(f"/proc/{target}/fd").iterdir()}
    assert numbers == {"0", "1", "2", str(fd)}


def test_closed_standard_descriptors_stay_closed_for_the_target(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "fds"
    start(
        *shell(f"for fd in 0 1 2; do [ -e /proc/$$/fd/$fd ] && echo $fd >> {out}; done"),
        popen={"preexec_fn": lambda: os.close(0)},
    ).result()

    assert lines(out) == ["1", "2"]


def test_a_full_stderr_does_not_stop_the_supervisor(start: Start) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while os.write(write, b"x" * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(write, True)
    run = start("sleep", "1000", popen={"stderr": write})
    run.target()

    os.kill(run.sidecars()[0], signal.SIGKILL)
    wait_for(lambda: len(run.sidecars()) == 2, "the second sidecar")
    run.send(signal.SIGTERM)

    assert run.result()[0] == 143
    os.close(read)
    os.close(write)


def test_a_failing_target_is_restarted_with_growing_delays_until_the_cap(start: Start) -> None:
    run = start(*shell("exit 9"), restart=True, max_restarts=3, first_backoff=0.02)

    code, errors = run.result()

    assert code == 9
    assert re.findall(r"restart_in=(\S+)", errors) == ["0.02s", "0.04s", "0.08s"]
    assert 'msg="giving up on the command" code=9 restarts=3 within=1h' in errors
    told = [re.sub(r"(target|exited) \d+ ?\d*", r"\1", line) for line in run.told()]
    assert told == [
        *("target", "exited", "restarting 0.02 1"),
        *("target", "exited", "restarting 0.04 2"),
        *("target", "exited", "restarting 0.08 3"),
        *("target", "exited", "giving-up"),
    ]
    assert len(run.sidecars()) == 1


def test_a_target_that_ends_with_0_is_not_restarted(start: Start) -> None:
    run = start("true", restart=True)

    assert run.result() == (0, "")


def test_no_restart_follows_a_forwarded_sigterm(start: Start, tmp_path: Path) -> None:
    up = tmp_path / "up"
    run = start(*shell(f"trap 'exit 3' TERM; echo up > {up}; while :; do sleep 0.05; done"), restart=True)
    wait_for(lambda: lines(up), "the target")

    run.send(signal.SIGTERM)

    assert run.result() == (3, "")


def test_a_stop_signal_during_the_delay_ends_it(start: Start) -> None:
    run = start(*shell("exit 9"), restart=True, first_backoff=600)
    wait_for(lambda: any(line.startswith("restarting 600 1") for line in run.told()), "the delay")

    run.send(signal.SIGTERM)

    assert run.result()[0] == 143


def test_a_sidecar_that_starts_during_the_delay_hears_of_it(start: Start) -> None:
    run = start(*shell("exit 9"), restart=True, first_backoff=600)
    wait_for(lambda: len(run.told()) == 3, "the delay")

    os.kill(run.sidecars()[0], signal.SIGKILL)
    wait_for(lambda: len(run.told()) == 5, "the state")

    assert run.told()[3] == run.told()[1]
    assert re.fullmatch(r"restarting 5\d\d\.?\d* 1", run.told()[4])


def test_leftover_workers_are_told_to_end_before_a_restart(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "workers"
    first = tmp_path / "first"
    run = start(
        *shell(f"[ -e {first} ] && exit 0; touch {first}; sleep 1000 & echo $! > {log}; exit 1"),
        restart=True,
        first_backoff=0.1,
    )

    assert run.result()[0] == 0
    wait_for(lambda: not process_state(pids_in(log)[0]), "the worker's end")


def test_without_a_restart_leftover_workers_are_left_alone(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "workers"
    run = start(*shell(f"sleep 1000 & echo $! > {log}; exit 1"), popen={"stderr": subprocess.DEVNULL})

    assert run.result()[0] == 1
    worker = pids_in(log)[0]
    try:
        assert runs(worker)
    finally:
        os.kill(worker, signal.SIGKILL)


def test_the_supervisor_needs_no_more_than_5_mb(start: Start) -> None:
    run = start("sleep", "1000")
    run.target()
    rollup = Path(f"/proc/{run.pid}/smaps_rollup").read_text()
    dirty = int(re.search(r"^Private_Dirty:\s+(\d+) kB", rollup, re.MULTILINE)[1])

    assert dirty <= 5 * 1024


def test_without_sigtimedwait_as_on_macos_it_works_the_same(tmp_path: Path) -> None:
    from tests.support.supervised import SIDECAR

    from oomguard import supervisor

    log, signals = tmp_path / "sidecar.log", tmp_path / "signals"
    argv = supervisor.command(
        python=sys.executable,
        target=recorder(signals, signal.SIGTERM),
        sidecar=[sys.executable, str(SIDECAR), str(log), "good"],
        restart=False,
        max_restarts=0,
        oom_adj=False,
    )
    script = (
        "import _signal, runpy, sys; del _signal.sigtimedwait, _signal.sigwaitinfo;"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    process = subprocess.Popen([sys.executable, "-I", "-c", script, *argv[3:]], cwd=ROOT)
    wait_for(lambda: lines(signals), "the target")
    os.kill(process.pid, signal.SIGWINCH)
    wait_for(lambda: len(lines(signals)) == 2, "SIGWINCH")
    os.kill(process.pid, signal.SIGTERM)

    assert process.wait(timeout=30) == 143
    assert lines(signals)[1:] == [str(int(signal.SIGWINCH))]
    assert lines(log)[-1].startswith("eof ")
