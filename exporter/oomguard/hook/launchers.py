"""Launchers that put their own sitecustomize in front of everybody else's and chain to nobody."""

from __future__ import annotations

import os
import sys

_LAUNCHERS = ("opentelemetry-instrument",)
"""It puts its directory first on PYTHONPATH and then replaces itself by the application (os.execl)."""


def stay_first(directory: str) -> None:
    """In a launcher's own process: put `directory` first on PYTHONPATH again, just before it execs.

    An audit hook sees the exec before it happens, so nothing has to be patched. Such a hook can't be
    removed and costs a little on every audited event; it is set in a launcher only, which is about to end.
    """
    words = [word for word in sys.orig_argv[1:] if not word.startswith("-")]
    if not words or os.path.basename(words[0]) not in _LAUNCHERS:  # noqa: PTH119 (pathlib costs 3 ms)
        return

    def before(event: str, _: tuple[object, ...]) -> None:
        if event == "os.exec":
            places = os.environ.get("PYTHONPATH", "").split(os.pathsep)
            rest = [place for place in places if place and place != directory]
            os.environ["PYTHONPATH"] = os.pathsep.join([directory, *rest])

    sys.addaudithook(before)
