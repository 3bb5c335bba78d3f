"""Which rule and route files are in force, and reading them: every mistake at once."""

from __future__ import annotations

import difflib
import glob
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from oomguard import promql
from oomguard.broker.wishes import Action, read_labels
from oomguard.config import Settings
from oomguard.documents import read_yaml
from oomguard.errors import ConfigError, Problem, UserError
from oomguard.metrics import TABLE, series_names
from oomguard.routes import config as route_files
from oomguard.routes.config import RoutesConfig
from oomguard.rules import files as rule_files
from oomguard.rules.rule import AlertRule, Group
from oomguard.store import MAX_REACH, SLOTS

_PACKAGE: Final = Path(__file__).parents[1]
SHIPPED: Final = next(
    (folder for folder in (_PACKAGE / "alerts", _PACKAGE.parents[1] / "alerts") if folder.is_dir()),
    _PACKAGE / "alerts",
)
"""``alerts/``: in the package as it is installed, beside ``exporter/`` in a checkout."""
RULES: Final = SHIPPED / "oomguard.rules.yml"
ROUTES: Final = SHIPPED / "alertmanager.yml"
THOSE_THAT_SHIP: Final = "shipped"
"""What stands for `RULES` among the files of ``--rules``."""
RECEIVER: Final = "oomguard"
"""Name of the receiver that is the sidecar itself: its alerts never leave the process."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rules and routes that were read without a mistake."""

    groups: tuple[Group, ...]
    routes: RoutesConfig
    texts: Mapping[str, Any]
    """What the files held, JSON-able, for `load_kept`: a sidecar that starts again may find one broken."""

    def warnings(self) -> Iterator[str]:
        """What leaves a target without its guard, though nothing in the files is wrong."""
        rules = [rule for group in self.groups for rule in group.rules if isinstance(rule, AlertRule)]
        if not any(name == "action" for rule in rules for name, _ in rule.labels):
            yield (
                "no rule has the label action: alerts are told, but nothing is done by itself; "
                f"--rules {THOSE_THAT_SHIP},FILE adds a file to the rules that ship"
            )
        for rule in rules:
            if any(name == "action" and label.text == Action.RESTART.value for name, label in rule.labels):
                yield f"rule {rule.name} asks for a restart: nothing allows one, so that it does nothing"
        receivers = {route.receiver for route in self.routes.route.walk()}
        if RECEIVER not in receivers:
            yield f"no route leads to the receiver {RECEIVER!r}: alerts are told, but nothing is done by itself"

    @property
    def long_names(self) -> frozenset[str]:
        """Metrics of which rules want more than the store's usual 15 minutes."""
        expressions = [rule.expression for group in self.groups for rule in group.rules]
        return frozenset(
            selector.name
            for expression in expressions
            for selector in expression.selectors
            if selector.name is not None and selector.reach + promql.LOOKBACK > SLOTS * 1000
        )


def load(settings: Settings) -> Loaded:
    """The rules and routes that the settings name; raises ConfigError."""
    problems: list[Problem] = []
    rules = _rule_paths(settings, problems)
    routes = Path(settings.routes) if settings.routes else ROUTES
    texts = {path: _text(path, problems) for path in rules}
    text = _text(routes, problems)
    return _read(
        {path: text for path, text in texts.items() if text is not None},
        (routes, text) if text is not None else None,
        problems,
    )


def load_kept(texts: Mapping[str, Any]) -> Loaded:
    """What `Loaded.texts` were made of; raises ConfigError, also where this version reads them otherwise."""
    try:
        rules = {Path(path): str(text) for path, text in texts["rules"].items()}
        path, text = texts["routes"]
    except (LookupError, TypeError, ValueError, AttributeError):
        raise ConfigError([Problem("saved state", "holds no rules and routes")]) from None
    return _read(rules, (Path(path), str(text)), [])


