"""Real memory limits for tests: cgroup v1 boxes, a user-mode kernel with cgroup v2, containers.

Everything here needs root. `require` decides what a missing part means: a skip with the reason, or
an error where the environment says ``OOMGUARD_TEST_REAL=1``, so that CI can't pass by skipping.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

V1_MEMORY = Path("/sys/fs/cgroup/memory")
V1_CPU = Path("/sys/fs/cgroup/cpu")
UML = "/usr/bin/linux.uml"
MIB = 1 << 20


def require(problem: str | None) -> None:
    """Skip the test for `problem`, or fail it where OOMGUARD_TEST_REAL=1; None means that all is there."""
    if problem is None:
        return
    if os.environ.get("OOMGUARD_TEST_REAL") == "1":
        pytest.fail(f"OOMGUARD_TEST_REAL=1, but {problem}", pytrace=False)
    pytest.skip(problem)


def v1_problem() -> str | None:
    """Why no cgroup v1 box can be made here."""
    if os.geteuid() != 0:
        return "cgroup v1 boxes need root"
    if not (V1_MEMORY / "memory.limit_in_bytes").is_file() and not (V1_MEMORY / "cgroup.procs").is_file():
        return f"no cgroup v1 memory controller is mounted at {V1_MEMORY}"
    return None


def uml_problem() -> str | None:
    """Why no user-mode kernel can be booted here."""
    if os.geteuid() != 0:
        return "the user-mode kernel needs root: its guest is the owner of the host's files"
    return None if Path(UML).exists() else f"{UML} is missing (apt-get install user-mode-linux)"


def podman_problem() -> str | None:
    """Why no container can be run here."""
    if os.geteuid() != 0:
        return "containers on the host's root need root"
    for tool in ("podman", "runc"):
        if shutil.which(tool) is None:
            return f"{tool} is missing (apt-get install podman runc)"
    return None


class BoxV1:
    """A cgroup v1 memory limit; `with BoxV1(512 * MIB) as box: box.run([...])`.

    `limit` and `memsw` are bytes (`memsw` defaults to `limit`, where the kernel accounts swap), `cpus`
    is a CPU quota in cores. `parent` makes a box inside another one. On exit whatever runs in it is
    killed and the box is removed.
    """

    def __init__(
        self,
        limit: int | None = None,
        *,
        memsw: int | None = None,
        cpus: float | None = None,
        parent: BoxV1 | None = None,
    ) -> None:
        require(v1_problem())
        self.name = f"oomguard-test-{secrets.token_hex(4)}"
        self.path: Path = (parent.path if parent else V1_MEMORY) / self.name
        self._limit, self._memsw, self._cpus = limit, memsw, cpus
        self._cpu_path: Path | None = None

    def __enter__(self) -> BoxV1:  # noqa: PYI034 - typing.Self needs Python 3.11
        self.path.mkdir()
        if self._limit is not None:
            self.set_limit(self._limit)
            memsw = self.path / "memory.memsw.limit_in_bytes"
            if memsw.exists():
                memsw.write_text(str(self._memsw or self._limit))
        if self._cpus is not None:
            self._cpu_path = V1_CPU / self.name
            self._cpu_path.mkdir()
            period = int((self._cpu_path / "cpu.cfs_period_us").read_text())
            (self._cpu_path / "cpu.cfs_quota_us").write_text(str(int(period * self._cpus)))
        return self

    def __exit__(self, *exc_info: object) -> None:
        for path in (self.path, self._cpu_path):
            if path is not None:
                empty_and_remove(path)

    def run(self, argv: Sequence[str], **popen_kw: Any) -> subprocess.Popen[Any]:
        """Start `argv` inside the box; the PID is the command's: a shell joins and then becomes it."""
        procs = [str(path / "cgroup.procs") for path in (self.path, self._cpu_path) if path is not None]
        join = "".join(f"echo $$ > {path} && " for path in procs)
        return subprocess.Popen(["/bin/sh", "-c", f'{join}exec "$@"', "box", *argv], **popen_kw)

    def join(self, pid: int) -> None:
        """Move a running process into the box."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def set_limit(self, limit: int) -> None:
        """Change memory.limit_in_bytes in place."""
        (self.path / "memory.limit_in_bytes").write_text(str(limit))

    def oom_kills(self) -> int:
        """How many processes the kernel has killed in this box."""
        return _numbers(self.path / "memory.oom_control")["oom_kill"]

    def usage(self) -> int:
        """memory.usage_in_bytes."""
        return int((self.path / "memory.usage_in_bytes").read_text())

    def stat(self) -> dict[str, int]:
        """memory.stat, in bytes."""
        return _numbers(self.path / "memory.stat")

    def pids(self) -> tuple[int, ...]:
        """Who is in the box."""
        return tuple(int(pid) for pid in (self.path / "cgroup.procs").read_text().split())


def _numbers(path: Path) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in path.read_text().splitlines())}


def empty_and_remove(path: Path, *, timeout: float = 20.0) -> None:
    """Kill every process in a cgroup and in those below it, then remove them, the deepest first."""
    deadline = time.monotonic() + timeout
    for directory in sorted((*path.glob("**/"), path), key=lambda item: len(item.parts), reverse=True):
        while directory.exists():
            for pid in (directory / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            try:
                directory.rmdir()
            except OSError:
                # Busy until the killed processes have let go of their memory.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)


def run_in_uml(script: str, timeout: float = 120.0, *, memory: str = "1G") -> tuple[int, str]:
    """Run a bash script in a user-mode kernel with cgroup v2 at /sys/fs/cgroup; its exit code and output.

    The guest shares the host's root, writable: paths mean the same inside. A guest that does not end
    in time is killed and raises TimeoutError with what it had said.
    """
    require(uml_problem())
    init = Path(__file__).with_name("uml_init.sh")
    with tempfile.TemporaryDirectory(prefix="oomguard-uml-") as folder:
        job, output, code = Path(folder, "job"), Path(folder, "job.out"), Path(folder, "job.rc")
        job.write_text(script)
        guest = subprocess.Popen(
            [
                UML,
                f"mem={memory}",
                "rootfstype=hostfs",
                "rootflags=/",
                "rw",
                f"init={init}",
                f"job={job}",
                "con=null",
                "con0=fd:0,fd:1",
                "quiet",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            console, _ = guest.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            # The guest's processes are processes of the host too, in the session just made for them.
            os.killpg(guest.pid, signal.SIGKILL)
            console, _ = guest.communicate()
            said = output.read_text(errors="replace") if output.exists() else console
            raise TimeoutError(f"the guest did not end within {timeout} s; it said:\n{said}") from None
        if not code.exists():
            raise RuntimeError(f"the guest died before its job had ended; console:\n{console}")
        return int(code.read_text()), output.read_text(errors="replace")


@contextlib.contextmanager
def podman_store() -> Iterator[Path]:
    """A folder for podman's storage; on exit its containers are killed and removed with it."""
    require(podman_problem())
    store = Path(tempfile.mkdtemp(prefix="oomguard-podman-"))
    try:
        yield store
    finally:
        subprocess.run(
            [*_podman(store), "rm", "--all", "--force", "--time", "0"], capture_output=True, timeout=60
        )
        subprocess.run(["umount", "--quiet", str(store / "storage" / "overlay")], capture_output=True)
        shutil.rmtree(store, ignore_errors=True)
        for parent in Path("/sys/fs/cgroup").glob(f"*/{store.name}"):
            empty_and_remove(parent)


