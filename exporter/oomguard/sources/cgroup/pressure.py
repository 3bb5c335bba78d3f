"""Pressure stall information: kernel's Documentation/accounting/psi.rst."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from oomguard.model import Pressure
from oomguard.sources.cgroup.locate import Place
from oomguard.sources.reading import Unsupported

_LINE = re.compile(rb"^(some|full) avg10=([0-9.]+) .*total=(\d+)$", re.MULTILINE)


def parse_pressure(data: bytes, scope: str) -> Pressure:
    """memory.pressure or /proc/pressure/memory: percentages and microseconds become ratios and seconds."""
    lines = {kind: (float(avg10) / 100, int(total) / 1e6) for kind, avg10, total in _LINE.findall(data)}
    if b"some" not in lines:
        raise ValueError(f"pressure has no line some: {data[:80]!r}")
    some, full = lines[b"some"], lines.get(b"full")
    return Pressure(
        scope=scope,
        some_seconds=some[1],
        full_seconds=full[1] if full else None,
        some_avg10=some[0],
        full_avg10=full[0] if full else None,
    )


def read_pressure(place: Place | None, proc: Path) -> Pressure:
    """The cgroup's pressure where the kernel keeps it, else the machine's; Unsupported without either."""
    # The root has the file too, but it says what the machine's says; cgroup.events is missing there.
    if place is not None and (place.directory / "cgroup.events").exists():
        data = _content(place.directory / "memory.pressure")
        if data is not None:
            return parse_pressure(data, "cgroup")
    data = _content(proc / "pressure" / "memory")
    if data is None:
        raise Unsupported("this kernel keeps no pressure stall information (CONFIG_PSI, psi=1)")
    return parse_pressure(data, "machine")


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        # Compiled in, but switched off at boot.
        if error.errno in (errno.EOPNOTSUPP, errno.ENODEV):
            return None
        raise
