"""The sources on a real cgroup v2 memory controller, in a user-mode kernel that boots once for all tests."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests.support.boxes import MIB, run_in_uml

pytestmark = pytest.mark.real

# Runs inside the guest: plays each scene and prints what the sources said of it.
GUEST = """
import dataclasses, json, os, subprocess, sys, time
from pathlib import Path

from oomguard.sources.cgroup import Cgroup

MIB = 1 << 20
TOP = Path("/sys/fs/cgroup")
EAT = "import sys; blocks = [bytearray(b'x') * (1 << 20) for _ in range(int(sys.argv[1]))]"
CACHE = '''
import sys, time
file = open(sys.argv[1], "wb")
for _ in range(int(sys.argv[2])):
    file.write(b"x" * (1 << 20)); file.flush()
# hostfs drops the cache of a file that nobody holds open.
print("done", flush=True)
time.sleep(1000)
'''
scenes = {}


def box(name, controllers=False, **files):
    path = TOP / name
    path.mkdir()
    for key, value in files.items():
        (path / key.replace("_", ".")).write_text(str(value))
    if controllers:
        (path / "cgroup.subtree_control").write_text("+memory +cpu")
    return path


def run(path, *argv, **kw):
    return subprocess.Popen(["sh", "-c", f'echo $$ > {path}/cgroup.procs && exec "$@"', "box", *argv], **kw)


def idle(path):
    process = run(path, "sleep", "1000")
    while str(process.pid) not in (path / "cgroup.procs").read_text().split():
        time.sleep(0.02)
    return process, Cgroup(process.pid)


def eat(path, size):
    return run(path, sys.executable, "-c", EAT, str(size)).wait()


def said(source):
    fast = source.fast()
    names = ("memory", "events", "throttling", "pressure")
    result = {name: dataclasses.asdict(getattr(source, name)()) for name in names}
    result["fast"] = fast and [fast.path, *fast.read()]
    return result


def scene(name, source, **more):
    scenes[name] = {**said(source), **more}


def oom_kill():
    path = box("kill", memory_max=64 * MIB)
    _, source = idle(path)
    before = said(source)["events"]["value"]
    status = eat(path, 200)
    scene("kill", source, before=before, status=status)


def resized():
    path = box("resized", memory_max=64 * MIB, memory_high=48 * MIB)
    _, source = idle(path)
    before = said(source)["memory"]["value"]
    (path / "memory.max").write_text(str(96 * MIB))
    (path / "memory.high").write_text("max")
    scene("resized", source, before=before)


def ancestor():
    outer = box("outer", memory_max=64 * MIB, controllers=True)
    inner = box("outer/inner")
    _, source = idle(inner)
    status = eat(inner, 200)
    scene("ancestor", source, status=status)
    (inner / "memory.max").write_text(str(32 * MIB))
    scene("tighter", source)


def cache():
    path = box("cache", memory_max=64 * MIB)
    writer = run(path, sys.executable, "-c", CACHE, sys.argv[1] + "/big", "300", stdout=subprocess.PIPE)
    writer.stdout.readline()
    scene("cache", Cgroup(writer.pid))
    writer.kill(); writer.wait()


def shared():
    path = box("shared", memory_max=400 * MIB)
    writer = run(path, sys.executable, "-c", CACHE, "/dev/shm/block", "300", stdout=subprocess.PIPE)
    writer.stdout.readline()
    scene("shared", Cgroup(writer.pid))
    writer.kill(); writer.wait()
    os.unlink("/dev/shm/block")


def moved():
    one, two = box("one", memory_max=64 * MIB), box("two", memory_max=96 * MIB)
    process, source = idle(one)
    before = said(source)["memory"]["value"]["limit"]
    fast = source.fast()
    (two / "cgroup.procs").write_text(str(process.pid))
    one.rmdir()
    try:
        gone = str(fast.read())
    except OSError as error:
        gone = error.strerror
    scene("moved", source, before=before, gone=gone)


def namespaces():
    # A target and a sidecar in cgroup namespaces of their own, each with its own mount.
    for name, limit in (("app", 128 * MIB), ("side", 32 * MIB)):
        box(name, memory_max=limit)
    own = "umount /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && "
    target = run(TOP / "app", "unshare", "-C", "-m", "sh", "-c", own + "exec sleep 1000", cwd="/")
    time.sleep(1)
    read = [sys.executable, __file__, "read", str(target.pid)]
    inside = subprocess.Popen(
        ["nsenter", "-t", str(target.pid), "-C", "-m", *read], cwd="/", stdout=subprocess.PIPE
    )
    sidecar = run(
        TOP / "side", "unshare", "-C", "-m", "sh", "-c", own + 'exec "$@"', "sh", *read,
        cwd="/", stdout=subprocess.PIPE,
    )
    scenes["inside"] = json.loads(inside.communicate()[0])
    scenes["sidecar"] = json.loads(sidecar.communicate()[0])


def leaf_without_controller():
    box("plain")
    box("plain/leaf")
    _, source = idle(TOP / "plain/leaf")
    scene("leaf", source)


