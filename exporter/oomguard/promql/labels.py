"""Label sets made from label sets, each worked out once and then looked up."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from oomguard.errors import PromqlError
from oomguard.promql.series import METRIC_NAME, Labels

KEPT: Final = 4096
"""Label sets a cache holds before it starts anew: series come and go while the sidecar stays."""

LABEL_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class LabelCache(dict[Labels, Labels]):
    """Label sets by the one they are made from."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[Labels], Labels]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, labels: Labels) -> Labels:
        if len(self) >= KEPT:
            self.clear()
        made = self[labels] = self._make(labels)
        return made


class PairCache(dict[tuple[Labels, Labels], Labels]):
    """Label sets by the two they are made from."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[Labels, Labels], Labels]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, pair: tuple[Labels, Labels]) -> Labels:
        if len(self) >= KEPT:
            self.clear()
        made = self[pair] = self._make(*pair)
        return made


def keep(names: Iterable[str]) -> LabelCache:
    """Only the labels of these names."""
    kept = frozenset(names)
    return LabelCache(lambda labels: tuple(pair for pair in labels if pair[0] in kept))


def drop(names: Iterable[str]) -> LabelCache:
    """All labels but those of these names."""
    dropped = frozenset(names)
    return LabelCache(lambda labels: tuple(pair for pair in labels if pair[0] not in dropped))


def same() -> LabelCache:
    """The very labels."""
    return LabelCache(lambda labels: labels)


def without_name() -> LabelCache:
    """All labels but the metric's name."""
    return drop((METRIC_NAME,))


def with_label(labels: Labels, name: str, value: str) -> Labels:
    """Labels with one of them set, or removed if the value is empty."""
    pairs = dict(labels)
    if value:
        pairs[name] = value
    else:
        pairs.pop(name, None)
    return tuple(sorted(pairs.items()))


def get(labels: Labels, name: str) -> str:
    """The value of a label; empty if it is not there."""
    for key, value in labels:
        if key == name:
            return value
    return ""


def check_label_name(name: str, function: str) -> str:
    """The name; PromqlError unless it can be a label's."""
    if not LABEL_NAME.fullmatch(name):
        raise PromqlError(f"invalid label name {name!r} in {function}: use letters, digits and underscores")
    return name