def _podman(store: Path) -> list[str]:
    # crun, the default runtime, rejects the hybrid hierarchy.
    return [
        "podman",
        "--root", str(store / "storage"),
        "--runroot", str(store / "run"),
        "--runtime", "runc",
        "--cgroup-manager", "cgroupfs",
    ]  # fmt: skip


def podman_run(
    argv: Sequence[str],
    *,
    store: Path,
    name: str,
    memory: str | None = None,
    options: Sequence[str] = (),
    **popen_kw: Any,
) -> subprocess.Popen[Any]:
    """Run a command in a container on an overlay of the host's root (no image).

    `store` comes from `podman_store`. `memory` is podman's (``512m``). `options` are further ones:
    ``--pid container:app``, ``--network container:app``, ``--volume …``.
    """
    network = () if any(option.startswith("--network") for option in options) else ("--network", "none")
    return subprocess.Popen(
        [
            *_podman(store), "run", "--rm", *network,
            "--ulimit", "nofile=20000:20000", "--ulimit", "nproc=1024:1024",
            # Not podman's own parent cgroup: other tests run containers too.
            "--cgroup-parent", f"/{store.name}",
            *(("--memory", memory) if memory else ()),
            "--name", name, *options, "--rootfs", "/:O", *argv,
        ],
        **popen_kw,
    )  # fmt: skip


def podman_pid(name: str, *, store: Path, timeout: float = 30.0) -> int:
    """PID of a container's first process, as the host sees it, once it runs."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = subprocess.run(
            [*_podman(store), "inspect", "--format", "{{.State.Pid}}", name], capture_output=True, text=True
        )
        if found.returncode == 0 and int(found.stdout) > 0:
            return int(found.stdout)
        time.sleep(0.1)
    raise TimeoutError(f"container {name} did not start within {timeout} s")
