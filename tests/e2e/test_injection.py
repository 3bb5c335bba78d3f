"""The hook finds its way into real interpreters, and nothing else about them changes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.boxes import require
from tests.support.fake_sidecar import FakeSidecar
from tests.support.targets import (
    ROOT,
    WAITING,
    Target,
    base_python,
    build_wheel,
    clean_environment,
    find_python,
    make_venv,
    python,
)

from oomguard import inject

MODERN = ("3.10", "3.11", "3.12", "3.13", "3.14")
OLD = ("2.7", "3.6", "3.7", "3.8", "3.9")
SOON = 1.0
"""Seconds in which a hook that must not come would have come (it takes 30 ms)."""
NOTES = "import os; open(os.environ['NOTES'], 'a').write({!r} + '\\n')\n"
"""A sitecustomize that leaves a line each time it runs."""


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[FakeSidecar]:
    with FakeSidecar(tmp_path) as running:
        yield running


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Path:
    """An interpreter whose environment has oomguard, the hook alone."""
    return make_venv(tmp_path_factory.mktemp("installed"), str(wheel))


@pytest.fixture(scope="session")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter whose virtual environment has nothing."""
    return make_venv(tmp_path_factory.mktemp("bare"))


def injected(sidecar: FakeSidecar, **variables: str) -> dict[str, str]:
    return inject.environment({**clean_environment(), **variables}, sidecar.runtime_dir, target="here")


def expect_hook(sidecar: FakeSidecar, *command: str | Path, env: dict[str, str]) -> dict[str, object]:
    with Target([*command, "-c", WAITING], env) as target:
        hello = sidecar.accept_pid(target.pid).hello
        assert target.finish() == (0, "", "")
    return hello


def expect_none(sidecar: FakeSidecar, *command: str | Path, env: dict[str, str]) -> str:
    """Run the command, which must not bring a hook, and return the cause that is found."""
    with Target([*command, "-c", WAITING], env) as target:
        assert sidecar.nobody(SOON)
        cause = inject.no_hook_cause("/proc", target.pid)
        assert target.finish() == (0, "", "")
    return cause


@pytest.mark.parametrize("version", MODERN)
def test_every_supported_python_brings_the_hook_without_oomguard_installed(
    version: str, sidecar: FakeSidecar
) -> None:
    hello = expect_hook(sidecar, python(version), env=injected(sidecar))
    assert str(hello["runtime_version"]).startswith(version + ".")
    assert hello["target"] == "here"


def test_another_python_than_ours_is_among_them() -> None:
    ours = os.path.realpath(base_python())
    others = [path for version in MODERN if (path := find_python(version)) and os.path.realpath(path) != ours]
    require(None if others else f"no supported Python beside {ours}")


def test_debians_python_brings_the_hook(sidecar: FakeSidecar) -> None:
    if not Path("/usr/bin/python3").exists():
        pytest.skip("no /usr/bin/python3 here")
    expect_hook(sidecar, "/usr/bin/python3", env=injected(sidecar))


def test_a_virtual_environment_without_oomguard_brings_the_hook(bare: Path, sidecar: FakeSidecar) -> None:
    expect_hook(sidecar, bare, env=injected(sidecar))


def test_the_targets_path_gains_the_start_up_directory_and_nothing_else(
    bare: Path, sidecar: FakeSidecar
) -> None:
    code = "import sys, json; print(json.dumps([sys.path, sorted(sys.modules)]))"
    run = {"capture_output": True, "text": True, "check": True}
    with_hook = subprocess.run([bare, "-c", code], env=injected(sidecar), **run)
    without = subprocess.run([bare, "-c", code], env=clean_environment(), **run)
    path, modules = json.loads(with_hook.stdout)
    assert [place for place in path if place != inject.STARTUP] == json.loads(without.stdout)[0]
    ours = {name for name in modules if name.startswith("oomguard")}
    assert all(name.startswith("oomguard.hook") for name in ours - {"oomguard"})


