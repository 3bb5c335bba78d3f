"""Whether a model lives on after the hook has let go of it, because the application holds it as well."""

from __future__ import annotations

import gc
import sys
import weakref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SMALL = 1 << 16
"""Bytes. What has fewer and is in no cycle (None, a number, a short text) Python may share by itself."""
_SOME = 8


def watch(held: list[object]) -> Callable[[], bool]:
    """Look at the one thing in a list, which is to be dropped; returns what tells, after a gc, whether it lives on.

    What allows no weak reference (a dict, a list, a tuple, bytes) is told by its references: there are none but the
    list's. A container that has others may be part of a cycle; it is looked for among all objects (70 ms for a
    million of them) and known again by what it refers to.
    """
    try:
        seen = weakref.ref(held[0])
    except TypeError:
        pass
    else:
        return lambda: seen() is not None
    alone = [object()]
    others = sys.getrefcount(held[0]) > sys.getrefcount(alone[0])
    if not gc.is_tracked(held[0]):
        known = others and _size(held[0]) >= _SMALL
        return lambda: known
    if not others:
        return lambda: False
    address, kind, parts = id(held[0]), type(held[0]), _parts(held[0])

    def found() -> bool:
        return bool(parts) and any(
            id(one) == address and type(one) is kind and _parts(one) == parts for one in gc.get_objects()
        )

    return found


def _parts(value: object) -> list[int]:
    return [id(part) for part in gc.get_referents(value)[:_SOME]]


def _size(value: object) -> int:
    try:
        return sum(sys.getsizeof(part, 0) for part in (value, *gc.get_referents(value)[:_SOME]))
    except BaseException:  # noqa: BLE001 (of an extension's type)
        return 0
