"""The folders tell the story: one direction of imports, and no file that reads another machine's paths."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "exporter" / "oomguard"

# From what knows nothing of the others to what knows them all. A module may import those of lower layers, and
# of its own.
LAYERS = (
    {"errors", "hookmodel", "model", "metrics", "sizes"},
    {"promql", "documents"},
    {"log", "config", "counters", "journal", "store", "runtime", "clock"},
    {"sources", "rules", "routes"},
    {"sampler", "state", "attach", "inject", "thresholds", "recording"},
    {"collect", "level", "actions", "export"},
    {"broker"},
    {"alerting"},
    {"guardian", "slow", "control"},
    {"view", "web"},
    {"app"},
    {"supervisor", "demo"},
    {"cli", "__main__"},
)
APART = {"hook"}
STANDARD_LIBRARY_ONLY = (
    "errors.py",
    "hookmodel.py",
    "model.py",
    "metrics.py",
    "sizes.py",
    "journal.py",
    "log.py",
    "runtime.py",
    "clock.py",
    "alerting/persisted.py",
)


def modules():
    return [file for file in PACKAGE.rglob("*.py") if "startup" not in file.parts]


def unit(file):
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(file):
    """The units of oomguard that a file imports, wherever the import stands."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module == "oomguard"
                else [node.module]
            )
        found |= {name.split(".")[1] for name in names if name.startswith("oomguard.")}
    return found - {"__version__"}


def layer(name):
    return next(index for index, names in enumerate(LAYERS) if name in names)


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_one_way(file):
    name = unit(file)
    if name == "__init__":
        assert imported(file) == set()
    elif name in APART:
        assert imported(file) <= {name}, "the hook imports nothing of the sidecar"
    else:
        for other in imported(file) - {name}:
            assert other not in APART or name == "demo", f"{name} must not import the hook"
            if other not in APART:
                assert layer(other) <= layer(name), f"{name} must not import {other}"


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(PACKAGE)))
def test_rules_and_routes_know_nothing_of_each_other(file):
    assert {"rules": "routes", "routes": "rules"}.get(unit(file)) not in imported(file)


def test_every_unit_has_its_layer():
    units = {unit(file) for file in modules()} - {"__init__"}
    assert units == set().union(*LAYERS) | APART


@pytest.mark.parametrize("name", [*STANDARD_LIBRARY_ONLY, "hook", "supervisor"])
def test_what_must_run_anywhere_needs_the_standard_library_only(name):
    import sys

    place = PACKAGE / name
    for file in [place] if place.is_file() else [f for f in place.rglob("*.py") if "startup" not in f.parts]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            for imported_name in names:
                # gevent is asked for in sys.modules only, typing_extensions by type checkers only.
                known = {*sys.stdlib_module_names, "oomguard", "gevent", "typing_extensions"}
                assert imported_name.split(".")[0] in known, (file, imported_name)


def test_every_test_file_has_a_name_of_its_own():
    """pytest imports them by their bare names."""
    names = [file.name for file in (PACKAGE.parents[1] / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
