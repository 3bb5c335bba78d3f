"""Bad input: one clear line (what, which value, how to mend it), exit code 2, and never a traceback.

What goes wrong at run time shows as a source's status, and the guarding goes on.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.boxes import require
from tests.support.command import OBEDIENT, Running, oomguard
from tests.support.supervised import wait_for

MIB = 1 << 20
NO_PID = "4194304"
"""PID_MAX_LIMIT of 64-bit Linux (proc_sys_kernel(5)): a PID is below it."""


def refused(*arguments: str | Path, **popen: object) -> list[str]:
    """The lines of stderr of a command that must end with 2 and say nothing else."""
    done = oomguard(*arguments, **popen)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert all(line.startswith("oomguard: ") for line in lines), lines
    return [line.removeprefix("oomguard: ") for line in lines]


def refused_once(*arguments: str | Path, **popen: object) -> str:
    """Its only line."""
    (line,) = refused(*arguments, **popen)
    return line


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


# -- the command


@pytest.mark.parametrize("arguments", [["run"], ["run", "--"], ["run", "--limit", "1GiB", "--"]])
def test_a_missing_command(arguments: list[str]) -> None:
    assert refused_once(*arguments) == (
        "no command to run; write oomguard run -- COMMAND, for example oomguard run -- python app.py"
    )


def test_a_command_that_does_not_exist() -> None:
    line = refused_once("run", "--", "no-such-command", "--flag")
    assert line.startswith("command 'no-such-command' is not an executable file and not found on PATH; ")


@pytest.mark.parametrize("path", ["/etc/passwd", "/tmp"])
def test_a_command_that_can_not_be_executed(path: str) -> None:
    assert f"command {path!r} is not an executable file" in refused_once("run", "--", path)


def test_a_script_whose_interpreter_is_gone(tmp_path: Path) -> None:
    script = tmp_path / "serve"
    script.write_text("#!/moved/venv/bin/python\nprint()\n")
    script.chmod(0o755)
    line = refused_once("run", "--", str(script))
    assert line.startswith(
        f"command {str(script)!r} names the interpreter /moved/venv/bin/python in its first line"
    )
    assert line.endswith("make its environment again, or mend the line")


def test_a_command_without_the_two_dashes() -> None:
    line = refused_once("run", "python", "app.py", "--port", "80")
    assert line == "the command to run comes after --; write oomguard run … -- python app.py --port 80"


def test_commands_and_options_that_there_are_not() -> None:
    assert refused_once("gaurd").startswith("there is no command 'gaurd'; the commands are run, watch, ")
    assert refused_once("run", "--limits", "1GiB", "--", "true") == (
        "oomguard run has no option '--limits'; see oomguard run --help"
    )
    assert refused_once("status", "--", "true") == (
        "oomguard status takes no command after --; only oomguard run does"
    )


def test_watch_needs_to_know_whom() -> None:
    assert "--pid --pid-file --match --port is required" in refused_once("watch")
    assert "not allowed with argument" in refused_once("watch", "--pid", "1", "--port", "80")


# -- the target of watch


def test_an_unknown_pid() -> None:
    assert refused_once("watch", "--pid", NO_PID) == (
        f"no process {NO_PID}; give one that runs, or wait for one with --pid-file or --match"
    )


@pytest.mark.parametrize("text", ["0", "-1", "abc", "1.5", "", "٣"])
@pytest.mark.parametrize("flag", ["--pid", "--port"])
def test_a_pid_or_port_that_is_no_number(flag: str, text: str) -> None:
    line = refused_once("watch", f"{flag}={text}")
    assert line == f"{flag}: {text!r} is not a number above zero; see oomguard watch --help"


def test_a_port_that_can_not_be() -> None:
    assert refused_once("watch", "--port", "65536") == "--port 65536 is not a TCP port; they end at 65535"


def test_a_regular_expression_that_is_none() -> None:
    line = refused_once("watch", "--match", "app(")
    assert line.startswith("--match 'app(' is not a regular expression: ")


def test_a_pid_file_that_holds_no_pid(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    file.write_text("hello\n")
    assert (
        refused_once("watch", "--pid-file", file)
        == f"pid file {file}: its first line is 'hello', not a process id"
    )
    assert refused_once("watch", "--pid-file", tmp_path).startswith(f"pid file {tmp_path}: is a directory; ")


# -- addresses and directories


def test_a_port_in_use(taken_port: int) -> None:
    address = f"127.0.0.1:{taken_port}"
    for arguments in (
        ["run", "--listen", address, "--", "true"],
        ["watch", "--match", "no-such-process", "--listen", address],
    ):
        assert refused_once(*arguments) == (
            f"--listen {address}: address already in use; choose another address with --listen or "
            "OOMGUARD_LISTEN (port 0 takes any free one)"
        )


def test_a_port_in_use_keeps_the_command_from_starting(taken_port: int, tmp_path: Path) -> None:
    refused("run", "--listen", f"127.0.0.1:{taken_port}", "--", "touch", tmp_path / "started")
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("text", ["nowhere", "127.0.0.1:99999", "127.0.0.1:", "127.0.0.1:http"])
def test_an_address_that_is_none(text: str) -> None:
    line = refused_once("run", "--listen", text, "--", "true")
    assert line == f"--listen: {text!r} is not an address; write for example 127.0.0.1:10512"


def test_an_address_of_another_machine() -> None:
    # TEST-NET-1: nobody's (RFC 5737).
    assert refused_once("run", "--listen", "192.0.2.1:0", "--", "true").startswith(
        "--listen 192.0.2.1:0: cannot assign requested address; "
    )


def test_a_host_that_there_is_not() -> None:
    # The top-level domain .invalid is nobody's (RFC 2606).
    line = refused_once("run", "--listen", "host.invalid:0", "--", "true")
    assert line.startswith("--listen host.invalid:0: ")
    assert "name" in line.split(": ")[1]  # … or service not known; temporary failure in name resolution
    assert line.endswith("(port 0 takes any free one)")


def test_a_runtime_directory_that_can_not_be_written(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path, reason in (("/proc/here", "no such file or directory"), (file, "not a directory")):
        for arguments in (
            ["run", "--runtime-dir", path, "--", "true"],
            ["watch", "--match", "no-such-process", "--runtime-dir", path],
        ):
            assert refused_once(*arguments) == (
                f"runtime directory {path}: {reason}; give a directory that can be written, or leave --runtime-dir away"
            )


def test_a_runtime_directory_whose_socket_would_have_too_long_a_name(tmp_path: Path) -> None:
    line = refused_once("run", "--runtime-dir", tmp_path / ("x" * 100), "--", "true")
    assert "a unix socket's has 107 at most; give a shorter --runtime-dir" in line


def test_a_runtime_directory_that_another_sidecar_uses() -> None:
    with Running("run", target=OBEDIENT) as running:
        running.answer()
        line = refused_once("run", "--runtime-dir", running.runtime_dir, "--", "true")
        assert line == (
            f"runtime directory {running.runtime_dir}: the sidecar of process {running.sidecar} uses it; "
            "end that one, or give another --runtime-dir"
        )


# -- settings


@pytest.mark.parametrize("text", ["512MiB", "512MB", "0.5GiB", "80%", "536870912", "512M"])
def test_sizes_that_are_limits(text: str) -> None:
    assert oomguard("run", "--listen", "127.0.0.1:0", "--limit", text, "--", "true").returncode == 0


@pytest.mark.parametrize("text", ["lots", "512XB", "-5MiB", "MiB", "1,5GiB", "0x10", "1e9"])
def test_a_limit_that_is_no_size(text: str) -> None:
    assert refused_once("run", f"--limit={text}", "--", "true") == (
        f"--limit: {text!r} is not a size; write for example 512MiB, 512MB or 0.5GiB"
    )


@pytest.mark.parametrize("text", ["0", "0MiB", "0%", "120%"])
def test_a_limit_out_of_range(text: str) -> None:
    line = refused_once("run", f"--limit={text}", "--", "true")
    assert line.startswith(f"--limit: {text!r} is not ")
    assert "write for example" in line


def test_a_value_that_a_shell_variable_left_empty() -> None:
    assert refused("run", "--limit=", "--high=", "--", "true") == [
        "--limit: its value is empty; give one, or leave it out",
        "--high: its value is empty; give one, or leave it out",
    ]


def test_all_mistakes_of_flags_and_environment_come_at_once() -> None:
    lines = refused(
        "run", "--limit", "lots", "--high", "hot", "--", "true",
        env={"OOMGUARD_LOG_LEVEL": "loud", "MEMORY_CLEANUP": "maybe", "MEMORY_LIMIT_MB": "many"},
    )  # fmt: skip
    assert {line.split(":")[0] for line in lines} == {
        "--limit", "--high", "OOMGUARD_LOG_LEVEL", "MEMORY_CLEANUP", "MEMORY_LIMIT_MB",
    }  # fmt: skip
    assert any(line.startswith("OOMGUARD_LOG_LEVEL: 'loud' is not one of debug, info, ") for line in lines)


CONFIG = """\
limit: lots
thresholds:
  high: 80%
  hihg: 3
