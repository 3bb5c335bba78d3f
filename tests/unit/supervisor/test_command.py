from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tests.support.supervised import SOURCES

from oomguard import supervisor

COSTLY = ("signal", "enum", "typing", "ctypes", "pathlib", "contextlib", "asyncio", "re", "collections")


def test_the_command_runs_the_script_alone_and_keeps_every_argument_as_it_is() -> None:
    argv = supervisor.command(
        python="/venv/bin/python",
        target=["serve", "--", "a=b", "two words"],
        sidecar=["/venv/bin/python", "-I", "x"],
        restart=True,
        max_restarts=5,
        oom_adj=False,
        mask={signal.SIGUSR1, signal.SIGHUP},
    )

    assert argv[:3] == ["/venv/bin/python", "-I", "-S"]
    assert Path(argv[3]).read_text().startswith('"""The supervisor as a script')
    split = argv.index("--")
    assert argv[4:split] == [
        "restart=1",
        "max_restarts=5",
        "oom_adj=0",
        "ready_timeout=10.0",
        "backoff=1.0",
        "mask=1,10",
        "sidecar=3",
    ]
    assert argv[split + 1 :] == ["/venv/bin/python", "-I", "x", "serve", "--", "a=b", "two words"]


def test_held_signals_wait_and_the_former_mask_is_returned() -> None:
    program = (
        "import os, signal, sys; sys.path.insert(0, sys.argv[1]); from oomguard import supervisor\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})\n"
        "print(supervisor.hold_signals()); os.kill(os.getpid(), signal.SIGTERM); print(signal.sigpending())"
    )

    said = subprocess.run(
        [sys.executable, "-c", program, str(SOURCES)], capture_output=True, text=True, check=True
    )

    assert said.stdout == f"{{{int(signal.SIGUSR2)}}}\n{{{signal.SIGTERM!r}}}\n"


def test_the_supervisor_imports_none_of_the_costly_modules() -> None:
    program = (
        "import sys; sys.path.append(sys.argv[1]); import oomguard.supervisor.loop;"
        "print(sorted(set(sys.argv[2:]) & set(sys.modules)))"
    )

    said = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(SOURCES), *COSTLY],
        capture_output=True,
        text=True,
        check=True,
    )

    assert said.stdout == "[]\n"
