"""Options that several subcommands share: the settings, and where a running sidecar is."""

from __future__ import annotations

import argparse
import importlib.util
import os
from pathlib import Path

from oomguard.config import DEFAULT_FILE, SETTINGS, Settings, is_switch, load
from oomguard.errors import ConfigError, Problem, UserError

NEEDED = ("aiohttp", "prometheus_client", "promql_parser", "yaml")
"""What the sidecar imports beyond the standard library."""


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The options of `oomguard.config.SETTINGS`, and ``--config``."""
    group = parser.add_argument_group(
        "settings", f"also from the environment and {DEFAULT_FILE}; see docs/configuration.md"
    )
    group.add_argument(
        "--config", metavar="FILE", help=f"configuration file (default: {DEFAULT_FILE}, where there is one)"
    )
    for setting in SETTINGS:
        if setting.flag is not None and is_switch(setting):
            group.add_argument(
                setting.flag, dest=setting.field, action="store_const", const="true", help=setting.help
            )
        elif setting.flag is not None:
            group.add_argument(
                setting.flag, dest=setting.field, metavar="VALUE", help=setting.help.replace("%", "%%")
            )


def settings_from(options: argparse.Namespace) -> Settings:
    """Settings of the parsed options, the environment and the file; raises ConfigError."""
    file = Path(options.config) if options.config else None
    if file is None and Path(DEFAULT_FILE).is_file():
        file = Path(DEFAULT_FILE)
    flags = {setting.field: getattr(options, setting.field, None) for setting in SETTINGS}
    # --limit "$LIMIT" with an unset variable: the user believes that there is a limit.
    empty = [setting for setting in SETTINGS if setting.flag and flags[setting.field] == ""]
    if empty:
        raise ConfigError(
            [Problem(str(setting.flag), "its value is empty; give one, or leave it out") for setting in empty]
        )
    return load(flags, os.environ, file)


def printable(text: str) -> str:
    """One line, without what would move a terminal's cursor: names and command lines are others' to choose."""
    return "".join(character if character.isprintable() else " " for character in text)


def number(text: str) -> int:
    """The type of options that take a number above zero."""
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above zero")
    return int(text)


def needs_sidecar() -> None:
    """Raise UserError where only the hook is installed."""
    for package in NEEDED:
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{package} is not installed: the sidecar needs pip install 'oomguard[sidecar]'")


def check_alerting(settings: Settings) -> None:
    """Raise ConfigError for rules and routes that the sidecar could not read: here somebody sees it."""
    from oomguard.alerting import loading  # noqa: PLC0415 - needs what needs_sidecar has looked for

    loading.load(settings)
