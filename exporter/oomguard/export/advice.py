"""One sentence on where a target's memory is and what would help, for ``oomguard status`` and the page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Final

from oomguard.hookmodel import ModelState
from oomguard.model import HookReading, Snapshot
from oomguard.sizes import format_size

WORTH: Final = 16 << 20
"""Bytes below which nobody needs to be told."""
IDLE: Final = 60.0
"""Seconds after which a model counts as idle."""
MANY_ARENAS: Final = 8
"""glibc makes up to 8 a core; an application with few threads that allocate has 2 to 4."""
MADE_OFTEN: Final = 10
"""Objects of one model class in one process: an application has a handful of models, not dozens of one class."""
OLD_STREAM: Final = 3600.0
MOST: Final = 3
"""Parts of the sentence: what matters most."""


@dataclass(frozen=True, slots=True)
class _Part:
    weight: float
    """Bytes that it is about; what has no size but is a mistake in the code comes first."""
    text: str


def advice(snapshot: Snapshot) -> str:
    """The sentence, empty when nothing stands out."""
    hooks = snapshot.hooks.value or ()
    parts = [
        *_constructions(hooks), *_models(hooks), *_caches(hooks), *_malloc(hooks), *_streams(hooks),
    ]  # fmt: skip
    parts.sort(key=lambda part: -part.weight)
    return "; ".join(part.text for part in parts[:MOST])


def _constructions(hooks: Sequence[HookReading]) -> Iterator[_Part]:
    found = [made for hook in hooks for made in hook.app.constructions]
    for cls in dict.fromkeys(made.cls for made in found):
        same = [made for made in found if made.cls == cls]
        if max(made.made or 0 for made in same) >= MADE_OFTEN:
            number, known = sum(made.made or 0 for made in same), [made.live for made in same]
            live = "" if None in known else f", {sum(made or 0 for made in known)} live"
            yield _Part(inf, f"{cls} was made {number} times{live}: load it once (model_per_request)")


def _models(hooks: Sequence[HookReading]) -> Iterator[_Part]:
    loaded = [model for hook in hooks for model in hook.app.models if model.state is ModelState.LOADED]
    for name in dict.fromkeys(model.name for model in loaded):
        same = [model for model in loaded if model.name == name and not model.in_use]
        idle = min((model.idle or 0.0 for model in same), default=0.0)
        size = sum(model.bytes or 0 for model in same)
        if idle >= IDLE and size > WORTH:
            yield _Part(size, f"model {name} idle for {_duration(idle)} holds {format_size(size)}")


def _caches(hooks: Sequence[HookReading]) -> Iterator[_Part]:
    size = sum(cache.bytes or 0 for hook in hooks for cache in hook.caches)
    if size > WORTH:
        yield _Part(size, f"{format_size(size)} in registered caches: caches returns it")


def _malloc(hooks: Sequence[HookReading]) -> Iterator[_Part]:
    stats = [hook.allocator.value for hook in hooks if hook.allocator.value is not None]
    retained = sum(allocator.retained or 0 for allocator in stats)
    if retained > WORTH:
        yield _Part(retained, f"{format_size(retained)} free inside malloc: trim returns it")
    strewn = [one for one in stats if (one.arenas or 0) >= MANY_ARENAS and (one.free or 0) > WORTH]
    if strewn:
        free, arenas = sum(one.free or 0 for one in strewn), max(one.arenas or 0 for one in strewn)
        text = f"{format_size(free)} are free in up to {arenas} arenas: set MALLOC_ARENA_MAX=2"
        yield _Part(free, text)


def _streams(hooks: Sequence[HookReading]) -> Iterator[_Part]:
    streams = [hook.app.streams for hook in hooks if hook.app.streams is not None]
    oldest = max((one.oldest_age or 0.0 for one in streams), default=0.0)
    if oldest >= OLD_STREAM:
        number = sum(one.open or 0 for one in streams)
        yield _Part(0.0, f"{number} streams open, oldest {_duration(oldest)}")


def _duration(seconds: float) -> str:
    """For people: ``40 s``, ``12 min``, ``3 h``, ``2 days``."""
    for unit, length, least in (("days", 86400, 48 * 3600), ("h", 3600, 2 * 3600), ("min", 60, 120)):
        if seconds >= least:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"
