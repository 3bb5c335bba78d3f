"""What a host, or a sidecar, may do to the hook: the host must never notice.

Every program here is real, and so are its socket and its processes; standard error must stay empty, with
Python's development mode and all warnings as errors.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fake_sidecar import TIMEOUT, FakeSidecar
from tests.support.targets import ROOT, Target, base_python, clean_environment, find_python, make_venv

PYTHONS = [path for version in ("3.10", "3.11", "3.12", "3.13", "3.14") if (path := find_python(version))]
STRICT = ("-X", "dev", "-W", "error")
START = "import os, sys, time\nfrom oomguard import hook\nguard = hook.start()\n"
READY = "print('ready', flush=True)\n"
WAIT = READY + "sys.stdin.read()\n"
QUIET = 0.6
"""Seconds in which a hook that must not come would have come."""


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[FakeSidecar]:
    with FakeSidecar(tmp_path) as running:
        yield running


@pytest.fixture(params=PYTHONS, ids=[Path(path).name for path in PYTHONS])
def interpreter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def host(sidecar: FakeSidecar, code: str, *arguments: str, python: str = "", ready: bool = True) -> Target:
    env = {**clean_environment(), **sidecar.environment, "PYTHONPATH": str(ROOT / "exporter")}
    return Target([python or base_python(), *STRICT, "-c", code, *arguments], env, ready=ready)


# -- forks


def test_twenty_forked_children_connect_and_say_so(interpreter: str, sidecar: FakeSidecar) -> None:
    code = START + (
        "children = []\n"
        "for _ in range(20):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        sys.stdin.read(); os._exit(0)\n"
        "    children.append(pid)\n"
        "print(*children, flush=True)\n"
        "sys.stdin.read()\n"
        "for pid in children: os.waitpid(pid, 0)\n"
    )
    with host(sidecar, code, python=interpreter) as target:
        hooks = [sidecar.accept() for _ in range(21)]
        children = {int(word) for word in target.first_line.split()}
        assert {hook.pid for hook in hooks} == children | {target.pid}
        assert {hook.hello["forked"] for hook in hooks if hook.pid != target.pid} == {True}
        assert {hook.hello["pid"] for hook in hooks} == {hook.pid for hook in hooks}
        assert all(hook.step("gc")["reason"] == "shared_heap" for hook in hooks if hook.pid != target.pid)
        assert next(hook for hook in hooks if hook.pid == target.pid).step("gc")["status"] == "done"
        assert target.finish() == (0, "", "")


def test_children_forked_after_a_freeze_may_collect(sidecar: FakeSidecar) -> None:
    code = START + "import gc\ngc.freeze()\npid = os.fork()\n" + WAIT + "if pid: os.waitpid(pid, 0)\n"
    with host(sidecar, code, python=base_python()) as target:
        hooks = [sidecar.accept(), sidecar.accept()]
        child = next(hook for hook in hooks if hook.pid != target.pid)
        assert child.hello["forked"] is True
        assert child.step("gc")["status"] == "done"


def test_a_child_that_execs_at_once_leaves_no_trace(interpreter: str, sidecar: FakeSidecar) -> None:
    code = START + (
        "for _ in range(10):\n"
        "    pid = os.fork()\n"
        "    if pid == 0: os.execv('/bin/true', ['true'])\n"
        "    os.waitpid(pid, 0)\n"
    )
    with host(sidecar, code + WAIT, python=interpreter) as target:
        hook = sidecar.accept()
        assert sidecar.nobody(QUIET)
        assert hook.reading()["gc"]["status"] == "ok", "the connection of before the forks serves on"
        assert target.finish() == (0, "", "")


def test_a_child_that_execs_within_milliseconds_is_hardly_ever_seen(sidecar: FakeSidecar) -> None:
    code = START + (
        "for _ in range(10):\n"
        "    pid = os.fork()\n"
        "    if pid == 0: time.sleep(0.01); os.execv('/bin/true', ['true'])\n"
        "    os.waitpid(pid, 0)\n"
    )
    with host(sidecar, code + WAIT) as target:
        sidecar.accept()
        seen = 0
        while not sidecar.nobody(QUIET):
            seen += 1
        assert seen < 5, (
            "without the delay all ten are seen; a busy machine may stretch one of ten milliseconds"
        )
        assert target.finish() == (0, "", "")


def test_a_fork_inherits_no_descriptor_of_the_hooks(sidecar: FakeSidecar) -> None:
    code = START + (
        "sys.stdin.readline()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    time.sleep(30)\n"
        "print(pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    with host(sidecar, code, ready=False) as target:
        hook = sidecar.accept()
        assert target.process.stdin is not None
        target.process.stdin.write("\n")
        target.process.stdin.flush()
        child = sidecar.accept()
        assert child.pid != target.pid
        hook.wait_closed()  # would wait for the child to end if it held a copy
        os.kill(child.pid, signal.SIGKILL)


def test_a_fork_while_a_step_runs_harms_neither(
    interpreter: str, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    flag = tmp_path / "go on"
    code = START + (
        "def clear():\n"
        "    print('clearing', flush=True)\n"
        "    while not os.path.exists(sys.argv[1]): time.sleep(0.01)\n"
        "guard.cache('slow', clear=clear)\n"
        "sys.stdin.readline()\n"
        "pid = os.fork()\n" + WAIT + "if pid: os.waitpid(pid, 0)\n"
    )
    with host(sidecar, code.replace("-W error", ""), str(flag), python=interpreter, ready=False) as target:
        hook = sidecar.accept()
        while not hook.reading()["caches"]:
            time.sleep(0.01)  # it connects before the next line of the host's is run
        hook.question("step", step="caches", name=None, within=5)
        time.sleep(0.1)
        assert target.process.stdin is not None
        target.process.stdin.write("\n")
        target.process.stdin.flush()
        child = sidecar.accept()
        assert child.reading()["caches"][0]["name"] == "slow"
        flag.touch()
        assert hook.receive()["step"]["details"]["cleared"] == ["slow"]
        assert hook.reading()["gc"]["status"] == "ok"
        code_, _, errors = target.finish()
        assert code_ == 0
        # The thread can't be parked while a callback of the application's runs in it: Python 3.12 tells.
        assert errors == "" or "multi-threaded" in errors


def test_a_callback_that_forks_leaves_one_hook_in_each_process(
    interpreter: str, sidecar: FakeSidecar
) -> None:
    code = START + (
        "import warnings\nwarnings.simplefilter('ignore')\n"  # it does fork with two threads
        "def clear():\n"
        "    pid = os.fork()\n"
        "    if pid == 0: time.sleep(0.5); os._exit(0)\n"
        "    os.waitpid(pid, 0)\n"
        "guard.cache('forks', clear=clear)\n"
    )
    with host(sidecar, code + WAIT, python=interpreter) as target:
        hook = sidecar.accept()
        number = hook.question("step", step="caches", name=None, within=5)
        child = sidecar.accept()
        assert child.pid != target.pid
        answer = hook.receive()
        assert (answer["id"], answer["step"]["status"]) == (number, "done")
        assert hook.reading()["gc"]["status"] == "ok"
        assert sidecar.nobody(QUIET)
        assert target.finish() == (0, "", "")


COUNTS_TOO_LATE = """
import os, sys, threading, time, warnings
warnings.simplefilter("always")
os.register_at_fork(after_in_parent=threading.Thread(target=time.sleep, args=(0.1,), daemon=True).start)
pid = os.fork()
if pid == 0: os._exit(0)
os.waitpid(pid, 0)
"""
"""Whether this Python takes a thread that was started after the fork for one that was there before."""


def test_a_program_of_one_thread_is_not_told_that_it_forks_with_two(
    interpreter: str, sidecar: FakeSidecar
) -> None:
    code = (
        "import warnings\nwarnings.simplefilter('always')\n"
        + START
        + (
            "import subprocess\n"
            "for _ in range(50):\n"
            "    pid = os.fork()\n"
            "    if pid == 0: os._exit(0)\n"
            "    os.waitpid(pid, 0)\n"
            "subprocess.run(['true'], preexec_fn=lambda: None, check=True)\n"
        )
    )
    if b"multi-threaded" in subprocess.run([interpreter, "-c", COUNTS_TOO_LATE], capture_output=True).stderr:
        pytest.skip("this Python counts threads too late (python/cpython#137109)")
    with host(sidecar, code + WAIT, python=interpreter) as target:
        assert sidecar.accept().reading()["gc"]["status"] == "ok"
        assert target.finish() == (0, "", "")


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing_workers_bring_hooks_and_its_helpers_none(
    method: str, interpreter: str, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    script = tmp_path / "host.py"
    script.write_text(
        "import multiprocessing, os, sys, time\n"
        "def work(number):\n"
        "    time.sleep(0.3)\n"
        "    return number * number\n"
        "if __name__ == '__main__':\n"
        "    multiprocessing.set_start_method(sys.argv[1])\n"
        "    multiprocessing.Semaphore()\n"  # brings the resource tracker for spawn and forkserver
        "    pool = multiprocessing.Pool(2)\n"
        "    assert pool.map(work, range(4), chunksize=1) == [0, 1, 4, 9]\n"
        "    print(os.getpid(), *[one.pid for one in pool._pool], flush=True)\n"
        "    sys.stdin.read()\n"
        "    pool.close(); pool.join()\n"
    )
    startup = ROOT / "exporter" / "oomguard" / "hook" / "startup"
    env = {**clean_environment(), **sidecar.environment, "PYTHONPATH": str(startup)}
    with Target([interpreter, script, method], env) as target:
        expected = {int(word) for word in target.first_line.split()}
        assert {sidecar.accept().pid for _ in expected} == expected
        assert sidecar.nobody(QUIET)
        assert target.finish() == (0, "", "")


# -- descriptors


def test_a_host_that_closes_every_descriptor_keeps_its_files(
    interpreter: str, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    code = START + (
        "sys.stdin.readline()\n"
        "os.closerange(3, 256)\n"
        "files = [os.open(f'{sys.argv[1]}/{n}', os.O_RDWR | os.O_CREAT) for n in range(40)]\n"
        "assert files[0] < 9, files\n"  # the hook may have been quicker, with a number or two
        "for n, file in enumerate(files): os.write(file, b'%d' % n)\n"
        "sys.stdin.readline()\n"
        "print(sum(os.pread(file, 99, 0) == b'%d' % n for n, file in enumerate(files)), flush=True)\n"
    )
    (tmp_path / "files").mkdir()
    with host(sidecar, code, str(tmp_path / "files"), python=interpreter, ready=False) as target:
        first = sidecar.accept()
        assert target.process.stdin is not None
        target.process.stdin.write("\n")
        target.process.stdin.flush()
        first.wait_closed()
        again = sidecar.accept()
        for _ in range(5):
            assert again.reading()["allocator"]["status"] == "ok"
        target.process.stdin.write("\n")
        target.process.stdin.flush()
        assert target.finish() == (0, "40\n", "")


DAEMON = """
import os, sys, time
from oomguard import hook
guard = hook.start()
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
os.closerange(0, 1024)
numbers = [os.open('/dev/null', os.O_RDWR) for _ in range(3)]
time.sleep(float(sys.argv[2]))
names = [os.readlink(f'/proc/self/fd/{n}') for n in range(3)]
with open(sys.argv[1] + '.new', 'w') as file: print(os.getpid(), numbers, names, file=file)
os.rename(sys.argv[1] + '.new', sys.argv[1])
time.sleep(30)
"""


def test_a_daemon_gets_its_low_numbers_and_a_hook(
    interpreter: str, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    said = tmp_path / "said"
    with host(sidecar, DAEMON, str(said), "0.5", python=interpreter, ready=False) as target:
        assert target.process.wait(TIMEOUT) == 0
        until = time.monotonic() + TIMEOUT
        while not said.exists() and time.monotonic() < until:
            time.sleep(0.02)
        pid, rest = said.read_text().split(" ", 1)
        assert rest.strip() == "[0, 1, 2] ['/dev/null', '/dev/null', '/dev/null']"
        hook = sidecar.accept_pid(int(pid))
        assert hook.hello["forked"] is True
        assert hook.reading()["gc"]["status"] == "ok"
        os.kill(int(pid), signal.SIGKILL)


def test_closed_standard_streams_stay_closed(interpreter: str, sidecar: FakeSidecar, tmp_path: Path) -> None:
    said = tmp_path / "said"
    code = START + (
        "seen = []\n"
        "until = time.monotonic() + 30\n"
        "while time.monotonic() < until and not os.path.exists(sys.argv[1] + '.stop'):\n"
        "    for number in (0, 1, 2):\n"
        "        try: os.fstat(number); seen.append(number)\n"
        "        except OSError: pass\n"
        "    time.sleep(0.001)\n"
        "low = os.open('/dev/null', os.O_RDONLY)\n"
        "os.close(low)\n"
        "with open(sys.argv[1], 'w') as file: print(low, sorted(set(seen)), file=file)\n"
    )
    env = {**clean_environment(), **sidecar.environment, "PYTHONPATH": str(ROOT / "exporter")}
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", interpreter, "-c", code, str(said)]
    with Target(command, env, ready=False) as target:
        hook = sidecar.accept()
        for _ in range(50):
            assert hook.reading()["allocator"]["status"] == "ok"
        Path(f"{said}.stop").touch()
        assert target.process.wait(TIMEOUT) == 0
    low, seen = said.read_text().split(" ", 1)
    assert low == "0"
    # A socket can't be made above 2 at once: it may be seen below for a moment, never more than that.
    assert seen.strip() in ("[]", "[0]")


def test_what_passes_through_the_standard_streams_is_not_touched(sidecar: FakeSidecar) -> None:
    sent = os.urandom(3_000_000)
    code = START + "import shutil\nshutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer, 1000)\n"
    env = {**clean_environment(), **sidecar.environment, "PYTHONPATH": str(ROOT / "exporter")}
    with subprocess.Popen(
        [base_python(), "-c", code],
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        hook = sidecar.accept()
        for _ in range(100):
            hook.question("reading")
        out, errors = process.communicate(sent, timeout=TIMEOUT)
    assert (process.returncode, out == sent, errors) == (0, True, b"")


def test_a_host_without_a_free_descriptor_gets_its_hook_when_there_is_one(sidecar: FakeSidecar) -> None:
    code = (
        "import os, resource, sys, time\n"
        "from oomguard import hook\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n"
        "files = []\n"
        "try:\n"
        "    while True: files.append(os.open('/dev/null', os.O_RDONLY))\n"
        "except OSError: pass\n"
        "guard = hook.start()\n" + READY + "sys.stdin.readline()\n"
        "for file in files: os.close(file)\n"
        "sys.stdin.read()\n"
    )
    with host(sidecar, code) as target:
        assert sidecar.nobody(QUIET)
        assert target.process.stdin is not None
        target.process.stdin.write("\n")
        target.process.stdin.flush()
        assert sidecar.accept().reading()["gc"]["status"] == "ok"
        assert target.finish() == (0, "", "")


# -- the end of the process


@pytest.mark.parametrize(
    "end",
    [
        "pass",
        "sys.exit(0)",
        "os._exit(0)",
        "import threading; t = threading.Thread(target=sys.exit); t.start(); t.join()",
        "import threading; threading.Thread(target=lambda: time.sleep(0.05)).start()",
        "import atexit; atexit.register(lambda: guard.status())",
    ],
)
def test_every_way_to_end_is_clean_while_questions_rain(
    end: str, interpreter: str, sidecar: FakeSidecar
) -> None:
    for _ in range(3):
        with host(sidecar, START + "sys.stdin.readline()\n" + end, python=interpreter, ready=False) as target:
            hook = sidecar.accept()
            for number in range(40):
                hook.question("step", step=("gc", "trim")[number % 2], name=None, within=5)
            assert target.finish() == (0, "", "")


def test_a_callback_that_never_returns_does_not_hold_up_the_end(
    interpreter: str, sidecar: FakeSidecar
) -> None:
    code = START + "import threading\nguard.cache('stuck', clear=threading.Event().wait)\nsys.stdin.read()\n"
    with host(sidecar, code, python=interpreter, ready=False) as target:
        hook = sidecar.accept()
        while not hook.reading()["caches"]:
            time.sleep(0.01)  # it connects before the next line of the host's is run
        hook.question("step", step="caches", name=None, within=5)
        time.sleep(0.1)
        assert target.finish() == (0, "", "")


def test_the_hook_does_not_keep_a_process_alive(interpreter: str, tmp_path: Path) -> None:
    env = {**clean_environment(), "OOMGUARD_RUNTIME_DIR": str(tmp_path), "PYTHONPATH": str(ROOT / "exporter")}
    done = subprocess.run([interpreter, *STRICT, "-c", START], env=env, capture_output=True, timeout=TIMEOUT)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_stop_and_start_again_make_one_connection_each(sidecar: FakeSidecar) -> None:
    code = (
        START
        + "sys.stdin.readline()\nguard.stop(); guard.stop()\n"
        + READY
        + ("sys.stdin.readline()\nassert hook.start() is guard\nsys.stdin.read()\n")
    )
    with host(sidecar, code, ready=False) as target:
        hook = sidecar.accept()
        assert target.process.stdin is not None
        target.process.stdin.write("\n")
        target.process.stdin.flush()
        hook.wait_closed()
        assert sidecar.nobody(QUIET)
        target.process.stdin.write("\n")
        target.process.stdin.flush()
        assert sidecar.accept().reading()["gc"]["status"] == "ok"
        assert sidecar.nobody(QUIET)
        assert target.finish()[::2] == (0, "")


# -- threads and signals


def test_signals_stay_with_the_main_thread(interpreter: str, sidecar: FakeSidecar) -> None:
    code = START + (
        "import signal\n"
        "seen = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: seen.append(1))\n"
        "print('ready', flush=True)\n"
        "while not seen: time.sleep(0.01)\n"
        "print('handled', flush=True)\n"
    )
    with host(sidecar, code, python=interpreter) as target:
        sidecar.accept()
        tasks = Path(f"/proc/{target.pid}/task")
        blocked = {
            task.name: int(line.split()[1], 16)
            for task in tasks.iterdir()
            for line in (task / "status").read_text().splitlines()
            if line.startswith("SigBlk")
        }
        assert blocked.pop(str(target.pid)) == 0
        faults = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
        never = {signal.SIGKILL, signal.SIGSTOP}
        for mask in blocked.values():
            open_ = {number for number in signal.valid_signals() if not mask >> (number - 1) & 1}
            assert open_ == faults | never
        assert len(blocked) == 1
        os.kill(target.pid, signal.SIGTERM)
        assert target.finish() == (0, "handled\n", "")


def test_eight_spinning_threads_do_not_silence_the_hook(sidecar: FakeSidecar) -> None:
    code = START + (
        "import threading\n"
        "def spin():\n"
        "    while True: pass\n"
        "for _ in range(8): threading.Thread(target=spin, daemon=True).start()\n"
    )
    with host(sidecar, code + WAIT) as target:
        hook = sidecar.accept()
        for _ in range(3):
            assert hook.reading()["gc"]["status"] == "ok"
        assert target.finish() == (0, "", "")


def test_collections_are_counted_while_the_host_allocates(interpreter: str, sidecar: FakeSidecar) -> None:
    code = START + (
        "import threading\n"
        "def churn():\n"
        "    while True:\n"
        "        one = []; one.append(one)\n"
        "for _ in range(2): threading.Thread(target=churn, daemon=True).start()\n"
    )
    with host(sidecar, code + WAIT, python=interpreter) as target:
        hook = sidecar.accept()
        seen = [hook.reading()["gc"] for _ in range(20)]
        pauses = [sum(one["pause_counts"]) for one in seen]
        assert pauses == sorted(pauses)
        assert pauses[-1] > pauses[0]
        assert seen[-1]["pause_sum"] > seen[0]["pause_sum"]
        # One collection may be under way, and those before the start have no pause.
        assert sum(seen[-1]["collections"]) >= pauses[-1] - 1
        assert target.finish()[0] == 0


@pytest.fixture(scope="session")
def gevent_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_venv(tmp_path_factory.mktemp("gevent"), "gevent")


@pytest.mark.parametrize("order", ["patched first", "hook first"])
def test_under_gevent_the_hook_answers_while_the_host_is_blocked(
    order: str, gevent_python: Path, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    patch = "from gevent import monkey; monkey.patch_all()\n"
    flag = tmp_path / "go on"
    code = (
        (patch + START if order == "patched first" else START + patch)
        + READY
        + (
            "import gevent\n"
            "while not os.path.exists(sys.argv[1]): pass\n"  # the loop of greenlets does not turn
            "jobs = [gevent.spawn(time.sleep, 0.01) for _ in range(3)]\n"
            "gevent.joinall(jobs, timeout=10, raise_error=True)\n"
            "pid = os.fork()\n"
            "if pid == 0: time.sleep(0.3); os._exit(0)\n"
            "os.waitpid(pid, 0)\n"
            "print('done', flush=True)\n"
        )
    )
    env = {**clean_environment(), **sidecar.environment, "PYTHONPATH": str(ROOT / "exporter")}
    with Target([gevent_python, "-c", code, str(flag)], env) as target:
        hook = sidecar.accept()
        for _ in range(3):
            assert hook.reading()["gc"]["status"] == "ok"
        assert hook.step("gc")["status"] == "done"
        flag.touch()
        child = sidecar.accept()
        assert child.reading()["gc"]["status"] == "ok"
        assert target.finish() == (0, "done\n", "")


# -- the application's callbacks


def test_callbacks_that_misbehave_are_reported_and_go_nowhere_else(
    interpreter: str, sidecar: FakeSidecar
) -> None:
    code = START + (
        "class Odd(Exception):\n"
        "    def __str__(self): raise RuntimeError\n"
        "def fail(error):\n"
        "    raise error\n"
        "async def coroutine(): pass\n"
        "def enters():\n"
        "    guard.cache('new', clear=list); guard.cache('enters', clear=list); guard.status()\n"
        "    assert hook.start() is guard\n"
        "guard.cache('exits', clear=lambda: fail(SystemExit(3)), size=lambda: fail(KeyboardInterrupt()))\n"
        "guard.cache('odd', clear=lambda: fail(Odd()), size=lambda: 'many')\n"
        "guard.cache('async', clear=coroutine, size=lambda: -1)\n"
        "guard.cache('enters', clear=enters, size=lambda: 7, entries=lambda: 3)\n"
    )
    with host(sidecar, code + WAIT, python=interpreter) as target:
        hook = sidecar.accept()
        caches = {cache["name"]: (cache["bytes"], cache["entries"]) for cache in hook.reading()["caches"]}
        assert caches == {"exits": (None, None), "odd": (None, None), "async": (None, None), "enters": (7, 3)}
        step = hook.step("caches")
        assert step["status"] == "done"
        assert step["details"]["cleared"] == ["enters"]
        assert step["details"]["failed"]["exits"] == "SystemExit: 3"
        assert step["details"]["failed"]["odd"] == "Odd"
        assert "asynchronous" in step["details"]["failed"]["async"]
        warnings = hook.reading()["warnings"]
        assert "cache 'enters' was registered again: the later one counts" in warnings
        assert "cache 'exits': size is unknown: KeyboardInterrupt: " in warnings
        assert target.finish() == (0, "", "")


def test_a_callback_may_stop_the_hook_that_runs_it(interpreter: str, sidecar: FakeSidecar) -> None:
    with host(
        sidecar, START + "guard.cache('last', clear=guard.stop)\n" + WAIT, python=interpreter
    ) as target:
        hook = sidecar.accept()
        assert hook.step("caches")["status"] == "done"
        hook.wait_closed()
        assert sidecar.nobody(QUIET)
        assert target.finish() == (0, "", "")


# -- the sidecar


@pytest.mark.parametrize(
    "line",
    [
        b"hello\n",
        b"\xff\xfe\n",
        b"[1, 2]\n",
        b"{}\n",
        b'{"ask": "reading"}\n',
        b'{"id": 1}\n',
        b'{"id": 1.5, "ask": "reading"}\n',
        b"[" * 60_000 + b"\n",
        b"x" * 1_000_000 + b"\n",
        b'{"id": 1, "ask": "reading", "more": "' + b"x" * 70_000 + b'"}\n',
        b'{"id": ' + b"9" * 60_000 + b', "ask": "reading"}\n',
    ],
    ids=[
        "text",
        "bytes",
        "list",
        "empty",
        "no id",
        "no ask",
        "float id",
        "deep",
        "megabyte",
        "long",
        "big id",
    ],
)
def test_garbage_ends_the_connection_and_the_hook_comes_again(line: bytes, sidecar: FakeSidecar) -> None:
    with host(sidecar, START + WAIT) as target:
        hook = sidecar.accept()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it need not read to the end
            hook.send(line)
        try:
            hook.wait_closed()
        except TimeoutError:
            pytest.fail("the hook stayed")
        assert sidecar.accept().reading()["gc"]["status"] == "ok"
        assert target.finish() == (0, "", "")


def test_unknown_questions_steps_and_fields_are_answered(sidecar: FakeSidecar) -> None:
    with host(sidecar, START + WAIT) as target:
        hook = sidecar.accept()
        assert hook.ask("dance", more=[1]) == {"id": 1, "error": "unknown ask 'dance'"}
        assert hook.step("restart")["status"] == "unsupported"
        assert hook.step("caches")["reason"] == "nothing_registered"
        assert hook.step("caches", name="none")["reason"] == "nothing_registered"
        assert hook.step("gc", within=0)["reason"] == "no_time"
        assert hook.step("trim", within=0)["reason"] == "no_time"
        assert hook.ask("reading", more={"new": 1})["reading"]["gc"]["status"] == "ok"
        assert target.finish() == (0, "", "")


def test_a_sidecar_of_another_version_is_not_tried_again(sidecar: FakeSidecar) -> None:
    code = START + "sys.stdin.readline()\nprint(guard.status(), flush=True)\n"
    with host(sidecar, code, ready=False) as target:
        hook = sidecar.accept()
        hook.send(b'{"error": "hello 1 is too old: update oomguard"}\n')
        hook.wait_closed()
        assert sidecar.nobody(QUIET)
        _, out, errors = target.finish()
        assert "'refused'" in out
        assert "too old" in out
        assert errors == ""


def test_a_sidecar_that_is_killed_in_the_middle_finds_the_hook_again(
    sidecar: FakeSidecar, tmp_path: Path
) -> None:
    with host(sidecar, START + WAIT) as target:
        sidecar.accept().send(b'{"id": 1, "as')
        sidecar.close()
        with FakeSidecar(tmp_path) as second:
            hook = second.accept()
            hook.question("step", step="gc", name=None, within=5)
            hook.close()
            third = second.accept()
            assert third.reading()["gc"]["status"] == "ok"
            assert target.finish() == (0, "", "")


def test_a_sidecar_that_takes_no_answer_loses_the_hook_not_the_host(sidecar: FakeSidecar) -> None:
    with host(sidecar, START + WAIT) as target:
        hook = sidecar.accept()
        hook.socket.settimeout(5)
        try:
            for _ in range(20_000):
                hook.question("reading")
        except (TimeoutError, BrokenPipeError, ConnectionResetError):
            pass
        assert sidecar.accept().reading()["gc"]["status"] == "ok"
        assert target.finish() == (0, "", "")


def test_many_caches_with_long_names_still_fit_in_a_line(sidecar: FakeSidecar) -> None:
    code = START + "for n in range(3000): guard.cache(f'{n:05}' + '\\U0001f40d' * 95, clear=list)\n"
    with host(sidecar, code + WAIT) as target:
        hook = sidecar.accept()
        time.sleep(0.2)
        reading = hook.reading()
        assert len(reading["caches"]) + reading["caches_omitted"] == 3000
        assert len(reading["caches"]) > 10
        step = hook.step("caches")
        assert step["status"] == "done"
        assert len(json.dumps(step)) < 65_536
        assert target.finish() == (0, "", "")


def test_a_socket_that_appears_late_is_found(tmp_path: Path) -> None:
    late = tmp_path / "late"
    env = {**clean_environment(), "OOMGUARD_RUNTIME_DIR": str(late), "PYTHONPATH": str(ROOT / "exporter")}
    with Target([base_python(), *STRICT, "-c", START + WAIT], env) as target:
        late.mkdir()
        with FakeSidecar(late) as sidecar:
            sidecar.accept_pid(target.pid)
            assert target.finish() == (0, "", "")


def test_an_abstract_socket_serves_too() -> None:
    with FakeSidecar(f"@oomguard-test-{os.getpid()}") as sidecar, host(sidecar, START + WAIT) as target:
        assert sidecar.accept_pid(target.pid).reading()["gc"]["status"] == "ok"


@pytest.mark.real
def test_a_socket_of_another_users_is_not_trusted(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to be two users")
    place = Path(f"/tmp/oomguard-test-{os.getpid()}")
    place.mkdir(mode=0o755)
    listen = (
        "import os, socket, sys, time\n"
        "s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); os.chmod(sys.argv[1], 0o666)\n"
        "os.setuid(4321)\n"
        "s.listen()\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    c, _ = s.accept(); print(len(c.recv(100)), flush=True)\n"
    )
    # Read before the uid changes: the checkout need not be readable to everyone.
    code = (
        "from oomguard.hook import connect\nimport os\nos.setuid(1234)\n"
        "try: connect.connect(os.environ['OOMGUARD_RUNTIME_DIR'])\n"
        "except OSError as error: print(type(error).__name__, error)\n"
    )
    env = {**clean_environment(), "OOMGUARD_RUNTIME_DIR": str(place), "PYTHONPATH": str(ROOT / "exporter")}
    path = place / "sidecar.sock"
    try:
        with Target([base_python(), "-c", listen, path], env):
            done = subprocess.run([base_python(), "-c", code], env=env, capture_output=True, text=True)
            assert done.stdout.startswith("DistrustedError"), done
            assert "uid 4321" in done.stdout
            os.chown(place, 4321, -1)
            done = subprocess.run([base_python(), "-c", code], env=env, capture_output=True, text=True)
            assert (done.returncode, done.stdout) == (0, ""), "the directory's owner is trusted"
    finally:
        path.unlink(missing_ok=True)
        place.rmdir()
