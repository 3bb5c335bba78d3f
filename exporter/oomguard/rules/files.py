"""Rule files in Prometheus' format (model/rulefmt/rulefmt.go), every mistake told at once with file and line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from oomguard import promql
from oomguard.documents import Node, read_yaml
from oomguard.errors import Problem, PromqlError
from oomguard.promql import Expression
from oomguard.promql.series import METRIC_NAME
from oomguard.rules.rule import AlertRule, Group, RecordingRule, Rule
from oomguard.rules.template import Template, TemplateError, compile_template

_Made = TypeVar("_Made")
_GROUP_KEYS: Final = ("name", "interval", "limit", "rules")
_RULE_KEYS: Final = ("alert", "record", "expr", "for", "keep_firing_for", "labels", "annotations")
_UNSUPPORTED: Final = {
    "query_offset": "query_offset is not supported: series are evaluated as they are read; write an offset in expr",
    "labels": "labels of a group are not supported; write them into its rules",
}
_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_DURATION = re.compile(
    r"(?:(\d+)y)?(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?", re.ASCII
)
_UNITS: Final = (365 * 86_400_000, 7 * 86_400_000, 86_400_000, 3_600_000, 60_000, 1000, 1)
_LONGEST: Final = (1 << 63) // 1_000_000
"""Milliseconds in Go's largest time.Duration, about 292 years."""


def load(
    path: Path, problems: list[Problem], text: str | None = None, *, max_reach: int | None = None
) -> tuple[Group, ...]:
    """The groups of a rule file (or of `text` under its name); mistakes are added to `problems`.

    `max_reach` is the longest history in milliseconds that the store keeps: an expression that looks back further
    is refused, and so is one that names a time with ``@``.
    With mistakes, the groups that are returned lack the rules that have them.
    """
    root = read_yaml(path, problems, text)
    if root is None:
        return ()
    file = _File(str(path), problems, max_reach)
    top = root.mapping(problems, "a rule file", ("groups",))
    if "groups" not in top:
        return ()
    found = [file.group(node) for node in top["groups"].items(problems, "groups")]
    seen: set[str] = set()
    for group, node in zip(found, top["groups"].items([], "groups"), strict=True):
        if group.name in seen:
            problems.append(
                Problem(node.where, f"group {group.name!r} stands in this file twice; rename one")
            )
        seen.add(group.name)
    return tuple(found)


def parse_duration(text: str) -> int:
    """Milliseconds of Prometheus' ``1h30m``, ``15s``, ``250ms`` or ``0`` (prometheus/common, model/time.go).

    Raises ValueError with a text that says what is expected.
    """
    if text == "0":
        return 0
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise ValueError(
            f"{text!r} is not a duration; write for example 15s, 5m or 1h30m, larger units first"
        )
    total = sum(int(number) * unit for number, unit in zip(match.groups(), _UNITS, strict=True) if number)
    if total > _LONGEST:
        raise ValueError(f"{text!r} is too long; the longest duration is 292y")
    return total


