"""Models in the application's own process."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
import traceback
import types
import weakref
from pathlib import Path

import pytest
from tests.support.parts_core import make_core

from oomguard.hook.models.errors import ModelUnavailable
from oomguard.hook.models.registry import Models

ROOT = Path(__file__).resolve().parents[3]
MIB = 1 << 20


class Weights:
    def __init__(self, size=0):
        self.held = b"x" * size


@pytest.fixture
def core():
    return make_core()


@pytest.fixture
def models(core):
    return Models(core)


def reading(models, name="m"):
    return next(one for one in models.reading() if one["name"] == name)


def run_script(code, *, timeout=60):
    """Run Python of its own, with the checkout on its path; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{ROOT / 'exporter'}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def all_at_once(count, run):
    """Run in that many threads, which begin together; wait for all of them."""
    barrier = threading.Barrier(count)

    def begin():
        barrier.wait()
        run()

    threads = [threading.Thread(target=begin) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def eventually(wanted, timeout=20.0):
    deadline = time.monotonic() + timeout
    while not wanted():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)


# -- loading


def test_many_threads_that_ask_at_once_cause_one_load(models):
    loads = []

    def load():
        loads.append(1)
        time.sleep(0.05)
        return Weights()

    model = models.register("m", load)
    seen = []

    def use():
        with model as value:
            seen.append(value)

    all_at_once(30, use)
    assert len(loads) == 1
    assert len(seen) == 30
    assert len(set(map(id, seen))) == 1
    assert reading(models)["uses"] == 30
    assert reading(models)["in_use"] == 0


def test_tasks_that_ask_at_once_cause_one_load_and_the_loop_goes_on(models):
    loads = []
    go_on = threading.Event()

    def load():
        loads.append(threading.current_thread() is threading.main_thread())
        assert go_on.wait(20)
        return Weights()

    model = models.register("m", load)

    async def use():
        async with model as value:
            return value

    async def main():
        tasks = [asyncio.create_task(use()) for _ in range(20)]
        while not loads:
            await asyncio.sleep(0.001)
        go_on.set()  # only a loop that goes on gets here
        return await asyncio.gather(*tasks)

    values = asyncio.run(main())
    assert loads == [False]
    assert len(set(map(id, values))) == 1
    assert reading(models)["in_use"] == 0


def test_a_cancelled_task_holds_nothing_and_the_load_goes_on(models):
    go_on = threading.Event()

    def load():
        assert go_on.wait(20)
        return Weights()

    model = models.register("m", load)

    async def use():
        async with model:
            pytest.fail("it was cancelled")

    async def main():
        task = asyncio.create_task(use())
        while model.state != "loading":
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    go_on.set()
    eventually(lambda: model.state == "loaded")
    assert reading(models)["in_use"] == 0
    assert reading(models)["uses"] == 0


def test_a_thread_and_a_task_share_a_load(models):
    loads = []

    def load():
        loads.append(1)
        time.sleep(0.05)
        return Weights()

    model = models.register("m", load)

    async def use():
        async with model:
            pass

    def threaded():
        with model:
            pass

    thread = threading.Thread(target=threaded)
    thread.start()
    asyncio.run(use())
    thread.join()
    assert loads == [1]


def test_the_context_of_the_caller_is_that_of_the_load(models):
    import contextvars

    request = contextvars.ContextVar("request", default="none")
    model = models.register("m", request.get)

    async def use():
        request.set("mine")
        async with model as value:
            return value

    assert asyncio.run(use()) == "mine"


def test_a_decorator_of_load_makes_the_model(models):
    @models.register("m", idle_timeout=5)
    def load():
        return "value"

    with load as value:
        assert value == "value"
    assert load.idle_timeout == 5


def test_a_model_may_be_none_and_may_be_entered_again_inside(models):
    model = models.register("m", lambda: None)
    with model as outer, model as inner:
        assert outer is inner is None
        assert reading(models)["in_use"] == 2
    assert reading(models)["in_use"] == 0
    assert reading(models)["loads"] == 1


# -- loads that fail