def test_an_application_may_import_the_hook_that_was_injected(bare: Path, sidecar: FakeSidecar) -> None:
    code = (
        "import sys\nfrom oomguard import hook\nguard = hook.start()\n"
        "guard.cache('numbers', clear=list, size=lambda: 42)\n" + WAITING
    )
    with Target([bare, "-c", code], injected(sidecar)) as target:
        reading = sidecar.accept_pid(target.pid).reading()
        assert reading["caches"] == [{"name": "numbers", "bytes": 42, "entries": None}]
        assert sidecar.nobody(SOON), "start() made a second connection"
        assert target.finish() == (0, "", "")


def test_the_wheel_alone_brings_the_hook(installed: Path, sidecar: FakeSidecar) -> None:
    expect_hook(sidecar, installed, env={**clean_environment(), **sidecar.environment})


@pytest.mark.parametrize("flag", ["-I", "-E", "-s", "-P"])
def test_the_wheel_brings_the_hook_under_flags_that_ignore_pythonpath(
    flag: str, installed: Path, sidecar: FakeSidecar
) -> None:
    if flag == "-P" and b"-P " not in subprocess.run([installed, "--help"], capture_output=True).stdout:
        pytest.skip("this Python has no -P")
    expect_hook(sidecar, installed, flag, env=injected(sidecar))


def test_the_targets_own_oomguard_wins_over_the_sidecars(installed: Path, sidecar: FakeSidecar) -> None:
    code = "import sys, oomguard; print(oomguard.__file__, flush=True); sys.stdin.read()"
    with Target([installed, "-c", code], injected(sidecar)) as target:
        sidecar.accept_pid(target.pid)
        assert Path(target.first_line).is_relative_to(installed.parents[1])
        assert sidecar.nobody(SOON), "both of them started"
        assert target.finish() == (0, "", "")


