"""The options of a mount."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypedDict


class Options(TypedDict, total=False):
    """What `Guard.asgi`, `Guard.wsgi` and `Guard.aiohttp` take."""

    max_streams: int | None
    """Event streams and websockets at most in this process, others get 503; default: ``MAX_SSE_CONNECTIONS``."""
    shed_above: float | str | None
    """Above this memory new requests get 503: a ratio (0.95), a percentage (``"95%"``) or a size (``"450MiB"``)."""
    retry_after: int
    """Seconds, in the header of every 503; default: 30."""
    shed_body: str
    """What a request is told that is shed."""
    exempt: Collection[str]
    """Paths that are never shed; /admin and `health` are not either."""
    health: str | None
    """The path at which `Guard.health` is answered; default: none."""
    gc_every: int | None
    """Collect garbage after every so many requests."""
