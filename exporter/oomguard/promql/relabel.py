"""label_replace and label_join."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

from oomguard.promql import labels as label_sets
from oomguard.promql.node import Query, Vector, VectorNode, check_unique
from oomguard.promql.patterns import compile_pattern
from oomguard.promql.series import Labels

_REFERENCE: Final = re.compile(r"\$(?:(?P<dollar>\$)|(?P<bare>\w+)|\{(?P<braced>\w+)\})", re.ASCII)


def _relabelled(vector: VectorNode, make: Callable[[Labels], Labels]) -> VectorNode:
    evaluate, made = vector.evaluate, label_sets.LabelCache(make)

    def run(query: Query, time: int) -> Vector:
        return check_unique([(made[labels], value) for labels, value in evaluate(query, time)])

    return VectorNode(run)


def label_replace(vector: VectorNode, target: str, template: str, source: str, pattern: str) -> VectorNode:
    """Sets a label to a template filled from a pattern that another label's whole value must match."""
    full = compile_pattern(pattern).fullmatch
    label_sets.check_label_name(target, "label_replace")
    pieces = _pieces(template)

    def make(labels: Labels) -> Labels:
        match = full(label_sets.get(labels, source))
        if match is None:
            return labels
        return label_sets.with_label(labels, target, "".join(_expand(piece, match) for piece in pieces))

    return _relabelled(vector, make)


def _pieces(template: str) -> list[str | tuple[str]]:
    """Plain text, and references in a tuple (Go's Regexp.Expand: the longest name, ``$$`` is a dollar)."""
    pieces: list[str | tuple[str]] = []
    end = 0
    for found in _REFERENCE.finditer(template):
        pieces.append(template[end : found.start()])
        name = found["bare"] or found["braced"]
        pieces.append("$" if name is None else (name,))
        end = found.end()
    pieces.append(template[end:])
    return pieces


def _expand(piece: str | tuple[str], match: re.Match[str]) -> str:
    """What a piece stands for; a group that is not there, or took no part, is empty."""
    if isinstance(piece, str):
        return piece
    name = piece[0]
    if name == "0" or (name.isdecimal() and name[0] != "0"):
        number = int(name)
        return (match[number] or "") if number <= (match.re.groups) else ""
    return (match[name] or "") if name in match.re.groupindex else ""


def label_join(vector: VectorNode, target: str, separator: str, sources: Sequence[str]) -> VectorNode:
    """Sets a label to the values of others, joined."""
    for name in (target, *sources):
        label_sets.check_label_name(name, "label_join")

    def make(labels: Labels) -> Labels:
        joined = separator.join(label_sets.get(labels, name) for name in sources)
        return label_sets.with_label(labels, target, joined)

    return _relabelled(vector, make)
