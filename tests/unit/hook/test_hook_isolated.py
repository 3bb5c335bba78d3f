"""Models in processes of their own: real ones."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.support import small_models
from tests.support.parts_core import make_core

from oomguard.hook.models.errors import ModelProcessDied, ModelUnavailable
from oomguard.hook.models.registry import Models

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def core():
    return make_core()


@pytest.fixture
def models(core):
    models = Models(core)
    yield models
    for one in models.names():
        models.take(one, 5.0)


@pytest.fixture
def model(models):
    return models.register("m", small_models.load, isolate=True, min_residency=0)


def child(models):
    """What a reading says of the process of `m`."""
    models.reading()
    return models.children()[0]


def gone(pid):
    """Whether there is no such process, or only what its parent has not reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def eventually(wanted, timeout=30.0):
    deadline = time.monotonic() + timeout
    while not wanted():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def start_script(path, code, **options):
    path.write_text(code)
    return subprocess.Popen(
        [sys.executable, str(path)],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'exporter'}:{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run_script(path, code):
    process = start_script(path, code)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return out


# -- calls


def test_calls_and_attributes_are_those_of_the_model(model):
    with model as small:
        assert small.pid() != os.getpid()
        assert small.same([1, "two", {"three": 3.0}]) == [1, "two", {"three": 3.0}]
        assert small(5) == ("called", 5)
        assert (small.rate, small.label, small.calls) == (7, "small", 0)
        assert [small.count(), small.count(), small.calls] == [1, 2, 2]
        with pytest.raises(AttributeError, match="nothing_of_the_kind"):
            small.nothing_of_the_kind  # noqa: B018
        with pytest.raises(AttributeError, match="set it in load"):
            small.rate = 8
        assert "isolated model 'm'" in repr(small)


def test_a_model_that_is_a_function_is_called(models):
    with models.register("f", small_models.load_function, isolate=True, min_residency=0) as length:
        assert length("four") == 4


def test_a_decorated_load_is_found_by_its_name(models):
    with small_models.decorated as small:
        assert small.pid() != os.getpid()
    small_models.models.take("decorated", 5.0)
    assert small_models.decorated.state == "unloaded"


@pytest.mark.parametrize("size", [0, 1, 65_536, 262_144, 1_000_001, 20_000_000])
def test_bytes_of_any_size_arrive(model, size):
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with model as small:
        assert small.same(content) == content


def test_large_buffers_are_mapped_on_both_sides(model):
    if not hasattr(os, "memfd_create"):
        return
    with model as small:
        found = small.buffer(1 << 20)
        assert type(found.content.obj).__name__ == "mmap"
        assert bytes(found.content) == b"x" * (1 << 20)
        assert not found.content.readonly
        assert small.kind_of_content(small_models.Buffer(bytearray(1 << 20))) == "mmap"
        assert small.kind_of_content(small_models.Buffer(bytearray(100))) == "copied"


def test_large_buffers_arrive_where_there_are_no_anonymous_files(model, monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    with model as small:
        sent = small_models.Buffer(bytearray(b"y") * 3_000_000)
        assert small.kind_of_content(sent) == "bytearray"
        assert small.same(sent).content == sent.content


def test_answers_to_many_threads_are_not_mixed_up(model):
    wrong = []

    def use(number):
        with model as small:
            answers = [small.same((number, turn)) for turn in range(20)]
        if answers != [(number, turn) for turn in range(20)]:
            wrong.append(number)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_interrupted_call_leaves_the_next_one_its_own_answer(model):
    def enough(*_):
        raise InterruptedError

    before = signal.signal(signal.SIGALRM, enough)
    try:
        with model as small:
            pid = small.pid()
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(InterruptedError):
                small.sleep(1.0, "late")
            assert small.same("mine") == "mine"
            assert small.pid() == pid
    finally:
        signal.signal(signal.SIGALRM, before)


def test_tasks_use_it_without_stopping_the_loop(model):
    async def use(number):
        async with model as small:
            return await asyncio.to_thread(small.same, number)

    async def main():
        return await asyncio.gather(*[use(number) for number in range(5)])

    assert asyncio.run(main()) == list(range(5))


# -- errors of the model


def test_an_exception_of_the_model_is_raised_here_with_its_traceback_there(model):
    with model as small:
        with pytest.raises(ValueError, match="no good") as caught:
            small.fail("no good")
        assert "in fail" in str(caught.value.__cause__)
        assert small.same(1) == 1


def test_an_exception_that_can_not_be_read_here_is_a_runtime_error_that_names_it(model, monkeypatch):
    with model as small:
        with pytest.raises(RuntimeError, match="OnlyThereError: one"):
            small.fail_unpicklably()
        monkeypatch.delitem(sys.modules, "zipfile", raising=False)
        with pytest.raises(RuntimeError, match=r"zipfile.*BadZipFile: broken"):
            small.fail_of_another_module()
        assert "zipfile" not in sys.modules, "an error must import nothing here"
        with pytest.raises(RuntimeError, match="SystemExit: 3"):
            small.leave()
        with pytest.raises(Exception, match="local object"):
            small.answer_what_can_not_be_sent()
        with pytest.raises(Exception, match="local object"):
            small.same(lambda: 5)
        assert small.same(1) == 1


def test_a_load_that_raises_there_raises_here_and_ends_the_process(models):
    model = models.register("m", small_models.load_nothing, isolate=True)
    with pytest.raises(FileNotFoundError, match=r"weights\.bin"):
        model.__enter__()
    with pytest.raises(ModelUnavailable, match=r"weights\.bin"):
        model.__enter__()
    assert child(models)["alive"] is False
    assert child(models)["exits"] == {"oom_kill": 0, "unknown": 0}


# -- the end of the process


def test_unloading_ends_the_process_and_gives_its_memory_back(models, model):
    with model as small:
        pid = small.pid()
    assert models.reading()[0]["pid"] == pid
    assert models.reading()[0]["bytes"] > 1 << 20
    taken = models.take(None, 5.0)
    assert taken["status"] == "done"
    assert taken["details"]["returned"] > 1 << 20
    assert not Path(f"/proc/{pid}").exists()
    assert (model.state, child(models)["alive"], child(models)["pid"]) == ("unloaded", False, None)
    assert child(models)["exits"] == {"oom_kill": 0, "unknown": 0}
    with pytest.raises(ModelUnavailable, match="was unloaded: call it only inside `with`"):
        small.same(1)
    with model as small:
        assert small.pid() != pid


def test_a_process_that_dies_in_a_call_is_started_anew_once(models, model, tmp_path):
    with model as small:
        assert small.die_once(str(tmp_path / "died")) == "alive"
    assert child(models) | {"pid": 0} == {
        "name": "m", "alive": True, "starts": 2, "exits": {"oom_kill": 0, "unknown": 1}, "pid": 0,
    }  # fmt: skip


def test_a_process_that_dies_in_every_call_is_an_oserror_that_names_the_model(models, model):
    with model as small:
        with pytest.raises(
            ModelProcessDied, match="model 'm': its process died, and a fresh one did too"
        ) as caught:
            small.die()
        assert not isinstance(caught.value, BrokenPipeError)
        assert caught.value.reason == "unknown"
        assert pickle.loads(pickle.dumps(caught.value)).reason == "unknown"
    assert child(models)["exits"] == {"oom_kill": 0, "unknown": 2}
    with model as small:
        assert small.same(1) == 1


def test_a_process_that_dies_at_its_load_is_started_anew_once(models):
    model = models.register("m", small_models.load_and_die, isolate=True)
    with pytest.raises(ModelProcessDied):
        model.__enter__()
    assert (child(models)["starts"], child(models)["exits"]["unknown"]) == (2, 2)
    assert model.state == "failed"


def test_a_process_that_died_unused_is_noticed_and_the_next_use_loads(models, model):
    with model as small:
        pid = small.pid()
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: models.reading()[0]["state"] == "unloaded")
    assert child(models)["exits"]["unknown"] == 1
    with model as small:
        assert small.pid() != pid


def test_a_process_that_died_unused_is_replaced_though_nobody_looked(models, model):
    with model as small:
        os.kill(small.pid(), signal.SIGKILL)
        assert small.same(1) == 1
    assert child(models)["starts"] == 2


def test_a_call_that_hangs_does_not_hold_up_the_step(models, model):
    begun = threading.Event()

    def use():
        with model as small:
            begun.set()
            small.sleep(1.5)

    thread = threading.Thread(target=use)
    thread.start()
    assert begun.wait(30)
    taken = models.take(None, 0.2)
    assert thread.is_alive()
    assert taken["reason"] == "busy"
    thread.join()


def test_a_call_outside_of_with_is_not_cut_off(models, model):
    with model as small:
        pass
    answers = []
    thread = threading.Thread(target=lambda: answers.append(small.sleep(1.0, "whole")))
    thread.start()
    eventually(lambda: model.place.busy)
    assert models.take(None, 0.1)["reason"] == "busy"
    thread.join()
    assert answers == ["whole"]


def test_the_process_outlives_the_thread_that_loaded_it(models, model):
    def use():
        with model:
            pass

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    with model as small:
        assert small.same(1) == 1
    assert child(models)["starts"] == 1


PARENT = """
import os, sys, time
from tests.support import small_models
from tests.support.parts_core import make_core
from oomguard.hook.models.registry import Models
if __name__ == "__main__":
    with Models(make_core()).register("m", small_models.load, isolate=True) as small:
        print(small.pid(), flush=True)
        getattr(small, sys.argv[1] if len(sys.argv) > 1 else "spin")(1000)
"""


def test_the_process_dies_with_its_parent_though_it_computes(tmp_path):
    parent = start_script(tmp_path / "parent.py", PARENT)
    try:
        pid = int(parent.stdout.readline())
        time.sleep(0.2)
        assert not gone(pid)
        parent.kill()
        eventually(lambda: gone(pid))
    finally:
        parent.kill()
        parent.communicate()


FORK = """
import os
from tests.support import small_models
from tests.support.parts_core import make_core
from oomguard.hook.models.registry import Models
models = Models(make_core())
os.register_at_fork(after_in_child=models.forked)
model = models.register("m", small_models.load, isolate=True, min_residency=0)
with model as small:
    first = small.pid()
pid = os.fork()
with model as small:
    mine = small.pid()
if not pid:
    models.take("m", 5.0)
    os._exit(0 if mine != first else 1)
_, status = os.waitpid(pid, 0)
with model as small:
    print(status, mine == first == small.pid(), models.children()[0]["starts"])
"""


def test_a_forked_child_starts_a_process_of_its_own(tmp_path):
    assert run_script(tmp_path / "fork.py", FORK) == "0 True 1\n"


# -- what the process is like


def test_it_leaves_the_standard_streams_alone(tmp_path):
    code = PARENT.replace(
        "print(small.pid(), flush=True)", "print('mine', small.say('hm') == '', flush=True); sys.exit()"
    )
    assert run_script(tmp_path / "streams.py", code) == "mine True\n"


def test_it_begins_without_the_applications_descriptors_and_signal_masks(model):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.set_inheritable(True)
        with model as small:
            listening = str(Path(f"/proc/self/fd/{server.fileno()}").readlink())
            assert listening not in small.descriptors().values()
            assert small.descriptors()[0] == os.devnull
            assert small.signals() == []


def test_it_is_the_one_that_the_kernel_is_to_shoot(model):
    mine = int(Path("/proc/self/oom_score_adj").read_text())
    with model as small:
        assert small.oom_score_adj() == min(1000, mine + 500)


def test_it_counts_no_models_and_starts_no_further_processes(models, model):
    with model as small:
        assert small.readings() == []
    asking = models.register("asking", small_models.load_that_asks_for_another, isolate=True)
    with pytest.raises(ModelUnavailable, match="in the process of the isolated model 'asking'"):
        asking.__enter__()


# -- what can't be sent


def test_a_load_in_the_main_module_is_found_behind_its_guard(tmp_path):
    code = """
import os
from tests.support.parts_core import make_core
from oomguard.hook.models.registry import Models
class Model:
    def same(self, value): return value
    def pid(self): return os.getpid()
def load(): return Model()
if __name__ == "__main__":
    model = Models(make_core()).register("m", load, isolate=True)
    with model as loaded:
        print(type(loaded.same(Model())) is Model, loaded.pid() != os.getpid())
"""
    assert run_script(tmp_path / "main.py", code) == "True True\n"


DECORATED = """
import os
from tests.support.parts_core import make_core
from oomguard.hook.models.registry import Models
@Models(make_core()).register("m", isolate=True)
def load(): return os.getpid
if __name__ == "__main__":
    with load as pid:
        print(pid() != os.getpid())
"""


def test_a_decorated_load_in_the_main_module_is_found(tmp_path):
    assert run_script(tmp_path / "decorated.py", DECORATED) == "True\n"


def test_a_load_in_a_module_that_is_run_is_found(tmp_path):
    (tmp_path / "service").mkdir()
    (tmp_path / "service" / "__main__.py").write_text(DECORATED)
    done = subprocess.run(
        [sys.executable, "-m", "service"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT / 'exporter'}:{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "True\n", done.stderr


def test_a_main_module_without_a_guard_is_told(tmp_path):
    code = """
from tests.support.parts_core import make_core
from oomguard.hook.models.registry import Models
def load(): return len
try:
    Models(make_core()).register("m", load, isolate=True)
except ValueError as error:
    print(error)
"""
    assert "would be run a second time to find load" in run_script(tmp_path / "bare.py", code)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{ROOT / 'exporter'}:{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert "define it in a module" in done.stdout


@pytest.mark.parametrize("load", [lambda: 5, small_models.Small().count], ids=["lambda", "method"])
def test_a_load_that_has_no_name_of_its_own_is_told(models, load):
    with pytest.raises(ValueError, match=r"define it with `def` at the top level of a module"):
        models.register("m", load, isolate=True)


def test_a_python_that_is_none_is_told(models, monkeypatch):
    monkeypatch.setattr(sys, "executable", "")
    with pytest.raises(ValueError, match=r"needs a Python at sys\.executable"):
        models.register("m", small_models.load, isolate=True)


CLOSES = """
import os, sys
from tests.support import small_models
from tests.support.parts_core import make_core
from oomguard.hook.models.registry import Models
models = Models(make_core())
with models.register("m", small_models.load, isolate=True, min_residency=0) as small:
    first = small.pid()
    os.closerange(3, 1000)
    files = [open(os.devnull) for _ in range(20)]
    second = small.pid()
    print(first != second, small.same(1), all(not os.fstat(file.fileno()).st_size for file in files))
print(models.take("m", 5.0)["status"])
"""


def test_an_application_that_closes_every_descriptor_gets_a_fresh_process(tmp_path):
    assert run_script(tmp_path / "closes.py", CLOSES) == "True 1 True\ndone\n"


INJECTED = """
import importlib.util, os, sys
home = sys.argv[1]
spec = importlib.util.spec_from_file_location("oomguard", home + "/__init__.py", submodule_search_locations=[home])
sys.modules["oomguard"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["oomguard"])
from oomguard.hook import parts, unpatched
from oomguard.hook.chores import Chores
from oomguard.hook.models.registry import Models
import mine
core = parts.Core({}, Chores(print, print), unpatched.allocate_rlock(), lambda: None)
with Models(core).register("m", mine.load, isolate=True) as pid:
    print(pid() != os.getpid())
"""


def test_a_package_that_is_not_on_the_path_is_found_by_the_process(tmp_path):
    (tmp_path / "mine.py").write_text("import os\ndef load(): return os.getpid\n")
    (tmp_path / "app.py").write_text(INJECTED)
    done = subprocess.run(
        [sys.executable, "-S", str(tmp_path / "app.py"), str(ROOT / "exporter" / "oomguard")],
        env={},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "True\n", done.stderr


def test_what_was_registered_with_atexit_runs_in_the_process(models, model, tmp_path):
    with model as small:
        small.leave_behind(str(tmp_path / "left"))
    models.take(None, 5.0)
    assert (tmp_path / "left").exists()


GEVENT = """
from gevent import monkey; monkey.patch_all()
import gevent, time
from tests.support import small_models
from tests.support.parts_core import make_core
from oomguard.hook.models.registry import Models
if __name__ == "__main__":
    models = Models(make_core())
    model = models.register("m", small_models.load, isolate=True, min_residency=0)
    ticks = []
    def tick():
        while True:
            ticks.append(1)
            time.sleep(0.005)
    def use(number):
        with model as small:
            return small.sleep(0.1, number)
    ticker = gevent.spawn(tick)
    jobs = [gevent.spawn(use, number) for number in range(5)]
    gevent.joinall(jobs)
    print([job.value for job in jobs], len(ticks) > 20, models.children()[0]["starts"])
    print(models.take("m", 5.0)["status"])
"""


@pytest.mark.real
def test_greenlets_that_call_it_let_the_others_run(tmp_path):
    assert run_script(tmp_path / "green.py", GEVENT) == "[0, 1, 2, 3, 4] True 1\ndone\n"
