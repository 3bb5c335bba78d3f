"""The target's environment, and the sentence that says why no hook has come."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from oomguard import inject


def test_pythonpath_is_extended_in_front_and_never_replaced() -> None:
    result = inject.environment({"PYTHONPATH": "/a::/b", "HOME": "/h"}, "/run/o", target="t")
    assert result["PYTHONPATH"].split(os.pathsep) == [inject.STARTUP, "/a", "", "/b"]
    assert (result["OOMGUARD_RUNTIME_DIR"], result["OOMGUARD_TARGET"], result["HOME"]) == (
        "/run/o",
        "t",
        "/h",
    )


@pytest.mark.parametrize("before", [{}, {"PYTHONPATH": ""}])
def test_an_empty_pythonpath_gets_no_empty_entry_which_would_be_the_working_directory(before: dict) -> None:
    assert inject.environment(before, "@name")["PYTHONPATH"] == inject.STARTUP


def test_a_second_time_changes_nothing_more() -> None:
    once = inject.environment({"PYTHONPATH": "/a"}, "/run/o")
    assert inject.environment(once, "/run/o") == once
    last = {**once, "PYTHONPATH": f"/a{os.pathsep}{inject.STARTUP}"}
    assert inject.environment(last, "/run/o")["PYTHONPATH"] == once["PYTHONPATH"]


def test_node_options_are_extended_in_front_and_never_replaced() -> None:
    result = inject.environment({"NODE_OPTIONS": "--max-old-space-size=99"}, "/run/o")
    assert result["NODE_OPTIONS"] == f"--require {inject.NODE_START} --max-old-space-size=99"
    assert inject.environment(result, "/run/o") == result
    assert "NODE_OPTIONS" not in inject.environment({}, "/run/o", inject=False)


@pytest.mark.parametrize(
    ("file", "written"),
    [
        ("/a/b.js", "/a/b.js"),
        ("/a b/c.js", '"/a b/c.js"'),
        ('/a"b\\c.js', '"/a\\"b\\\\c.js"'),
    ],
)
def test_a_path_is_quoted_where_node_needs_it(file: str, written: str) -> None:
    once = inject.node_options("", file)
    assert once == f"--require {written}"
    assert inject.node_options(once, file) == once
    assert inject.node_options(f"{once} --inspect", file) == f"{once} --inspect"


def test_a_file_whose_name_only_begins_like_ours_is_kept() -> None:
    assert inject.node_options("--require /a/b.js2", "/a/b.js") == "--require /a/b.js --require /a/b.js2"


def test_node_is_left_alone_where_another_user_could_not_read_the_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "autostart.js").touch()
    tmp_path.chmod(0o700)
    monkeypatch.setattr(inject, "NODE_START", str(tmp_path / "autostart.js"))
    assert "NODE_OPTIONS" not in inject.environment({}, "/run/o")
    said = inject.no_hook_cause(proc(tmp_path, "/usr/bin/node", ["node", "x.js"], GOOD), 7)
    assert "can't be read by every user" in said


def test_the_given_environment_stays_as_it_is() -> None:
    before = {"PYTHONPATH": "/a"}
    inject.environment(before, "/run/o")
    assert before == {"PYTHONPATH": "/a"}


def test_without_injection_pythonpath_stays_and_the_socket_can_still_be_found() -> None:
    result = inject.environment({"PYTHONPATH": "/a"}, "/run/o", inject=False)
    assert result["PYTHONPATH"] == "/a"
    assert (result["OOMGUARD_INJECT"], result["OOMGUARD_RUNTIME_DIR"]) == ("0", "/run/o")
    assert "OOMGUARD_INJECT" not in inject.environment(result, "/run/o")


def test_the_start_up_directory_holds_a_sitecustomize_and_nothing_else_to_import() -> None:
    sources = [path.name for path in Path(inject.STARTUP).iterdir() if path.suffix == ".py"]
    assert sources == ["sitecustomize.py"]


GOOD = {"OOMGUARD_RUNTIME_DIR": "/run/o", "PYTHONPATH": inject.STARTUP}
NODE = {**GOOD, "NODE_OPTIONS": inject.node_options("", inject.NODE_START)}


def proc(root: Path, exe: str, command: list[str], env: dict[str, str]) -> Path:
    """Make a /proc with one process, 7."""
    base = root / "7"
    base.mkdir()
    (base / "exe").symlink_to(exe)
    (base / "cmdline").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in command))
    (base / "environ").write_bytes(
        b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in env.items())
    )
    return root


@pytest.mark.parametrize(
    ("exe", "command", "env", "cause"),
    [
        ("/usr/bin/ruby", ["ruby"], GOOD, "/usr/bin/ruby is not Python"),
        ("/usr/bin/node", ["node", "x.js"], {}, "environment was cleaned"),
        ("/usr/bin/nodejs", ["node", "x.js"], {**NODE, "OOMGUARD_HOOK": "0"}, "OOMGUARD_HOOK=0"),
        ("/usr/bin/node", ["node", "x.js"], {**NODE, "OOMGUARD_INJECT": "0"}, "--no-inject"),
        ("/usr/bin/node16", ["node", "x.js"], NODE, "Node 16 is too old"),
        ("/usr/bin/node-v22.1.0", ["node", "x.js"], NODE, "no cause was found"),
        ("/usr/bin/node", ["node", "-e", "1"], NODE, "without a script"),
        ("/usr/bin/node", ["node"], NODE, "without a script"),
        ("/usr/bin/node", ["node", "--inspect", "-"], NODE, "without a script"),
        ("/usr/bin/node", ["npm start"], NODE, "npm gets no hook"),
        ("/usr/bin/node", ["node", "/usr/bin/npm", "start"], NODE, "npm gets no hook"),
        ("/usr/bin/node", ["my service"], NODE, "no cause was found"),
        ("/usr/bin/node", ["node", "-r", "x", "/a/yarn-4.1.0.cjs"], NODE, "yarn gets no hook"),
        ("/usr/bin/node", ["node", "-r", "npm", "x.js"], NODE, "no cause was found"),
        ("/usr/bin/node", ["node", "--", "x.js"], NODE, "no cause was found"),
        ("/usr/bin/node", ["node", "x.js"], GOOD, "NODE_OPTIONS was replaced"),
        ("/usr/bin/python3.11", ["python"], {}, "environment was cleaned"),
        ("/usr/bin/python3.11 (deleted)", ["python"], {}, "environment was cleaned"),
        ("/usr/bin/python3.11", ["python"], {**GOOD, "OOMGUARD_HOOK": "0"}, "OOMGUARD_HOOK=0"),
        ("/usr/bin/python3.11", ["python"], {**GOOD, "OOMGUARD_INJECT": "0"}, "--no-inject"),
        ("/usr/bin/python2.7", ["python"], GOOD, "Python 2.7 is too old"),
        ("/usr/bin/python2", ["python"], GOOD, "Python 2 is too old"),
        ("/usr/bin/python3.9", ["python"], GOOD, "Python 3.9 is too old"),
        ("/usr/bin/python3", ["python"], GOOD, "no cause was found"),
        ("/usr/bin/python3.13t", ["python"], GOOD, "no cause was found"),
        ("/usr/bin/python3.11", ["python", "-uI", "x.py"], GOOD, "started with -I"),
        ("/usr/bin/python3.11", ["python", "-X", "dev", "-E", "x.py"], GOOD, "started with -E"),
        ("/usr/bin/python3.11", ["python", "-Wignore", "-S", "x.py"], GOOD, "started with -S"),
        ("/usr/bin/python3.11", ["python", "-Xdev", "-mIES"], GOOD, "no cause was found"),
        ("/usr/bin/python3.11", ["python", "x.py", "-I"], GOOD, "no cause was found"),
        ("/usr/bin/python3.11", ["python", "-c", "-I"], GOOD, "no cause was found"),
        ("/usr/bin/python3.11", ["python", "-"], GOOD, "no cause was found"),
        ("/usr/bin/python3.11", ["python"], {**GOOD, "PYTHONPATH": "/a"}, "PYTHONPATH was replaced"),
    ],
)
def test_the_cause_is_told_in_one_sentence(
    exe: str, command: list[str], env: dict[str, str], cause: str, tmp_path: Path
) -> None:
    said = inject.no_hook_cause(proc(tmp_path, exe, command, env), 7)
    assert cause in said
    assert "\n" not in said


def test_a_watched_target_without_the_variable_is_told_how_to_be_started(tmp_path: Path) -> None:
    said = inject.no_hook_cause(proc(tmp_path, "/usr/bin/python3", ["python"], {}), 7, watched="/run/x")
    assert said.startswith("oomguard run did not start it: ")
    assert said.endswith("start it with OOMGUARD_RUNTIME_DIR=/run/x")


def test_a_watched_node_is_told_so_too(tmp_path: Path) -> None:
    said = inject.no_hook_cause(proc(tmp_path, "/usr/bin/node", ["node", "x.js"], {}), 7, watched="/run/x")
    assert "require('oomguard-hook').start()" in said


def test_a_process_that_has_ended_is_not_an_error(tmp_path: Path) -> None:
    assert inject.no_hook_cause(tmp_path, 7) == "the process has ended"


def test_a_zombie_has_ended_too(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    assert inject.no_hook_cause(tmp_path, 7) == "the process has ended"


def test_entries_that_may_not_be_read_are_said_to_be_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = proc(tmp_path, "/usr/bin/python3.11", ["python"], GOOD)

    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert "can't be read (Permission denied)" in inject.no_hook_cause(root, 7)
