"""What can go wrong, as one tree; standard library only.

::

    OomguardError                 anything oomguard raises on purpose
    ├── UserError                 the user's mistake: one clear line, exit code 2
    │   └── ConfigError           one or more mistakes in the configuration, all reported at once
    ├── PromqlError               an expression can't be parsed, is not supported, or can't be evaluated
    ├── TargetError               the guarded process can't be found, read or reached
    └── HookError                 a hook did not answer as the protocol says

Texts are lower case and name the thing, the value and the fix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class OomguardError(Exception):
    """Base of everything that oomguard raises on purpose."""


class UserError(OomguardError):
    """A mistake of the user's: the command prints its text as one line and exits with 2."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration file, a flag or an environment variable."""

    where: str
    """``file:line``, ``--flag`` or the variable's name."""
    text: str
    """What is wrong, with the value, and how to mend it."""

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


class ConfigError(UserError):
    """Everything that is wrong with a configuration, at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class PromqlError(OomguardError):
    """An expression that can't be parsed, uses what is not supported, or fails on the series at hand."""


class TargetError(OomguardError):
    """The guarded process can't be found, read or reached."""


class HookError(OomguardError):
    """A hook answered late, not at all, or against the protocol."""