log: loud
listen: nowhere
"""


@pytest.mark.parametrize("arguments", [["check", "{}"], ["run", "--config", "{}", "--", "true"]])
def test_all_mistakes_of_a_file_come_at_once_with_their_lines(tmp_path: Path, arguments: list[str]) -> None:
    file = tmp_path / "oomguard.yml"
    file.write_text(CONFIG)
    lines = refused(*(argument.format(file) for argument in arguments))
    assert [line.split(": ")[0] for line in lines] == [f"{file}:{number}" for number in (1, 4, 5, 6)]
    assert "unknown setting 'thresholds.hihg'" in lines[1]


def test_check_reads_every_file_and_says_which_are_right(tmp_path: Path) -> None:
    good, bad, broken = (tmp_path / name for name in ("good.yml", "bad.yml", "broken.yml"))
    good.write_text("limit: 512MiB\n")
    bad.write_text("limit: lots\n")
    broken.write_text("limit: [\n")
    done = oomguard("check", good, bad, broken)
    assert done.returncode == 2
    assert done.stdout.startswith(f"{good}: ok: settings, ")
    assert [line.split(": ")[1].rpartition(":")[0] for line in done.stderr.splitlines()] == [
        str(bad),
        str(broken),
    ]
    assert "is not valid YAML" in done.stderr
    assert oomguard("check", good).returncode == 0


def test_a_config_that_can_not_be_read(tmp_path: Path) -> None:
    assert refused_once("run", "--config", tmp_path / "none.yml", "--", "true") == (
        f"{tmp_path / 'none.yml'}: can't be read: no such file or directory"
    )
    assert refused_once("check", tmp_path) == f"{tmp_path}: can't be read: is a directory"
    binary = tmp_path / "binary.yml"
    binary.write_bytes(b"limit: \xff\xfe\n")
    assert refused_once("check", binary).startswith(f"{binary}: is not UTF-8 text: ")


@pytest.mark.real
def test_a_config_that_may_not_be_read(tmp_path: Path) -> None:
    require("only root can give its file to somebody else" if os.geteuid() else None)
    file = tmp_path / "oomguard.yml"
    file.write_text("limit: 1GiB\n")
    file.chmod(0)
    os.chown(file, 65534, 65534)
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-m", "oomguard"]
    done = subprocess.run([*powerless, "check", file], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == f"oomguard: {file}: can't be read: permission denied\n"


# -- a hook that misbehaves, in a process of a real target; the other process goes on being guarded


FAKE = """
import json, os, socket, sys, time
kind = sys.argv[1]
connection = socket.socket(socket.AF_UNIX)
connection.connect(os.environ["OOMGUARD_RUNTIME_DIR"] + "/sidecar.sock")
def send(data):
    try:
        connection.sendall(data)
    except OSError:
        pass
