"""The supervisor on a real pseudo-terminal: Ctrl-C, Ctrl-Z and fg, with and without a shell above it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import shlex
import signal
import subprocess
import termios
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.support.supervised import (
    children,
    launch,
    lines,
    process_state,
    recorder,
    runs,
    wait_for,
)

CTRL_C, CTRL_Z, CTRL_BACKSLASH = b"\x03", b"\x1a", b"\x1c"
INT, QUIT, USR1, CONT = (
    str(int(number)) for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGCONT)
)


class Terminal:
    """A process that leads a session on a terminal of its own; all that it shows is kept."""

    def __init__(self, argv: Sequence[str], stdin: int | None = None) -> None:
        self.master, slave = pty.openpty()

        def lead() -> None:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            argv,
            stdin=slave if stdin is None else stdin,
            stdout=slave,
            stderr=slave,
            preexec_fn=lead,  # noqa: PLW1509 - the readers hold no lock
        )
        os.close(slave)
        self.shown = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while chunk := os.read(self.master, 4096):
                self.shown += chunk

    def type(self, text: bytes) -> None:
        """Type on its keyboard."""
        os.write(self.master, text)

    def foreground(self) -> int:
        """Its foreground process group."""
        return os.tcgetpgrp(self.master)

    def wait(self, timeout: float = 30.0) -> int:
        """Exit code of the session's leader."""
        return self.process.wait(timeout)

    def close(self) -> None:
        """Kill the whole session and drop the terminal."""
        if self.process.poll() is None:
            for path in Path("/proc").glob("[0-9]*/stat"):
                with contextlib.suppress(OSError):
                    fields = path.read_text().rpartition(")")[2].split()
                    if int(fields[3]) == self.process.pid:
                        os.kill(int(path.parent.name), signal.SIGKILL)
        self.process.wait()
        # The reader ends when the last process lets go of the slave.
        self._reader.join(timeout=30)
        os.close(self.master)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def supervisor_of(target: int) -> int:
    return int(Path(f"/proc/{target}/stat").read_text().rpartition(")")[2].split()[1])


def target_in(log: Path) -> int:
    """PID of a recorder, once it is up."""
    return int(wait_for(lambda: lines(log), "the target")[0].split()[1])


def shell_on(terminals: list[Terminal]) -> Terminal:
    terminal = Terminal(["bash", "--norc", "--noprofile", "-i"])
    terminals.append(terminal)
    return terminal


def test_ctrl_c_reaches_the_target_exactly_once(terminals: list[Terminal], tmp_path: Path) -> None:
    log = tmp_path / "signals"
    terminal = Terminal(launch(recorder(log), tmp_path / "sidecar.log"))
    terminals.append(terminal)
    target_in(log)

    terminal.type(CTRL_C)
    wait_for(lambda: len(lines(log)) > 1, "SIGINT")
    terminal.type(CTRL_BACKSLASH)
    wait_for(lambda: len(lines(log)) > 2, "SIGQUIT")
    # Had the supervisor been sent them too, it would have forwarded them before this one.
    os.kill(terminal.process.pid, signal.SIGUSR1)
    wait_for(lambda: USR1 in lines(log), "SIGUSR1")

    assert lines(log)[1:] == [INT, QUIT, USR1]


def test_ctrl_c_reaches_the_target_once_when_stdin_is_redirected(
    terminals: list[Terminal], tmp_path: Path
) -> None:
    log = tmp_path / "signals"
    null = os.open(os.devnull, os.O_RDONLY)
    terminal = Terminal(launch(recorder(log), tmp_path / "sidecar.log"), stdin=null)
    os.close(null)
    terminals.append(terminal)
    target = target_in(log)

    assert terminal.foreground() == target
    terminal.type(CTRL_C)
    wait_for(lambda: len(lines(log)) > 1, "SIGINT")
    os.kill(terminal.process.pid, signal.SIGUSR1)
    wait_for(lambda: USR1 in lines(log), "SIGUSR1")

    assert lines(log)[1:] == [INT, USR1]


def test_ctrl_c_never_reaches_the_sidecar(terminals: list[Terminal], tmp_path: Path) -> None:
    sidecar = tmp_path / "sidecar.log"
    terminal = Terminal(launch(["sleep", "1000"], sidecar))
    terminals.append(terminal)
    wait_for(lambda: any(line.startswith("target ") for line in lines(sidecar)), "the target")

    terminal.type(CTRL_C)

    assert terminal.wait() == 130
    # A sidecar that was killed would not have seen the end of its pipe.
    assert lines(sidecar)[-1].startswith("eof ")
    assert len([line for line in lines(sidecar) if line.startswith("started ")]) == 1


