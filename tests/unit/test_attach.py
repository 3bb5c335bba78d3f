from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.support.supervised import children, wait_for

from oomguard.attach import Follower, Selector, parse_listeners
from oomguard.errors import UserError
from oomguard.model import ProcessId
from oomguard.sources.procfs import process_id

Start = Callable[..., subprocess.Popen[bytes]]

SLEEP = "import time; time.sleep(1000)"
LISTENER = (
    "import socket, sys, time; s = socket.create_server(('{host}', 0), family=socket.{family});"
    "print(s.getsockname()[1], flush=True); "
)


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a Python program in a process group of its own; the group is killed at the end."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(program: str, *arguments: str, **popen: object) -> subprocess.Popen[bytes]:
        # A session of its own, and so a process group of its own.
        argv = [sys.executable, "-c", program, *arguments]
        started.append(subprocess.Popen(argv, start_new_session=True, **popen))
        return started[-1]

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def word() -> str:
    """A word that no other command line on this machine holds."""
    return f"target-{secrets.token_hex(8)}"


def identity(pid: int) -> ProcessId:
    found = process_id("/proc", pid)
    assert found is not None
    return found


def find(**selector: object) -> ProcessId | None:
    return Follower(Selector(**selector)).find()


def listen(
    start: Start, rest: str = SLEEP, host: str = "127.0.0.1", family: str = "AF_INET"
) -> tuple[int, int]:
    """PID and port of a process that listens."""
    process = start(LISTENER.format(host=host, family=family) + rest, stdout=subprocess.PIPE)
    return process.pid, int(process.stdout.readline())


def test_a_pid_is_named_with_its_start_time(start: Start) -> None:
    process = start(SLEEP)

    assert find(pid=process.pid) == identity(process.pid)


def test_an_unknown_pid_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(UserError, match=r"^no process 4194305; give one that runs, or wait for one with"):
        find(pid=4194305)


def test_a_zombie_is_no_process(start: Start) -> None:
    process = start("pass")
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)

    with pytest.raises(UserError, match=f"no process {process.pid}"):
        find(pid=process.pid)


def test_a_thread_is_an_error_that_names_its_process() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        with pytest.raises(
            UserError, match=f"is a thread of process {os.getpid()}; give --pid {os.getpid()}"
        ):
            find(pid=thread.native_id)
    finally:
        done.set()
        thread.join()


def test_a_pid_that_was_followed_is_gone_when_another_process_bears_the_number(
    start: Start, tmp_path: Path
) -> None:
    process = start(SLEEP)
    folder = tmp_path / str(process.pid)
    folder.mkdir()
    stat = Path(f"/proc/{process.pid}/stat").read_bytes()
    (folder / "stat").write_bytes(stat)
    follower = Follower(Selector(pid=process.pid), proc=tmp_path)
    first = follower.find()
    assert first is not None

    ticks = b" %d " % first.start_ticks
    (folder / "stat").write_bytes(stat.replace(ticks, b" %d " % (first.start_ticks + 5)))

    assert follower.find() is None


