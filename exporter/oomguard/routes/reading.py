"""Scalars of an Alertmanager configuration as go-yaml and Alertmanager read them; mistakes become problems."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from oomguard.documents import Node
from oomguard.errors import Problem

LABEL_NAME: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
"""prometheus/common, model/labels.go, LabelNameRE."""

_UNITS = (
    ("y", 31_536_000_000),
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
)
_DURATION = re.compile("".join(rf"(?:([0-9]+){unit})?" for unit, _ in _UNITS) + "(?:([0-9]+)ms)?")
_LONGEST = (1 << 63) - 1  # nanoseconds, as Go counts them
_SWITCHES = {
    "y": True,
    "yes": True,
    "true": True,
    "on": True,
    "n": False,
    "no": False,
    "false": False,
    "off": False,
}


def duration(node: Node, problems: list[Problem], what: str) -> float | None:
    """Seconds of ``1h30m``, ``250ms`` or ``0`` (prometheus/common, model/time.go, ParseDuration); None: not given."""
    text = node.text(problems, what)
    if not isinstance(node.value, str):
        return None
    if text == "0":
        return 0.0
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        problems.append(
            Problem(node.where, f"{what}: {text!r} is not a duration; write for example 30s or 1h30m")
        )
        return None
    factors = [factor for _, factor in _UNITS] + [1]
    milliseconds = sum(
        int(count or 0) * factor for count, factor in zip(match.groups(), factors, strict=True)
    )
    if milliseconds * 1_000_000 > _LONGEST:
        problems.append(
            Problem(node.where, f"{what}: {text!r} is longer than the 292 years that a duration holds")
        )
        return None
    return milliseconds / 1000


def switch(node: Node | None, problems: list[Problem], what: str, *, default: bool) -> bool:
    """A boolean as YAML 1.1 writes it; a quoted one is text, and a mistake there too."""
    if node is None or node.value is None:
        return default
    text = node.text(problems, what)
    spelled = text in (text.lower(), text.upper(), text.capitalize())
    if not isinstance(node.value, str):
        return default
    if node.quoted or not spelled or text.lower() not in _SWITCHES:
        problems.append(
            Problem(node.where, f"{what}: {text!r} is not true or false; write it without quotes")
        )
        return default
    return _SWITCHES[text.lower()]


def count(node: Node | None, problems: list[Problem], what: str) -> int:
    """A whole number from 0 on; 0 where it is not given."""
    if node is None or node.value is None:
        return 0
    text = node.text(problems, what)
    if not isinstance(node.value, str):
        return 0
    if node.quoted or not re.fullmatch(r"\+?[0-9]{1,18}", text):
        problems.append(Problem(node.where, f"{what}: {text!r} is not a whole number from 0 on"))
        return 0
    return int(text)


def texts(node: Node | None, problems: list[Problem], what: str) -> Iterator[tuple[Node, str]]:
    """The entries of a list of single values."""
    for entry in node.items(problems, what) if node is not None else ():
        yield entry, entry.text(problems, f"an entry of {what}")


def label_names(node: Node | None, problems: list[Problem], what: str) -> list[str]:
    """A list of label names."""
    found = []
    for entry, name in texts(node, problems, what):
        if LABEL_NAME.fullmatch(name):
            found.append(name)
        else:
            problems.append(
                Problem(entry.where, f"{what}: {name!r} is not a label name (letters, digits and _)")
            )
    return found


def optional_text(node: Node | None, problems: list[Problem], what: str) -> str:
    """A text; empty where it is not given."""
    return node.text(problems, what) if node is not None else ""


def file_path(node: Node | None, problems: list[Problem], what: str, directory: Path) -> Path | None:
    """A file's path, relative ones from the configuration file's directory on; None where it is not given."""
    text = optional_text(node, problems, what)
    return directory / text if text else None