hello = {"hello": 2 if kind == "version" else 1, "pid": os.getpid(), "runtime": "python", "hook_version": "x"}
if kind != "silent":
    send(json.dumps(hello).encode() + b"\\n")
if kind == "garbage":
    connection.recv(1)
    send(b"\\x00\\xff garbage {\\n")
if kind == "megabyte":
    connection.recv(1)
    send(b'{"id": 1, "reading": {"x": "' + b"a" * (1 << 20) + b'"}}\\n')
if kind == "unasked":
    send(b'{"id": 99, "reading": {}}\\n')
nonsense = {"gc": {"status": "fine"}, "allocator": 7, "caches": {"a": -1}}
for line in connection.makefile() if kind == "nonsense" else ():
    question = json.loads(line)
    send(json.dumps({"id": question["id"], "ping": {}, "reading": nonsense}).encode() + b"\\n")
time.sleep(600)
"""

KINDS = {
    "hangs": ("timeout", "has not answered for"),
    "garbage": ("garbage", "sent a line that is not a JSON object"),
    "megabyte": ("too_long", "sent a line of more than 65536 bytes"),
    "version": ("version", "speaks version 2, not 1; update oomguard in the target's environment"),
    "unasked": ("garbage", "answered a question that was not asked"),
    "nonsense": ("garbage", "sent a reading that can't be used"),
}
"""What it does: as the metric counts it, as the source's status tells it."""


