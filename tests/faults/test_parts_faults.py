"""Bad input to the guard's parts, each in a real process: the service never notices, the status tells.

As in test_hook_faults, standard error must stay empty in Python's development mode with warnings as errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.fake_sidecar import FakeSidecar, Hook
from tests.support.supervised import wait_for
from tests.support.targets import ROOT, Target, base_python, clean_environment, find_python

PYTHONS = [path for version in ("3.10", "3.11", "3.12", "3.13", "3.14") if (path := find_python(version))]
STRICT = ("-X", "dev", "-W", "error")
START = "import os, sys, threading, time\nfrom oomguard import hook\nguard = hook.start()\n"
READY = "print('ready', flush=True)\n"
WAIT = READY + "sys.stdin.read()\n"


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[FakeSidecar]:
    with FakeSidecar(tmp_path) as running:
        yield running


@pytest.fixture(params=PYTHONS, ids=[Path(path).name for path in PYTHONS])
def interpreter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def environment(sidecar: FakeSidecar, **variables: str) -> dict[str, str]:
    return {
        **clean_environment(),
        **sidecar.environment,
        "PYTHONPATH": str(ROOT / "exporter"),
        **variables,
    }


def host(sidecar: FakeSidecar, code: str, *arguments: object, python: str = "", ready: bool = True) -> Target:
    command = [python or base_python(), *STRICT, "-c", code, *map(str, arguments)]
    return Target(command, environment(sidecar), ready=ready)


def tell(target: Target) -> None:
    """Let the target go past its next ``sys.stdin.readline()``."""
    assert target.process.stdin is not None
    target.process.stdin.write("\n")
    target.process.stdin.flush()


def until(hook: Hook, look: Any, what: str) -> dict[str, Any]:
    """The first reading that `look` finds true."""

    def seen() -> dict[str, Any] | None:
        reading = hook.reading()
        return reading if look(reading) else None

    return wait_for(seen, what)


# -- callbacks

DOORS = {
    "cache": "guard.cache('another', clear=list)",
    "status": "guard.status()",
    "log": "guard.log('here')",
    "lru": "guard.lru('vectors', 1000)['key'] = b'value'",
    "model": "with guard.model('m', list): pass",
    "budget": "guard.budget('b', 1000).reserve(10).release()",
    "limit": "with guard.limit('l', 2): pass",
    "child": "guard.child('c', start=list)",
    "stream": "with guard.stream('s'): pass",
    "asgi": "guard.asgi(lambda scope, receive, send: None)",
    "wsgi": "guard.wsgi(lambda environ, start_response: [])",
    "health": "guard.health()",
    "freeze": "guard.freeze_before_fork()",
    "start": "hook.start()",
    "stop": "guard.stop()",
}


@pytest.mark.parametrize("door", DOORS)
def test_the_application_goes_on_with_the_guard_while_a_clear_hangs(door: str, sidecar: FakeSidecar) -> None:
    code = START + (
        "begun = threading.Event()\n"
        "def clear():\n"
        "    begun.set()\n"
        "    threading.Event().wait()\n"
        "guard.cache('stuck', clear=clear)\n"
        "def use():\n"
        f"    {DOORS[door]}\n"
        "print('ready', flush=True)\n"
        "begun.wait()\n"
        "thread = threading.Thread(target=use, daemon=True)\n"
        "thread.start()\n"
        "thread.join(5)\n"
        "print('held up' if thread.is_alive() else 'used', flush=True)\n"
    )
    with host(sidecar, code) as target:
        sidecar.accept().question("step", step="caches", name=None, within=5)
        exit_code, said, errors = target.finish()
        assert (exit_code, said) == (0, "used\n")
        assert errors == "" or door == "log"


def test_a_clear_may_use_every_door_of_the_guard(interpreter: str, sidecar: FakeSidecar) -> None:
    uses = "".join(f"    {use}\n" for door, use in DOORS.items() if door not in ("log", "stop"))
    code = START + f"def clear():\n{uses}guard.cache('enters', clear=clear)\n"
    with host(sidecar, code + WAIT, python=interpreter) as target:
        hook = sidecar.accept()
        step = hook.step("caches")
        assert (step["status"], step["details"]["cleared"]) == ("done", ["enters"])
        reading = hook.reading()
        assert [cache["name"] for cache in reading["caches"]] == ["enters", "another", "vectors"]
        assert [model["state"] for model in reading["models"]] == ["loaded"]
        assert (reading["streams"]["opened"], reading["streams"]["open"]) == (1, 0)
        assert target.finish() == (0, "", "")


def test_sizes_that_lie_are_unknown_and_the_rest_of_the_reading_stands(
    interpreter: str, sidecar: FakeSidecar
) -> None:
    lies = (
        "-1",
        "1e30",
        "float('nan')",
        "'many'",
        "None",
        "1 << 200",
        "1 / 0",
        "sys.exit(3)",
        "[]",
        "object()",
    )
    code = START + "".join(
        f"guard.cache('lie {number}', clear=list, size=lambda: {lie}, entries=lambda: {lie})\n"
        for number, lie in enumerate(lies)
    )
    code += (
        "guard.cache('true', clear=list, size=lambda: 7, entries=lambda: True)\n"
        "lru = guard.lru('lying', 1000, sizeof=lambda value: -5)\n"
        "try: lru['key'] = 1\n"
        "except (ValueError, TypeError): pass\n"
    )
    with host(sidecar, code + WAIT, python=interpreter) as target:
        hook = sidecar.accept()
        caches = {cache["name"]: cache for cache in hook.reading()["caches"]}
        for number in range(len(lies)):
            assert (caches[f"lie {number}"]["bytes"], caches[f"lie {number}"]["entries"]) == (None, None)
        assert caches["true"]["bytes"] == 7
        assert caches["lying"]["bytes"] >= 0
        assert hook.step("caches")["status"] == "done"
        assert target.finish() == (0, "", "")


def test_a_size_that_hangs_holds_up_the_hook_and_nobody_else(interpreter: str, sidecar: FakeSidecar) -> None:
    code = START + (
        "asked, go = threading.Event(), threading.Event()\n"
        "def size():\n"
        "    asked.set(); go.wait(); return 5\n"
        "guard.cache('slow', clear=list, size=size)\n" + READY + "asked.wait()\n"
        "with guard.model('m', list): pass\n"
        "assert guard.status()['caches'] == ['slow']\n"
        "print('on', flush=True)\n"
        "sys.stdin.readline()\n"
        "go.set()\n"
        "sys.stdin.read()\n"
    )
    with host(sidecar, code, python=interpreter) as target:
        hook = sidecar.accept()
        number = hook.question("reading")
        assert target.process.stdout is not None
        assert target.process.stdout.readline() == "on\n"
        tell(target)
        answer = hook.receive()
        assert answer["id"] == number
        assert answer["reading"]["caches"][0]["bytes"] == 5
        assert target.finish() == (0, "", "")


# -- models


def test_a_load_that_takes_for_ever_holds_up_neither_readings_nor_steps_nor_the_end(
    interpreter: str, sidecar: FakeSidecar
) -> None:
    code = START + (
        "model = guard.model('slow', load=threading.Event().wait)\n"
        "def use():\n"
        "    with model: pass\n"
        "for _ in range(3): threading.Thread(target=use, daemon=True).start()\n"
    )
    with host(sidecar, code + WAIT, python=interpreter) as target:
        hook = sidecar.accept()
        reading = until(hook, lambda reading: reading["models"][0]["state"] == "loading", "the load")
        assert (reading["models"][0]["bytes"], reading["models"][0]["in_use"]) == (None, 0)
        for step in ("caches", "gc", "trim", "models", "streams"):
            assert hook.step(step)["status"] in ("done", "skipped", "unsupported")
        assert hook.reading()["models"][0]["state"] == "loading"
        assert target.finish() == (0, "", "")


def test_a_load_that_raises_is_the_applications_to_see_and_counted(
    interpreter: str, sidecar: FakeSidecar
) -> None:
    code = START + (
        "class Broken(Exception): pass\n"
        "def load(): raise Broken('no such file')\n"
        "model = guard.model('broken', load=load)\n"
        "try:\n"
        "    with model: raise AssertionError\n"
        "except Broken as error: assert str(error) == 'no such file'\n"
        "try:\n"
        "    with model: raise AssertionError\n"
        "except Exception as error: assert 'tried again' in str(error) or isinstance(error, Broken), error\n"
    )
    with host(sidecar, code + WAIT, python=interpreter) as target:
        hook = sidecar.accept()
        reading = hook.reading()
        model = reading["models"][0]
        assert (model["state"], model["failures"], model["loads"]) == ("failed", 1, 0)
        assert any("broken" in text and "no such file" in text for text in reading["warnings"])
        assert hook.step("models")["status"] == "skipped"
        assert target.finish() == (0, "", "")


def test_a_child_forked_while_a_load_is_under_way_loads_for_itself(
    interpreter: str, sidecar: FakeSidecar
) -> None:
    code = (
        "import warnings\nwarnings.simplefilter('ignore')\n"  # it forks with two threads
        + START
        + (
            "begun, go = threading.Event(), threading.Event()\n"
            "parent = os.getpid()\n"
            "def load():\n"
            "    if os.getpid() == parent: begun.set(); go.wait()\n"
            "    return [1, 2, 3]\n"
            "model = guard.model('m', load=load)\n"
            "def use():\n"
            "    with model: pass\n"
            "thread = threading.Thread(target=use); thread.start()\n"
            "begun.wait()\n"
            "pid = os.fork()\n"
            "if pid == 0:\n"
            "    with model as value: assert value == [1, 2, 3]\n"
            "print('ready', flush=True) if pid else None\n"
            "sys.stdin.read()\n"
            "if pid: go.set(); thread.join(); assert os.waitpid(pid, 0)[1] == 0\n"
        )
    )
    with host(sidecar, code, python=interpreter) as target:
        hooks = [sidecar.accept(), sidecar.accept()]
        parent = next(hook for hook in hooks if hook.pid == target.pid)
        child = next(hook for hook in hooks if hook.pid != target.pid)
        until(child, lambda reading: reading["models"][0]["state"] == "loaded", "the child's own load")
        assert parent.reading()["models"][0]["state"] == "loading"
        assert child.step("models", name="m")["status"] == "done"
        assert child.reading()["models"][0]["state"] == "unloaded"
        assert target.finish() == (0, "", "")


# -- names


def test_a_name_that_is_registered_twice_is_told_in_the_status(
    interpreter: str, sidecar: FakeSidecar
) -> None:
    code = START + (
        "for _ in range(2):\n"
        "    guard.cache('c', clear=lambda: None)\n"
        "    guard.lru('v', 1000)\n"
        "    guard.model('m', load=lambda: 1)\n"
        "    guard.child('k', start=lambda: None)\n"
        "guard.budget('b', 1000); guard.budget('b', 2000)\n"
        "guard.limit('l', 1); guard.limit('l', 2)\n"
        "assert len(guard.status()['warnings']) == 6, guard.status()\n"
    )
    with host(sidecar, code + WAIT, python=interpreter) as target:
        reading = sidecar.accept().reading()
        assert len(reading["warnings"]) == 6
        assert [cache["name"] for cache in reading["caches"]] == ["c", "v"]
        assert [(budget["name"], budget["limit"]) for budget in reading["budgets"]] == [("b", 2000)]
        assert [(limit["name"], limit["limit"]) for limit in reading["limits"]] == [("l", 2)]
        assert target.finish() == (0, "", "")


# -- two guards


def test_a_second_guard_leaves_the_process_to_the_first(interpreter: str, sidecar: FakeSidecar) -> None:
    code = START + (
        "second = hook.Guard()\n"
        "second.begin()\n"
        "state = second.status()\n"
        "assert (state['state'], state['reason']) == ('off', 'another copy of oomguard serves this process'), state\n"
        "second.cache('mine', clear=list)\n"
        "with second.model('m', list): pass\n"
        "with second.limit('l', 1), second.stream('s'), second.budget('b', 10).reserve(5): pass\n"
        "second.health()\n"
        "pid = os.fork()\n" + WAIT + "if pid: assert os.waitpid(pid, 0)[1] == 0\nsecond.stop()\n"
    )
    with host(sidecar, code, python=interpreter) as target:
        hooks = [sidecar.accept(), sidecar.accept()]
        assert {hook.pid for hook in hooks} > {target.pid}
        assert sidecar.nobody(0.6)
        assert all(hook.reading()["caches"] == [] for hook in hooks)
        assert target.finish()[::2] == (0, "")


def test_a_second_copy_of_the_package_leaves_the_process_to_the_first(
    interpreter: str, sidecar: FakeSidecar
) -> None:
    code = START + (
        "first = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split('.')[0] == 'oomguard'}\n"
        "from oomguard import hook as again\n"
        "assert again is not hook\n"
        "second = again.start()\n"
        "assert second.status()['reason'] == 'another copy of oomguard serves this process', second.status()\n"
        "second.cache('mine', clear=list)\n"
        "with second.model('m', list): pass\n"
        "pid = os.fork()\n" + WAIT + "if pid: assert os.waitpid(pid, 0)[1] == 0\n"
    )
    with host(sidecar, code, python=interpreter) as target:
        hooks = [sidecar.accept(), sidecar.accept()]
        assert {hook.pid for hook in hooks} > {target.pid}
        assert sidecar.nobody(0.6)
        assert all(hook.reading()["gc"]["status"] == "ok" for hook in hooks)
        assert target.finish()[::2] == (0, "")


SECOND = {
    "a second Guard": "second = hook.Guard(); second.begin(autonomous=AUTONOMOUS)\n",
    "a second copy": (
        "for name in list(sys.modules):\n"
        "    if name.split('.')[0] == 'oomguard': del sys.modules[name]\n"
        "from oomguard import hook as again; second = again.start(autonomous=AUTONOMOUS)\n"
    ),
}


@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("autonomous", [True, False], ids=["autonomous", "by the clock"])
def test_two_guards_without_a_sidecar_clean_up_once(second: str, autonomous: bool) -> None:
    code = (
        "import os, sys, time\nfrom oomguard import hook\n"
        f"AUTONOMOUS = {autonomous}\n"
        "guard = hook.start(autonomous=AUTONOMOUS)\n" + SECOND[second] + WAIT
    )
    variables = {} if autonomous else {"MEMORY_CLEANUP": "1", "MEMORY_CLEANUP_THRESHOLD_MB": "1"}
    env = {**clean_environment(), **variables, "PYTHONPATH": str(ROOT / "exporter")}
    with Target([base_python(), *STRICT, "-c", code], env) as target:
        threads = len(list(Path(f"/proc/{target.pid}/task").iterdir()))
        exit_code, _, said = target.finish()
    assert (exit_code, threads) == (0, 2)
    assert said.count("oomguard: ") == 1, said