def test_ctrl_c_ends_a_target_that_would_be_restarted(terminals: list[Terminal], tmp_path: Path) -> None:
    sidecar = tmp_path / "sidecar.log"
    terminal = Terminal(launch(["sleep", "1000"], sidecar, restart=True))
    terminals.append(terminal)
    wait_for(lambda: any(line.startswith("target ") for line in lines(sidecar)), "the target")

    terminal.type(CTRL_C)

    assert terminal.wait() == 130
    assert not any(line.startswith("restarting") for line in lines(sidecar))


def test_the_sidecar_can_speak_on_a_terminal_that_stops_background_output(
    terminals: list[Terminal], tmp_path: Path
) -> None:
    log = tmp_path / "signals"
    script = f"stty tostop; exec {shlex.join(launch(recorder(log), tmp_path / 'sidecar.log', 'loud'))}"
    terminal = Terminal(["/bin/sh", "-c", script])
    terminals.append(terminal)
    target_in(log)

    wait_for(lambda: b"noise" in terminal.shown, "the sidecar's line")


def test_ctrl_z_stops_the_job_and_fg_continues_it_in_the_foreground(
    terminals: list[Terminal], tmp_path: Path
) -> None:
    log = tmp_path / "signals"
    terminal = shell_on(terminals)
    shell = terminal.process.pid
    terminal.type(
        shlex.join(launch(recorder(log, signal.SIGTSTP), tmp_path / "sidecar.log")).encode() + b"\n"
    )
    target = target_in(log)
    supervisor = supervisor_of(target)
    assert terminal.foreground() == target

    for round_ in (1, 2):
        terminal.type(CTRL_Z)
        wait_for(lambda: process_state(supervisor) == "T", "the supervisor's stop")
        wait_for(lambda: terminal.foreground() == shell, "the shell's prompt")
        assert process_state(target) == "T"
        terminal.type(b"fg\n")
        wait_for(lambda round_=round_: lines(log).count(CONT) == round_, "the continuation")
        assert terminal.foreground() == target
        assert runs(supervisor)

    terminal.type(CTRL_C)
    wait_for(lambda: INT in lines(log), "SIGINT")
    os.kill(supervisor, signal.SIGUSR1)
    wait_for(lambda: USR1 in lines(log), "SIGUSR1")
    assert lines(log)[1:] == [CONT, CONT, INT, USR1]


def test_bg_continues_a_stopped_job_and_leaves_the_terminal_to_the_shell(
    terminals: list[Terminal], tmp_path: Path
) -> None:
    log = tmp_path / "signals"
    terminal = shell_on(terminals)
    terminal.type(
        shlex.join(launch(recorder(log, signal.SIGTSTP), tmp_path / "sidecar.log")).encode() + b"\n"
    )
    target = target_in(log)

    terminal.type(CTRL_Z)
    wait_for(lambda: terminal.foreground() == terminal.process.pid, "the shell's prompt")
    terminal.type(b"bg\n")
    wait_for(lambda: CONT in lines(log), "the continuation")

    assert terminal.foreground() == terminal.process.pid
    assert runs(target)


def test_ctrl_z_stops_the_rest_of_a_pipeline_too(terminals: list[Terminal], tmp_path: Path) -> None:
    log = tmp_path / "signals"
    terminal = shell_on(terminals)
    command = shlex.join(launch(recorder(log, signal.SIGTSTP), tmp_path / "sidecar.log"))
    terminal.type(f"{command} | cat\n".encode())
    target = target_in(log)
    supervisor = supervisor_of(target)

    terminal.type(CTRL_Z)
    wait_for(lambda: process_state(supervisor) == "T", "the supervisor's stop")
    wait_for(lambda: terminal.foreground() == terminal.process.pid, "the shell's prompt")

    jobs = [pid for pid in children(terminal.process.pid) if os.getpgid(pid) == os.getpgid(supervisor)]
    assert len(jobs) == 2
    assert {process_state(pid) for pid in jobs} == {"T"}


