"""The runtime directory: where the hook's socket, the token, the journal and the sidecar's record lie.

The directory is entered by workers that dropped privileges (mode 0711), the token is read by its owner
alone (0600). Where no directory can be written an abstract socket of Linux stands in: there is then no
place for a journal, a record or a token.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from oomguard.errors import UserError

BASES = (Path("/run"), Path("/tmp"), Path("/dev/shm"))  # noqa: S108 - ownership is checked before use
VARIABLE = "OOMGUARD_RUNTIME_DIR"
_PREFIX = "oomguard-"
_SOCKET = "sidecar.sock"
_RECORD = "sidecar.json"
_TOKEN = "token"  # noqa: S105 - a file's name
_JOURNAL = "journal.jsonl"
_ALERTS = "alerts.json"
_MODE = 0o711
_SUN_PATH = 108
"""Size of sockaddr_un.sun_path with the closing zero byte: unix(7)."""
_KEPT_DEAD = 5
"""Directories of ended runs that are kept: their journals say what happened before a crash."""
_CONNECT_SECONDS = 0.2
_MAX_TOKEN = 4096


@dataclass(frozen=True, slots=True)
class Record:
    """What a sidecar says of itself to other commands on the machine."""

    pid: int
    url: str


@dataclass(frozen=True, slots=True)
class RuntimeDir:
    """A directory, or an abstract socket where none can be had; just one of the two is not None."""

    path: Path | None
    abstract: str | None = None
    """Name of the abstract socket, without the leading zero byte."""

    @classmethod
    def named(cls, value: str) -> RuntimeDir:
        """Make sense of a value of OOMGUARD_RUNTIME_DIR, as docs/hook-protocol.md has it."""
        return cls(None, value[1:]) if value.startswith("@") else cls(Path(value))

    @classmethod
    def find(cls, bases: Sequence[Path] = BASES, proc: Path | str = "/proc") -> list[RuntimeDir]:
        """List the directories of sidecars that run: our own user's and root's, the present one first.

        A directory of anyone else could send us, and our token with us, to a server of theirs.
        """
        candidates = [cls.named(os.environ[VARIABLE])] if os.environ.get(VARIABLE) else []
        for base in bases:
            with contextlib.suppress(OSError):
                candidates += [cls(path) for path in sorted(base.glob(f"{_PREFIX}*"))]
        live: dict[Path, RuntimeDir] = {}
        for candidate in candidates:
            if candidate.path is None or not _is_directory_of(candidate.path, {0, os.geteuid()}):
                continue
            record = candidate.record()
            if record is not None and Path(proc, str(record.pid)).exists():
                live.setdefault(candidate.path.resolve(), candidate)
        return list(live.values())

    @property
    def variable(self) -> str:
        """What OOMGUARD_RUNTIME_DIR holds for the target."""
        return f"@{self.abstract}" if self.path is None else str(self.path)

    @property
    def socket_address(self) -> str | bytes:
        """What to bind the hook's socket to: a path, or the name of an abstract socket (unix(7))."""
        return b"\0" + (self.abstract or "").encode() if self.path is None else str(self.path / _SOCKET)

    @property
    def journal_path(self) -> Path | None:
        """Where the journal is written; None without a directory."""
        return self.path / _JOURNAL if self.path else None

    @property
    def alerts_path(self) -> Path | None:
        """Where the state of alerts, notifications and silences is kept; None without a directory."""
        return self.path / _ALERTS if self.path else None

    def token(self) -> str | None:
        """OOMGUARD_TOKEN, else that of the token file, which is made if there is none.

        None where there is no place for the file: only OOMGUARD_TOKEN can then allow a POST. Raises
        UserError when the file can't be read, or was put there by another user.
        """
        if given := os.environ.get("OOMGUARD_TOKEN"):
            return given
        if self.path is None:
            return None
        path = self.path / _TOKEN
        try:
            if not os.path.lexists(path):
                # Linked into place whole: a reader never sees half of it, the first of two writers wins.
                with tempfile.NamedTemporaryFile("w", dir=self.path, prefix=".token-") as file:
                    file.write(secrets.token_urlsafe(32))
                    file.flush()
                    with contextlib.suppress(FileExistsError):
                        os.link(file.name, path)
            return _read_own(path)
        except OSError as error:
            raise UserError(
                f"token file {path}: {_reason(error)}; remove it, or set OOMGUARD_TOKEN"
            ) from error

    def describe(self, pid: int, url: str) -> None:
        """Write the record that `find` and `oomguard status` read. Raises OSError when it can't be."""
        if self.path is None:
            return
        with tempfile.NamedTemporaryFile("w", dir=self.path, prefix=".record-", delete=False) as file:
            json.dump({"pid": pid, "url": url}, file)
        Path(file.name).chmod(0o644)
        Path(file.name).replace(self.path / _RECORD)

    def record(self) -> Record | None:
        """Read what the sidecar wrote there last; None when there is none, or none that can be read."""
        if self.path is None:
            return None
        try:
            data = json.loads((self.path / _RECORD).read_bytes())
            return Record(int(data["pid"]), str(data["url"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def listening(self) -> bool:
        """Whether a sidecar listens on the socket now."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_CONNECT_SECONDS)
            try:
                probe.connect(self.socket_address)
            except (TimeoutError, BlockingIOError):  # somebody is there, with a full backlog
                return True
            except OSError:
                return False
        return True


def prepare(
    explicit: str | None, name: str, bases: Sequence[Path] = BASES, proc: Path | str = "/proc"
) -> RuntimeDir:
    """Make the runtime directory, or find a name for an abstract socket.

    `name` is the PID of `oomguard run`, or ``watch``. What dead ones left in `bases` is removed. Raises
    UserError when an explicit directory can't be used, or another sidecar uses it.
    """
    if explicit is not None:
        runtime = RuntimeDir(Path(explicit).absolute())
        _check_length(runtime)
        try:
            Path(explicit).mkdir(mode=_MODE, parents=True)
            Path(explicit).chmod(_MODE)  # whatever the umask was
        except FileExistsError:
            pass
        except OSError as error:
            raise _unusable(explicit, error) from error
        try:
            _try_writing(Path(explicit))
        except OSError as error:
            raise _unusable(explicit, error) from error
        return _unused(runtime)
    for base in bases:
        _sweep(base, proc)
    for base in bases:
        path = base / f"{_PREFIX}{name}"
        try:
            with contextlib.suppress(FileExistsError):
                path.mkdir(mode=_MODE)
            # In a /tmp that all share, somebody may have been there before us.
            if not _is_directory_of(path, {os.geteuid()}):
                continue
            path.chmod(_MODE)
            _try_writing(path)
        except OSError:
            continue
        runtime = RuntimeDir(path)
        _check_length(runtime)
        return _unused(runtime)
    return RuntimeDir(None, f"oomguard-{os.geteuid()}-{name}-{secrets.token_hex(8)}")


def _unusable(path: str, error: OSError) -> UserError:
    return UserError(
        f"runtime directory {path}: {_reason(error)}; give a directory that can be written, or leave "
        "--runtime-dir away"
    )


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _unused(runtime: RuntimeDir) -> RuntimeDir:
    if runtime.listening():
        record = runtime.record()
        who = f"the sidecar of process {record.pid}" if record else "another sidecar"
        raise UserError(
            f"runtime directory {runtime.path}: {who} uses it; end that one, or give another --runtime-dir"
        )
    return runtime


def _check_length(runtime: RuntimeDir) -> None:
    length = len(os.fsencode(runtime.socket_address))
    if length >= _SUN_PATH:
        raise UserError(
            f"runtime directory {runtime.path}: its socket's path would have {length} bytes, a unix socket's "
            f"has {_SUN_PATH - 1} at most; give a shorter --runtime-dir"
        )


def _try_writing(path: Path) -> None:
    # Asking access(2) does not tell of a full or read-only file system.
    with tempfile.NamedTemporaryFile(dir=path, prefix=".probe-") as file:
        file.write(b"x")
        file.flush()


def _is_directory_of(path: Path, uids: set[int]) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid in uids


def _read_own(path: Path) -> str:
    """Read a token of ours; one that somebody else put there would be known to them."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_uid not in (0, os.geteuid()):
            raise PermissionError(errno.EPERM, "it belongs to another user")
        token = file.read(_MAX_TOKEN).decode("ascii", errors="replace").strip()
    if not token.isprintable() or not token or "\ufffd" in token:
        raise OSError(errno.EINVAL, "it holds no token")
    return token


def _sweep(base: Path, proc: Path | str) -> None:
    """Remove what `run` left behind in a base when its process is dead, but for the last few journals.

    A PID may be that of another pid namespace, which shares /tmp with us: whoever is still listened
    for is not dead.
    """
    dead: list[tuple[float, Path]] = []
    with contextlib.suppress(OSError):
        for path in base.glob(f"{_PREFIX}[0-9]*"):
            pid = path.name.removeprefix(_PREFIX)
            if (
                pid.isdigit()
                and not Path(proc, pid).exists()
                and _is_directory_of(path, {os.geteuid()})
                and not RuntimeDir(path).listening()
            ):
                dead.append((path.stat().st_mtime, path))
    for _, path in sorted(dead, reverse=True)[_KEPT_DEAD:]:
        shutil.rmtree(path, ignore_errors=True)
