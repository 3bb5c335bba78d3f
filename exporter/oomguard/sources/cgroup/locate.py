"""Whose cgroup: finds the directory of the target's cgroup, as the sidecar can open it.

/proc/PID/cgroup names a path and mountinfo's root field says which part of the hierarchy a mount
shows. The kernel renders both for the cgroup namespace of whoever reads them (cgroup_namespaces(7)), so with
both read by the sidecar the directory is the mount point plus the path relative to the mount's
root: on the host, in a container with and without a namespace of its own, and for a target in
another container, whose mounts are reached through /proc/PID/root. There the path may climb
(``/../other``), and so may the root. mountinfo's format: proc_pid_mountinfo(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from oomguard.sources.reading import PTRACE_FIX, Absent, Failed

_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted cgroup hierarchy."""

    version: int
    root: str
    """The cgroup that the mount shows as its top."""
    point: str
    controllers: frozenset[str]
    """v1: from the super options; v2: empty, they differ by directory."""


@dataclass(frozen=True, slots=True)
class Place:
    """A cgroup's directory, and what is visible above it."""

    version: int
    lineage: tuple[Path, ...]
    """The directory and its visible ancestors, the innermost first."""

    @property
    def directory(self) -> Path:
        """The process's own cgroup."""
        return self.lineage[0]

    @property
    def top(self) -> Path:
        """The outermost cgroup that the mount shows."""
        return self.lineage[-1]


def parse_cgroup(data: bytes) -> dict[str, str]:
    """/proc/PID/cgroup as controller to path; the v2 hierarchy stands under the empty name."""
    paths: dict[str, str] = {}
    for line in data.decode(errors="surrogateescape").splitlines():
        _, names, path = line.split(":", 2)
        # A removed cgroup with a process that has not been reaped.
        path = path.removesuffix(" (deleted)")
        paths.update(dict.fromkeys(names.split(","), path))
    return paths


def parse_mounts(data: bytes) -> tuple[Mount, ...]:
    """The cgroup mounts of /proc/PID/mountinfo, those that show most of the hierarchy first."""
    mounts = []
    for line in data.splitlines():
        before, _, after = line.partition(b" - ")
        if not after.startswith((b"cgroup ", b"cgroup2 ")):
            continue
        kind, _, options = after.split(b" ", 2)
        _, _, _, root, point, _ = before.split(b" ", 5)
        v1 = kind == b"cgroup"
        controllers = frozenset(options.decode().split(",")) if v1 else frozenset[str]()
        mounts.append(Mount(1 if v1 else 2, _unescape(root), _unescape(point), controllers))
    return tuple(sorted(mounts, key=lambda mount: len(PurePosixPath(mount.root).parts)))


def _unescape(field: bytes) -> str:
    r"""Undo mountinfo's octal escapes: a blank is written ``\040``."""
    return _OCTAL.sub(lambda found: bytes([int(found[1], 8)]), field).decode(errors="surrogateescape")


def find_place(
    paths: dict[str, str], controller: str, *, pid: int, proc: Path, own_pid: int | str, root: Path
) -> Place:
    """Find the cgroup of `pid` that `controller` acts on.

    `controller` is ``memory`` or ``cpu``, or empty for the v2 hierarchy whatever it controls; `paths` is what
    `parse_cgroup` made of the target's file. Our own mounts come first: they usually show more
    ancestors than a container's. `root` is put before our own mount points. Raises Absent where the
    process is in no such hierarchy, Failed where its directory is out of sight or out of reach.
    """
    version = 1 if controller and controller in paths else 2
    path = paths.get(controller if version == 1 else "")
    if path is None:
        raise Absent(f"the kernel has no cgroup hierarchy with the controller {controller or 'v2'}")
    denied: PermissionError | None = None
    for base, owner in ((root, own_pid), (proc / str(pid) / "root", pid)):
        for mount in _mounts(proc, owner, version, controller):
            relative = _relative(path, mount.root)
            top = base / mount.point.lstrip("/")
            if relative is None:
                continue
            try:
                if _holds(top.joinpath(*relative), pid):
                    depths = range(len(relative), -1, -1)
                    return Place(version, tuple(top.joinpath(*relative[:depth]) for depth in depths))
            except PermissionError as error:
                denied = error
    if denied is not None:
        raise Failed(f"can't look into {denied.filename}: permission denied; {PTRACE_FIX}")
    name = f"v{version} {controller}".strip()
    raise Failed(f"no mount shows the {name} cgroup {path} of process {pid}; mount its /sys/fs/cgroup")


def _mounts(proc: Path, owner: int | str, version: int, controller: str) -> Iterator[Mount]:
    try:
        # Whole: on a host with hundreds of containers it is longer than what `content` reads.
        data = (proc / str(owner) / "mountinfo").read_bytes()
    except FileNotFoundError:
        return
    for mount in parse_mounts(data):
        if mount.version == version and (version == 2 or controller in mount.controllers):  # noqa: PLR2004 - cgroup v2
            yield mount


def _relative(path: str, root: str) -> tuple[str, ...] | None:
    """The parts of `path` below `root`; None where it lies outside."""
    inner, outer = PurePosixPath(path).parts, PurePosixPath(root).parts
    if inner[: len(outer)] != outer or ".." in inner[len(outer) :]:
        return None
    return inner[len(outer) :]


def _holds(directory: Path, pid: int) -> bool:
    """Whether the directory exists and nothing speaks against its being the cgroup of `pid`.

    cgroup.procs shows a 0 for a process outside our pid namespace, can't be read in a threaded
    cgroup, and leaves out a leader that has exited: then the path alone must do.
    """
    try:
        pids = (directory / "cgroup.procs").read_bytes().split()
    except FileNotFoundError:
        return False
    except PermissionError:
        raise
    except OSError:
        return directory.is_dir()
    return not pids or b"0" in pids or str(pid).encode() in pids