def test_the_wheel_does_nothing_where_no_runtime_directory_is_set(installed: Path) -> None:
    code = "import sys; print([name for name in sys.modules if name.startswith('oomguard')])"
    done = subprocess.run([installed, "-c", code], env=clean_environment(), capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_a_pth_file_whose_oomguard_is_gone_prints_nothing(tmp_path: Path, sidecar: FakeSidecar) -> None:
    interpreter = make_venv(tmp_path / "venv")
    packages = next((tmp_path / "venv" / "lib").glob("python3*/site-packages"))
    shutil.copy(ROOT / "exporter" / "oomguard.pth", packages)
    done = subprocess.run(
        [interpreter, "-c", "pass"], env={**clean_environment(), **sidecar.environment}, capture_output=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@pytest.mark.parametrize("flag", ["-I", "-E"])
def test_flags_that_ignore_pythonpath_leave_no_hook_and_the_cause_says_so(
    flag: str, bare: Path, sidecar: FakeSidecar
) -> None:
    cause = expect_none(sidecar, bare, flag, env=injected(sidecar))
    assert cause.startswith(f"Python was started with {flag}, which ignores PYTHONPATH")


def test_python_without_site_leaves_no_hook_and_the_cause_says_so(
    installed: Path, sidecar: FakeSidecar
) -> None:
    assert "-S" in expect_none(sidecar, installed, "-S", env=injected(sidecar))


@pytest.mark.parametrize("version", OLD)
def test_a_python_too_old_runs_as_without_us_and_the_cause_says_so(
    version: str, tmp_path: Path, sidecar: FakeSidecar
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "sitecustomize.py").write_text(NOTES.format("ran"))
    notes = tmp_path / "notes"
    env = injected(sidecar, PYTHONPATH=str(tmp_path / "theirs"), NOTES=str(notes))
    assert f"Python {version} is too old" in expect_none(sidecar, python(version), env=env)
    assert notes.read_text() == "ran\n"


def test_the_hook_can_be_turned_off_and_the_cause_says_so(bare: Path, sidecar: FakeSidecar) -> None:
    env = {**injected(sidecar), "OOMGUARD_HOOK": "0"}
    assert "OOMGUARD_HOOK=0" in expect_none(sidecar, bare, env=env)


def test_without_injection_neither_wheel_nor_start_up_directory_acts(
    installed: Path, sidecar: FakeSidecar
) -> None:
    env = inject.environment(clean_environment(), sidecar.runtime_dir, inject=False)
    assert "--no-inject" in expect_none(sidecar, installed, env=env)


def test_without_injection_an_application_can_still_start_the_hook(
    installed: Path, sidecar: FakeSidecar
) -> None:
    env = inject.environment(clean_environment(), sidecar.runtime_dir, inject=False)
    with Target([installed, "-c", "from oomguard import hook; hook.start()\n" + WAITING], env) as target:
        sidecar.accept_pid(target.pid)


def test_a_cleaned_environment_is_named_as_the_cause(bare: Path, sidecar: FakeSidecar) -> None:
    assert "environment was cleaned" in expect_none(sidecar, bare, env=clean_environment())


def test_a_replaced_pythonpath_is_named_as_the_cause(bare: Path, sidecar: FakeSidecar) -> None:
    env = {**injected(sidecar), "PYTHONPATH": "/nowhere"}
    assert "PYTHONPATH was replaced" in expect_none(sidecar, bare, env=env)


def test_a_program_that_is_not_python_is_named_as_the_cause(sidecar: FakeSidecar) -> None:
    with Target(["sh", "-c", "echo ready; read line"], injected(sidecar)) as target:
        assert "is not Python" in inject.no_hook_cause("/proc", target.pid)


def test_a_sitecustomize_on_pythonpath_runs_once_as_before(
    bare: Path, tmp_path: Path, sidecar: FakeSidecar
) -> None:
    (tmp_path / "sitecustomize.py").write_text(NOTES.format("theirs"))
    env = injected(sidecar, PYTHONPATH=str(tmp_path), NOTES=str(tmp_path / "notes"))
    code = "import sitecustomize, sys; print(sitecustomize.__file__, flush=True); sys.stdin.read()"
    with Target([bare, "-c", code], env) as target:
        sidecar.accept_pid(target.pid)
        assert target.first_line == str(tmp_path / "sitecustomize.py")
        assert target.finish() == (0, "", "")
    assert (tmp_path / "notes").read_text() == "theirs\n"


def test_a_sitecustomize_in_site_packages_runs_once_as_before(tmp_path: Path, sidecar: FakeSidecar) -> None:
    interpreter = make_venv(tmp_path / "venv")
    packages = next((tmp_path / "venv" / "lib").glob("python3*/site-packages"))
    (packages / "sitecustomize").mkdir()
    (packages / "sitecustomize" / "__init__.py").write_text(NOTES.format("theirs"))
    # Debian's interpreter has one of its own, which comes before it: then theirs does not run without us either.
    subprocess.run([interpreter, "-c", ""], env={"NOTES": str(tmp_path / "before")}, check=True)
    expect_hook(sidecar, interpreter, env=injected(sidecar, NOTES=str(tmp_path / "notes")))
    before, after = (
        path.read_text() if path.exists() else "" for path in (tmp_path / "before", tmp_path / "notes")
    )
    assert after == before
    assert before in ("theirs\n", "")


@pytest.mark.parametrize(
    "body",
    [
        "raise ValueError('theirs')",
        "import a_module_that_is_not_there",
        "raise ImportError('theirs', name='sitecustomize')",
    ],
)
def test_an_error_in_a_sitecustomize_behind_us_shows_as_without_us(
    body: str, bare: Path, tmp_path: Path, sidecar: FakeSidecar
) -> None:
    (tmp_path / "sitecustomize.py").write_text(body + "\n")
    env = injected(sidecar, PYTHONPATH=str(tmp_path))
    code = "import sys; print('sitecustomize' in sys.modules)"
    with_hook = subprocess.run([bare, "-c", code], env=env, capture_output=True, text=True)
    alone = {**clean_environment(), "PYTHONPATH": str(tmp_path)}
    without = subprocess.run([bare, "-c", code], env=alone, capture_output=True, text=True)
    assert (with_hook.stdout, with_hook.stderr) == (without.stdout, without.stderr)


STEPS_ASIDE = """
import os, sys
open(os.environ['NOTES'], 'a').write('launcher\\n')
here = os.path.dirname(os.path.abspath(__file__))
places = list(sys.path)
sys.path[:] = [place for place in places if place != here]
mine = sys.modules.pop('sitecustomize', None)
try:
    import sitecustomize
except ImportError:
    sys.modules['sitecustomize'] = mine
finally:
    sys.path[:] = places
"""
"""How ddtrace's sitecustomize chains: off the path for as long as it imports the next one."""

SEARCHES = """
import importlib.machinery, importlib.util, os, sys
open(os.environ['NOTES'], 'a').write('launcher\\n')
here = os.path.dirname(os.path.abspath(__file__))
spec = importlib.machinery.PathFinder.find_spec('sitecustomize', [p for p in sys.path if p != here])
if spec is not None:
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
"""
"""How New Relic's chains: finds the next one itself and leaves the path alone."""


@pytest.mark.parametrize("launcher", [STEPS_ASIDE, SEARCHES])
@pytest.mark.parametrize("order", ["launcher first", "oomguard first"])
def test_launchers_that_chain_run_once_and_so_does_what_is_behind_them(
    launcher: str, order: str, bare: Path, tmp_path: Path, sidecar: FakeSidecar
) -> None:
    for name, text in (("launcher", launcher), ("theirs", NOTES.format("theirs"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sitecustomize.py").write_text(text)
    env = injected(sidecar, NOTES=str(tmp_path / "notes"))
    places = [str(tmp_path / "launcher"), inject.STARTUP, str(tmp_path / "theirs")]
    if order == "oomguard first":
        places[:2] = places[1::-1]
    env["PYTHONPATH"] = os.pathsep.join(places)
    expect_hook(sidecar, bare, env=env)
    assert (tmp_path / "notes").read_text() == "launcher\ntheirs\n"


@pytest.fixture(scope="session")
def telemetry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_venv(tmp_path_factory.mktemp("telemetry"), "opentelemetry-distro")


def test_opentelemetrys_launcher_instruments_and_the_hook_gets_in(
    telemetry: Path, sidecar: FakeSidecar
) -> None:
    launcher = telemetry.with_name("opentelemetry-instrument")
    code = (
        "import sys; wanted = ('oomguard.hook', 'opentelemetry.sdk.trace')\n"
        "print(sorted(m for m in sys.modules if m in wanted), flush=True); sys.stdin.read()"
    )
    env = injected(
        sidecar, OTEL_TRACES_EXPORTER="none", OTEL_METRICS_EXPORTER="none", OTEL_LOGS_EXPORTER="none"
    )
    with Target([launcher, telemetry, "-c", code], env) as target:
        assert target.first_line == "['oomguard.hook', 'opentelemetry.sdk.trace']"
        last = sidecar.accept_pid(target.pid)
        while not sidecar.nobody(
            SOON / 2
        ):  # the launcher had a hook of its own before it became the application
            last = sidecar._hooks[-1]
        assert last.reading()["gc"]["status"] == "ok"
        assert target.finish() == (0, "", "")


def test_a_launcher_in_front_that_does_not_chain_is_named_as_the_cause(
    bare: Path, tmp_path: Path, sidecar: FakeSidecar
) -> None:
    (tmp_path / "sitecustomize.py").write_text("")
    env = injected(sidecar)
    env["PYTHONPATH"] = os.pathsep.join([str(tmp_path), inject.STARTUP])
    assert f"{tmp_path}/sitecustomize.py stands in front" in expect_none(sidecar, bare, env=env)
