"""``oomguard sidecar SETTINGS``: what the supervisor starts beside the target; not for people."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from oomguard import log, runtime
from oomguard.app import guard
from oomguard.config import Settings
from oomguard.errors import UserError


def run(arguments: Sequence[str]) -> int:
    """Guard the target that the supervisor tells of; see oomguard.supervisor.main for the two pipes."""
    settings = Settings.from_json(arguments[0])
    log.setup(settings.log_level, settings.log_format)
    try:
        place = runtime.RuntimeDir.named(os.environ[runtime.VARIABLE])
        control, ready = int(os.environ["OOMGUARD_CONTROL_FD"]), int(os.environ["OOMGUARD_READY_FD"])
    except (KeyError, ValueError):
        print(
            "oomguard: sidecar is started by oomguard run; use oomguard watch to guard a running process",
            file=sys.stderr,
        )
        return 2
    try:
        return guard(settings, place, control_fd=control, ready_fd=ready)
    except UserError as error:
        print(f"oomguard: {error}", file=sys.stderr)
        return 2