def test_a_missing_pid_file_is_waited_for_and_read_again_after_a_restart(
    start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    follower = Follower(Selector(pid_file=file))
    assert follower.find() is None
    file.write_text("")
    assert follower.find() is None

    first = start(SLEEP)
    file.write_text(f"{first.pid}\n/var/lib/service\n")
    assert follower.find() == identity(first.pid)

    first.kill()
    first.wait()
    assert follower.find() is None

    second = start(SLEEP)
    file.write_text(str(second.pid))
    assert follower.find() == identity(second.pid)


@pytest.mark.parametrize("text", ["garbage", "-1", "0", "12 34", "\x00\xff", "4.5"])
def test_garbage_in_a_pid_file_is_an_error_that_shows_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "pid"
    file.write_text(text)

    with pytest.raises(UserError, match=r"pid: its first line is '.*', not a process id"):
        find(pid_file=file)


def test_a_pid_file_that_is_a_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a directory; give one that can be read"):
        find(pid_file=tmp_path)


def test_a_match_is_searched_in_the_whole_command_line(start: Start, word: str) -> None:
    process = start(SLEEP, "serve", f"--name={word}")

    assert find(match=rf"serve --name={word}$") == identity(process.pid)


def test_a_match_that_fits_nothing_is_waited_for(start: Start, word: str) -> None:
    follower = Follower(Selector(match=word))
    assert follower.find() is None

    process = start(SLEEP, word)

    wait_for(lambda: follower.find() == identity(process.pid), "the match")


def test_several_matches_in_one_tree_give_the_topmost(start: Start, word: str) -> None:
    # The middle one does not match: the tree is the same all the same.
    inner = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{SLEEP}', sys.stdin.readline()])"
    outer = (
        "import subprocess, sys;"
        "p = subprocess.Popen([sys.executable, '-c', sys.argv[2]], stdin=subprocess.PIPE, text=True);"
        "p.communicate(sys.argv[1])"
    )
    process = start(outer, word, inner)

    def grandchildren() -> list[int]:
        return [last for middle in children(process.pid) for last in children(middle)]

    wait_for(grandchildren, "the tree")
    assert find(match=word) == identity(process.pid)


def test_a_match_that_fits_several_trees_lists_them(start: Start, word: str) -> None:
    pids = sorted(start(SLEEP, word, str(number)).pid for number in range(2))
    wait_for(lambda: all(word in Path(f"/proc/{pid}/cmdline").read_text() for pid in pids), "both")

    with pytest.raises(UserError) as caught:
        find(match=word)

    text = str(caught.value)
    assert text.startswith(f"--match '{word}' fits 2 process trees: {pids[0]} ")
    assert f"; {pids[1]} '" in text
    assert text.endswith("narrow it, or give --pid of one of them")


def test_at_most_ten_trees_are_listed(start: Start) -> None:
    command = f"sleep 1000.{secrets.randbelow(10**12):012}"
    shell = f"for i in 1 2 3 4 5 6 7 8 9 10 11 12; do {command} & done; wait"
    sh = start(f"import os; os.execv('/bin/sh', ['sh', '-c', {shell!r}])")

    def sleepers() -> list[int]:
        cmdlines = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children(sh.pid)}
        return [pid for pid, line in cmdlines.items() if line.startswith(b"sleep\0")]

    wait_for(lambda: len(sleepers()) == 12, "all of them")
    ten = r"; ".join([rf"\d+ '{command}'"] * 10)

    with pytest.raises(UserError, match=rf"fits 12 process trees: {ten}; and 2 more; narrow it"):
        find(match=f"^{command}$")


def test_while_the_found_process_lives_a_second_match_does_not_matter(start: Start, word: str) -> None:
    first = start(SLEEP, word)
    follower = Follower(Selector(match=word))
    wait_for(lambda: follower.find() == identity(first.pid), "the first")

    second = start(SLEEP, word)
    wait_for(lambda: word in Path(f"/proc/{second.pid}/cmdline").read_text(), "the second")
    assert follower.find() == identity(first.pid)

    first.kill()
    first.wait()
    assert follower.find() == identity(second.pid)


def test_a_match_never_means_the_watcher_or_the_shell_above_it(start: Start, word: str) -> None:
    watch = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "from oomguard.attach import Follower, Selector; print(Follower(Selector(match=sys.argv[2])).find())"
    )
    sources = str(Path(__file__).parents[2] / "exporter")
    command = f'"$0" -c "$1" {sources} {word}; true'

    said = subprocess.run(["/bin/sh", "-c", command, sys.executable, watch], capture_output=True, text=True)

    assert said.stdout == "None\n", said.stderr


def test_a_match_never_means_another_watcher(start: Start, word: str) -> None:
    watcher = start(SLEEP, "oomguard", "watch", "--match", word)
    wait_for(lambda: word in Path(f"/proc/{watcher.pid}/cmdline").read_text(), "the other watcher")

    assert find(match=word) is None


def test_a_bad_regular_expression_is_an_error_before_anything_is_looked_for() -> None:
    with pytest.raises(UserError, match=r"^--match 'a\(' is not a regular expression: .*; put a backslash"):
        Follower(Selector(match="a("))


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", "AF_INET"), ("::1", "AF_INET6")])
def test_the_listener_of_a_port_is_found(start: Start, host: str, family: str) -> None:
    if family == "AF_INET6" and not Path("/proc/net/if_inet6").exists():
        pytest.skip("this kernel has no IPv6")
    pid, port = listen(start, host=host, family=family)

    assert find(port=port) == identity(pid)


def test_a_client_of_the_port_is_not_its_listener(start: Start) -> None:
    pid, port = listen(start)
    with socket.create_connection(("127.0.0.1", port)):
        assert find(port=port) == identity(pid)


