"""Parts in full use when their process ends, forks, closes every descriptor or is patched by gevent."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fake_sidecar import TIMEOUT, FakeSidecar, Hook
from tests.support.supervised import wait_for
from tests.support.targets import ROOT, Target, clean_environment, find_python, make_venv

PYTHONS = [path for version in ("3.10", "3.11", "3.12", "3.13", "3.14") if (path := find_python(version))]
STRICT = ("-X", "dev", "-W", "error")

HOST = """
import atexit, os, signal, sys, threading, time
from collections import Counter
from oomguard import hook

guard = hook.start()
guard.cache("cache", clear=lambda: None, size=lambda: 5, expire=lambda: None)
vectors = guard.lru("vectors", "1MiB")
vectors["one"] = b"1" * 1000
model = guard.model("here", load=lambda: [1, 2, 3], idle_timeout=3600)
with model: pass
slow = guard.model("slow", load=threading.Event().wait)
def use():
    with slow: pass
threading.Thread(target=use, daemon=True).start()
apart = guard.model("apart", load=Counter, isolate=True)
with apart as counter: counter.update("aab")
held = guard.stream("events")
held.__enter__()
agents = guard.limit("agents", 1)
agents.__enter__()
def wait():
    with agents: pass
threading.Thread(target=wait, daemon=True).start()
weights = guard.budget("weights", "1MiB").reserve(1000)
tools = guard.child("tools", start=lambda: None)
app = guard.wsgi(lambda environ, start_response: [])
guard.health()
"""
"""An application that has something of everything, two threads of it waiting for ever."""

ENDS = {
    "the last line": "",
    "sys.exit": "sys.exit(3)",
    "sys.exit with words": "sys.exit('said at the end')",
    "os._exit": "os._exit(4)",
    "an exception": "raise RuntimeError('of the application')",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)",
    "SIGINT": "os.kill(os.getpid(), signal.SIGINT); time.sleep(60)",
    "sys.exit in a handler": (
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\nos.kill(os.getpid(), signal.SIGTERM); time.sleep(60)"
    ),
    "in use": "guard.model('here2', list).__enter__()",
    "atexit": (
        "def last():\n"
        "    with model as value: print(value, len(vectors), guard.status()['caches'], flush=True)\n"
        "    weights.release(); held.__exit__(None, None, None); guard.cache('late', clear=list); guard.stop()\n"
        "atexit.register(last)"
    ),
    "a thread that goes on": (
        "def go_on():\n    time.sleep(0.2); print(model.state, flush=True)\nthreading.Thread(target=go_on).start()"
    ),
    "a stop": "guard.stop()",
}


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[FakeSidecar]:
    with FakeSidecar(tmp_path) as running:
        yield running


@pytest.fixture(params=PYTHONS, ids=[Path(path).name for path in PYTHONS])
def interpreter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def environment(sidecar: FakeSidecar) -> dict[str, str]:
    return {**clean_environment(), **sidecar.environment, "PYTHONPATH": str(ROOT / "exporter")}


def gone(pid: int) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


@pytest.mark.parametrize("end", ENDS)
def test_every_end_is_what_it_is_without_the_hook(
    end: str, interpreter: str, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    script = tmp_path / "service.py"
    script.write_text(f"{HOST}print('ready', flush=True)\nsys.stdin.readline()\n{ENDS[end]}\n")
    command = [interpreter, *STRICT, str(script)]
    with Target(command, environment(sidecar)) as target:
        assert target.first_line == "ready", target.finish()
        hook = sidecar.accept_pid(target.pid)
        reading = hook.reading()
        states = {model["name"]: model["state"] for model in reading["models"]}
        assert states == {"here": "loaded", "slow": "loading", "apart": "loaded"}
        isolated = next(model["pid"] for model in reading["models"] if model["name"] == "apart")
        assert reading["streams"]["open"] == 1
        assert (reading["limits"][0]["in_use"], reading["budgets"][0]["reserved"]) == (1, 1000)
        for number in range(20):
            hook.question("step", step=("gc", "trim")[number % 2], name=None, within=5)
        with_hook = target.finish()
    without = subprocess.run(
        command,
        env={**clean_environment(), "PYTHONPATH": str(ROOT / "exporter"), "OOMGUARD_HOOK": "0"},
        input="\n",
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert with_hook == (without.returncode, without.stdout.removeprefix("ready\n"), without.stderr)
    wait_for(lambda: gone(isolated), "the end of the isolated model's process")


def test_no_descriptor_that_became_the_applications_is_touched(
    interpreter: str, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    files = tmp_path / "files"
    files.mkdir()
    script = tmp_path / "service.py"
    script.write_text(
        HOST
        + "print('ready', flush=True)\n"
        + "sys.stdin.readline()\n"
        + "os.closerange(3, 256)\n"
        + "numbers = [os.open(f'{sys.argv[1]}/{n}', os.O_RDWR | os.O_CREAT) for n in range(60)]\n"
        + "for n in numbers: os.write(n, b'0123456789'); os.lseek(n, 3, os.SEEK_SET)\n"
        + "try:\n"
        + "    with apart as counter: counter.update('b')\n"
        + "except OSError as error: assert type(error).__name__ == 'ModelProcessDied', error\n"
        + "guard.health(); guard.status(); model.__enter__(); guard.log('after')\n"
        + "print('done', flush=True)\n"
        + "sys.stdin.readline()\n"
        + "assert [os.lseek(n, 0, os.SEEK_CUR) for n in numbers] == [3] * 60, 'an offset was moved'\n"
        + "assert {os.pread(n, 99, 0) for n in numbers} == {b'0123456789'}, 'a file was written to'\n"
        + "os.write(1, b'untouched\\n')\n"
        + "os._exit(0)\n"
    )
    with Target([interpreter, *STRICT, script, files], environment(sidecar)) as target:
        assert target.first_line == "ready"
        assert target.process.stdin is not None
        assert target.process.stdout is not None
        first = sidecar.accept_pid(target.pid)
        first.reading()
        target.process.stdin.write("\n")
        target.process.stdin.flush()
        assert target.process.stdout.readline() == "done\n"
        again = sidecar.accept_pid(target.pid)
        for step in ("caches", "gc", "trim", "models", "streams"):
            assert again.step(step)["status"] in ("done", "skipped", "unsupported")
        assert again.reading()["gc"]["status"] == "ok"
        code, said, _ = target.finish()
        assert (code, said) == (0, "untouched\n")
    assert {file.read_bytes() for file in files.iterdir()} == {b"0123456789"}


def test_a_forked_child_has_the_parts_and_nothing_of_what_was_under_way(
    interpreter: str, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    script = tmp_path / "service.py"
    script.write_text(
        "import warnings\nwarnings.simplefilter('ignore')\n"  # it forks with several threads
        + HOST
        + "pid = os.fork()\n"
        + "if pid == 0:\n"
        + "    with model as value: assert value == [1, 2, 3]\n"
        + "    with apart as counter: counter.update('b')\n"
        + "    with agents, guard.stream('own'): pass\n"
        + "    guard.budget('weights', '1MiB').reserve(800_000).release()\n"
        + "print(pid, flush=True) if pid else None\n"
        + "sys.stdin.read()\n"
        + "if pid: assert os.waitpid(pid, 0)[1] == 0\n"
    )
    with Target([interpreter, "-X", "dev", script], environment(sidecar)) as target:
        forked = int(target.first_line)
        hooks: dict[int, Hook] = {}
        while not {forked, target.pid} <= hooks.keys():  # the isolated models' processes have hooks, too
            hook = sidecar.accept()
            hooks[hook.pid] = hook
        parent, child = hooks[target.pid], hooks[forked]
        parts = wait_for(
            lambda: reading if (reading := child.reading())["streams"]["opened"] else None,
            "the child's stream",
        )
        assert {model["name"]: model["state"] for model in parts["models"]} == {
            "here": "loaded",
            "slow": "unloaded",
            "apart": "loaded",
        }
        assert (parts["streams"]["open"], parts["streams"]["opened"]) == (0, 1)
        assert parts["limits"][0]["in_use"] == parts["limits"][0]["waiting"] == 0
        assert parts["budgets"][0]["reserved"] == 0
        own = {model["pid"] for model in parts["models"]} - {None}
        theirs = {model["pid"] for model in parent.reading()["models"]} - {None}
        assert len(own) == len(theirs) == 1
        assert not own & theirs, "each has a process of its own"
        assert target.finish() == (0, "", "")
    for pid in own | theirs:
        wait_for(lambda pid=pid: gone(pid), "the end of the isolated models' processes")


# -- gevent


@pytest.fixture(scope="session")
def gevent_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_venv(tmp_path_factory.mktemp("gevent"), "gevent")


GREEN = """
import os, sys, time
import gevent
from oomguard import hook
guard = hook.start()
loads, turns, order = [], [], []
def load():
    loads.append(1); time.sleep(0.2); return "loaded"
