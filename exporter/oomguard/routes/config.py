"""Alertmanager's configuration file, as far as webhooks go; every mistake at once, with file and line.

The same files are accepted as by Alertmanager 0.25 (config/config.go), apart from what is refused with the advice to
run Alertmanager: other integrations than webhooks, proxies, OAuth. ``timeout`` and ``url_file`` of webhooks are those
of later releases. Relative paths start at the configuration file's directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from oomguard.documents import Node, read_yaml
from oomguard.errors import Problem
from oomguard.routes.inhibit import InhibitRule
from oomguard.routes.intervals import Interval, read_intervals
from oomguard.routes.matchers import Matcher, Matchers, Op, in_order, matcher, parse_matchers
from oomguard.routes.reading import LABEL_NAME, duration, label_names, optional_text, switch, texts
from oomguard.routes.tree import (
    DEFAULT_GROUP_INTERVAL,
    DEFAULT_GROUP_WAIT,
    DEFAULT_REPEAT_INTERVAL,
    Route,
    route_key,
)
from oomguard.routes.webhook import HttpConfig, Webhook, read_http, read_webhook


@dataclass(frozen=True, slots=True)
class Receiver:
    """A receiver and where its notifications go; one without webhooks swallows them."""

    name: str
    webhooks: tuple[Webhook, ...] = ()


@dataclass(frozen=True, slots=True)
class RoutesConfig:
    """What the file says."""

    route: Route
    receivers: Mapping[str, Receiver]
    inhibit_rules: tuple[InhibitRule, ...] = ()
    intervals: Mapping[str, tuple[Interval, ...]] = field(default_factory=dict)


_TOP = ("global", "route", "inhibit_rules", "receivers", "templates", "mute_time_intervals", "time_intervals")
_ROUTE = (
    "receiver", "group_by", "match", "match_re", "matchers", "mute_time_intervals", "active_time_intervals",
    "continue", "routes", "group_wait", "group_interval", "repeat_interval",
)  # fmt: skip
_INHIBIT = (
    "source_match", "source_match_re", "source_matchers", "target_match", "target_match_re", "target_matchers", "equal",
)  # fmt: skip


def load(path: Path, problems: list[Problem], text: str | None = None) -> RoutesConfig | None:
    """Read a file, or `text` under its name; None where a mistake was found, which `problems` then tell."""
    found = len(problems)
    root = read_yaml(path, problems, text)
    if root is None:
        if len(problems) == found:
            problems.append(Problem(str(path), "is empty; it needs at least a route and its receiver"))
        return None
    parts = root.mapping(problems, "the routes file", _TOP)
    http = _global(parts["global"], problems, path.parent) if "global" in parts else HttpConfig()
    receivers = _receivers(parts.get("receivers"), problems, path.parent, http)
    intervals: dict[str, tuple[Interval, ...]] = {}
    for key in ("mute_time_intervals", "time_intervals"):
        if key in parts:
            read_intervals(parts[key].items(problems, key), problems, intervals)
    rules = [_inhibit_rule(node, problems) for node in _items(parts, "inhibit_rules", problems)]
    list(texts(parts.get("templates"), problems, "templates"))  # webhooks use none
    if "route" not in parts or parts["route"].value is None:
        problems.append(Problem(str(path), "has no route; write at least route: {receiver: NAME}"))
        return None
    reader = _RouteReader(problems, receivers, intervals)
    route = reader.read(parts["route"], None)
    return RoutesConfig(route, receivers, tuple(rules), intervals) if len(problems) == found else None


def _items(parts: Mapping[str, Node], key: str, problems: list[Problem]) -> list[Node]:
    return parts[key].items(problems, key) if key in parts else []


_FOREIGN_GLOBALS = (
    "smtp_", "slack_", "pagerduty_", "opsgenie_", "wechat_", "victorops_", "telegram_", "webex_", "msteams_", "jira_",
    "rocketchat_", "discord_", "incidentio_", "mattermost_",
)  # fmt: skip


def _global(node: Node, problems: list[Problem], directory: Path) -> HttpConfig:
    parts = node.mapping(problems, "global")
    for key, value in parts.items():
        if key.startswith(_FOREIGN_GLOBALS):
            problems.append(Problem(value.where, f"global {key}: {_advice(key.partition('_')[0])}"))
        elif key not in ("resolve_timeout", "http_config"):
            problems.append(
                Problem(value.where, f"unknown key {key!r} in global; known are http_config, resolve_timeout")
            )
    if "resolve_timeout" in parts:
        # Meant for alerts that are sent by others and then forgotten; rules tell themselves what has ended.
        duration(parts["resolve_timeout"], problems, "resolve_timeout")
    if "http_config" in parts and parts["http_config"].value is not None:
        return read_http(parts["http_config"], problems, directory)
    return HttpConfig()


def _advice(integration: str) -> str:
    return f"{integration} is not supported here, only webhooks are; run Alertmanager with this file for the others"


def _receivers(
    node: Node | None, problems: list[Problem], directory: Path, http: HttpConfig
) -> dict[str, Receiver]:
    found: dict[str, Receiver] = {}
    for entry in node.items(problems, "receivers") if node is not None else ():
        parts = entry.mapping(problems, "a receiver")
        name = optional_text(parts.get("name"), problems, "name of a receiver")
        if not name:
            problems.append(Problem(entry.where, "a receiver lacks its name"))
        if name in found:
            problems.append(Problem(entry.where, f"receiver {name!r} is defined twice; rename one"))
        for key, value in parts.items():
            if key.endswith("_configs") and key != "webhook_configs":
                if value.value:
                    problems.append(Problem(value.where, f"{key}: {_advice(key.removesuffix('_configs'))}"))
            elif key not in ("name", "webhook_configs"):
                text = f"unknown key {key!r} in a receiver; known are name, webhook_configs"
                problems.append(Problem(value.where, text))
        webhooks = _items(parts, "webhook_configs", problems)
        found[name] = Receiver(
            name, tuple(read_webhook(each, problems, directory, http) for each in webhooks)
        )
    return found


def _matchers(parts: Mapping[str, Node], problems: list[Problem], prefix: str = "") -> list[Matcher]:
    """What ``match``, ``match_re`` and ``matchers`` ask for together."""
    found = []
    for key, op in ((f"{prefix}match", Op.EQUAL), (f"{prefix}match_re", Op.REGEX)):
        for name, node in parts[key].mapping(problems, key).items() if key in parts else ():
            value = node.text(problems, f"{key} of {name}")
            if not LABEL_NAME.fullmatch(name):
                problems.append(
                    Problem(node.where, f"{key}: {name!r} is not a label name (letters, digits and _)")
                )
                continue
            try:
                found.append(matcher(name, op, value))
            except ValueError as error:
                problems.append(Problem(node.where, f"{key} of {name}: {error}"))
    for node, line in texts(parts.get(f"{prefix}matchers"), problems, f"{prefix}matchers"):
        found += _parsed(node, line, problems, f"{prefix}matchers")
    return found


def _parsed(node: Node, line: str, problems: list[Problem], what: str) -> list[Matcher]:
    try:
        return parse_matchers(line)
    except ValueError as error:
        problems.append(Problem(node.where, f"{what}: {error}"))
        return []


def _inhibit_rule(node: Node, problems: list[Problem]) -> InhibitRule:
    parts = node.mapping(problems, "an inhibition rule", _INHIBIT)
    source, target = (in_order(_matchers(parts, problems, prefix)) for prefix in ("source_", "target_"))
    return InhibitRule(source, target, tuple(label_names(parts.get("equal"), problems, "equal")))


class _RouteReader:
    """Reads the tree from the root on; a node takes from its parent what it does not say itself."""

    def __init__(
        self, problems: list[Problem], receivers: Mapping[str, Receiver], intervals: Mapping[str, object]
    ) -> None:
        self._problems = problems
        self._receivers = receivers
        self._intervals = intervals

    def read(self, node: Node, parent: Route | None) -> Route:
        problems = self._problems
        parts = node.mapping(problems, "a route", _ROUTE)
        matchers: Matchers = in_order(_matchers(parts, problems))
        mute, active = (
            self._names(parts.get(key), key) for key in ("mute_time_intervals", "active_time_intervals")
        )
        go_on = switch(parts.get("continue"), problems, "continue", default=False)
        if parent is None:
            self._check_root(node, parts, matchers=matchers, confined=bool(mute or active), go_on=go_on)
        wait, interval, repeat = (
            (DEFAULT_GROUP_WAIT, DEFAULT_GROUP_INTERVAL, DEFAULT_REPEAT_INTERVAL)
            if parent is None
            else (parent.group_wait, parent.group_interval, parent.repeat_interval)
        )
        # Time intervals are not inherited (Alertmanager, NewRoute).
        here = Route(
            key=route_key(parent, matchers),
            receiver=self._receiver(parts.get("receiver")) or (parent.receiver if parent is not None else ""),
            matchers=matchers,
            go_on=go_on,
            group_by=self._group_by(parts.get("group_by"), parent),
            group_wait=self._duration(parts, "group_wait", wait),
            group_interval=self._duration(parts, "group_interval", interval),
            repeat_interval=self._duration(parts, "repeat_interval", repeat),
            mute_time_intervals=mute,
            active_time_intervals=active,
        )
        children = tuple(self.read(child, here) for child in _items(parts, "routes", problems))
        return replace(here, routes=children)

    def _check_root(
        self, node: Node, parts: Mapping[str, Node], *, matchers: Matchers, confined: bool, go_on: bool
    ) -> None:
        """The root takes every alert at any time."""
        say = self._problems.append
        if "receiver" not in parts or not parts["receiver"].value:
            say(Problem(node.where, "the root route needs a receiver"))
        if matchers:
            say(Problem(node.where, "the root route must not have matchers; it takes every alert"))
        if confined:
            say(
                Problem(
                    node.where, "the root route must not have time intervals; set them on routes below it"
                )
            )
        if go_on:
            say(Problem(node.where, "the root route can't have continue; it has no siblings"))

    def _receiver(self, node: Node | None) -> str:
        name = optional_text(node, self._problems, "receiver")
        if node is not None and name and name not in self._receivers:
            known = ", ".join(sorted(self._receivers)) or "none"
            self._problems.append(
                Problem(node.where, f"receiver {name!r} is not defined; defined are {known}")
            )
        return name

    def _names(self, node: Node | None, key: str) -> tuple[str, ...]:
        found = []
        for entry, name in texts(node, self._problems, key):
            if name not in self._intervals:
                self._problems.append(Problem(entry.where, f"{key}: time interval {name!r} is not defined"))
            found.append(name)
        return tuple(found)

    def _group_by(self, node: Node | None, parent: Route | None) -> frozenset[str] | None:
        names = []
        everything = False
        for entry, name in texts(node, self._problems, "group_by"):
            if name == "...":
                everything = True
            elif not LABEL_NAME.fullmatch(name):
                self._problems.append(Problem(entry.where, f"group_by: {name!r} is not a label name"))
            elif name in names:
                self._problems.append(Problem(entry.where, f"group_by: {name!r} stands there twice"))
            names.append(name)
        if everything and set(names) != {"..."} and node is not None:
            self._problems.append(
                Problem(node.where, "group_by: '...' means all labels, and must stand alone")
            )
        if everything:
            return None
        # An empty list says nothing, as in Alertmanager.
        return frozenset(names) if names else parent.group_by if parent is not None else frozenset()

    def _duration(self, parts: Mapping[str, Node], key: str, inherited: float) -> float:
        given = duration(parts[key], self._problems, key) if key in parts else None
        if given == 0 and key != "group_wait":
            self._problems.append(Problem(parts[key].where, f"{key} can't be zero; write for example 1s"))
        return inherited if given is None else given
