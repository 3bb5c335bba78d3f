"""How `oomguard watch` finds its target, and finds it again after a restart."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from oomguard.errors import UserError
from oomguard.model import ProcessId
from oomguard.sources.procfs import Stat, read_cmdline, read_stat

_LISTED = 10
_LISTEN = b"0A"
"""TCP_LISTEN of include/net/tcp_states.h, as /proc/net/tcp writes it."""
_SOCKET = re.compile(r"socket:\[(\d+)\]")
_TGID = re.compile(rb"^Tgid:\s*(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Selector:
    """What the user said of the target: exactly one of these."""

    pid: int | None = None
    pid_file: Path | str | None = None
    match: str | None = None
    """A regular expression, searched in the command line joined by spaces."""
    port: int | None = None


class Follower:
    """Finds the target that a selector means, again and again.

    While the process that was found last lives, `find` names it and looks no further: an old and a
    new one may overlap in a rolling restart. `own_pid` is the watcher, which a match never means, nor
    the ancestors of it: their command lines hold the expression too.
    """

    def __init__(self, selector: Selector, proc: Path | str = "/proc", own_pid: int | None = None) -> None:
        self._selector = selector
        self._proc = Path(proc)
        self._own_pid = os.getpid() if own_pid is None else own_pid
        self._found: ProcessId | None = None
        self._expression: re.Pattern[str] | None = None
        if selector.match is not None:
            try:
                self._expression = re.compile(selector.match)
            except re.error as error:
                raise UserError(
                    f"--match {selector.match!r} is not a regular expression: {error}; "
                    "put a backslash before characters that are meant as they are"
                ) from error

    @property
    def ends_with_it(self) -> bool:
        """Whether no other process can ever be meant once the one that was found has gone."""
        return self._selector.pid is not None

    def find(self) -> ProcessId | None:
        """Name the target as it is now; None while it is not there.

        Raises UserError when the selector can't mean anything, or means several trees; that can come
        after a restart, too.
        """
        if self._found is not None and self._alive(self._found.pid) == self._found:
            return self._found
        found = self._look()
        if found is not None:
            self._found = found
        return found

    def _look(self) -> ProcessId | None:
        selector = self._selector
        if selector.pid is not None:
            return self._by_pid(selector.pid)
        if selector.pid_file is not None:
            return self._by_pid_file(Path(selector.pid_file))
        if self._expression is not None:
            return self._by_match(self._expression)
        if selector.port is not None:
            return self._by_port(selector.port)
        raise ValueError("a selector needs a pid, a pid file, a match or a port")

    def _by_pid(self, pid: int) -> ProcessId | None:
        if self._found is not None:
            # It was there and is gone; whoever bears the number now is somebody else.
            return None
        found = self._alive(pid)
        if found is None:
            raise UserError(
                f"no process {pid}; give one that runs, or wait for one with --pid-file or --match"
            )
        leader = self._leader(pid)
        if leader != pid:
            raise UserError(f"{pid} is a thread of process {leader}; give --pid {leader}")
        return found

    def _by_pid_file(self, path: Path) -> ProcessId | None:
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UserError(f"pid file {path}: {_reason(error)}; give one that can be read") from error
        lines = text.split(b"\n")
        if not text.strip():
            # Servers open the file before they write it.
            return None
        first = lines[0].strip()
        if not first.isdigit() or int(first) == 0:
            shown = first[:40].decode(errors="replace")
            raise UserError(f"pid file {path}: its first line is {shown!r}, not a process id")
        return self._alive(int(first))

    def _by_match(self, expression: re.Pattern[str]) -> ProcessId | None:
        stats = self._processes()
        own = set(self._ancestors(self._own_pid, stats)) | {self._own_pid}
        matching = {
            pid
            for pid in stats.keys() - own
            if (line := self._command_line(pid)) and expression.search(line) and not _is_watcher(line)
        }
        return self._single(self._topmost(matching, stats), stats, f"--match {expression.pattern!r}")

    def _by_port(self, port: int) -> ProcessId | None:
        stats = self._processes()
        groups = self._net_namespaces(stats)
        own = self._net_namespace(self._own_pid)
        # Our own network first: a container elsewhere on this machine may use the same port.
        inodes: set[str] = set()
        for name in sorted(groups, key=lambda name: name != own):
            inodes |= self._listening(port, groups[name])
            if inodes and name == own:
                break
        if not inodes:
            return None
        holders = {pid for pid in stats if self._holds(pid, inodes)}
        if not holders:
            raise UserError(
                f"--port {port}: something listens there, but not whose process it is may be seen; "
                "run as the same user or as root"
            )
        roots = self._topmost(holders, stats)
        parents = {stats[pid].ppid for pid in roots}
        if len(roots) > 1 and len(parents) == 1:
            # Workers with SO_REUSEPORT bind for themselves. One parent in their own process group made
            # them; a shell or an init would have given each a group of its own.
            parent = stats.get(parents.pop())
            if parent is not None and {stats[pid].pgrp for pid in roots} == {parent.pgrp}:
                roots = {parent.id.pid}
        return self._single(roots, stats, f"--port {port}")

    def _single(self, roots: set[int], stats: Mapping[int, Stat], what: str) -> ProcessId | None:
        if len(roots) > 1:
            listed = sorted(roots)[:_LISTED]
            more = f"; and {len(roots) - _LISTED} more" if len(roots) > _LISTED else ""
            trees = "; ".join(f"{pid} {self._command_line(pid)[:100]!r}" for pid in listed)
            raise UserError(
                f"{what} fits {len(roots)} process trees: {trees}{more}; "
                "narrow it, or give --pid of one of them"
            )
        return stats[roots.pop()].id if roots else None

    def _topmost(self, pids: Iterable[int], stats: Mapping[int, Stat]) -> set[int]:
        """Those that descend from none of the others."""
        chosen = set(pids)
        return {pid for pid in chosen if chosen.isdisjoint(self._ancestors(pid, stats))}

    @staticmethod
    def _ancestors(pid: int, stats: Mapping[int, Stat]) -> list[int]:
        found: list[int] = []
        while (stat := stats.get(pid)) is not None and stat.ppid not in (0, *found):
            pid = stat.ppid
            found.append(pid)
        return found

    def _processes(self) -> dict[int, Stat]:
        stats: dict[int, Stat] = {}
        for path in self._proc.iterdir():
            if path.name.isdigit():
                # hidepid hides what is not ours: proc(5).
                with contextlib.suppress(PermissionError):
                    stat = read_stat(self._proc, int(path.name))
                    if stat is not None and not stat.gone:
                        stats[stat.id.pid] = stat
        return stats

    def _alive(self, pid: int) -> ProcessId | None:
        try:
            stat = read_stat(self._proc, pid)
        except PermissionError as error:
            raise UserError(
                f"process {pid} may not be seen: {_reason(error)}; run as the same user or as root"
            ) from error
        return stat.id if stat is not None and not stat.gone else None

    def _leader(self, pid: int) -> int:
        """Name the process that a thread belongs to; /proc shows threads too, to those who ask."""
        try:
            found = _TGID.search((self._proc / str(pid) / "status").read_bytes())
        except OSError:
            return pid
        return int(found[1]) if found else pid

    def _command_line(self, pid: int) -> str:
        try:
            return " ".join(read_cmdline(self._proc, pid))
        except PermissionError:
            return ""

    def _net_namespace(self, pid: int) -> str:
        try:
            return os.readlink(self._proc / str(pid) / "ns" / "net")  # noqa: PTH115 - not a path
        except OSError:
            return ""

    def _net_namespaces(self, stats: Mapping[int, Stat]) -> dict[str, list[int]]:
        groups: dict[str, list[int]] = {}
        for pid in stats:
            groups.setdefault(self._net_namespace(pid), []).append(pid)
        return groups

    def _listening(self, port: int, pids: list[int]) -> set[str]:
        """Inodes of the sockets that listen on a port in the network of these processes."""
        for pid in pids:
            folder = self._proc / str(pid) / "net"
            with contextlib.suppress(OSError):
                inodes = parse_listeners((folder / "tcp").read_bytes(), port)
                # A kernel without IPv6 has no such file.
                with contextlib.suppress(FileNotFoundError):
                    inodes |= parse_listeners((folder / "tcp6").read_bytes(), port)
                return inodes
        return set()

    def _holds(self, pid: int, inodes: set[str]) -> bool:
        with contextlib.suppress(OSError):
            for descriptor in (self._proc / str(pid) / "fd").iterdir():
                with contextlib.suppress(OSError):
                    found = _SOCKET.fullmatch(os.readlink(descriptor))  # noqa: PTH115 - not a path
                    if found and found[1] in inodes:
                        return True
        return False


def parse_listeners(data: bytes, port: int) -> set[str]:
    """Inodes of the sockets that listen on a local port: /proc/net/tcp or tcp6 (proc_pid_net(5))."""
    inodes = set()
    for line in data.splitlines()[1:]:
        fields = line.split()
        # sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
        if len(fields) > 9 and fields[3] == _LISTEN and int(fields[1].rpartition(b":")[2], 16) == port:  # noqa: PLR2004 - see above
            inodes.add(fields[9].decode())
    return inodes


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _is_watcher(line: str) -> bool:
    """Whether this is another watcher, or the shell that started it: the expression stands in both."""
    return "oomguard" in line and "--match" in line
