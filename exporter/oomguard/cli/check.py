"""``oomguard check FILE…``: every mistake in configuration files, with file and line."""

from __future__ import annotations

import argparse
from pathlib import Path

from oomguard.config import load
from oomguard.errors import ConfigError, Problem


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``check``."""
    parser.add_argument("files", nargs="+", metavar="FILE", help="configuration files (oomguard.yml)")


def run(options: argparse.Namespace) -> int:
    """Print what is right, raise ConfigError with all that is not."""
    problems: list[Problem] = []
    for name in options.files:
        try:
            load({}, {}, Path(name))
            print(f"{name}: ok")
        except ConfigError as error:  # noqa: PERF203 - one file's mistakes must not hide the next one's
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return 0
