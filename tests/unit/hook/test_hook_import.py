"""What importing the hook brings along."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from oomguard.hook.autostart import helper_code

ROOT = Path(__file__).resolve().parents[3]


def test_the_hook_imports_the_standard_library_and_nothing_of_the_sidecar() -> None:
    code = (
        "import sys; from oomguard import hook\n"
        "print(*[m for m in sys.modules if m.split('.')[0] not in sys.stdlib_module_names])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(ROOT / "exporter")},
        capture_output=True,
        text=True,
    )
    modules = set(done.stdout.split()) - {"__main__", "oomguard"}
    assert modules
    assert {name for name in modules if not name.startswith("oomguard.hook")} == set()


def test_the_hook_leaves_the_heavy_modules_alone() -> None:
    heavy = {
        "typing",
        "dataclasses",
        "inspect",
        "logging",
        "threading",
        "socket",
        "asyncio",
        "pathlib",
        "subprocess",
    }
    code = "import sys; from oomguard import hook; hook.start(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(ROOT / "exporter")},
        capture_output=True,
        text=True,
    )
    assert heavy & set(done.stdout.split()) == set()


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["python", "-s", "-c", "from multiprocessing.resource_tracker import main;main(5)"], "from multi"),
        (["python", "-c", "pass"], "pass"),
        (["python", "script.py", "-c", "pass"], ""),
        (["python", "-c"], ""),
        (["python"], ""),
    ],
)
def test_the_code_of_a_helper_is_found_among_the_options(command: list[str], code: str) -> None:
    assert helper_code(command)[: len("from multi")] == code
