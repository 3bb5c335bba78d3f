"""``oomguard run -- CMD``: check everything, then become the supervisor."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
from pathlib import Path

from oomguard import inject, runtime, supervisor
from oomguard.cli.options import add_settings, check_alerting, needs_sidecar, number, settings_from
from oomguard.config import Settings
from oomguard.errors import UserError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``run``."""
    parser.usage = "oomguard run [OPTION …] -- COMMAND [ARGUMENT …]"
    parser.add_argument(
        "--restart",
        action="store_true",
        help="start the command again when it fails, with exponential backoff",
    )
    parser.add_argument(
        "--max-restarts",
        type=number,
        default=10,
        metavar="N",
        help="restarts in an hour after which to give up (default 10)",
    )
    parser.add_argument(
        "--no-inject", action="store_true", help="leave the hook out of the command's interpreters"
    )
    parser.add_argument(
        "--no-oom-adj",
        action="store_true",
        help="leave the command's oom_score_adj as it is, instead of raising it by 100",
    )
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Never returns when it works: the supervisor takes this process over."""
    command = options.target_command
    if not command:
        raise UserError(
            "no command to run; write oomguard run -- COMMAND, for example oomguard run -- python app.py"
        )
    _check(command[0])
    return start(
        settings_from(options),
        command,
        restart=options.restart,
        max_restarts=options.max_restarts,
        oom_adj=not options.no_oom_adj,
        hook=not options.no_inject,
    )


def _check(name: str) -> None:
    """Raise UserError for a command that can't be started."""
    path = shutil.which(name)
    if path is None:
        raise UserError(
            f"command {name!r} is not an executable file and not found on PATH; "
            "check its name, or activate its environment"
        )
    # A virtual environment that was moved: execve would blame the script, which is there.
    with contextlib.suppress(OSError), Path(path).open("rb") as file:
        words = file.readline(256).removeprefix(b"#!").split() if file.peek(2).startswith(b"#!") else []
        if words and not Path(os.fsdecode(words[0])).exists():
            raise UserError(
                f"command {name!r} names the interpreter {os.fsdecode(words[0])} in its first line, "
                "which does not exist; make its environment again, or mend the line"
            )


def start(
    settings: Settings,
    command: list[str],
    *,
    restart: bool = False,
    max_restarts: int = 10,
    oom_adj: bool = True,
    hook: bool = True,
) -> int:
    """Become the supervisor of `command`; raises UserError before that point only."""
    needs_sidecar()
    check_alerting(settings)
    place = runtime.prepare(settings.runtime_dir, str(os.getpid()))
    environment = inject.environment(os.environ, place.variable, target=settings.target, inject=hook)
    sidecar = [sys.executable, "-I", "-m", "oomguard", "sidecar", settings.to_json()]
    argv = supervisor.command(
        python=sys.executable,
        target=command,
        sidecar=sidecar,
        restart=restart,
        max_restarts=max_restarts,
        oom_adj=oom_adj,
        mask=supervisor.hold_signals(),
    )
    supervisor.become_subreaper()
    print(end="", flush=True)
    os.execve(sys.executable, argv, environment)  # noqa: S606 - no shell is wanted