def _read(rules: Mapping[Path, str], routes: tuple[Path, str] | None, problems: list[Problem]) -> Loaded:
    groups = [group for path, text in rules.items() for group in load_rules(path, problems, text)]
    config = route_files.load(routes[0], problems, routes[1]) if routes is not None else None
    if problems or config is None or routes is None:
        raise ConfigError(problems)
    kept = {"rules": {str(path): text for path, text in rules.items()}, "routes": [str(routes[0]), routes[1]]}
    return Loaded(tuple(groups), config, kept)


def _rule_paths(settings: Settings, problems: list[Problem]) -> list[Path]:
    if not settings.rules:
        return [RULES]
    found: list[Path] = []
    for pattern in settings.rules.split(","):
        name = pattern.strip()
        if name == THOSE_THAT_SHIP:
            found.append(RULES)
            continue
        matches = sorted(map(Path, glob.glob(name)))  # noqa: PTH207 - takes absolute patterns too
        if name and not matches:
            problems.append(
                Problem(
                    "rules",
                    f"{name}: there is no such file; {THOSE_THAT_SHIP!r} stands for the rules that ship",
                )
            )
        found += [path for path in matches if path not in found]
    return found


def load_rules(path: Path, problems: list[Problem], text: str | None = None) -> Sequence[Group]:
    """The groups of one rule file, with what their labels ask of the sidecar checked."""
    before = len(problems)
    groups = rule_files.load(path, problems, text, max_reach=MAX_REACH)
    # A rule with another mistake is not among the groups: its labels are looked at where they are written.
    alerts = _labels(groups) if len(problems) == before else _written_labels(path, text)
    asked = [(where, f"rule {name}: {text}") for where, name, labels in alerts if (text := _refusal(labels))]
    problems += [Problem(*told) for told in asked]
    problems += _misspelled(groups)
    return groups


def _misspelled(groups: Sequence[Group]) -> Iterator[Problem]:
    """Metrics of ours that there are not: a rule on one would be silent for ever."""
    rules = [rule for group in groups for rule in group.rules]
    known = {name for metric in TABLE for name in series_names(metric)} | {rule.name for rule in rules}
    for rule in rules:
        for selector in rule.expression.selectors:
            name = selector.name or ""
            if name.startswith("oomguard_") and name not in known:
                close = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {close[0]}?" if close else ""
                yield Problem(rule.where, f"rule {rule.name}: there is no metric {name}{hint}")


def _refusal(labels: Mapping[str, str]) -> str:
    """What is wrong with what labels ask of the sidecar; empty: nothing. What templates make is not known yet."""
    try:
        read_labels({name: value for name, value in labels.items() if "{{" not in value}, Action.NOTIFY)
    except UserError as error:
        return str(error)
    return ""


def _labels(groups: Sequence[Group]) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """Place, name and labels of every alert."""
    for group in groups:
        for rule in group.rules:
            if isinstance(rule, AlertRule):
                yield rule.where, rule.name, {name: label.text for name, label in rule.labels}


def _written_labels(path: Path, text: str | None) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """As `_labels`, of a file with mistakes; those were told when it was read."""
    known: list[Problem] = []
    document = read_yaml(path, known, text)
    groups = document.mapping(known, "the file").get("groups") if document is not None else None
    for group in groups.items(known, "groups") if groups is not None else ():
        rules = group.mapping(known, "a group").get("rules")
        for rule in rules.items(known, "rules") if rules is not None else ():
            keys = rule.mapping(known, "a rule")
            if "alert" in keys and "labels" in keys:
                labels = keys["labels"].mapping(known, "labels")
                told = {name: node.text(known, name) for name, node in labels.items()}
                yield rule.where, keys["alert"].text(known, "alert"), told


def _text(path: Path, problems: list[Problem]) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        problems.append(Problem(str(path), f"can't be read: {(error.strerror or str(error)).lower()}"))
    except UnicodeDecodeError as error:
        problems.append(Problem(str(path), f"is not UTF-8 text: {error.reason} at byte {error.start}"))
    return None
