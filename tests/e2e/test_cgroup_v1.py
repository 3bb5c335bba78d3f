"""The sources in real cgroup v1 boxes on this machine, and in containers."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.boxes import MIB, BoxV1, podman_pid, podman_run, podman_store

from oomguard.model import Status
from oomguard.sources.cgroup import Cgroup

pytestmark = pytest.mark.real

EAT = "import sys; blocks = [bytearray(b'x') * (1 << 20) for _ in range(int(sys.argv[1]))]"
CACHE = """
import sys, time
with open(sys.argv[1], "wb") as file:
    for _ in range(int(sys.argv[2])):
        file.write(b"x" * (1 << 20))
        file.flush()
print("done", flush=True)
time.sleep(1000)
"""
READ = """
import dataclasses, json, os, sys
from oomguard.sources.cgroup import Cgroup
from oomguard.sources import tree, machine, procfs, smaps
if len(sys.argv) > 2:
    os.setgroups([]); os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
source = Cgroup(int(sys.argv[1]))
fast = source.fast()
print(json.dumps({
    "fast": fast and [fast.path, *fast.read()],
    **{name: dataclasses.asdict(getattr(source, name)()) for name in ("memory", "events", "pressure")},
}, default=lambda status: status.value), flush=True)
"""


@pytest.fixture
def sleeper():
    """A function that starts an idle process in a box."""
    started = []

    def start(box):
        started.append(box.run(["sleep", "1000"]))
        return Cgroup(started[-1].pid)

    yield start
    for process in started:
        process.kill()
        process.wait()


def eat(box, mebibytes):
    """Allocate that much in a box; the exit status."""
    return box.run([sys.executable, "-c", EAT, str(mebibytes)]).wait(timeout=60)


def settled(read, wanted, timeout=10.0):
    """What `read` gives once it has what is wanted; joining a box happens a moment after the start."""
    deadline = time.monotonic() + timeout
    while True:
        value = read()
        if wanted(value) or time.monotonic() > deadline:
            return value
        time.sleep(0.02)


def in_box(source, box):
    return settled(source.memory, lambda reading: reading.ok and reading.value.path == str(box.path)).value


def test_a_real_oom_kill_is_counted_and_the_box_is_read(sleeper):
    with BoxV1(64 * MIB, memsw=128 * MIB) as box:
        source = sleeper(box)
        memory = in_box(source, box)
        assert (memory.version, memory.limit) == (1, 64 * MIB)
        assert source.events().value.oom_kill == 0
        assert eat(box, 200) == -9
        events = source.events().value
        assert events.oom_kill == box.oom_kills() == 1
        assert events.failcnt > 0
        assert source.memory().value.peak >= 63 * MIB


def test_a_limit_changed_in_place_is_seen(sleeper):
    with BoxV1(64 * MIB) as box:
        source = sleeper(box)
        assert in_box(source, box).limit == 64 * MIB
        (box.path / "memory.memsw.limit_in_bytes").write_text("-1")
        box.set_limit(96 * MIB)
        assert source.memory().value.limit == 96 * MIB


def test_an_ancestors_limit_is_the_limit_and_its_kill_is_counted(sleeper):
    with BoxV1(64 * MIB, memsw=128 * MIB) as outer, BoxV1(parent=outer) as inner:
        source = sleeper(inner)
        memory = in_box(source, outer)
        assert memory.limit == 64 * MIB
        fast = source.fast()
        assert fast.path == str(outer.path)
        fast.close()
        assert eat(inner, 200) == -9
        # The kernel counts it where the victim lived, although the ancestor was full.
        assert (outer.oom_kills(), inner.oom_kills()) == (0, 1)
        assert source.events().value.oom_kill == 1
        assert source.events().value.failcnt > 0


def test_a_tighter_limit_of_the_inner_box_wins_and_may_come_later(sleeper):
    with BoxV1(64 * MIB) as outer, BoxV1(parent=outer) as inner:
        source = sleeper(inner)
        in_box(source, outer)
        inner.set_limit(32 * MIB)
        memory = source.memory().value
        assert (memory.path, memory.limit) == (str(inner.path), 32 * MIB)


def test_page_cache_fills_the_box_while_used_stays_low(tmp_path):
    with BoxV1(128 * MIB) as box:
        writer = box.run([sys.executable, "-c", CACHE, str(tmp_path / "big"), "400"], stdout=subprocess.PIPE)
        assert writer.stdout.readline() == b"done\n"
        source = Cgroup(writer.pid)
        memory = source.memory().value
        assert memory.usage > 110 * MIB
        assert memory.used < 40 * MIB
        assert memory.reclaimable > 80 * MIB
        fast = source.fast()
        usage, reclaimable, _ = fast.read()
        assert usage - reclaimable < 40 * MIB
        fast.close()
        assert source.events().value.oom_kill == 0
        writer.kill()
        writer.communicate()


def test_300_mb_in_dev_shm_are_shared_memory_and_not_reclaimable():
    with BoxV1(512 * MIB) as box:
        path = Path(f"/dev/shm/{box.name}")
        try:
            writer = box.run([sys.executable, "-c", CACHE, str(path), "300"], stdout=subprocess.PIPE)
            assert writer.stdout.readline() == b"done\n"
            memory = Cgroup(writer.pid).memory().value
            assert 299 * MIB <= memory.shmem < 320 * MIB
            assert memory.used >= 300 * MIB
            assert memory.reclaimable < 20 * MIB
            writer.kill()
            writer.communicate()
        finally:
            path.unlink(missing_ok=True)


def test_a_process_that_is_moved_is_followed_and_a_removed_cgroup_ends_the_fast_reader(sleeper):
    with BoxV1(96 * MIB) as other:
        with BoxV1(64 * MIB) as box:
            source = sleeper(box)
            in_box(source, box)
            fast = source.fast()
            assert fast.read()[0] > 0
            other.join(source._pid)
            memory = source.memory().value
            assert (memory.path, memory.limit) == (str(other.path), 96 * MIB)
        with pytest.raises(OSError, match="No such device"):
            fast.read()
        fast.close()


def test_a_cpu_quota_shows_as_throttling():
    with BoxV1(64 * MIB, cpus=0.2) as box:
        spinner = box.run([sys.executable, "-c", "while True: pass"])
        source = Cgroup(spinner.pid)
        throttling = settled(
            source.throttling, lambda reading: reading.ok and reading.value.throttled_periods > 2
        )
        assert throttling.value.throttled_seconds > 0
        assert throttling.value.periods >= throttling.value.throttled_periods
        spinner.kill()
        spinner.wait()


@pytest.fixture(scope="module")
def app():
    """A container with a limit of 128 MiB that reads its own cgroup and then stays; (store, its reading)."""
    with podman_store() as store:
        process = container(store, "app", "1", "; import time; time.sleep(1000)", memory="128m")
        line = process.stdout.readline()
        assert line, process.communicate(timeout=30)[1]
        yield store, json.loads(line)
        process.kill()


def container(store, name, argument, more="", *, memory, options=()):
    path = ":".join(entry for entry in sys.path if entry)
    return podman_run(
        [sys.executable, "-c", READ + more.lstrip("; "), *argument.split()],
        store=store,
        name=name,
        memory=memory,
        options=("--env", f"PYTHONPATH={path}", "--env", "PYTHONDONTWRITEBYTECODE=1", *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def sidecar(store, argument):
    process = container(store, "sidecar", argument, memory="64m", options=("--pid", "container:app"))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return json.loads(out)


def test_a_container_reads_its_own_limit_from_inside(app):
    _, seen = app
    assert seen["memory"]["value"]["limit"] == 128 * MIB
    assert seen["memory"]["value"]["path"] == "/sys/fs/cgroup/memory"
    assert seen["fast"][1] > 0
    assert seen["events"]["value"]["oom_kill"] == 0
    assert seen["pressure"]["status"] == "ok"


def test_a_sidecar_container_reads_the_targets_cgroup_and_not_its_own(app):
    store, _ = app
    seen = sidecar(store, "1")
    assert seen["memory"]["value"]["limit"] == 128 * MIB
    assert seen["memory"]["value"]["path"] == "/proc/1/root/sys/fs/cgroup/memory"
    assert seen["fast"][0] == seen["memory"]["value"]["path"]


def test_a_sidecar_of_another_user_is_told_how_to_mend_it(app):
    store, _ = app
    seen = sidecar(store, "1 65534")
    assert seen["memory"]["status"] == "failed"
    assert "permission denied; run oomguard with the target's uid and gid" in seen["memory"]["reason"]
    assert seen["fast"] is None


def test_the_host_reads_the_container(app):
    store, _ = app
    reading = Cgroup(podman_pid("app", store=store)).memory()
    assert reading.status is Status.OK
    assert reading.value.limit == 128 * MIB
    assert store.name in reading.value.path