def quota():
    path = box("quota", cpu_max="10000 100000", controllers=True)
    inner = box("quota/inner")
    spinner = run(inner, sys.executable, "-c", "while True: pass")
    time.sleep(2)
    scene("quota", Cgroup(spinner.pid))
    spinner.kill(); spinner.wait()


if sys.argv[1] == "read":
    print(json.dumps(said(Cgroup(int(sys.argv[2]))), default=lambda status: status.value))
else:
    oom_kill()
    resized()
    ancestor()
    cache()
    shared()
    moved()
    namespaces()
    leaf_without_controller()
    quota()
    scene("root", Cgroup(os.getpid()))
    Path(sys.argv[1], "scenes.json").write_text(json.dumps(scenes, default=lambda status: status.value))
    print("played")
"""


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guest")
    script = folder / "guest.py"
    script.write_text(GUEST)
    path = ":".join(str(Path(entry).resolve()) for entry in sys.path if entry)
    code, output = run_in_uml(
        f"cd /; PYTHONPATH={path} PYTHONDONTWRITEBYTECODE=1 timeout 150 {sys.executable} {script} {folder}",
        timeout=240,
    )
    assert code == 0, output
    return json.loads((folder / "scenes.json").read_text())


def used(memory):
    reclaimable = memory["active_file"] + memory["inactive_file"] + memory["slab_reclaimable"]
    return memory["usage"] - reclaimable


def test_a_real_oom_kill_is_counted(scenes):
    scene = scenes["kill"]
    assert scene["status"] == -9
    assert scene["before"]["oom_kill"] == 0
    events = scene["events"]["value"]
    assert events["oom_kill"] == 1
    assert events["oom"] >= 1
    assert events["max"] > 0
    assert events["failcnt"] is None
    assert scene["memory"]["value"]["limit"] == 64 * MIB
    assert scene["memory"]["value"]["peak"] >= 63 * MIB


def test_a_limit_and_memory_high_changed_in_place_are_seen(scenes):
    scene = scenes["resized"]
    assert (scene["before"]["limit"], scene["before"]["high"]) == (64 * MIB, 48 * MIB)
    assert (scene["memory"]["value"]["limit"], scene["memory"]["value"]["high"]) == (96 * MIB, None)


def test_an_ancestors_limit_is_the_limit_and_its_kill_is_counted(scenes):
    scene = scenes["ancestor"]
    assert scene["status"] == -9
    memory = scene["memory"]["value"]
    assert (memory["path"], memory["limit"]) == ("/sys/fs/cgroup/outer", 64 * MIB)
    assert scene["fast"][0] == memory["path"]
    assert scene["events"]["value"]["oom_kill"] == 1


def test_a_tighter_limit_of_the_inner_cgroup_wins(scenes):
    memory = scenes["tighter"]["memory"]["value"]
    assert (memory["path"], memory["limit"]) == ("/sys/fs/cgroup/outer/inner", 32 * MIB)


def test_page_cache_fills_the_box_while_used_stays_low(scenes):
    scene = scenes["cache"]
    memory = scene["memory"]["value"]
    assert memory["usage"] > 50 * MIB
    assert used(memory) < 25 * MIB
    assert scene["events"]["value"]["oom_kill"] == 0
    _, usage, reclaimable, inactive = scene["fast"]
    assert usage - reclaimable < 25 * MIB
    assert inactive <= reclaimable


def test_300_mb_in_dev_shm_are_shared_memory_and_not_reclaimable(scenes):
    memory = scenes["shared"]["memory"]["value"]
    assert 299 * MIB <= memory["shmem"] < 320 * MIB
    assert used(memory) >= 300 * MIB


def test_a_moved_process_is_followed_and_a_removed_cgroup_ends_the_fast_reader(scenes):
    scene = scenes["moved"]
    assert scene["before"] == 64 * MIB
    assert scene["memory"]["value"]["limit"] == 96 * MIB
    assert scene["gone"] == "No such device"


@pytest.mark.parametrize(("name", "path"), [("inside", "/sys/fs/cgroup"), ("sidecar", "/proc/")])
def test_the_targets_cgroup_is_read_across_cgroup_namespaces(scenes, name, path):
    memory = scenes[name]["memory"]
    assert memory["status"] == "ok", memory["reason"]
    assert memory["value"]["limit"] == 128 * MIB
    assert memory["value"]["path"].startswith(path)
    assert memory["value"]["path"].endswith("/sys/fs/cgroup")


def test_a_leaf_without_the_controller_has_no_limit_but_a_usage(scenes):
    memory = scenes["leaf"]["memory"]["value"]
    assert (memory["path"], memory["limit"]) == ("/sys/fs/cgroup/plain", None)
    assert memory["usage"] > 0


def test_the_quota_of_an_ancestor_shows_as_throttling(scenes):
    throttling = scenes["quota"]["throttling"]["value"]
    assert throttling["throttled_periods"] > 2
    assert throttling["throttled_seconds"] > 0
    assert scenes["kill"]["throttling"]["status"] == "absent"


def test_a_process_in_the_root_cgroup_has_no_memory_controller(scenes):
    assert scenes["root"]["memory"]["status"] == "absent"
    assert scenes["root"]["fast"] is None


def test_this_kernel_without_psi_is_unsupported(scenes):
    assert scenes["root"]["pressure"]["status"] == "unsupported"
