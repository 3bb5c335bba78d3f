"""The guard alone: when it takes over, which steps it takes, and what holds it back."""

from __future__ import annotations

import ctypes
import itertools
import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from oomguard.hook import gauge as gauge_module
from oomguard.hook.alone import Alone
from oomguard.hook.chores import Chores
from oomguard.hook.gauge import Gauge
from oomguard.hook.parts import Core, Released, answer

MIB = 1 << 20
LIMIT = 1000 * MIB
CONFIGURED = {"OOMGUARD_RUNTIME_DIR": "/run/oomguard"}


class Memory:
    """A box and its clock, in which every step gives back what the test says."""

    def __init__(self, used: int, limit: int | None = LIMIT) -> None:
        self.used = used * MIB
        self.limit = limit
        self.in_cgroup = limit is not None
        self.gives: dict[str, int] = {}
        self.kept: dict[str, int] = {}
        self.refuses: set[str] = set()
        self.taken: list[str] = []
        self.within: list[float] = []
        self.slept: list[float] = []
        self.takes = 0.0
        self.now = 1000.0
        self.found = 0
        self.fails: Exception | None = None

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def take(self, step: str, name: str | None, within: float) -> dict[str, object]:
        assert name is None
        if step in self.refuses:
            return {"step": step, **answer("skipped", "nothing_registered")}
        self.taken.append(step)
        self.within.append(within)
        self.now += self.takes
        self.used -= self.gives.get(step, 0) * MIB
        return {"step": step, **answer("done", freed=self.kept.get(step, 0) * MIB)}

    # a gauge's face

    def find(self) -> None:
        self.found += 1

    def close(self) -> None:
        pass

    def look(self, little: int = 0) -> tuple[int | None, int | None]:
        assert little < LIMIT
        if self.fails is not None:
            raise self.fails
        return self.used, self.limit


def core(environ: dict[str, str]) -> Core:
    nothing = Chores(lambda: None, lambda: None)
    return Core(environ, nothing, threading.RLock(), lambda: Released(0, 0, 0.0, trims=True))  # type: ignore[arg-type]  # any lock does


Made = Callable[..., Alone]


def made(memory: Memory, environ: dict[str, str] | None = None, *, autonomous: bool = True) -> Alone:
    return Alone(
        core(CONFIGURED if environ is None else environ),
        memory.take,
        autonomous=autonomous,
        gauge=lambda: memory,  # type: ignore[arg-type,return-value]  # it has the same face
        clock=memory.clock,
        sleep=memory.sleep,
    )


def tick(alone: Alone, memory: Memory, seconds: float = 0.0) -> float:
    memory.now += seconds
    return alone.run(memory.now)


# -- when


def test_it_takes_over_ten_seconds_after_a_sidecars_last_question_and_stands_down_at_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    memory = Memory(900)
    alone = made(memory, autonomous=False)
    assert tick(alone, memory) == 10.0
    alone.note_read()
    assert tick(alone, memory, 9.0) == pytest.approx(1.0)
    assert not memory.taken
    tick(alone, memory, 1.0)
    assert memory.taken[0] == "caches"
    assert alone.reading()["on"] is True
    assert alone.reading()["reason"] == "no sidecar has asked for 10 s"
    alone.note_read()
    assert alone.reading()["on"] is False
    memory.taken.clear()
    assert tick(alone, memory, 0.5) == pytest.approx(9.5)
    assert not memory.taken
    assert "guarding memory alone: no sidecar has asked for 10 s" in caplog.messages


def test_an_autonomous_one_looks_from_the_start_but_not_beside_a_sidecar() -> None:
    memory = Memory(900)
    alone = made(memory)
    alone.note_read()
    tick(alone, memory, 1.0)
    assert not memory.taken
    tick(alone, memory, 9.0)
    assert memory.taken


def test_a_process_that_was_stopped_for_a_minute_gives_its_sidecar_time_to_ask() -> None:
    memory = Memory(900)
    alone = made(memory, autonomous=False)
    tick(alone, memory)
    alone.note_read()
    assert tick(alone, memory, 9.0) == pytest.approx(1.0)
    assert tick(alone, memory, 60.0) == pytest.approx(1.0)
    assert not memory.taken
    tick(alone, memory, 60.0)
    assert memory.taken, "not for ever: a busy process may be late each time"


