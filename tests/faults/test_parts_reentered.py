"""A finalizer or a signal handler may use the guard in any line of the guard's own: nothing may wait for itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fake_sidecar import FakeSidecar
from tests.support.targets import ROOT, Target, clean_environment, find_python

PYTHONS = [path for version in ("3.10", "3.11", "3.12", "3.13", "3.14") if (path := find_python(version))]

START = """
import faulthandler, gc, signal, sys
from oomguard import hook
guard = hook.start()
faulthandler.dump_traceback_later(15, exit=True)
model = guard.model("m", list)
vectors = guard.lru("vectors", 100_000)
environ = {"PATH_INFO": "/", "REQUEST_METHOD": "GET"}
app = guard.wsgi(lambda environ, start_response: (start_response("200 OK", []), [b""])[1])
def use():
    with model: pass
    with guard.stream("s"): pass
    with guard.limit("l", 9): pass
    guard.budget("b", 10_000).reserve(1).release()
    guard.cache("c", clear=list)
    vectors["key"] = b"value"; vectors.get("key")
    app(environ, lambda *_: None)
    guard.status()
use()
parts = guard._process.answers.parts
"""


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[FakeSidecar]:
    with FakeSidecar(tmp_path) as running:
        yield running


@pytest.fixture(params=PYTHONS, ids=[Path(path).name for path in PYTHONS])
def interpreter(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(sidecar: FakeSidecar, python: str, code: str) -> tuple[int, str, str]:
    env = {**clean_environment(), **sidecar.environment, "PYTHONPATH": str(ROOT / "exporter")}
    with Target([python, "-c", START + code], env, ready=False) as target:
        return target.finish()


def test_a_stream_that_is_lost_is_closed_by_the_garbage_collector_in_any_line(
    interpreter: str, sidecar: FakeSidecar
) -> None:
    code = """
def stream():
    with guard.stream("lost"): yield
class Lost:
    def __del__(self): use()
def lose():
    one = stream()
    next(one)
    circle = [one, Lost()]
    circle.append(circle)
gc.set_threshold(1)
for part in list(parts.values()):
    for _ in range(20):
        gc.disable(); lose(); gc.enable()
        part.reading()
gc.collect()
print(parts["streams"].reading()["open"], flush=True)
"""
    assert run(sidecar, interpreter, code) == (0, "0\n", "")


def test_a_signals_handler_may_use_the_guard_while_the_guard_is_used(
    interpreter: str, sidecar: FakeSidecar
) -> None:
    code = """
handled = []
def handler(*_):
    use()
    handled.append(1)
    signal.setitimer(signal.ITIMER_REAL, 0.0005)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.0005)
while len(handled) < 500:
    use()
    for part in list(parts.values()): part.reading()
signal.setitimer(signal.ITIMER_REAL, 0)
print("done", flush=True)
"""
    assert run(sidecar, interpreter, code) == (0, "done\n", "")
