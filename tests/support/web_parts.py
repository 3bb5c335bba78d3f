"""What stands in front of an application, made without a guard."""

from __future__ import annotations

import os
from collections.abc import Mapping

from oomguard.hook import unpatched
from oomguard.hook.admin.endpoint import Endpoint
from oomguard.hook.chores import Chores
from oomguard.hook.parts import Core, Released
from oomguard.hook.web import Web


def make_core(environ: Mapping[str, str] | None = None) -> Core:
    """A core whose chores nobody runs."""
    return Core(
        os.environ if environ is None else environ,
        Chores(lambda: None, lambda: None),
        unpatched.allocate_rlock(),
        lambda: Released(0, 0, 0.0, trims=False),
    )


def make_web(environ: Mapping[str, str] | None = None) -> Web:
    """What all mounts share."""
    return Web(make_core(environ))


def make_endpoint(environ: Mapping[str, str] | None = None) -> Endpoint:
    """An endpoint that takes no steps."""
    return Endpoint(
        os.environ if environ is None else environ, lambda step: {"step": step}, lambda: ({}, 0.0)
    )
