"""How the application's `reset` wants to be called."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def wants_one(name: str, reset: Callable[..., object]) -> bool:
    """Whether `reset` needs an argument, the old handle; raises TypeError where it needs more than that.

    One that has a default is not given: it may mean anything.
    """
    from inspect import Parameter, signature  # noqa: PLC0415 (only those who have a reset pay for it)

    try:
        parameters = signature(reset).parameters.values()
    except (TypeError, ValueError):  # in C, and says nothing: list.clear of older Pythons
        return False
    needed = [
        one
        for one in parameters
        if one.default is Parameter.empty
        and one.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    ]
    if len(needed) > 1 or any(one.kind is Parameter.KEYWORD_ONLY for one in needed):
        names = ", ".join(one.name for one in needed)
        raise TypeError(f"child {name!r}: reset is called with the old handle at most, and needs {names}")
    return bool(needed)