def test_a_failed_load_is_told_to_all_who_waited_and_not_tried_again_at_once(models):
    loads = []
    go_on = threading.Event()

    def load():
        loads.append(1)
        assert go_on.wait(20)
        raise FileNotFoundError("weights.bin")

    model = models.register("m", load)
    errors = []
    begun = []

    def use():
        begun.append(1)
        try:
            with model:
                pytest.fail("there is no model")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=use) for _ in range(10)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(begun) == 10 and loads)
    time.sleep(0.1)
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert {type(error) for error in errors} <= {FileNotFoundError, ModelUnavailable}
    assert FileNotFoundError in {type(error) for error in errors}
    assert len(set(map(id, errors))) == 10
    assert max(len(list(traceback.walk_tb(error.__traceback__))) for error in errors) < 8
    with pytest.raises(
        ModelUnavailable, match=r"'m' failed to load and is tried again in .* s; .*weights.bin"
    ):
        model.__enter__()
    assert len(loads) == 1
    assert model.state == "failed"
    assert reading(models)["failures"] == 1


class RefusedError(Exception):
    def __init__(self, code):
        super().__init__(f"refused with {code}")
        self.code = code


class PickyError(Exception):
    def __init__(self, *, code):
        super().__init__()
        self.code = code


@pytest.mark.parametrize("kind", [RefusedError, PickyError])
def test_tasks_that_wait_for_a_failed_load_get_what_it_raised_word_for_word(models, kind):
    go_on = threading.Event()

    def load():
        assert go_on.wait(20)
        raise kind(code=5) from KeyError("why")

    model = models.register("m", load)

    async def use():
        async with model:
            pytest.fail("there is no model")

    async def main():
        tasks = [asyncio.create_task(use()) for _ in range(30)]
        await asyncio.sleep(0)  # all of them ask
        go_on.set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    errors = asyncio.run(main())
    assert {(type(error), error.code, str(error)) for error in errors} == {(kind, 5, str(kind(code=5)))}
    assert {repr(error.__cause__) for error in errors} == {"KeyError('why')"}
    assert max(len(list(traceback.walk_tb(error.__traceback__))) for error in errors) < 8


