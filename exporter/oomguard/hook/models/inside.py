"""Whether this process is the own one of an isolated model: it holds no models that anybody should count."""

from __future__ import annotations

name: str | None = None
"""Of the model; None in every other process."""
