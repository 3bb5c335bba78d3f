"""malloc's own account, and what a trim is expected to return."""

from __future__ import annotations

import ctypes
import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from oomguard.hook import allocator
from oomguard.hook.allocator import Allocator
from oomguard.hook.statm import Statm

ROOT = Path(__file__).resolve().parents[3]
MODERN_GLIBC = platform.libc_ver()[0] == "glibc" and hasattr(ctypes.CDLL(None), "mallinfo2")

STREWN = """
import ctypes, json
from oomguard.hook import allocator
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
print(json.dumps(answers))
"""


@pytest.mark.skipif(not MODERN_GLIBC, reason="needs glibc 2.33 or later")
def test_a_trim_returns_what_was_predicted_though_free_stays_as_it_was() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STREWN],
        env={"PYTHONPATH": str(ROOT / "exporter")},
        capture_output=True,
        text=True,
    )
    for free, predicted, returned, left in json.loads(done.stdout):
        assert free > 190_000_000
        assert predicted == pytest.approx(returned, rel=0.05)
        assert returned > 180_000_000
        assert left < 5_000_000, "what a trim has returned must not be promised again"


class Library:
    """A libc with the symbols of a given allocator, and a malloc that nobody can place."""

    def __init__(self, *names: str) -> None:
        for name in names:
            setattr(self, name, None)


@pytest.mark.parametrize(
    ("symbols", "name"),
    [
        (("mallctl", "mallinfo2", "gnu_get_libc_version"), "jemalloc"),
        (("MallocExtension_GetNumericProperty", "mallinfo2"), "tcmalloc"),
        (("tc_version",), "tcmalloc"),
        (("mallinfo2", "malloc_trim", "gnu_get_libc_version"), "unknown"),
        ((), "unknown"),
    ],
)
def test_another_allocator_is_never_taken_for_glibc(symbols: tuple[str, ...], name: str) -> None:
    allocator = Allocator(Statm(), Library(*symbols))  # type: ignore[arg-type]  # only its symbols are looked at
    reading = allocator.reading()
    assert (reading["status"], reading["name"]) == ("unsupported", name)
    assert not allocator.trims
    assert allocator.free_now() is None


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
    package = Path(allocator.__file__).parents[2]
    script = (
        f"import sys; sys.path.insert(0, {str(package)!r}); import ctypes; "
        "from oomguard.hook import allocator; print(allocator._name(ctypes.CDLL(None)))"
    )
    said = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", script], capture_output=True, text=True, check=True
    )
    assert said.stdout == "glibc\n"
