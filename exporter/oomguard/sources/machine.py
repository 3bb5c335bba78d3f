"""The machine's memory: /proc/meminfo (proc_meminfo(5))."""

from __future__ import annotations

import re
from pathlib import Path

from oomguard.model import MachineMemory, Reading
from oomguard.sources.reading import read

_LINES = re.compile(rb"^(MemTotal|MemAvailable|SwapTotal|SwapFree|Shmem): +(\d+) kB$", re.MULTILINE)


def parse_meminfo(data: bytes) -> MachineMemory:
    """The record of /proc/meminfo; ValueError where a line is missing (MemAvailable: Linux 3.14)."""
    sizes = {name: int(size) * 1024 for name, size in _LINES.findall(data)}
    try:
        return MachineMemory(
            total=sizes[b"MemTotal"],
            available=sizes[b"MemAvailable"],
            swap_total=sizes[b"SwapTotal"],
            swap_free=sizes[b"SwapFree"],
            shmem=sizes.get(b"Shmem"),
        )
    except KeyError as error:
        raise ValueError(f"meminfo has no line {error.args[0].decode()}") from None


def read_machine(proc: Path | str = "/proc") -> Reading[MachineMemory]:
    """Read the machine's memory; never raises."""
    return read(lambda: parse_meminfo(Path(proc, "meminfo").read_bytes()))
