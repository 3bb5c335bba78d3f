from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from oomguard.errors import UserError
from oomguard.runtime import Record, RuntimeDir, prepare

NOBODY = 65534


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OOMGUARD_TOKEN", raising=False)
    monkeypatch.delenv("OOMGUARD_RUNTIME_DIR", raising=False)


@pytest.fixture
def dead_pid() -> int:
    """A PID that was, and is not any more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as server:
        yield server


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_the_first_base_that_can_be_written_is_taken(tmp_path: Path) -> None:
    missing, good = tmp_path / "missing", tmp_path / "good"
    good.mkdir()

    runtime = prepare(None, "41", bases=(missing, good, tmp_path))

    assert runtime.path == good / "oomguard-41"
    assert runtime.variable == str(good / "oomguard-41")
    assert runtime.socket_address == str(good / "oomguard-41" / "sidecar.sock")
    assert runtime.journal_path == good / "oomguard-41" / "journal.jsonl"


def test_the_directory_can_be_entered_by_all_and_listed_by_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        runtime = prepare(None, "41", bases=(tmp_path,))
        given = prepare(str(tmp_path / "deep" / "given"), "41")
    finally:
        os.umask(before)

    assert mode(runtime.path) == 0o711
    assert mode(given.path) == 0o711


def test_a_directory_of_our_own_is_used_again_with_its_journal(tmp_path: Path) -> None:
    first = prepare(None, "1", bases=(tmp_path,))
    first.journal_path.write_text("{}\n")

    assert prepare(None, "1", bases=(tmp_path,)).journal_path.read_text() == "{}\n"


def test_a_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    base, other, elsewhere = tmp_path / "base", tmp_path / "other", tmp_path / "elsewhere"
    for path in (base, other, elsewhere):
        path.mkdir()
    (base / "oomguard-41").symlink_to(elsewhere)

    assert prepare(None, "41", bases=(base, other)).path == other / "oomguard-41"
    assert list(elsewhere.iterdir()) == []


@pytest.mark.real
def test_a_directory_of_somebody_else_is_not_used(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    base, other = tmp_path / "base", tmp_path / "other"
    (base / "oomguard-41").mkdir(parents=True)
    other.mkdir()
    os.chown(base / "oomguard-41", NOBODY, NOBODY)

    assert prepare(None, "41", bases=(base, other)).path == other / "oomguard-41"


def test_where_nothing_can_be_written_an_abstract_socket_stands_in(tmp_path: Path) -> None:
    bases = (tmp_path / "missing", Path("/proc"))

    runtime = prepare(None, "41", bases=bases)
    again = prepare(None, "41", bases=bases)

    assert runtime.path is None
    assert runtime.variable.startswith(f"@oomguard-{os.geteuid()}-41-")
    assert runtime.socket_address == b"\0" + runtime.variable[1:].encode()
    assert runtime.variable != again.variable
    assert runtime.journal_path is None
    assert runtime.token() is None
    assert runtime.record() is None
    runtime.describe(1, "http://127.0.0.1:1")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(runtime.socket_address)


@pytest.mark.parametrize("value", ["/run/oomguard-41", "@oomguard-0-41-abc"])
def test_the_variable_and_the_runtime_directory_name_each_other(value: str) -> None:
    assert RuntimeDir.named(value).variable == value


def test_a_directory_that_can_not_be_made_is_an_error_that_names_it_and_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(
        UserError, match=r"^runtime directory .*/file/x: not a directory; give a directory that"
    ):
        prepare(str(tmp_path / "file" / "x"), "41")


def test_a_file_in_its_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(UserError, match=r"^runtime directory .*/file: not a directory; "):
        prepare(str(tmp_path / "file"), "41")


def test_a_directory_that_can_not_be_written_is_an_error_for_root_too() -> None:
    with pytest.raises(
        UserError, match=r"^runtime directory /proc: .*; give a directory that can be written"
    ):
        prepare("/proc", "41")


def test_a_path_too_long_for_a_unix_socket_is_an_error_with_both_lengths(tmp_path: Path) -> None:
    room = 107 - len("/sidecar.sock")
    fits = str(tmp_path) + "/" + "x" * (room - len(str(tmp_path)) - 1)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(prepare(fits, "41").socket_address)

    with pytest.raises(
        UserError, match=r"socket's path would have 108 bytes, a unix socket's has 107 at most"
    ):
        prepare(fits + "x", "41")
    assert not Path(fits + "x").exists()


def test_a_directory_whose_sidecar_listens_is_an_error_that_names_it(
    tmp_path: Path, listener: socket.socket
) -> None:
    runtime = prepare(None, "watch", bases=(tmp_path,))
    runtime.describe(os.getpid(), "http://127.0.0.1:10512")
    listener.bind(runtime.socket_address)
    listener.listen()

    with pytest.raises(UserError, match=f"the sidecar of process {os.getpid()} uses it; end that one"):
        prepare(None, "watch", bases=(tmp_path,))


def test_a_socket_that_nobody_listens_on_any_more_is_no_obstacle(
    tmp_path: Path, listener: socket.socket
) -> None:
    runtime = prepare(None, "watch", bases=(tmp_path,))
    listener.bind(runtime.socket_address)

    assert prepare(None, "watch", bases=(tmp_path,)) == runtime


def test_what_dead_ones_left_is_swept_and_nothing_else(
    tmp_path: Path, dead_pid: int, listener: socket.socket
) -> None:
    # The journals of the last few say what happened before a crash.
    recent = [f"oomguard-{4194400 + number}" for number in range(5)]
    for name in recent:
        (tmp_path / name).mkdir()
    dead = tmp_path / f"oomguard-{dead_pid}"
    dead.mkdir()
    (dead / "journal.jsonl").write_text("{}\n")
    os.utime(dead, (0, 0))
    kept = [
        f"oomguard-{os.getpid()}",
        "oomguard-watch",
        "oomguard-12x",
        f"other-{dead_pid}",
        "oomguard-4194305",
    ]
    for name in kept:
        (tmp_path / name).mkdir()
    # Alive in another pid namespace.
    listener.bind(str(tmp_path / "oomguard-4194305" / "sidecar.sock"))
    listener.listen()
    link = tmp_path / "oomguard-4194306"
    link.symlink_to(tmp_path / "oomguard-watch")

    prepare(None, "41", bases=(tmp_path,))

    assert {path.name for path in tmp_path.iterdir()} == {*kept, *recent, "oomguard-41", "oomguard-4194306"}


def test_a_token_is_made_once_and_read_by_its_owner_alone(tmp_path: Path) -> None:
    runtime = prepare(None, "41", bases=(tmp_path,))

    token = runtime.token()

    assert len(token) >= 43
    assert RuntimeDir.named(runtime.variable).token() == token
    assert mode(runtime.path / "token") == 0o600
    assert {path.name for path in runtime.path.iterdir()} == {"token"}


def test_a_token_of_the_environment_wins_and_makes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OOMGUARD_TOKEN", "given")
    runtime = prepare(None, "41", bases=(tmp_path,))

    assert runtime.token() == "given"
    assert list(runtime.path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"two\nlines"])
def test_a_token_file_without_a_token_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)

    with pytest.raises(UserError, match=r"token: it holds no token; remove it, or set OOMGUARD_TOKEN"):
        RuntimeDir(tmp_path).token()


@pytest.mark.real
def test_a_token_that_somebody_else_put_there_is_an_error(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    (tmp_path / "token").write_text("known")
    os.chown(tmp_path / "token", NOBODY, NOBODY)

    with pytest.raises(UserError, match="it belongs to another user"):
        RuntimeDir(tmp_path).token()


def test_a_token_behind_a_symbolic_link_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("known")
    (tmp_path / "token").symlink_to(tmp_path / "real")

    with pytest.raises(UserError, match=r"remove it, or set OOMGUARD_TOKEN"):
        RuntimeDir(tmp_path).token()


def test_a_record_can_be_read_by_all_and_leaves_nothing_else(tmp_path: Path) -> None:
    runtime = prepare(None, "41", bases=(tmp_path,))

    runtime.describe(7, "http://127.0.0.1:10512")
    runtime.describe(8, "http://127.0.0.1:10513")

    assert runtime.record() == Record(8, "http://127.0.0.1:10513")
    assert mode(runtime.path / "sidecar.json") == 0o644
    assert [path.name for path in runtime.path.iterdir()] == ["sidecar.json"]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": "x", "url": ""}', "null"])
def test_a_record_that_makes_no_sense_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "sidecar.json").write_text(content)

    assert RuntimeDir(tmp_path).record() is None


def test_only_sidecars_that_run_are_found(
    tmp_path: Path, dead_pid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    explicit = tmp_path / "explicit"
    explicit.mkdir()
    for name, pid in (("oomguard-1", os.getpid()), ("oomguard-2", dead_pid), ("explicit", os.getppid())):
        (tmp_path / name).mkdir(exist_ok=True)
        RuntimeDir(tmp_path / name).describe(pid, "http://127.0.0.1:1")
    (tmp_path / "oomguard-3").mkdir()
    monkeypatch.setenv("OOMGUARD_RUNTIME_DIR", str(explicit))

    found = RuntimeDir.find(bases=(tmp_path, tmp_path / "missing"))

    assert [runtime.path for runtime in found] == [explicit, tmp_path / "oomguard-1"]


@pytest.mark.real
def test_the_record_of_somebody_else_is_not_believed(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    folder = tmp_path / "oomguard-5"
    folder.mkdir()
    (folder / "sidecar.json").write_text(json.dumps({"pid": os.getpid(), "url": "http://127.0.0.1:1"}))
    assert [runtime.path for runtime in RuntimeDir.find(bases=(tmp_path,))] == [folder]

    os.chown(folder, NOBODY, NOBODY)

    assert RuntimeDir.find(bases=(tmp_path,)) == []
