"""One process as /proc shows it: stat, status, cmdline, the number of its descriptors.

Formats: proc_pid_stat(5), proc_pid_status(5). Everything is bytes until a field is taken out: a
name may hold any byte. Sizes of a process without an address space are None: a zombie's lines
are missing, and those of a leader that exited before its threads as well.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
from pathlib import Path
from typing import NamedTuple

from oomguard.model import ProcessId, ProcessSample

_TICKS = os.sysconf("SC_CLK_TCK")
_STATUS = re.compile(
    rb"^(VmSize|VmRSS|RssAnon|RssFile|RssShmem|VmSwap):[ \t]+(\d+) kB$",
    re.MULTILINE,
)
_MAX_STATUS = 1 << 16


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that are used; times in clock ticks."""

    id: ProcessId
    name: str
    state: str
    ppid: int
    pgrp: int
    minor_faults: int
    major_faults: int
    user_ticks: int
    system_ticks: int
    threads: int
    start_stack: int
    """Where the stack began: random for every exec, kept by a fork; 0 where we may not know it."""

    @property
    def gone(self) -> bool:
        """Whether nothing of it runs any more; a leader in state Z may have threads that do."""
        return self.state in "ZX" and self.threads <= 1


class Sizes(NamedTuple):
    """The sizes of /proc/PID/status in bytes; all None without an address space."""

    vms: int | None
    rss: int | None
    anon: int | None
    file: int | None
    shmem: int | None
    swap: int | None


def parse_stat(data: bytes) -> Stat:
    """/proc/PID/stat; the name lies between the first parenthesis and the last one. ValueError if cut."""
    opening, closing = data.find(b"("), data.rfind(b")")
    fields = data[closing + 1 :].split()
    # fields[0] is field 3 of the manual page: its field n is fields[n - 3].
    if opening < 0 or closing < opening or len(fields) < 26:  # noqa: PLR2004 - start_stack is field 28
        raise ValueError(f"stat of a process is cut short: {data[:80]!r}")
    return Stat(
        id=ProcessId(int(data[:opening]), int(fields[19])),
        name=data[opening + 1 : closing].decode(errors="replace"),
        state=fields[0].decode(),
        ppid=int(fields[1]),
        pgrp=int(fields[2]),
        minor_faults=int(fields[7]),
        major_faults=int(fields[9]),
        user_ticks=int(fields[11]),
        system_ticks=int(fields[12]),
        threads=int(fields[17]),
        start_stack=int(fields[25]),
    )


def parse_status(data: bytes) -> Sizes:
    """The sizes of /proc/PID/status; RssAnon and its siblings came with Linux 4.5."""
    found = {name: int(size) << 10 for name, size in _STATUS.findall(data)}
    if not found.get(b"VmSize"):
        return Sizes(None, None, None, None, None, None)
    return Sizes(
        vms=found[b"VmSize"],
        rss=found.get(b"VmRSS"),
        anon=found.get(b"RssAnon"),
        file=found.get(b"RssFile"),
        shmem=found.get(b"RssShmem"),
        swap=found.get(b"VmSwap"),
    )


def parse_cmdline(data: bytes) -> tuple[str, ...]:
    """The arguments; empty for a zombie and a kernel thread. A program may have overwritten them."""
    return tuple(part.decode(errors="replace") for part in data.rstrip(b"\0").split(b"\0")) if data else ()


def read_stat(proc: Path | str, pid: int) -> Stat | None:
    """/proc/PID/stat; None when the process has gone."""
    data = _read(f"{proc}/{pid}/stat")
    return parse_stat(data) if data else None


def read_cmdline(proc: Path | str, pid: int) -> tuple[str, ...]:
    """/proc/PID/cmdline; empty when the process has gone."""
    return parse_cmdline(_read(f"{proc}/{pid}/cmdline") or b"")


def process_id(proc: Path | str, pid: int) -> ProcessId | None:
    """Pid and start time of a process; None when there is none."""
    stat = read_stat(proc, pid)
    return stat.id if stat else None


def read_process(proc: Path | str, pid: int) -> ProcessSample | None:
    """One process at this moment; None when it has gone. OSError when /proc may not be read."""
    stat = read_stat(proc, pid)
    return complete(proc, stat) if stat else None


def complete(proc: Path | str, stat: Stat) -> ProcessSample | None:
    """The sample of a process whose stat has just been read; None when it has gone since."""
    pid = stat.id.pid
    status = _read(f"{proc}/{pid}/status")
    if not status:
        return None
    sizes = parse_status(status)
    return ProcessSample(
        id=stat.id,
        ppid=stat.ppid,
        pgrp=stat.pgrp,
        state=stat.state,
        name=stat.name,
        rss=sizes.rss,
        rss_anon=sizes.anon,
        rss_file=sizes.file,
        rss_shmem=sizes.shmem,
        vms=sizes.vms,
        swap=sizes.swap,
        threads=stat.threads,
        user_seconds=stat.user_ticks / _TICKS,
        system_seconds=stat.system_ticks / _TICKS,
        minor_faults=stat.minor_faults,
        major_faults=stat.major_faults,
        start_time=boot_time(str(proc)) + stat.id.start_ticks / _TICKS,
        open_fds=open_fds(proc, pid),
    )


def oom_score_adj(proc: Path | str, pid: int) -> int | None:
    """How much sooner (or later) than others the kernel would kill it (proc_pid_oom_score_adj(5)); None if gone."""
    with contextlib.suppress(OSError, ValueError):
        return int(_read(f"{proc}/{pid}/oom_score_adj") or b"")
    return None


def open_fds(proc: Path | str, pid: int) -> int | None:
    """How many descriptors a process has open; None where that may not be known or it has gone."""
    folder = f"{proc}/{pid}/fd"
    with contextlib.suppress(OSError):
        # Listing a server's 10,000 sockets takes milliseconds; the size is one system call, and
        # needs no permission.
        return os.stat(folder).st_size if _size_counts_fds(str(proc)) else len(os.listdir(folder))  # noqa: PTH116, PTH208 - half the time of Path's
    return None


@functools.lru_cache(maxsize=8)
def _size_counts_fds(proc: str) -> bool:
    """Whether the size of /proc/PID/fd is the number of descriptors: Linux 6.2 and later.

    Tried on ourselves, where listing adds one descriptor. A thread that opens one at that
    moment makes us list, which is slower but right.
    """
    folder = f"{proc}/self/fd"
    try:
        return os.stat(folder).st_size + 1 == len(os.listdir(folder))  # noqa: PTH116, PTH208 - as above
    except OSError:
        return False


@functools.lru_cache(maxsize=8)
def boot_time(proc: str) -> float:
    """When the machine booted, in Unix seconds (btime of /proc/stat).

    Read once: btime follows every correction of the clock, and a start time that moves looks
    like a restart.
    """
    data = Path(proc, "stat").read_bytes()
    found = re.search(rb"^btime (\d+)$", data, re.MULTILINE)
    if found is None:
        raise ValueError(f"{proc}/stat has no line btime")
    return float(found[1])


def _read(path: str) -> bytes | None:
    """A file of /proc in one read: it is made while being read, and two reads may not agree."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return None
    try:
        return os.read(descriptor, _MAX_STATUS)
    except ProcessLookupError:
        return None
    finally:
        os.close(descriptor)
