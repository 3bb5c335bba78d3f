"""Which rule and route files are in force, and reading them: every mistake at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oomguard import promql
from oomguard.config import Settings
from oomguard.errors import ConfigError, Problem, UserError
from oomguard.routes import config as route_files
from oomguard.routes.config import RoutesConfig
from oomguard.rules import files as rule_files
from oomguard.rules.files import Group
from oomguard.store import MAX_REACH, SLOTS
from oomguard.wishes import Action, read_labels

_HERE: Final = Path(__file__).parent
SHIPPED: Final = next(
    (folder for folder in (_HERE / "alerts", _HERE.parents[1] / "alerts") if folder.is_dir()),
    _HERE / "alerts",
)
"""``alerts/``: in the package as it is installed, beside ``exporter/`` in a checkout."""
RULES: Final = SHIPPED / "oomguard.rules.yml"
ROUTES: Final = SHIPPED / "alertmanager.yml"


@dataclass(frozen=True, slots=True)
class Loaded:
    """Rules and routes that were read without a mistake."""

    groups: tuple[Group, ...]
    routes: RoutesConfig
    texts: Mapping[str, str]
    """What each file held: a sidecar that starts again may find one broken."""

    @property
    def long_names(self) -> frozenset[str]:
        """Metrics of which rules want more than the store's usual 15 minutes."""
        expressions = [rule.expr for group in self.groups for rule in group.rules]
        return frozenset(
            selector.name
            for expression in expressions
            for selector in expression.selectors
            if selector.name is not None and selector.reach + promql.LOOKBACK > SLOTS * 1000
        )


def paths(settings: Settings, problems: list[Problem]) -> tuple[list[Path], Path]:
    """The rule files and the routes file that the settings name."""
    found: list[Path] = []
    for pattern in (settings.rules or "").split(","):
        name = pattern.strip()
        if not name:
            continue
        matches = sorted(Path().glob(name)) if not Path(name).is_absolute() else _absolute(Path(name))
        if not matches:
            problems.append(Problem("rules", f"{name}: there is no such file"))
        found += [path for path in matches if path not in found]
    routes = Path(settings.routes) if settings.routes else ROUTES
    return (found if settings.rules else [RULES]), routes


def load(settings: Settings, kept: Mapping[str, str] | None = None) -> Loaded:
    """Rules and routes; raises ConfigError. `kept`: texts of an earlier `Loaded`, to read instead of the files."""
    problems: list[Problem] = []
    rules, routes = paths(settings, problems)
    texts = {str(path): _text(path, kept, problems) for path in (*rules, routes)}
    groups: list[Group] = []
    for path in rules:
        if (text := texts[str(path)]) is not None:
            groups += load_rules(path, problems, text)
    text = texts[str(routes)]
    config = route_files.load(routes, problems, text) if text is not None else None
    if problems or config is None:
        raise ConfigError(problems or [Problem(str(routes), "holds nothing; it needs a route and receivers")])
    return Loaded(tuple(groups), config, {name: text for name, text in texts.items() if text is not None})


def load_rules(path: Path, problems: list[Problem], text: str | None = None) -> Sequence[Group]:
    """The groups of one rule file, with what their labels ask of the sidecar checked."""
    groups = rule_files.load(path, problems, text, max_reach_ms=MAX_REACH)
    for group in groups:
        for rule in group.rules:
            plain = {name: label.text for name, label in rule.labels.items() if label.is_plain}
            try:
                read_labels(plain, Action.NOTIFY)
            except UserError as error:
                problems.append(Problem(rule.where, f"rule {rule.name!r}: {error}"))
    return groups


def _absolute(path: Path) -> list[Path]:
    return sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))


def _text(path: Path, kept: Mapping[str, str] | None, problems: list[Problem]) -> str | None:
    if kept is not None and str(path) in kept:
        return kept[str(path)]
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        problems.append(Problem(str(path), f"can't be read: {(error.strerror or str(error)).lower()}"))
    except UnicodeDecodeError as error:
        problems.append(Problem(str(path), f"is not UTF-8 text: {error.reason} at byte {error.start}"))
    return None
