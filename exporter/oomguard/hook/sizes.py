"""Sizes in the hook's public calls, and as its errors write them."""

from __future__ import annotations

import operator

_LARGEST = 1 << 62
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024


def parse_size(what: str, given: int | str) -> int:
    """Bytes of a number of them or of a text (``200MiB``, ``0.5GB``); `what` names it in the error.

    Raises TypeError for another type, ValueError for a size below one byte or for text that is no size.
    """
    if isinstance(given, str):
        from oomguard.hook.admin.size import parse_goal  # noqa: PLC0415 (only text needs it)

        try:
            size = parse_goal(given).size
        except ValueError:
            size = None
        if size is None:
            raise ValueError(f'{what}: {given[:40]!r} is not a size; write for example "200MiB" or "1GB"')
        return size
    if isinstance(given, bool) or not hasattr(given, "__index__"):
        raise TypeError(
            f'{what}: must be a number of bytes or text like "200MiB", not {type(given).__name__}'
        )
    size = operator.index(given)
    if not 1 <= size < _LARGEST:
        raise ValueError(f'{what}: {size} is not a size; write a number of bytes above 0, or "200MiB"')
    return size


def format_size(size: int) -> str:
    """Bytes for people: ``150 MiB``, ``1.5 GiB``; units of 1024."""
    if size == 1:
        return "1 byte"
    amount = float(size)
    for unit in _UNITS:
        if abs(amount) < _STEP or unit == _UNITS[-1]:
            break
        amount /= _STEP
    return f"{amount:.1f}".removesuffix(".0") + f" {unit}"


def check_name(what: str, name: str, longest: int = 100) -> None:
    """Raise TypeError or ValueError for what can't be the name of a `what`."""
    if not isinstance(name, str):
        raise TypeError(f"{what} name {name!r}: must be text")
    if not name or len(name) > longest:
        raise ValueError(f"{what} name {name[:longest]!r}: must have 1 to {longest} characters")
