"""malloc's own account, and what a trim is expected to return."""

from __future__ import annotations

import ctypes
import errno
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from oomguard.hook import allocators
from oomguard.hook.allocator import Allocator
from oomguard.hook.statm import Statm

ROOT = Path(__file__).resolve().parents[3]
MODERN_GLIBC = platform.libc_ver()[0] == "glibc" and hasattr(ctypes.CDLL(None), "mallinfo2")

STREWN = """
import json
from oomguard.hook.allocator import Allocator
from oomguard.hook.statm import Statm
statm = Statm(); statm.open()
allocator = Allocator(statm); allocator.reading()
answers = []
for _ in range(2):
    blocks = [b'x' * 16384 for _ in range(12800)]
    kept = blocks[::50]
    del blocks
    before = allocator.reading()
    seconds, returned = allocator.trim()
    answers.append((before['free'], before['retained'], returned, allocator.reading()['retained']))
print(json.dumps([allocator.name, answers]))
"""


@pytest.mark.skipif(not MODERN_GLIBC, reason="needs glibc 2.33 or later")
def test_a_trim_returns_what_was_predicted_though_free_stays_as_it_was() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STREWN],
        env={"PYTHONPATH": str(ROOT / "exporter")},
        capture_output=True,
        text=True,
    )
    name, answers = json.loads(done.stdout)
    assert name == "glibc"
    hold(answers)


def hold(answers: list[tuple[int, int, int, int]]) -> None:
    assert len(answers) == 2
    for free, predicted, returned, left in answers:
        assert free > 190_000_000
        assert predicted == pytest.approx(returned, rel=0.05)
        assert returned > 180_000_000
        assert left < 5_000_000, "what a trim has returned must not be promised again"


class Library:
    """A libc with the symbols of a given allocator, and a malloc that lies in the file `home`."""

    def __init__(self, *names: str, home: str = "") -> None:
        for name in names:
            setattr(self, name, lambda *_: errno.ENOENT)
        if home:
            self.malloc = ctypes.CDLL(None).malloc
            self.dladdr = lambda _, found: setattr(found._obj, "dli_fname", home.encode()) or 1


@pytest.mark.parametrize(
    ("symbols", "name"),
    [
        (("mallctl", "mallinfo2", "gnu_get_libc_version"), "jemalloc"),
        (("MallocExtension_GetNumericProperty", "mallinfo2"), "tcmalloc"),
        (("tc_version",), "tcmalloc"),
        (("malloc_zone_pressure_relief",), "macos"),
        (("mallinfo2", "malloc_trim", "gnu_get_libc_version"), "unknown"),
        ((), "unknown"),
    ],
)
def test_another_allocator_is_never_taken_for_glibc(symbols: tuple[str, ...], name: str) -> None:
    assert allocators.find(Library(*symbols)).name == name  # type: ignore[arg-type]  # only its symbols are looked at


@pytest.mark.parametrize(
    ("library", "name", "reason"),
    [
        (Library("malloc_trim", home="/lib/ld-musl-x86_64.so.1"), "musl", "musl has no malloc_trim"),
        (Library("malloc_zone_pressure_relief"), "macos", "malloc is macos: only glibc's, jemalloc's and tcmalloc's"),
        (Library(home="/lib/libmimalloc.so.2"), "unknown", "malloc is unknown: only glibc's"),
        (Library("tc_version"), "tcmalloc", "this tcmalloc has no MallocExtension"),
    ],
)  # fmt: skip
def test_what_cannot_be_trimmed_says_why(library: Library, name: str, reason: str) -> None:
    allocator = Allocator(Statm(), library)  # type: ignore[arg-type]  # as above
    reading = allocator.reading()
    assert (reading["status"], reading["name"]) == ("unsupported", name)
    assert str(reading["reason"]).startswith(reason)
    assert not allocator.trims
    assert allocator.free_now() is None


