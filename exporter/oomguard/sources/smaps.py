"""What a process's mappings hold: smaps_rollup and smaps.

Formats: the kernel's Documentation/filesystems/proc.rst. The kernel walks the page tables
for both and holds the target's mmap lock meanwhile (41 ms for 4 GB here), so callers space the
reads out (`budget`).
"""

from __future__ import annotations

import re
from pathlib import Path

from oomguard.model import ProcessMappings, ProcessMemory, Reading
from oomguard.sources.reading import PTRACE_FIX, Absent, Failed, Unsupported, os_reason, read

_SUMS = re.compile(rb"^(Rss|Pss|Private_Clean|Private_Dirty|SwapPss): +(\d+) kB$", re.MULTILINE)
# One match a mapping, from the device's minor number on: inode, path, PSS. Anchored on the first letters of
# the lines between, it takes 0.9 µs a mapping here; with the whole header spelled out it took 3.5.
_MAPPING = re.compile(rb":[0-9a-f]+ (\d+) *(.*)\n(?:[SKMR].*\n)*?Pss: +(\d+) kB$", re.MULTILINE)
_SHARED = (b"/memfd:", b"/dev/shm/", b"/dev/zero", b"/SYSV", b"/anon_hugepage", b"[anon_shmem:")
_ADDRESS_SPACE_GONE = "process {pid} has no address space: it has exited"


def parse_sums(data: bytes) -> ProcessMemory:
    """smaps_rollup, or the same sums over smaps. ValueError where Rss or Pss is missing."""
    sums: dict[bytes, int] = {}
    for name, size in _SUMS.findall(data):
        sums[name] = sums.get(name, 0) + (int(size) << 10)
    try:
        return ProcessMemory(
            rss=sums[b"Rss"],
            pss=sums[b"Pss"],
            uss=sums[b"Private_Clean"] + sums[b"Private_Dirty"],
            private_dirty=sums[b"Private_Dirty"],
            swap_pss=sums.get(b"SwapPss"),
        )
    except KeyError as error:
        raise ValueError(f"smaps has no line {error.args[0].decode()}") from None


def parse_mappings(data: bytes) -> ProcessMappings:
    """PSS by the kind of the mapping; the fields add up to the PSS of smaps."""
    sizes = dict.fromkeys(("heap", "anonymous", "file", "shared", "stack", "other"), 0)
    for inode, path, pss in _MAPPING.findall(data):
        if pss != b"0":
            sizes[_kind(inode, path)] += int(pss) << 10
    return ProcessMappings(**sizes)


def _kind(inode: bytes, path: bytes) -> str:
    if not path or path.startswith(b"[anon:"):
        # Without a name a mapping is private and anonymous; prctl(PR_SET_VMA_ANON_NAME) names some.
        return "anonymous" if inode == b"0" else "file"
    if path == b"[heap]":
        return "heap"
    if path.startswith(b"[stack"):
        return "stack"
    if path.startswith(_SHARED):
        return "shared"
    return "file" if path.startswith(b"/") else "other"


def read_memory(proc: Path | str, pid: int) -> Reading[ProcessMemory]:
    """RSS, PSS and USS of a process; sums over smaps where the kernel has no smaps_rollup (before 4.14)."""

    def memory() -> ProcessMemory:
        try:
            data = _read(proc, pid, "smaps_rollup")
        except FileNotFoundError:
            data = _smaps(proc, pid)
        return parse_sums(data)

    return read(memory)


def read_mappings(proc: Path | str, pid: int) -> Reading[ProcessMappings]:
    """PSS of a process by the kind of its mappings."""
    return read(lambda: parse_mappings(_smaps(proc, pid)))


def _smaps(proc: Path | str, pid: int) -> bytes:
    try:
        return _read(proc, pid, "smaps")
    except FileNotFoundError:
        if Path(proc, str(pid)).exists():
            raise Unsupported("this kernel has no /proc/PID/smaps (CONFIG_PROC_PAGE_MONITOR)") from None
        raise Absent(_ADDRESS_SPACE_GONE.format(pid=pid)) from None


def _read(proc: Path | str, pid: int, name: str) -> bytes:
    try:
        data = Path(proc, str(pid), name).read_bytes()
    except PermissionError as error:
        raise Failed(os_reason(error, PTRACE_FIX)) from None
    except ProcessLookupError:
        data = b""
    if not data:
        raise Absent(_ADDRESS_SPACE_GONE.format(pid=pid))
    return data
