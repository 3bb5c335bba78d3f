"""The command ``oomguard``: one file a subcommand, listed in `COMMANDS`.

Exit codes: 0; 2 for a mistake of the user's, said in one line (a configuration's mistakes in one line each); of
``run`` the target's own, 128+n where signal n ended it. A subcommand's module is imported when it is called.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any, Final

from oomguard import __version__
from oomguard.errors import UserError

COMMANDS: Final = (
    ("run", "start a command as a child and guard it"),
    ("watch", "guard a process that already runs, or will"),
    ("demo", "a leaking service, guarded, with the live page"),
    ("check", "configuration files: every error at once"),
    ("status", "what a running sidecar sees"),
    ("journal", "what a sidecar did, and what it gave back"),
    ("cleanup", "order a cleanup now"),
)

SIDECAR: Final = "sidecar"
"""Started by the supervisor; not for people."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    target: list[str] | None = None
    if "--" in arguments:
        split = arguments.index("--")
        arguments, target = arguments[:split], arguments[split + 1 :]
    try:
        if arguments[:1] == [SIDECAR]:
            return int(_module(SIDECAR).run(arguments[1:]))
        options = _parser(arguments[0] if arguments else "").parse_args(arguments)
        if options.command is None:
            _parser("").print_help()
            return 0
        if target is not None and options.command not in ("run",):
            raise UserError(f"oomguard {options.command} takes no command after --; only run does")
        options.target_command = target
        return int(_module(options.command).run(options))
    except UserError as error:
        print("\n".join(f"oomguard: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 141  # 128 + SIGPIPE: whoever read our output has had enough
    except KeyboardInterrupt:
        return 130


def _parser(wanted: str) -> argparse.ArgumentParser:
    """The parser, with the options of the wanted subcommand only: the others are not imported."""
    parser = argparse.ArgumentParser(
        prog="oomguard",
        description="Keeps memory-hungry services alive inside small containers, and proves what it did.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"oomguard {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in COMMANDS:
        subparser = subparsers.add_parser(name, help=text, description=text, allow_abbrev=False)
        if name == wanted:
            _module(name).add_options(subparser)
    return parser


def arguments_of(command: str) -> Sequence[argparse.Action]:
    """The options of a subcommand, for the reference page."""
    parser = argparse.ArgumentParser()
    _module(command).add_options(parser)
    return parser._actions  # noqa: SLF001 - argparse has no other way to ask


def _module(name: str) -> Any:
    return importlib.import_module(f"oomguard.cli.{name}")
