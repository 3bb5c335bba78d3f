"""The command ``oomguard``: one file a subcommand, listed in `COMMANDS`.

Exit codes: 0; 2 for a mistake of the user's, said in one line (a configuration's mistakes in one line each); of
``run`` the target's own, 128+n where signal n ended it; of ``cleanup`` 1 where the goal was not reached. A
subcommand's module is imported when it is called.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from oomguard import __version__
from oomguard.errors import UserError

COMMANDS: Final = (
    ("run", "start a command as a child and guard it"),
    ("watch", "guard a process that already runs, or will"),
    ("demo", "a leaking service, guarded, with the live page"),
    ("check", "configuration, rules and routes: every error at once"),
    ("status", "what a running sidecar sees"),
    ("journal", "what a sidecar did, and what it gave back"),
    ("cleanup", "order a cleanup now"),
    ("pause", "hold automatic actions back for a while"),
    ("replay", "which alerts a recording would have raised, and which actions"),
)

SIDECAR: Final = "sidecar"
"""Started by the supervisor; not for people."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a command line may hold what this locale has not
    target: list[str] | None = None
    if "--" in arguments:
        split = arguments.index("--")
        arguments, target = arguments[:split], arguments[split + 1 :]
    try:
        if arguments[:1] == [SIDECAR]:
            return int(_module(SIDECAR).run(arguments[1:]))
        options = _parse(arguments, target)
        if options.command is None:
            _parser("").print_help()
            return 0
        options.target_command = target
        code = int(_module(options.command).run(options))
        print(end="", flush=True)  # here, where a closed pipe is still ours to answer
    except UserError as error:
        print("\n".join(f"oomguard: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 2
    except OSError as error:
        return _failed(error)
    except KeyboardInterrupt:
        return 130
    return code


def _failed(error: OSError) -> int:
    """Say what the system refused; mostly it is a stdout that takes no more."""
    # What is left in the buffer has nowhere to go; Python would complain of it at its end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if isinstance(error, BrokenPipeError):
        return 141  # 128 + SIGPIPE: whoever read our output has had enough
    where = f"{error.filename}: " if error.filename else ""
    print(f"oomguard: {where}{(error.strerror or str(error)).lower()}", file=sys.stderr)
    return 1


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, as every other one is told."""

    def error(self, message: str) -> NoReturn:
        """Raise UserError."""
        raise UserError(f"{message.removeprefix('argument ')}; see {self.prog} --help")


def _parse(arguments: Sequence[str], target: Sequence[str] | None) -> argparse.Namespace:
    """The parsed options; raises UserError."""
    first = arguments[0] if arguments else ""
    if first and not first.startswith("-") and first not in (name for name, _ in COMMANDS):
        known = ", ".join(name for name, _ in COMMANDS)
        raise UserError(f"there is no command {first!r}; the commands are {known}")
    options, unknown = _parser(first).parse_known_args(arguments)
    place = f"oomguard {options.command}" if options.command else "oomguard"
    if unknown:
        if options.command == "run" and target is None and not unknown[0].startswith("-"):
            raise UserError(
                f"the command to run comes after --; write oomguard run … -- {shlex.join(unknown)}"
            )
        kind = "option" if unknown[0].startswith("-") else "argument"
        raise UserError(f"{place} has no {kind} {unknown[0]!r}; see {place} --help")
    if target is not None and options.command != "run":
        raise UserError(f"{place} takes no command after --; only oomguard run does")
    return options


def _parser(wanted: str) -> argparse.ArgumentParser:
    """The parser, with the options of the wanted subcommand only: the others are not imported."""
    parser = _Parser(
        prog="oomguard",
        usage="oomguard COMMAND …",
        description="Keeps memory-hungry services alive inside small containers, and proves what it did.",
        epilog="oomguard COMMAND --help tells the options of a command.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"oomguard {__version__}")
    subparsers = parser.add_subparsers(dest="command", title="commands", metavar="COMMAND", prog="oomguard")
    for name, text in COMMANDS:
        described = f"{text[0].upper()}{text[1:]}."
        subparser = subparsers.add_parser(name, help=text, description=described, allow_abbrev=False)
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