@pytest.mark.parametrize(
    "environ",
    [
        {"MEMORY_CLEANUP": "0"},
        {"OOMGUARD_ACT": "false", "MEMORY_CLEANUP": "1"},
        {"OOMGUARD_DRY_RUN": "1"},
        {"OOMGUARD_ACT": "true", "OOMGUARD_DRY_RUN": "yes"},
    ],
)
def test_who_turns_automatic_actions_off_gets_none(environ: dict[str, str]) -> None:
    memory = Memory(990)
    alone = made(memory, environ)
    tick(alone, memory, 100)
    assert not memory.taken
    assert alone.reading()["on"] is False
    assert str(alone.reading()["reason"]).partition("=")[0] in environ


def test_a_forked_child_waits_for_a_sidecar_of_its_own() -> None:
    memory = Memory(900)
    alone = made(memory, autonomous=False)
    tick(alone, memory, 10.0)
    assert alone.reading()["runs"] == 1
    alone.forked()
    assert alone.reading() == {"on": False, "reason": "", "runs": 0, "freed": 0}
    assert tick(alone, memory) == 10.0


def test_autonomous_workers_say_nothing_that_their_parent_has_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    memory = Memory(100)
    alone = made(memory)
    tick(alone, memory)
    alone.forked()
    tick(alone, memory)
    assert alone.reading() == {"on": True, "reason": "autonomous", "runs": 0, "freed": 0}
    assert caplog.messages == ["guarding memory alone: autonomous"]


# -- what


def test_from_high_on_the_first_steps_are_taken_until_the_goal() -> None:
    memory = Memory(850)
    memory.gives = {"caches": 50, "gc": 110}
    alone = made(memory)
    tick(alone, memory)
    assert memory.taken == ["caches", "gc"], "690 is below the goal of 700: no trim"
    assert alone.reading()["freed"] == 160 * MIB


def test_below_high_nothing_is_done() -> None:
    memory = Memory(799)
    tick(made(memory), memory)
    assert not memory.taken


def test_from_critical_on_every_step_is_taken_but_restart() -> None:
    memory = Memory(950)
    tick(made(memory), memory)
    assert memory.taken == ["caches", "gc", "trim", "streams", "models", "gc", "trim", "shed"]


def test_between_high_and_critical_no_stream_is_closed() -> None:
    memory = Memory(850)
    tick(made(memory), memory)
    assert memory.taken == ["caches", "gc", "trim"]


def test_memory_that_becomes_critical_during_a_run_brings_the_other_steps() -> None:
    memory = Memory(850)
    memory.gives = {"trim": -100, "streams": 300}
    tick(made(memory), memory)
    assert memory.taken == ["caches", "gc", "trim", "streams"]


def test_what_malloc_kept_is_trimmed_at_once() -> None:
    memory = Memory(850)
    memory.kept, memory.gives = {"caches": 200}, {"trim": 200}
    tick(made(memory), memory)
    assert memory.taken == ["caches", "trim"]


def test_without_models_to_unload_there_is_no_second_collection() -> None:
    memory = Memory(950)
    memory.refuses = {"models"}
    tick(made(memory), memory)
    assert memory.taken == ["caches", "gc", "trim", "streams", "shed"]


def test_steps_are_told_how_long_memory_will_last() -> None:
    memory = Memory(700)
    alone = made(memory)
    tick(alone, memory)
    memory.used = 900 * MIB
    tick(alone, memory, 2.0)  # 100 MB a second: 1 s is left
    assert memory.within[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("environ", "acts"),
    [
        ({"OOMGUARD_HIGH": "60%"}, True),
        ({"OOMGUARD_HIGH": "600MiB"}, True),
        ({"MEMORY_CLEANUP_THRESHOLD_MB": "600"}, False),
        ({"MEMORY_LIMIT_MB": "750"}, True),
        ({"OOMGUARD_LIMIT": "750MiB"}, True),
        ({"OOMGUARD_CRITICAL": "0.6"}, True),
        ({"OOMGUARD_HIGH": "six"}, False),
        ({}, False),
    ],
)
def test_thresholds_and_limit_are_the_sidecars(environ: dict[str, str], acts: bool) -> None:
    memory = Memory(650)
    alone = made(memory, environ)
    tick(alone, memory)
    assert bool(memory.taken) == acts
    assert bool(alone._core.warnings) == (environ.get("OOMGUARD_HIGH") == "six")