def test_a_port_that_nobody_listens_on_is_waited_for() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))

        assert find(port=bound.getsockname()[1]) is None


def test_workers_that_inherited_the_port_give_their_master(start: Start) -> None:
    pid, port = listen(start, f"import os; [os.fork() or time.sleep(1000) for _ in range(3)]; {SLEEP}")
    wait_for(lambda: len(list(children(pid))) == 3, "the workers")

    assert find(port=port) == identity(pid)


REUSE = (
    "import os, socket, sys, time; s = socket.socket();"
    "s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1);"
    "s.bind(('127.0.0.1', {port})); s.listen(); os.write(1, b'%d\\n' % s.getsockname()[1]); time.sleep(1000)"
)


def test_workers_that_bound_the_port_for_themselves_give_their_master(start: Start) -> None:
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        program = (
            "import subprocess, sys; argv = [sys.executable, '-c', sys.argv[1]];"
            "workers = [subprocess.Popen(argv) for _ in range(2)];"
            "[worker.wait() for worker in workers]"
        )
        port = held.getsockname()[1]
        master = start(program, REUSE.format(port=port), stdout=subprocess.PIPE)
        master.stdout.readline(), master.stdout.readline()

        assert find(port=port) == identity(master.pid)


def test_strangers_that_share_a_port_are_an_error_that_lists_them(start: Start) -> None:
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        strangers = [start(REUSE.format(port=port), stdout=subprocess.PIPE) for _ in range(2)]
        for stranger in strangers:
            stranger.stdout.readline()

        with pytest.raises(UserError, match=rf"^--port {port} fits 2 process trees: "):
            find(port=port)


@pytest.mark.real
def test_a_port_in_another_network_is_found_only_where_ours_has_no_such_listener(start: Start) -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("another network needs root and unshare")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    serve = f"import socket, time; s = socket.create_server(('', {port})); print('up', flush=True); {SLEEP}"
    there = start(
        "import os, sys; os.execvp('unshare', ['unshare', '--net', sys.executable, '-c', sys.argv[1]])",
        serve,
        stdout=subprocess.PIPE,
    )
    there.stdout.readline()
    assert find(port=port) == identity(there.pid)

    here = start(serve, stdout=subprocess.PIPE)
    here.stdout.readline()
    assert find(port=port) == identity(here.pid)


@pytest.mark.real
def test_a_listener_that_may_not_be_seen_is_an_error_that_says_so(start: Start, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    _, port = listen(start)
    sources = tmp_path / "sources"
    # Somebody else may not be allowed to read the checkout.
    shutil.copytree(Path(__file__).parents[2] / "exporter" / "oomguard", sources / "oomguard")
    for path in (tmp_path, *tmp_path.parents[:2]):
        path.chmod(path.stat().st_mode | 0o055)
    look = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from oomguard.attach import Follower, Selector; os.setuid(65534)\n"
        "try: Follower(Selector(port=int(sys.argv[2]))).find()\n"
        "except Exception as error: print(type(error).__name__, error)"
    )

    said = subprocess.run(
        [sys.executable, "-c", look, str(sources), str(port)], capture_output=True, text=True, check=True
    )

    assert said.stdout.startswith(f"UserError --port {port}: something listens there, but not whose process")


RECORDED = (
    b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    b"   0: 0100007F:2910 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0 0 21001 1 0000\n"
    b"   1: 0100007F:2910 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0 0 21002 1 0000\n"
    b"   2: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 21003 1 0000\n"
    b"   3: 0100007F:2910 0100007F:9C42 06 00000000:00000000 00:00000000 00000000     0 0 0 1 0000\n"
)


def test_only_listening_sockets_of_the_port_are_taken_from_a_recorded_table() -> None:
    assert parse_listeners(RECORDED, 10512) == {"21001"}
    assert parse_listeners(RECORDED, 8080) == {"21003"}
    assert parse_listeners(RECORDED, 40000) == set()


def test_a_recorded_ipv6_table_is_read_the_same_way() -> None:
    zeros = b"0" * 32
    line = b"   0: %s:1F90 %s:0000 0A 0:0 00:0 0 0 0 31001 1 0 100 0 0 10 0\n" % (zeros, zeros)

    assert parse_listeners(b"  sl  local_address\n" + line, 8080) == {"31001"}
    assert parse_listeners(b"", 8080) == set()
    assert parse_listeners(b"  sl\n   0: cut", 8080) == set()