class _File:
    """One file under way."""

    def __init__(self, name: str, problems: list[Problem], max_reach: int | None) -> None:
        self._name = name
        self._problems = problems
        self._max_reach = max_reach

    def _wrong(self, node: Node, text: str) -> None:
        self._problems.append(Problem(node.where, text))

    def group(self, node: Node) -> Group:
        """A group, without the rules that could not be read."""
        keys = self._keys(node, "a group", _GROUP_KEYS)
        name = self._text(keys, "name")
        if not name:
            self._wrong(node, "a group needs a name")
        interval = self._duration(keys, "interval")
        if "interval" in keys and interval == 0:
            interval = None  # Prometheus takes 0 for its default
        rules = keys["rules"].items(self._problems, "rules") if "rules" in keys else []
        made = [self._rule(rule) for rule in rules]
        return Group(
            name=name,
            file=self._name,
            rules=tuple(rule for rule in made if rule is not None),
            interval=interval,
            limit=self._limit(keys),
        )

    def _rule(self, node: Node) -> Rule | None:
        before = len(self._problems)
        keys = self._keys(node, "a rule", _RULE_KEYS)
        alert, record = self._text(keys, "alert"), self._text(keys, "record")
        if bool(alert) == bool(record):
            self._wrong(node, "a rule needs either alert or record" + ("; it has both" if alert else ""))
            return None
        expression = self._expression(node, keys, alert or record)
        hold, keep_firing = self._duration(keys, "for") or 0, self._duration(keys, "keep_firing_for") or 0
        rule: Rule | None = None
        if alert:
            labels = self._pairs(keys, "labels", alert, self._template)
            annotations = self._pairs(keys, "annotations", alert, self._template)
            if expression is not None:
                rule = AlertRule(alert, expression, hold, keep_firing, labels, annotations, node.where)
        else:
            self._check_recording(node, keys, record, hold, keep_firing)
            plain = self._pairs(keys, "labels", record, lambda _key, _what, text: text)
            if expression is not None:
                rule = RecordingRule(record, expression, plain, node.where)
        return rule if len(self._problems) == before else None

    def _check_recording(
        self, node: Node, keys: dict[str, Node], name: str, hold: int, keep_firing: int
    ) -> None:
        if not _METRIC_NAME.fullmatch(name):
            self._wrong(keys["record"], f"{name!r} is not a metric name; letters, digits, _ and : make one")
        for key, given in (
            ("for", hold),
            ("keep_firing_for", keep_firing),
            ("annotations", "annotations" in keys),
        ):
            if given:
                self._wrong(keys.get(key, node), f"recording rule {name}: {key} belongs to alerts; remove it")

    def _expression(self, node: Node, keys: dict[str, Node], name: str) -> Expression | None:
        text = self._text(keys, "expr")
        where = keys.get("expr", node)
        if not text.strip():
            self._wrong(where, f"rule {name} needs an expr")
            return None
        try:
            expression = promql.compile_expression(text.strip())
        except PromqlError as error:
            self._wrong(where, f"rule {name}: {error}")
            return None
        refusal = self._refusal(expression)
        if refusal:
            self._wrong(where, f"rule {name}: {refusal}")
        return None if refusal else expression

    def _refusal(self, expression: Expression) -> str:
        """Why an expression that PromQL knows can't be a rule's here; empty if it can."""
        if expression.kind not in {"vector", "scalar"}:
            return f"expr gives a {expression.kind}; a rule needs an instant vector or a scalar"
        if self._max_reach is None:
            return ""
        if any(selector.at is not None for selector in expression.selectors):
            return "expr names a time with @, which the store does not keep; remove it"
        if expression.reach > self._max_reach:
            kept = _spoken(self._max_reach)
            return (
                f"expr looks back {_spoken(expression.reach)}, the store keeps {kept}; shorten its range, or leave "
                "this rule to Prometheus"
            )
        return ""

    def _template(self, node: Node, what: str, text: str) -> Template | None:
        try:
            return compile_template(text)
        except TemplateError as error:
            self._wrong(node, f"{what}: {error}")
            return None

    def _pairs(
        self, keys: dict[str, Node], key: str, rule: str, make: Callable[[Node, str, str], _Made | None]
    ) -> tuple[tuple[str, _Made], ...]:
        """Labels or annotations, sorted by name as Prometheus keeps them."""
        if key not in keys:
            return ()
        pairs: list[tuple[str, _Made]] = []
        for name, node in sorted(keys[key].mapping(self._problems, f"{key} of rule {rule}").items()):
            what = f"rule {rule}, {key.removesuffix('s')} {name}"
            if not _LABEL_NAME.fullmatch(name) or (key == "labels" and name == METRIC_NAME):
                self._wrong(node, f"{what}: {name!r} is not a label name; letters, digits and _ make one")
            made = make(node, what, node.text(self._problems, what))
            if made is not None:
                pairs.append((name, made))
        return tuple(pairs)

    def _keys(self, node: Node, what: str, known: tuple[str, ...]) -> dict[str, Node]:
        keys = node.mapping(self._problems, what)
        for key, value in keys.items():
            if key not in known:
                told = _UNSUPPORTED.get(key) if known is _GROUP_KEYS else None
                listed = ", ".join(known)
                self._wrong(value, told or f"unknown key {key!r} in {what}; known are {listed}")
        if node.value is None:
            self._wrong(node, f"{what} must hold keys and values")
        return keys

    def _text(self, keys: dict[str, Node], key: str) -> str:
        return keys[key].text(self._problems, key) if key in keys else ""

    def _duration(self, keys: dict[str, Node], key: str) -> int | None:
        if key not in keys or keys[key].value is None:
            return None
        try:
            return parse_duration(self._text(keys, key))
        except ValueError as error:
            self._wrong(keys[key], f"{key}: {error}")
            return None

    def _limit(self, keys: dict[str, Node]) -> int:
        text = self._text(keys, "limit")
        if not text:
            return 0
        if not re.fullmatch(r"[+-]?\d+", text, re.ASCII) or keys["limit"].quoted:
            self._wrong(keys["limit"], f"limit: {text!r} is not a whole number")
            return 0
        return max(0, int(text))


def _spoken(milliseconds: int) -> str:
    for size, unit in ((3_600_000, "h"), (60_000, "m"), (1000, "s")):
        if milliseconds % size == 0:
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"