@pytest.mark.parametrize(
    ("told", "acts"),
    [
        ({"high": 0.6, "critical": 0.9, "goal": 0.5, "limit": None, "act": True}, True),
        ({"high": 0.8, "critical": 0.9, "goal": 0.7, "limit": 750 * MIB, "act": True}, True),
        ({"high": 0.6, "critical": 0.9, "goal": 0.5, "limit": None, "act": False}, False),
        ({"high": "nonsense", "critical": -1, "goal": None, "limit": "all", "act": "yes"}, False),
        ("nonsense", True),
        (None, True),
    ],
)
def test_what_the_last_sidecar_said_goes_before_the_environment(told: object, acts: bool) -> None:
    memory = Memory(650)
    alone = made(memory, {"OOMGUARD_HIGH": "0.6"}, autonomous=False)
    alone.note_read(told)
    tick(alone, memory, 11.0)
    assert bool(memory.taken) == acts


def test_the_goal_lies_an_eighth_below_a_low_threshold() -> None:
    memory = Memory(420)
    memory.gives = {"caches": 69, "gc": 2}
    tick(made(memory, {"OOMGUARD_HIGH": "40%"}), memory)
    assert memory.taken == ["caches", "gc"], "351 is above seven eighths of 400, 349 is not"


def test_a_limit_of_the_machines_holds_where_there_is_no_other() -> None:
    memory = Memory(0, limit=None)
    memory.used = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    tick(made(memory), memory)
    assert memory.taken


# -- how often


def test_it_sleeps_for_as_long_as_memory_needs_to_the_next_threshold() -> None:
    memory = Memory(100)
    alone = made(memory)
    assert tick(alone, memory) == pytest.approx(700 * MIB / 4e9)
    assert not memory.slept
    memory.used = 790 * MIB
    assert tick(alone, memory, 1.0) == pytest.approx(210 / 2 * MIB / 4e9), "half of the way to the limit"
    memory.used = 980 * MIB
    assert tick(alone, memory, 1.0) == 0.010
    assert len(memory.slept) == 3, "40 ms: then the thread has other things to do"
    memory.limit = 100 * LIMIT
    assert tick(alone, memory, 1.0) == 1.0


def test_after_a_run_in_vain_it_backs_off_twice_as_long_each_time() -> None:
    memory = Memory(850)
    alone = made(memory)
    began = []
    for _ in range(2000):
        tick(alone, memory, 0.1)
        if memory.taken:
            began.append(memory.now)
            memory.taken.clear()
    waits = [later - earlier for earlier, later in itertools.pairwise(began)]
    assert waits[:8] == [pytest.approx(wait, abs=0.3) for wait in (1, 2, 4, 8, 16, 32, 60, 60)]


def test_memory_that_rose_by_a_twentieth_of_the_limit_ends_the_back_off() -> None:
    memory = Memory(810)
    alone = made(memory)
    for _ in range(30):
        tick(alone, memory, 60.0)
    memory.taken.clear()
    memory.used = 859 * MIB
    tick(alone, memory, 0.1)
    assert not memory.taken
    memory.used = 861 * MIB
    tick(alone, memory, 0.1)
    assert memory.taken


def test_at_a_critical_level_no_back_off_is_longer_than_a_second() -> None:
    memory = Memory(950)
    alone = made(memory)
    for _ in range(30):
        tick(alone, memory, 60.0)
    memory.taken.clear()
    tick(alone, memory, 0.9)
    assert not memory.taken
    tick(alone, memory, 0.2)
    assert memory.taken


@pytest.mark.parametrize(("used", "steps"), [(850, 3), (950, 8)])
def test_a_run_in_vain_that_took_long_is_not_repeated_soon(used: int, steps: int) -> None:
    memory = Memory(used)
    memory.takes = 0.5
    alone = made(memory)
    tick(alone, memory)
    assert len(memory.taken) == steps
    memory.taken.clear()
    for _ in range(9 * steps):
        tick(alone, memory, 1.0)
    assert not memory.taken, "a run is at most a twentieth of the time"
    tick(alone, memory, 2.0 * steps)
    assert memory.taken


def test_memory_that_fell_by_itself_and_climbs_again_is_another_matter() -> None:
    memory = Memory(890)
    alone = made(memory)
    for _ in range(30):
        tick(alone, memory, 60.0)
    memory.taken.clear()
    for used in (820, 869):
        memory.used = used * MIB
        tick(alone, memory, 0.1)
    assert not memory.taken
    memory.used = 871 * MIB
    tick(alone, memory, 0.1)
    assert memory.taken