def with_fake(folder: Path, kind: str) -> list[str]:
    """The obedient target, which has started a process that speaks for a hook."""
    fake = folder / "fake.py"
    fake.write_text(FAKE)
    starter = (
        f"import os, subprocess, sys; subprocess.Popen([{sys.executable!r}, {str(fake)!r}, {kind!r}],"
        "env={**os.environ, 'OOMGUARD_HOOK': '0'}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL);"
        f"os.execv({sys.executable!r}, {OBEDIENT!r})"
    )
    return [sys.executable, "-c", starter]


@pytest.mark.parametrize("kind", KINDS)
def test_a_hook_that_misbehaves_shows_as_the_sources_status_and_guarding_goes_on(
    kind: str, tmp_path: Path
) -> None:
    reason, text = KINDS[kind]
    with Running("run", "--no-inject", "--limit", "256MiB", target=with_fake(tmp_path, kind)) as running:
        running.answer()
        status = running.until_status(
            lambda status: text in status.get("sources", {}).get("hook", {}).get("reason", ""), text
        )
        assert status["sources"]["hook"]["status"] == "failed"
        assert (running.metric("oomguard_hook_errors_total", reason=reason) or 0) >= 1
        assert text in running.command("status").stdout
        running.order("hold 220")
        assert running.until_journal("run_end")[0]["outcome"] == "goal_not_reached"
        assert running.until_log("memory usage warning: ")
        assert "Traceback" not in running.stderr()


@pytest.mark.parametrize("kind", ["silent", *KINDS])
def test_a_hook_that_misbehaves_costs_the_honest_one_beside_it_nothing(kind: str, tmp_path: Path) -> None:
    with Running("run", "--limit", "256MiB", target=with_fake(tmp_path, kind)) as running:
        main = running.answer()["pid"]
        running.order("register")
        running.until_status(
            lambda status: main in [hook["pid"] for hook in status.get("hooks", ())], "the honest hook"
        )
        running.order("cache 200")
        step = running.until_journal("step_end")[0]
        assert (step["step"], step["outcome"]) == ("caches", "effective")
        assert step["freed"] > 150 * MIB
        assert running.order("hold 1")["did"] == "hold"
        assert "Traceback" not in running.stderr()


def test_strangers_are_hung_up_on_and_nobody_waits_for_them() -> None:
    with Running("run", "--limit", "1GiB", target=OBEDIENT) as running:
        running.answer()
        running.until_guarding(hooks=1)
        path = str(running.runtime_dir / "sidecar.sock")
        crowd = []
        for _ in range(300):
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(path)
            crowd.append(connection)
        crowd[0].sendall(b"{" * 70_000)
        ticks = running.metric("oomguard_sampler_ticks_total", lane="slow")
        wait_for(
            lambda: running.metric("oomguard_sampler_ticks_total", lane="slow") > ticks, "another slow tick"
        )
        assert len(running.status()["hooks"]) == 1
        for connection in crowd:
            connection.close()


# -- bad requests


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nowhere", None, 404),
        ("GET", "/api/v1/journal?limit=x", None, 400),
        ("GET", "/api/v1/history?since=x", None, 400),
        ("POST", "/metrics", b"", 405),
        ("POST", "/admin/cleanup", b"not json", 400),
        ("POST", "/admin/cleanup", b"[" * 100_000, 400),
        ("POST", "/admin/cleanup", b"x" * (2 << 20), 413),
        ("POST", "/admin/cleanup", b'{"steps": "gc"}', 400),
        ("POST", "/admin/cleanup", b'{"goal": true}', 400),
        ("POST", "/admin/cleanup", b'{"steps": ["restart"]}', 422),
        ("POST", "/admin/cleanup", b'{"goal": "lots"}', 422),
    ],
)
def test_a_request_that_makes_no_sense_is_told_so_in_json(
    busy: Running, method: str, path: str, body: bytes | None, status: int
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", busy.port, timeout=20)
    token = (busy.runtime_dir / "token").read_text()
    connection.request(method, path, body, {"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    assert answer.status == status
    assert list(json.loads(answer.read())) == ["error"]
    connection.close()
    assert "Traceback" not in busy.stderr()


def test_without_its_token_nothing_is_ordered(busy: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", busy.port, timeout=20)
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 403),
        ({"Authorization": "Basic eA=="}, 403),
    ):
        connection.request("POST", "/admin/cleanup", b"{}", headers)
        answer = connection.getresponse()
        assert answer.status == status
        assert "error" in json.loads(answer.read())
    connection.close()
    assert busy.journal("run_start") == []


@pytest.fixture(scope="module")
def busy() -> Iterator[Running]:
    """One sidecar for all bad requests."""
    with Running("run", "--limit", "1GiB", target=OBEDIENT) as running:
        running.answer()
        running.until_guarding(hooks=1)
        yield running
