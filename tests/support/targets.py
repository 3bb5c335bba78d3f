"""Real interpreters as targets of the hook: finding them, making virtual environments, running programs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

import pytest
from tests.support.boxes import require
from tests.support.fake_sidecar import TIMEOUT

ROOT = Path(__file__).resolve().parents[2]
WAITING = "import sys; sys.stdout.write('ready\\n'); sys.stdout.flush(); sys.stdin.read()"
"""A program for any Python that lives until `Target.finish`."""


def clean_environment() -> dict[str, str]:
    """Return this process's environment without what would change how a Python starts."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "OOMGUARD_", "OTEL_", "VIRTUAL_ENV", "PYENV_"))
    }


def find_python(version: str) -> str | None:
    """Find an interpreter such as ``3.12``; pyenv's come first, whose shims on PATH need more than a name."""
    home = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = sorted(home.glob(f"{version}.*/bin/python{version}"))
    if found:
        return str(found[-1])
    system = [f"{place}/python{version}" for place in ("/usr/local/bin", "/usr/bin")]
    return next((path for path in system if Path(path).exists()), None)


def python(version: str) -> str:
    """Return an interpreter of this version, or skip."""
    path = find_python(version)
    if path is None:
        pytest.skip(f"no Python {version} here")
    return path


def base_python() -> str:
    """Return this interpreter outside of its virtual environment."""
    return os.path.realpath(sys.executable)


def make_venv(folder: Path, *packages: str, interpreter: str | None = None) -> Path:
    """Make a virtual environment with `packages` and return its interpreter; skip without a network."""
    arguments = [] if packages else ["--without-pip"]
    made = subprocess.run(
        [interpreter or base_python(), "-m", "venv", *arguments, folder], capture_output=True, text=True,
        env=clean_environment(),
    )  # fmt: skip
    require(f"no virtual environment: {made.stdout}{made.stderr}" if made.returncode else None)
    executable = folder / "bin" / "python"
    if packages:
        installed = subprocess.run(
            [executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
            capture_output=True, text=True, env=clean_environment(),
        )  # fmt: skip
        require(f"{' '.join(packages)}: {installed.stderr}" if installed.returncode else None)
    return executable


def build_wheel(folder: Path) -> Path:
    """Build the project's wheel from a copy of the checkout."""
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__", "node_modules")
    shutil.copytree(ROOT / "exporter", source / "exporter", ignore=ignored)
    shutil.copytree(ROOT / "alerts", source / "alerts")
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    (source / "README.md").touch()  # only shown by the index
    pip = make_venv(folder / "builder", "hatchling").with_name("pip")
    subprocess.run(
        [pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source],
        check=True, env=clean_environment(),
    )  # fmt: skip
    return next(folder.glob("*.whl"))


class Target:
    """A program that runs under an interpreter, with its output in files (a pipe could fill up)."""

    def __init__(
        self,
        command: Sequence[str | Path],
        env: Mapping[str, str],
        *,
        cwd: Path | None = None,
        ready: bool = True,
    ) -> None:
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        self._err = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as above)
        self.process = subprocess.Popen(
            [str(word) for word in command], env=dict(env), cwd=cwd or tempfile.gettempdir(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE if ready else self._out, stderr=self._err,
            text=True,
        )  # fmt: skip
        self.pid = self.process.pid
        if ready:
            assert self.process.stdout is not None
            self.first_line = self.process.stdout.readline().rstrip("\n")

    def finish(self) -> tuple[int, str, str]:
        """Let the program end; return its exit code, its standard output (but the first line) and error."""
        piped, _ = self.process.communicate(timeout=TIMEOUT)
        self._out.seek(0)
        self._err.seek(0)
        return self.process.returncode, (piped or "") + self._out.read(), self._err.read()

    def __enter__(self) -> Target:  # noqa: PYI034 (Self is typing's from 3.11 on)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        self._out.close()
        self._err.close()