def test_ctrl_z_stops_nothing_where_no_shell_could_continue_it(
    terminals: list[Terminal], tmp_path: Path
) -> None:
    log = tmp_path / "signals"
    terminal = Terminal(launch(recorder(log, signal.SIGTSTP), tmp_path / "sidecar.log"))
    terminals.append(terminal)
    target = target_in(log)

    terminal.type(CTRL_Z)
    wait_for(lambda: CONT in lines(log), "the continuation")

    assert runs(terminal.process.pid)
    assert terminal.foreground() == target


def test_a_background_job_leaves_the_terminal_alone_until_fg(
    terminals: list[Terminal], tmp_path: Path
) -> None:
    log = tmp_path / "signals"
    terminal = shell_on(terminals)
    terminal.type(shlex.join(launch(recorder(log), tmp_path / "sidecar.log")).encode() + b" &\n")
    target = target_in(log)
    supervisor = supervisor_of(target)
    assert terminal.foreground() == terminal.process.pid

    terminal.type(b"fg\n")
    # The shell sends no SIGCONT to a job that runs: the terminal is the supervisor's now.
    wait_for(lambda: terminal.foreground() == supervisor, "fg")
    terminal.type(CTRL_C)
    wait_for(lambda: INT in lines(log), "SIGINT")
    os.kill(supervisor, signal.SIGUSR1)
    wait_for(lambda: USR1 in lines(log), "SIGUSR1")

    assert lines(log)[1:] == [INT, USR1]


def test_a_target_that_reads_after_fg_is_given_the_terminal(
    terminals: list[Terminal], tmp_path: Path
) -> None:
    up, out = tmp_path / "up", tmp_path / "line"
    terminal = shell_on(terminals)
    go = tmp_path / "go"
    script = f"echo up > {up}; until [ -e {go} ]; do sleep 0.02; done; read line; echo $line > {out}"
    command = shlex.join(launch(["/bin/sh", "-c", script], tmp_path / "sidecar.log"))
    terminal.type(command.encode() + b" &\n")
    wait_for(lambda: lines(up), "the target")
    shell = terminal.process.pid

    terminal.type(b"fg\n")
    wait_for(lambda: terminal.foreground() != shell, "fg")
    go.touch()
    terminal.type(b"hello\n")

    assert wait_for(lambda: lines(out), "the line") == ["hello"]


def test_the_terminal_is_taken_back_at_the_end(terminals: list[Terminal], tmp_path: Path) -> None:
    out = tmp_path / "line"
    command = shlex.join(launch(["true"], tmp_path / "sidecar.log"))
    # A script is in the supervisor's process group: in the background it could not read.
    terminal = Terminal(["/bin/sh", "-c", f"{command}; echo ready; read line; echo $line > " + str(out)])
    terminals.append(terminal)
    wait_for(lambda: b"ready" in terminal.shown, "the end of the target")

    terminal.type(b"hello\n")

    assert wait_for(lambda: lines(out), "the line") == ["hello"]


def test_an_interactive_shell_as_target_has_job_control(terminals: list[Terminal], tmp_path: Path) -> None:
    out = tmp_path / "out"
    terminal = Terminal(launch(["bash", "--norc", "--noprofile", "-i"], tmp_path / "sidecar.log"))
    terminals.append(terminal)

    shell = wait_for(lambda: _command(foreground := terminal.foreground()) == "bash" and foreground, "bash")
    terminal.type(b"sleep 1000\n")
    sleeper = wait_for(
        lambda: next(
            (
                pid
                for path in Path("/proc").glob("[0-9]*")
                if (pid := int(path.name)) == terminal.foreground() and _command(pid) == "sleep"
            ),
            0,
        ),
        "the shell's job",
    )
    terminal.type(CTRL_Z)
    wait_for(lambda: process_state(sleeper) == "T", "the job's stop")
    wait_for(lambda: terminal.foreground() == shell, "the shell's prompt")
    terminal.type(f"jobs > {out}; fg\n".encode())
    wait_for(lambda: terminal.foreground() == sleeper, "fg")
    terminal.type(CTRL_C)
    wait_for(lambda: terminal.foreground() == shell, "the shell's prompt")
    terminal.type(b"exit 7\n")

    assert terminal.wait() == 7
    assert re.search(r"Stopped\s+sleep 1000", out.read_text())
    wait_for(lambda: not process_state(sleeper), "the job's end")


def _command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""