def test_a_jemalloc_without_statistics_tells_nothing_and_an_old_one_says_that_it_purges_nothing() -> None:
    allocator = Allocator(Statm(), Library("mallctl"))  # type: ignore[arg-type]  # as above
    assert allocator.reading()["reason"] == "this jemalloc was built without statistics"
    assert allocator.trims
    with pytest.raises(OSError, match="jemalloc purges nothing: No such file"):
        allocator.trim()


PRELOADED = [("libjemalloc.so.2", "jemalloc"), ("libtcmalloc_minimal.so.4", "tcmalloc")]


@pytest.mark.real
@pytest.mark.parametrize(("library", "name"), PRELOADED)
def test_a_preloaded_allocator_gives_back_what_was_predicted_through_its_own_call(
    library: str, name: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STREWN],
        env={"PYTHONPATH": str(ROOT / "exporter"), "LD_PRELOAD": library},
        capture_output=True,
        text=True,
    )
    assert done.stderr == "", f"{library} is missing (tests/apt.txt)"
    told, answers = json.loads(done.stdout)
    assert told == name
    hold(answers)


ARENAS = """
import json, threading
from oomguard.hook.allocator import Allocator
from oomguard.hook.statm import Statm
statm = Statm(); statm.open()
def work():
    block = bytearray(4096)
    filled.wait()
    ended.wait()
filled, ended = threading.Barrier(5), threading.Event()
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
filled.wait()
reading = Allocator(statm).reading()
ended.set()
print(json.dumps([reading[key] for key in ("arenas", "arena_max", "trim_threshold")]))
"""


@pytest.mark.skipif(not MODERN_GLIBC, reason="needs glibc 2.33 or later")
@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({}, [None, None]),
        ({"MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "65536"}, [2, 65536]),
        ({"GLIBC_TUNABLES": "glibc.malloc.arena_max=2:glibc.malloc.trim_threshold=0x10000"}, [2, 65536]),
    ],
)
def test_arenas_are_counted_and_what_the_environment_sets_is_told(
    environ: dict[str, str], told: list[int | None]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ARENAS],
        env={"PYTHONPATH": str(ROOT / "exporter"), **environ},
        capture_output=True,
        text=True,
    )
    arenas, *settings = json.loads(done.stdout)
    assert settings == told
    assert arenas == 2 if environ else 1 < arenas <= 5


@pytest.mark.skipif(not MODERN_GLIBC, reason="needs glibc 2.33 or later")
def test_a_glibc_without_mallinfo2_is_unsupported_but_can_trim(monkeypatch: pytest.MonkeyPatch) -> None:
    class OldGlibc(ctypes.CDLL):
        def __getattr__(self, name: str) -> object:
            if name == "mallinfo2":
                raise AttributeError(name)
            return super().__getattr__(name)

    allocator = Allocator(Statm(), OldGlibc(None))
    assert allocator.reading() == {
        "status": "unsupported", "name": "glibc", "reason": "glibc before 2.33 has no mallinfo2",
    }  # fmt: skip
    assert allocator.trims


def test_resident_memory_is_unknown_without_a_statm(tmp_path: Path) -> None:
    statm = Statm()
    statm.open()
    assert (statm.anonymous() or 0) > 1_000_000
    statm.close()


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="this system has no Python of its own")
@pytest.mark.skipif(not MODERN_GLIBC, reason="needs glibc 2.33 or later")
def test_a_python_that_is_not_position_independent_runs_on_glibc_too() -> None:
    """Debian's: there the address of malloc is one of the program's own."""
    package = Path(allocators.__file__).parents[3]
    script = (
        f"import sys; sys.path.insert(0, {str(package)!r}); import ctypes; "
        "from oomguard.hook import allocators; print(allocators.find(ctypes.CDLL(None)).name)"
    )
    said = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", script], capture_output=True, text=True, check=True
    )
    assert said.stdout == "glibc\n"