def test_a_run_that_freed_something_may_be_repeated_at_once() -> None:
    memory = Memory(990)
    memory.gives = {"caches": 100}
    alone = made(memory)
    tick(alone, memory)
    memory.taken.clear()
    memory.used = 900 * MIB
    tick(alone, memory, 0.01)
    assert memory.taken


def test_what_fails_is_tried_again_soon() -> None:
    memory = Memory(900)
    memory.fails = MemoryError()
    alone = made(memory)
    assert tick(alone, memory) == 0.1
    memory.fails = None
    tick(alone, memory, 0.1)
    assert memory.taken


def test_the_cgroup_is_looked_for_once_a_minute_and_when_it_has_gone() -> None:
    memory = Memory(100)
    alone = made(memory)
    for _ in range(59):
        tick(alone, memory, 1.0)
    assert memory.found == 1
    tick(alone, memory, 2.0)
    assert memory.found == 2
    memory.limit = None
    tick(alone, memory, 1.0)
    tick(alone, memory, 1.0)
    assert memory.found == 3


# -- the gauge


@pytest.fixture(params=["held", "released"])
def interpreter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the files are read with the interpreter held, or as where that can't be."""
    if request.param == "released":
        monkeypatch.setattr(gauge_module, "_CALLS", None)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "fstat"), reason="glibc before 2.33 has no fstat to call")
def test_a_look_does_not_wait_for_the_interpreter_again_and_again() -> None:
    calls = gauge_module._calls()
    assert isinstance(calls, ctypes.PyDLL)
    with Path("/proc/self/statm").open("rb") as file:
        buffer = ctypes.create_string_buffer(256)
        assert calls.fstat(file.fileno(), buffer) == 0
        status = os.fstat(file.fileno())
    assert struct.unpack_from("=QQ", buffer) == (status.st_dev, status.st_ino)


def box(root: Path) -> Gauge:
    for name, content in {
        "proc/self/statm": "9 5 1 0 0 0 0\n",
        "proc/self/cgroup": "0::/box\n",
        "cgroup/box/memory.max": "1000\n",
        "cgroup/box/memory.current": "700\n",
        "cgroup/box/memory.stat": "anon 1\nactive_file 50\ninactive_file 40\nslab_reclaimable 10\n",
    }.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    gauge = Gauge(str(root / "proc"), str(root / "cgroup"))
    gauge.find()
    return gauge


def test_the_cache_is_told_apart_only_where_it_matters(tmp_path: Path) -> None:
    gauge = box(tmp_path)
    assert gauge.look(701) == (700, 1000)
    assert gauge.look(700) == (600, 1000)
    gauge.close()


@pytest.mark.usefixtures("interpreter")
def test_a_look_through_open_files_sees_new_values_and_limits(tmp_path: Path) -> None:
    gauge = box(tmp_path)
    assert gauge.look() == (600, 1000)
    (tmp_path / "cgroup/box/memory.current").write_text("800\n")
    (tmp_path / "cgroup/box/memory.max").write_text("2000\n")
    assert gauge.look() == (700, 2000)
    (tmp_path / "cgroup/box/memory.max").write_text("max\n")
    assert gauge.look() == (700, None)
    gauge.close()


@pytest.mark.usefixtures("interpreter")
def test_numbers_that_the_host_closed_and_uses_for_its_own_files_are_not_read(tmp_path: Path) -> None:
    gauge = box(tmp_path)
    gauge.look()
    for file in list(gauge._files.values()):
        os.close(file._held.number)
    other = tmp_path / "other"
    other.write_text("12345\n")
    theirs = [os.open(other, os.O_RDONLY) for _ in range(3)]
    assert gauge.look() == (600, 1000)
    gauge.close()
    for number in theirs:
        os.close(number)  # raises where the gauge had closed it


@pytest.mark.usefixtures("interpreter")
def test_a_cgroup_that_is_removed_leaves_the_process_own_memory(tmp_path: Path) -> None:
    gauge = box(tmp_path)
    for file in (tmp_path / "cgroup/box").iterdir():
        file.unlink()
    assert gauge.look() == (5 * os.sysconf("SC_PAGE_SIZE"), None)
    assert gauge.in_cgroup
    gauge.find()
    assert not gauge.in_cgroup
    gauge.close()
