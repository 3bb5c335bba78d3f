"""YAML files whose every value knows where it stands, so that mistakes are told with file and line."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from oomguard.errors import Problem

_NAMED: Final = re.compile(r"(alias|anchor|tag handle) '.*", re.DOTALL)
"""What PyYAML quotes of a document in its errors; it may be a password that begins with an asterisk."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a YAML document: a scalar's text, a mapping or a list, and where it begins."""

    where: str
    """``file:line``."""
    value: str | dict[str, Node] | list[Node] | None
    """None: null, or nothing after the colon."""
    quoted: bool = False
    """A scalar that was written as a string, whatever it looks like."""

    def mapping(self, problems: list[Problem], what: str, known: Collection[str] = ()) -> dict[str, Node]:
        """Its keys and values; a problem if it is no mapping, or has a key that is not `known` (empty: any)."""
        if self.value is None:
            return {}
        if not isinstance(self.value, dict):
            problems.append(Problem(self.where, f"{what} must hold keys and values"))
            return {}
        for key, node in self.value.items():
            if known and key not in known:
                listed = ", ".join(sorted(known))
                problems.append(Problem(node.where, f"unknown key {key!r} in {what}; known are {listed}"))
        return self.value

    def items(self, problems: list[Problem], what: str) -> list[Node]:
        """Its entries; a problem if it is no list."""
        if self.value is None:
            return []
        if not isinstance(self.value, list):
            problems.append(Problem(self.where, f"{what} must be a list"))
            return []
        return self.value

    def text(self, problems: list[Problem], what: str) -> str:
        """Its text, empty for null; a problem if it is no scalar."""
        if self.value is None:
            return ""
        if not isinstance(self.value, str):
            problems.append(Problem(self.where, f"{what} takes a single value"))
            return ""
        return self.value


def read_yaml(path: Path, problems: list[Problem], text: str | None = None) -> Node | None:
    """The document of a file, or of `text` under the file's name; None where there is none or a problem was found."""
    import yaml  # noqa: PLC0415 - 1 MB that only a configuration file needs

    try:
        if text is None:
            text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        found = len(problems)
        node = _node(str(path), root, problems) if root is not None else None
    except OSError as error:
        problems.append(Problem(str(path), f"can't be read: {(error.strerror or str(error)).lower()}"))
    except UnicodeDecodeError as error:
        problems.append(Problem(str(path), f"is not UTF-8 text: {error.reason} at byte {error.start}"))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
        problem = _NAMED.sub(
            r"\1; put quotes around a text that begins with *, & or !",
            getattr(error, "problem", None) or str(error),
        )
        problems.append(Problem(where, f"is not valid YAML: {problem}"))
    except RecursionError:
        problems.append(Problem(str(path), "is nested too deeply"))
    else:
        return node if len(problems) == found else None
    return None


def _node(file: str, node: Any, problems: list[Problem]) -> Node:
    """A yaml.Node as ours."""
    where = f"{file}:{node.start_mark.line + 1}"
    if node.id == "scalar":
        if node.tag == "tag:yaml.org,2002:null":
            return Node(where, None)
        return Node(where, str(node.value), quoted=node.style is not None)
    if node.id == "sequence":
        return Node(where, [_node(file, entry, problems) for entry in node.value])
    return Node(where, dict(_pairs(file, node, problems)))


def _pairs(file: str, node: Any, problems: list[Problem]) -> Iterator[tuple[str, Node]]:
    seen: set[str] = set()
    for key_node, value in node.value:
        where = f"{file}:{key_node.start_mark.line + 1}"
        if key_node.id != "scalar":
            problems.append(Problem(where, "a key must be a single value"))
            continue
        key = str(key_node.value)
        if key in seen:
            problems.append(Problem(where, f"{key!r} stands here a second time; remove one"))
        seen.add(key)
        made = _node(file, value, problems)
        # A key whose value begins on a later line is blamed where it stands itself.
        yield key, Node(where, made.value, made.quoted)
