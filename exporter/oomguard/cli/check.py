"""``oomguard check FILE…``: every mistake in configuration, rule and route files, with file and line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from oomguard.alerting import loading
from oomguard.cli.options import needs_sidecar
from oomguard.config import DEFAULT_FILE, Settings, load
from oomguard.documents import read_yaml
from oomguard.errors import ConfigError, Problem
from oomguard.routes import config as route_files

_RULES = "groups"
_RULES_LOOSE = frozenset({"alert", "record", "expr", "spec"})
"""Keys of a rule without its group, or of a Kubernetes object around the groups."""
_ROUTES = frozenset({"route", "receivers", "inhibit_rules", "time_intervals", "mute_time_intervals"})


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``check``."""
    parser.add_argument(
        "files",
        nargs="*",
        metavar="FILE",
        help=f"configuration ({DEFAULT_FILE}), rule or route files; what each is shows in it "
        "(default: what oomguard run would use here)",
    )


def run(options: argparse.Namespace) -> int:
    """Print what is right, raise ConfigError with all that is not."""
    needs_sidecar()
    problems: list[Problem] = []
    for name in options.files:
        found: list[Problem] = []
        told = _check(Path(name), found)
        if not found:
            print(f"{name}: ok: {told}")
        problems += found
    if not options.files:
        file = Path(DEFAULT_FILE)
        told = _configuration(file if file.is_file() else None, problems)
        if not problems:
            print(f"ok: {told}")
    if problems:
        raise ConfigError(problems)
    return 0


def _check(path: Path, problems: list[Problem]) -> str:
    """What a file is and holds; mistakes are added to `problems`."""
    node = read_yaml(path, problems)
    keys = node.value.keys() if node is not None and isinstance(node.value, dict) else set()
    if problems:
        return ""
    if _RULES in keys:
        groups = loading.load_rules(path, problems)
        return f"{sum(len(group.rules) for group in groups)} rules in {len(groups)} groups"
    if _RULES_LOOSE & set(keys):
        problems.append(
            Problem(str(path), "has no groups; a rule file begins with groups:, each with name and rules")
        )
        return ""
    if _ROUTES & set(keys):
        config = route_files.load(path, problems)
        return "" if config is None else f"routes to {len(config.receivers)} receivers"
    return _configuration(path, problems)


def _configuration(file: Path | None, problems: list[Problem]) -> str:
    """Check settings, and the rules and routes that they name; without a file, of the environment alone."""
    env = {} if file is not None else os.environ
    try:
        settings = load({}, env, file)
    except ConfigError as error:
        problems += error.problems
        settings = _named(file, env)  # what it names is wrong or right by itself
    try:
        loaded = loading.load(settings)
    except ConfigError as error:
        problems += error.problems
        return ""
    for warning in loaded.warnings():
        print(f"warning: {warning}", file=sys.stderr)
    count = sum(len(group.rules) for group in loaded.groups)
    return f"settings, {count} rules, routes to {len(loaded.routes.receivers)} receivers"


def _named(file: Path | None, env: Mapping[str, str]) -> Settings:
    """The rules and routes that broken settings name; the shipped ones where they name none."""
    if file is None:
        return Settings(rules=env.get("OOMGUARD_RULES"), routes=env.get("OOMGUARD_ROUTES"))
    node = read_yaml(file, [])
    keys = node.value if node is not None and isinstance(node.value, dict) else {}
    named = [keys[name].value if name in keys else None for name in ("rules", "routes")]
    rules, routes = (value if isinstance(value, str) else None for value in named)
    return Settings(rules=rules, routes=routes)
