"""The route tree: which receivers an alert goes to, and how it is grouped (Alertmanager, dispatch/route.go)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from oomguard.routes.matchers import Matchers, matches, written

DEFAULT_GROUP_WAIT: Final = 30.0
DEFAULT_GROUP_INTERVAL: Final = 300.0
DEFAULT_REPEAT_INTERVAL: Final = 14_400.0
_MOST_CACHED = 4096
"""Label sets whose routes are remembered; a target has some hundred alerts at most."""


@dataclass(frozen=True, slots=True, eq=False)
class Route:
    """A node with everything that it inherited; durations are seconds. Two nodes are equal only if they are one."""

    key: str
    """``{}/{severity="page"}``: the matchers from the root on, which opens its groups' keys."""
    receiver: str
    matchers: Matchers = ()
    go_on: bool = False
    """``continue``: siblings that follow are asked too."""
    group_by: frozenset[str] | None = frozenset()
    """None: by all labels (``...``)."""
    group_wait: float = DEFAULT_GROUP_WAIT
    group_interval: float = DEFAULT_GROUP_INTERVAL
    repeat_interval: float = DEFAULT_REPEAT_INTERVAL
    mute_time_intervals: tuple[str, ...] = ()
    active_time_intervals: tuple[str, ...] = ()
    routes: tuple[Route, ...] = ()

    def match(self, labels: Mapping[str, str]) -> list[Route]:
        """The nodes that take an alert, depth first; empty if this node does not match."""
        if not matches(self.matchers, labels):
            return []
        found: list[Route] = []
        for child in self.routes:
            taken = child.match(labels)
            found += taken
            if taken and not child.go_on:
                break
        return found or [self]

    def walk(self) -> Iterator[Route]:
        """This node and all below it."""
        yield self
        for child in self.routes:
            yield from child.walk()

    def group_labels(self, labels: Mapping[str, str]) -> dict[str, str]:
        """The part of an alert's labels that tells its group."""
        if self.group_by is None:
            return dict(labels)
        return {name: value for name, value in labels.items() if name in self.group_by}


def route_key(parent: Route | None, matchers: Matchers) -> str:
    """The key of a node."""
    return written(matchers) if parent is None else f"{parent.key}/{written(matchers)}"


class Router:
    """The tree with a memory: alerts come again and again with the same labels, up to 200 times a second."""

    def __init__(self, root: Route) -> None:
        self._root = root
        self._routes: dict[tuple[tuple[str, str], ...], tuple[Route, ...]] = {}
        self._receivers: dict[tuple[tuple[str, str], ...], tuple[str, ...]] = {}

    def routes_of(self, labels: Mapping[str, str]) -> tuple[Route, ...]:
        """The nodes that take an alert with these labels."""
        key = tuple(labels.items())
        found = self._routes.get(key)
        if found is None:
            if len(self._routes) >= _MOST_CACHED:
                self._routes.clear()
            found = self._routes[key] = tuple(self._root.match(labels))
        return found

    def receivers_of(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        """The receivers of an alert, in the order of the file; one that two nodes name is there twice."""
        key = tuple(labels.items())
        found = self._receivers.get(key)
        if found is None:
            if len(self._receivers) >= _MOST_CACHED:
                self._receivers.clear()
            found = self._receivers[key] = tuple(route.receiver for route in self.routes_of(labels))
        return found