def test_the_pause_after_a_failure_doubles_up_to_a_minute_and_ends_with_a_success(models, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr("oomguard.hook.models.model.monotonic", lambda: clock[0])
    broken = [True]

    def load():
        if broken[0]:
            raise OSError("no")
        return Weights()

    model = models.register("m", load)
    pauses = []
    for _ in range(8):
        with pytest.raises(OSError):
            model.__enter__()
        began = clock[0]
        while True:
            clock[0] += 0.5
            model._claim()
            if model.state == "loading":
                model._end(model._turn, "failed")
                break
        pauses.append(clock[0] - began)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    broken[0] = False
    with model:
        pass
    assert model._backoff == 1.0


def test_what_a_failed_load_held_is_given_back_at_once(models):
    seen = []

    def load():
        weights = Weights()
        seen.append(weakref.ref(weights))
        raise MemoryError

    model = models.register("m", load)

    def use():
        with pytest.raises(MemoryError):
            model.__enter__()

    use()

    async def use_in_a_task():
        model._retry_at = 0.0
        with pytest.raises(MemoryError):
            await model.__aenter__()

    asyncio.run(use_in_a_task())
    import gc

    gc.collect()  # pytest.raises itself makes a cycle
    assert [ref() for ref in seen] == [None, None]
    assert model._turn is None


def test_ctrl_c_in_a_load_lets_others_try(models):
    loads = []

    def load():
        loads.append(1)
        if len(loads) == 1:
            raise KeyboardInterrupt
        return Weights()

    model = models.register("m", load)
    with pytest.raises(KeyboardInterrupt):
        model.__enter__()
    assert model.state == "unloaded"
    with model:
        assert len(loads) == 2


def test_an_interruption_before_the_load_began_lets_others_try(models, monkeypatch):
    model = models.register("m", Weights)

    def interrupted(turn):
        raise KeyboardInterrupt

    for name, enter in (("_load", model.__enter__), ("_load_aside", lambda: asyncio.run(model.__aenter__()))):
        with monkeypatch.context() as patch:
            patch.setattr(model, name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                enter()
        assert model.state == "unloaded"
    with model:
        assert model.state == "loaded"


def test_a_load_in_a_thread_that_exits_is_a_failure_for_the_task(models):
    model = models.register("m", sys.exit)

    async def use():
        async with model:
            pass

    with pytest.raises(ModelUnavailable, match="SystemExit"):
        asyncio.run(use())
    assert model.state == "failed"


def test_a_load_that_asks_for_its_own_model_is_told_so(models):
    def load():
        with model:
            pass

    model = models.register("m", load)
    with pytest.raises(ModelUnavailable, match="its own load"):
        model.__enter__()


def test_a_fallback_is_given_where_the_model_is_switched_off_or_can_not_be_loaded(models, core):
    def load():
        raise OSError("no such file")

    off = models.register("off", lambda: pytest.fail("it is off"), enabled=False, fallback=lambda: "small")
    broken = models.register("broken", load, fallback=lambda: "small")
    for model in (off, broken, broken):
        with model as value:
            assert value == "small"

    async def use():
        async with off as one, broken as two:
            return one, two

    assert asyncio.run(use()) == ("small", "small")
    assert reading(models, "off")["enabled"] is False
    assert reading(models, "broken")["failures"] == 1
    assert reading(models, "broken")["in_use"] == 0
    assert "model 'broken' failed to load: OSError: no such file" in core.warnings


def test_a_model_that_is_switched_off_says_so(models):
    model = models.register("m", Weights, enabled=False)
    with pytest.raises(ModelUnavailable, match="enabled=False"):
        model.__enter__()


# -- unloading


def test_an_idle_model_is_unloaded_by_the_clock_and_loaded_again(models, core):
    model = models.register("m", Weights, idle_timeout=300)
    now = time.monotonic()
    core.chores.run(now)
    with model:
        assert core.chores.run(now + 1000) <= 300
        assert model.state == "loaded", "it is in use"
    core.chores.hurry(models.idle)
    assert core.chores.run(now + 100) <= 201
    assert model.state == "loaded"
    core.chores.run(now + 400)
    assert model.state == "unloaded"
    with model:
        pass
    assert reading(models)["loads"] == 2
    assert reading(models)["unloads"] == 1


def test_a_load_makes_the_clock_look_in_time(models, core):
    model = models.register("m", Weights, idle_timeout=300)
    assert core.chores.run(time.monotonic()) > 300
    with model:
        pass
    assert core.chores.run(time.monotonic()) <= 300


def test_a_model_without_a_timeout_stays(models, core):
    model = models.register("m", Weights)
    with model:
        pass
    core.chores.run(time.monotonic() + 1e6)
    assert model.state == "loaded"


def test_a_model_stays_for_its_residency_unless_it_is_named(models, core):
    model = models.register("m", Weights, idle_timeout=0, min_residency=60)
    with model:
        pass
    core.chores.run(time.monotonic() + 50)
    assert model.state == "loaded"
    taken = models.take(None, 1.0)
    assert (taken["status"], taken["reason"]) == ("skipped", "busy")
    assert taken["details"]["fresh"] == ["m"]
    assert models.take("m", 1.0)["status"] == "done"
    assert model.state == "unloaded"


def test_the_step_unloads_the_largest_first_and_waits_for_those_in_use_last(models):
    order = []
    for name, size in (("small", 1), ("large", 30), ("used", 60)):
        model = models.register(
            name,
            lambda size=size: Weights(size * MIB),
            min_residency=0,
            unload=lambda w: order.append(len(w.held)),
        )
        with model:
            pass
    with model:
        taken = models.take(None, 0.05)
        assert order == [30 * MIB, 1 * MIB]
        assert taken["status"] == "done"
        assert taken["details"]["busy"] == ["used"]
        assert list(taken["details"]["unloaded"]) == ["large", "small"]
        assert model.state == "loaded"
        assert reading(models, "used")["busy"] == 1
    assert models.take("used", 0.05)["details"]["unloaded"].keys() == {"used"}


def test_the_memory_of_an_unloaded_model_really_comes_back_and_is_reported(models):
    model = models.register("m", lambda: Weights(100 * MIB), min_residency=0)
    with model:
        pass
    assert 95 * MIB < reading(models)["bytes"] < 120 * MIB
    taken = models.take(None, 1.0)
    assert 95 * MIB < taken["details"]["returned"] < 120 * MIB
    assert reading(models)["returned"] == taken["details"]["returned"]
    assert reading(models)["bytes"] is None


FRAGMENTS = """
import gc
from oomguard.hook import parts, unpatched
from oomguard.hook.allocator import Allocator
from oomguard.hook.chores import Chores
from oomguard.hook.models.registry import Models
from oomguard.hook.statm import Statm

statm = Statm()
statm.open()
allocator = Allocator(statm)
assert allocator.trims

def release():
    before = parts.resident()
    gc.collect()
    allocator.trim()
    return parts.Released(0, before - parts.resident(), 0.0, trims=True)

def retained():
    return allocator.reading()["retained"]

core = parts.Core({}, Chores(int, int), unpatched.allocate_rlock(), release, retained)
allocator.reading()
models = Models(core)
made = {"mapped": lambda: bytearray(20 << 20), "small": lambda: [bytes(1000) for _ in range(20_000)]}
for name, load in made.items():
    with models.register(name, load, min_residency=0):
        pass
    others = {number: bytes(1000) for number in range(100_000)}
    kept = [bytes(1000) for _ in range(10)]
    del others
    print(models.take(name, 1.0)["details"]["returned"])
"""


def test_what_others_had_freed_is_not_told_as_returned():
    for returned in run_script(FRAGMENTS).split():
        assert 14 * MIB < int(returned) < 30 * MIB


@pytest.mark.parametrize(
    "load",
    [
        Weights,
        lambda: bytearray(MIB),
        lambda: b"x" * MIB,
        lambda: {"w": b"x" * MIB},
        lambda: {"w": Weights()},
        lambda: [[]],
    ],
)
def test_a_model_that_somebody_else_holds_is_named(models, core, load):
    model = models.register("m", load, min_residency=0)
    with model as kept:
        pass
    models.take(None, 1.0)
    assert any("'m' lived on after its unload" in warning for warning in core.warnings)
    del kept


def cycle():
    made = [bytes(100)]
    made.append(made)
    return made


@pytest.mark.parametrize(
    "load",
    [Weights, lambda: bytearray(MIB), cycle, lambda: {"weights": Weights()}, lambda: None, int, str, tuple],
)
def test_a_model_that_nobody_else_holds_is_not(models, core, load):
    model = models.register("m", load, min_residency=0)
    with model:
        pass
    assert models.take(None, 1.0)["status"] == "done"
    assert core.warnings == []


def test_an_unload_waits_for_its_turn(models):
    model = models.register("m", Weights, min_residency=0)
    entered, leave = threading.Event(), threading.Event()

    def use():
        with model:
            entered.set()
            leave.wait(20)

    thread = threading.Thread(target=use)
    thread.start()
    assert entered.wait(20)
    threading.Timer(0.1, leave.set).start()
    assert models.take(None, 60.0)["status"] == "done"
    thread.join()
    assert model.state == "unloaded"


def test_a_caller_waits_for_an_unload_and_loads_again(models):
    entered, go_on = threading.Event(), threading.Event()

    def unload(_):
        entered.set()
        assert go_on.wait(20)

    model = models.register("m", Weights, min_residency=0, unload=unload)
    with model:
        pass
    step = threading.Thread(target=models.take, args=(None, 1.0))
    step.start()
    assert entered.wait(20)
    assert model.state == "unloading"
    threading.Timer(0.05, go_on.set).start()
    with model:
        assert reading(models)["loads"] == 2
    step.join()


def test_an_unload_that_hangs_is_told_to_callers(models, monkeypatch):
    monkeypatch.setattr("oomguard.hook.models.turn.HANGS", 0.05)
    go_on = threading.Event()
    model = models.register("m", Weights, min_residency=0, unload=lambda _: go_on.wait(20))
    with model:
        pass
    step = threading.Thread(target=models.take, args=(None, 1.0))
    step.start()
    eventually(lambda: model.state == "unloading")
    with pytest.raises(ModelUnavailable, match="its unload hangs"):
        model.__enter__()
    go_on.set()
    step.join()


def test_an_unload_that_raises_is_a_warning(models, core):
    def unload(_):
        raise SystemExit(3)

    model = models.register("m", Weights, min_residency=0, unload=unload)
    with model:
        pass
    assert models.take(None, 1.0)["status"] == "done"
    assert model.state == "unloaded"
    assert core.warnings == ["model 'm': unload raised SystemExit: 3"]


def test_the_cache_of_the_gpu_is_emptied_only_where_torch_is_imported(models, monkeypatch):
    emptied = []
    cuda = types.SimpleNamespace(is_initialized=lambda: True, empty_cache=lambda: emptied.append(1))
    model = models.register("m", Weights, min_residency=0)
    assert "torch" not in sys.modules
    for torch in (None, types.SimpleNamespace(cuda=cuda), types.SimpleNamespace()):
        if torch is not None:
            monkeypatch.setitem(sys.modules, "torch", torch)
        with model:
            pass
        models.take(None, 1.0)
    assert emptied == [1]


def test_the_step_without_a_loaded_model_is_skipped(models):
    assert models.take(None, 1.0)["reason"] == "nothing_registered"
    models.register("m", Weights)
    assert models.take(None, 1.0)["reason"] == "nothing_registered"
    assert models.take("other", 1.0)["details"] == {"missing": "other"}


# -- registering and telling


def test_a_name_that_is_taken_is_replaced_with_a_warning_unless_the_load_is_the_same(models, core):
    first = models.register("m", Weights)
    assert models.register("m", Weights) is first
    assert core.warnings == []
    second = models.register("m", lambda: 5)
    assert second is not first
    assert core.warnings == ["model 'm' was registered again: the later one counts"]
    assert models.names() == ["m"]


def test_what_a_later_registration_says_counts(models, core):
    let_go = []
    first = models.register("m", Weights, min_residency=30)
    with first:
        pass
    again = models.register("m", Weights, idle_timeout=10, min_residency=0, unload=let_go.append)
    assert again is first
    assert core.warnings == [
        "model 'm' was registered again with another idle_timeout, min_residency, unload: the later one counts"
    ]
    core.chores.run(time.monotonic() + 100)
    assert first.state == "unloaded"
    assert [type(value) for value in let_go] == [Weights]
    models.register("m", Weights, enabled=False, fallback=int)
    with first as value:
        assert value == 0


def test_a_method_that_is_registered_again_is_the_same_model(models, core):
    class Service:
        def load(self):
            return 5

    service = Service()
    first = models.register("m", service.load)
    assert models.register("m", service.load) is first
    assert core.warnings == []


def test_a_replaced_model_is_still_unloaded_when_idle(models, core):
    first = models.register("m", Weights, idle_timeout=10)
    with first:
        pass
    models.register("m", lambda: 5)
    core.chores.run(time.monotonic() + 100)
    assert first.state == "unloaded"


@pytest.mark.parametrize(
    ("name", "load", "options", "error", "text"),
    [
        (5, Weights, {}, TypeError, "must be text"),
        ("", Weights, {}, ValueError, "1 to 100 characters"),
        ("x" * 101, Weights, {}, ValueError, "1 to 100 characters"),
        ("m", 5, {}, TypeError, "load must be callable, not int"),
        ("m", Weights, {"fallback": 5}, TypeError, "fallback must be callable"),
        ("m", Weights, {"unload": 5}, TypeError, "unload must be callable"),
        ("m", Weights, {"idle_timeout": -1}, ValueError, "idle_timeout must be seconds"),
        ("m", Weights, {"idle_timeout": "5m"}, ValueError, "idle_timeout must be seconds"),
        ("m", Weights, {"min_residency": -1}, ValueError, "min_residency must be seconds"),
        ("m", Weights, {"isolate": True, "unload": print}, ValueError, "leave out unload"),
    ],
)
def test_a_slip_of_the_pen_at_a_model_is_told_at_once(models, name, load, options, error, text):
    with pytest.raises(error, match=text):
        models.register(name, load, **options)


def test_an_asynchronous_load_is_told_at_once(models):
    async def load():
        return 5

    with pytest.raises(TypeError, match="asynchronous"):
        models.register("m", load)


def test_a_reading_is_what_the_protocol_says(models):
    model = models.register("m", Weights)
    names = "name state bytes load_seconds idle uses in_use loads failures unloads busy returned isolated pid enabled"
    assert list(reading(models)) == names.split()
    assert reading(models)["state"] == "unloaded"
    assert reading(models)["bytes"] is None
    with model:
        assert reading(models)["idle"] is None
    assert reading(models)["idle"] >= 0
    assert json.loads(json.dumps(models.reading()))[0]["loads"] == 1
    assert models.children() == []


# -- the life of the process

FORK = """
import os, sys, threading, time
from tests.support.parts_core import make_core
from oomguard.hook.models.registry import Models
models = Models(make_core())
os.register_at_fork(after_in_child=models.forked)
begun, go_on = threading.Event(), threading.Event()
def load():
    if os.getpid() == parent:
        begun.set()
        go_on.wait(30)
    return os.getpid()
parent = os.getpid()
slow = models.register("slow", load)
ready = models.register("ready", os.getpid)
def use():
    with slow: pass
def hold():
    with ready:
        begun2.set()
        go_on.wait(30)
begun2 = threading.Event()
threads = [threading.Thread(target=use), threading.Thread(target=hold)]
[t.start() for t in threads]
begun.wait(30); begun2.wait(30)
with ready:
    slow._lock.acquire(); ready._lock.acquire()  # as another thread may hold them at this moment
    pid = os.fork()
    if not pid:
        with slow as one, ready as two:
            state = {m["name"]: (m["loads"], m["in_use"]) for m in models.reading()}
        print(one == os.getpid(), two == parent, state["slow"], state["ready"], flush=True)
        os._exit(0)
    slow._lock.release(); ready._lock.release()
_, status = os.waitpid(pid, 0)
go_on.set()
[t.join() for t in threads]
print(status, slow.state)
"""


def test_a_fork_while_a_load_is_under_way_leaves_the_child_a_model_that_can_be_loaded():
    assert run_script(FORK).split("\n")[:2] == ["True True (1, 1) (0, 2)", "0 loaded"]


def test_a_process_ends_while_a_load_is_under_way():
    code = """
import asyncio, sys, time
from tests.support.parts_core import make_core
from oomguard.hook.models.registry import Models
model = Models(make_core()).register("m", lambda: time.sleep(1000))
async def use():
    async with model: pass
async def main():
    task = asyncio.create_task(use())
    while model.state != "loading":
        await asyncio.sleep(0.001)
    print("ends")
asyncio.run(main())
"""
    assert run_script(code) == "ends\n"


GEVENT = """
from gevent import monkey; monkey.patch_all()
import gevent, time
from tests.support.parts_core import make_core
from oomguard.hook.models.registry import Models
loads, ticks = [], []
def load():
    loads.append(1)
    time.sleep(0.3)
    return 5
model = Models(make_core()).register("m", load)
def tick():
    while True:
        ticks.append(1)
        time.sleep(0.005)
def use():
    with model as value:
        time.sleep(0.01)
        return value
ticker = gevent.spawn(tick)
jobs = [gevent.spawn(use) for _ in range(30)]
gevent.joinall(jobs)
print(len(loads), {job.value for job in jobs}, len(ticks) > 5)
"""


@pytest.mark.real
def test_greenlets_that_ask_at_once_cause_one_load_and_the_others_go_on():
    assert run_script(GEVENT) == "1 {5} True\n"
