"""Models: loaded at first use, unloaded when idle or when memory is short, in this process or in one of their own."""

from __future__ import annotations

from oomguard.hook.models.errors import ModelProcessDied, ModelUnavailable
from oomguard.hook.models.model import Model
from oomguard.hook.models.registry import Models

__all__ = ["Model", "ModelProcessDied", "ModelUnavailable", "Models"]