model = guard.model("m", load=load)
limit = guard.limit("l", 1)
def use():
    with model as value: assert value == "loaded"
def enter(number):
    with limit: order.append(number); time.sleep(0.05)
def tick():
    while True: turns.append(1); time.sleep(0.005)
ticker = gevent.spawn(tick)
jobs = [gevent.spawn(use) for _ in range(10)] + [gevent.spawn(enter, number) for number in range(4)]
gevent.joinall(jobs, timeout=15, raise_error=True)
assert (loads, order) == ([1], [0, 1, 2, 3]), (loads, order)
assert len(turns) > 10, "the hub stood still"
with guard.stream("s"), guard.budget("b", 100).reserve(10):
    print("ready", flush=True)
    while not os.path.exists(sys.argv[1]): pass
ticker.kill()
print("done", flush=True)
"""


@pytest.mark.parametrize("order", ["patched first", "hook first"])
@pytest.mark.real
def test_greenlets_wait_for_parts_without_stopping_the_hub_which_may_be_blocked_itself(
    order: str, gevent_python: Path, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    patch, first = (
        "from gevent import monkey; monkey.patch_all()\n",
        "from oomguard import hook; hook.start()\n",
    )
    code = (patch if order == "patched first" else first + patch) + GREEN
    flag = tmp_path / "go_on"
    with Target([gevent_python, "-c", code, flag], environment(sidecar)) as target:
        assert target.first_line == "ready", target.finish()
        hook = sidecar.accept()
        for _ in range(3):
            reading = hook.reading()
            assert (reading["models"][0]["uses"], reading["limits"][0]["waited"]) == (10, 3)
            assert reading["streams"]["open"] == 1
        assert hook.step("models", name="m")["status"] == "done"
        assert hook.step("gc")["status"] == "done"
        flag.touch()
        assert target.finish() == (0, "done\n", "")
