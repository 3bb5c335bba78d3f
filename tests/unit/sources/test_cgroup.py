import shutil

import pytest
from trees import MIB, TREES

from oomguard.model import CgroupEvents, CpuThrottling, Status
from oomguard.sources.cgroup import Cgroup
from oomguard.sources.cgroup.files import parse_limit
from oomguard.sources.cgroup.locate import parse_cgroup, parse_mounts
from oomguard.sources.cgroup.pressure import parse_pressure

V2_BOX = "sys/fs/cgroup/box"
V1_BOX = "sys/fs/cgroup/memory/box"


def cgroup(tree, pid):
    return Cgroup(pid, proc=tree / "proc", root=tree)


@pytest.fixture
def copied(tmp_path):
    """A function that copies a recorded tree, so that a test may change it."""

    def copy(name):
        return shutil.copytree(TREES / name, tmp_path / name)

    return copy


@pytest.mark.parametrize(
    ("tree", "pid", "version", "path", "limit"),
    [
        ("hybrid-host", 41, 1, V1_BOX, 512 * MIB),
        ("v1-container", 1, 1, "sys/fs/cgroup/memory", 512 * MIB),
        ("v1-sidecar", 1, 1, "proc/1/root/sys/fs/cgroup/memory", 512 * MIB),
        ("v2-host", 41, 2, V2_BOX, 256 * MIB),
        ("v2-namespace", 41, 2, "sys/fs/cgroup", 128 * MIB),
        ("v2-sidecar", 41, 2, "proc/41/root/sys/fs/cgroup", 128 * MIB),
    ],
)
def test_the_limiting_cgroup_is_found(tree, pid, version, path, limit):
    memory = cgroup(TREES / tree, pid).memory().value
    assert (memory.version, memory.path, memory.limit) == (version, str(TREES / tree / path), limit)
    assert 0 < memory.used <= memory.usage < limit
    assert memory.usage <= memory.peak


def test_v1_counters_are_those_that_include_the_descendants():
    memory = cgroup(TREES / "hybrid-host", 41).memory().value
    # The process lives in box/inner: box's own counters are zero.
    assert memory.anon > 30 * MIB
    assert memory.inactive_file + memory.active_file > 19 * MIB
    assert memory.shmem > 5 * MIB
    assert memory.used == memory.usage - memory.active_file - memory.inactive_file
    assert memory.slab_reclaimable is None


def test_v2_counters_and_memory_high_are_read():
    memory = cgroup(TREES / "v2-host", 41).memory().value
    assert memory.anon > 30 * MIB
    assert memory.slab_reclaimable is not None
    assert memory.kernel is not None
    assert memory.high == 200 * MIB
    assert cgroup(TREES / "v2-namespace", 41).memory().value.high is None


@pytest.mark.parametrize("flagged", ["box", "box/inner"])
def test_a_group_that_the_kernel_kills_as_a_whole_is_known(tmp_path, flagged):
    root = tmp_path / "v2-host"
    shutil.copytree(TREES / "v2-host", root, symlinks=True)
    assert cgroup(root, 41).memory().value.kills_all is False
    (root / "sys/fs/cgroup" / flagged / "memory.oom.group").write_text("1\n")
    assert cgroup(root, 41).memory().value.kills_all is True


@pytest.mark.parametrize(("tree", "pid"), [("hybrid-host", 41), ("v2-host", 41), ("v1-sidecar", 1)])
def test_the_fast_reader_says_what_the_slow_one_says(tree, pid):
    source = cgroup(TREES / tree, pid)
    memory = source.memory().value
    fast = source.fast()
    assert fast.path == memory.path
    assert fast.read() == (memory.usage, memory.reclaimable, memory.inactive_file)
    fast.close()
    fast.close()
    with pytest.raises(OSError, match="descriptor"):
        fast.read()


def test_events_of_v2_and_of_v1():
    assert cgroup(TREES / "v2-host", 41).events().value == CgroupEvents(
        oom=0, oom_kill=0, high=0, max=0, failcnt=None
    )
    assert cgroup(TREES / "hybrid-host", 41).events().value == CgroupEvents(
        oom=None, oom_kill=0, high=None, max=None, failcnt=0
    )


def test_v1_kills_are_added_up_from_the_target_to_the_limiting_cgroup(copied):
    tree = copied("hybrid-host")
    for path, kills in ((V1_BOX + "/inner", 2), (V1_BOX, 1), ("sys/fs/cgroup/memory", 64)):
        (tree / path / "memory.oom_control").write_text(
            f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n"
        )
    assert cgroup(tree, 41).events().value.oom_kill == 3


def test_an_old_v1_kernel_without_the_counter_of_kills_leaves_it_unknown(copied):
    tree = copied("v1-container")
    control = tree / "sys/fs/cgroup/memory/memory.oom_control"
    control.write_text("oom_kill_disable 0\nunder_oom 0\n")
    assert cgroup(tree, 1).events().value.oom_kill is None


@pytest.mark.parametrize(
    ("outer", "inner", "limiting", "limit"),
    [
        ("300", "400", "", 300),
        ("400", "300", "/inner", 300),
        ("300", "300", "", 300),
        ("max", "300", "/inner", 300),
        ("300", "max", "", 300),
        ("max", "max", "/inner", None),
    ],
)
def test_v2_takes_the_tightest_limit_and_the_outermost_of_equals(copied, outer, inner, limiting, limit):
    tree = copied("v2-host")
    (tree / V2_BOX / "memory.max").write_text(outer)
    (tree / V2_BOX / "inner/memory.max").write_text(inner)
    memory = cgroup(tree, 41).memory().value
    assert (memory.path, memory.limit) == (str(tree / V2_BOX) + limiting, limit)


def test_v1_takes_the_outermost_of_equal_limits(copied):
    tree = copied("hybrid-host")
    (tree / V1_BOX / "inner/memory.limit_in_bytes").write_text(str(512 * MIB))
    assert cgroup(tree, 41).memory().value.path == str(tree / V1_BOX)
    (tree / V1_BOX / "inner/memory.limit_in_bytes").write_text(str(511 * MIB))
    assert cgroup(tree, 41).memory().value.path == str(tree / V1_BOX / "inner")


def test_a_path_that_climbs_out_of_our_mount_is_not_followed_there(copied):
    tree = copied("v2-sidecar")
    shutil.copytree(tree / "proc/41/root/sys/fs/cgroup", tree / "sys/fs/app")
    (tree / "sys/fs/cgroup").mkdir()
    assert cgroup(tree, 41).memory().value.path == str(tree / "proc/41/root/sys/fs/cgroup")


def test_a_limit_changed_in_place_is_seen_at_the_next_call(copied):
    tree = copied("v2-host")
    source = cgroup(tree, 41)
    assert source.memory().value.limit == 256 * MIB
    (tree / V2_BOX / "memory.max").write_text(str(1 << 30))
    assert source.memory().value.limit == 1 << 30


def test_the_changed_path_shows_that_another_ancestor_limits_now(copied):
    tree = copied("v2-host")
    source = cgroup(tree, 41)
    fast = source.fast()
    (tree / V2_BOX / "inner/memory.max").write_text(str(100 * MIB))
    assert source.memory().value.path == fast.path + "/inner"
    fast.close()


def test_v1_without_any_limit_still_has_its_usage(copied):
    tree = copied("v1-container")
    top = tree / "sys/fs/cgroup/memory"
    (top / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    stat = (top / "memory.stat").read_text()
    (top / "memory.stat").write_text(
        stat.replace(
            f"hierarchical_memory_limit {512 * MIB}", "hierarchical_memory_limit 9223372036854771712"
        )
    )
    memory = cgroup(tree, 1).memory().value
    assert memory.limit is None
    assert memory.usage > MIB


def test_v1_takes_a_hierarchical_limit_that_is_tighter_than_all_it_can_see(copied):
    tree = copied("v1-container")
    stat = tree / "sys/fs/cgroup/memory/memory.stat"
    old, new = f"hierarchical_memory_limit {512 * MIB}", f"hierarchical_memory_limit {100 * MIB}"
    assert old in stat.read_text()
    stat.write_text(stat.read_text().replace(old, new))
    memory = cgroup(tree, 1).memory().value
    assert (memory.limit, memory.path) == (100 * MIB, str(stat.parent))


def test_a_v2_leaf_without_the_controller_is_read_at_the_ancestor_that_has_it(copied):
    tree = copied("v2-host")
    for path in (tree / V2_BOX / "inner").glob("memory.*"):
        path.unlink()
    (tree / V2_BOX / "memory.max").write_text("max\n")
    memory = cgroup(tree, 41).memory().value
    assert (memory.path, memory.limit) == (str(tree / V2_BOX), None)


def test_v2_without_the_controller_anywhere_is_absent_for_memory_and_events(copied):
    tree = copied("v2-host")
    for path in tree.glob("sys/fs/cgroup/**/memory.*"):
        path.unlink()
    source = cgroup(tree, 41)
    assert source.memory().status is Status.ABSENT
    assert "no memory controller" in source.memory().reason
    assert source.events().status is Status.ABSENT
    assert source.fast() is None


def test_no_hierarchy_at_all_is_absent(copied):
    tree = copied("v2-host")
    (tree / "proc/41/cgroup").write_text("")
    assert cgroup(tree, 41).memory().status is Status.ABSENT


def test_a_process_that_is_gone_is_absent_for_all_but_the_machines_pressure(copied):
    tree = copied("hybrid-host")
    source = cgroup(tree, 41)
    assert source.memory().ok
    shutil.rmtree(tree / "proc/41")
    assert source.memory().reason == "process 41 has gone"
    assert {reading.status for reading in (source.memory(), source.events(), source.throttling())} == {
        Status.ABSENT
    }
    assert source.pressure().value.scope == "machine"
    assert source.fast() is None


def test_a_hidden_cgroup_fails_and_says_what_to_mount(copied):
    tree = copied("hybrid-host")
    for owner in ("self", "41"):
        (tree / "proc" / owner / "mountinfo").write_text("")
    reading = cgroup(tree, 41).memory()
    assert reading.status is Status.FAILED
    assert "v1 memory cgroup /box/inner" in reading.reason


@pytest.mark.parametrize("name", ["memory.current", "memory.stat", "memory.max"])
def test_an_unreadable_file_fails_with_its_path(copied, name):
    tree = copied("v2-host")
    path = tree / V2_BOX / name
    path.unlink()
    path.mkdir()
    reading = cgroup(tree, 41).memory()
    assert (reading.status, reading.value) == (Status.FAILED, None)
    assert str(path) in reading.reason


def test_a_file_of_garbage_fails(copied):
    tree = copied("v2-host")
    (tree / V2_BOX / "memory.current").write_text("many")
    assert cgroup(tree, 41).memory().status is Status.FAILED


def test_a_missing_statistic_is_not_taken_for_zero(copied):
    tree = copied("v2-host")
    (tree / V2_BOX / "memory.stat").write_text("anon 1\nfile 2\n")
    reading = cgroup(tree, 41).memory()
    assert not reading.ok
    assert "does not count file cache" in reading.reason


def test_a_directory_that_holds_other_processes_is_not_taken_for_the_targets(copied):
    tree = copied("v1-sidecar")
    # The sidecar's own mount shows a cgroup of the same path, of another machine.
    own = tree / "sys/fs/cgroup/memory"
    shutil.copytree(tree / "proc/1/root/sys/fs/cgroup/memory", own)
    (tree / "proc/self/mountinfo").write_bytes((tree / "proc/1/mountinfo").read_bytes())
    (own / "cgroup.procs").write_text("7\n8\n")
    assert cgroup(tree, 1).memory().value.path == str(tree / "proc/1/root/sys/fs/cgroup/memory")


@pytest.mark.parametrize("procs", ["0\n", "", "1\n0\n"])
def test_a_directory_whose_processes_are_in_another_pid_namespace_is_taken_by_its_path(copied, procs):
    tree = copied("v2-host")
    (tree / V2_BOX / "inner/cgroup.procs").write_text(procs)
    assert cgroup(tree, 41).memory().value.limit == 256 * MIB


def test_a_process_moved_to_another_cgroup_is_followed(copied):
    tree = copied("v2-host")
    source = cgroup(tree, 41)
    source.memory()
    shutil.copytree(tree / V2_BOX, tree / "sys/fs/cgroup/other")
    (tree / "sys/fs/cgroup/other/memory.max").write_text("77")
    (tree / "proc/41/cgroup").write_text("0::/other/inner\n")
    assert source.memory().value.limit == 77


def test_a_directory_that_vanished_is_looked_for_again(copied):
    tree = copied("v2-host")
    source = cgroup(tree, 41)
    assert source.memory().ok
    (tree / V2_BOX).rename(tree / "sys/fs/cgroup/aside")
    assert not source.memory().ok
    # The same path on another mount point, as after a remount.
    (tree / "sys/fs/cgroup").rename(tree / "sys/fs/unified")
    (tree / "sys/fs/unified/aside").rename(tree / "sys/fs/unified/box")
    for owner in ("self", "41"):
        mountinfo = tree / "proc" / owner / "mountinfo"
        mountinfo.write_text(mountinfo.read_text().replace("/sys/fs/cgroup", "/sys/fs/unified"))
    assert source.memory().value.path == str(tree / "sys/fs/unified/box")


def test_pressure_is_the_v2_cgroups_even_where_memory_is_v1(copied):
    tree = copied("hybrid-host")
    (tree / "sys/fs/cgroup/unified/box/memory.pressure").write_text(
        "some avg10=12.50 avg60=0.00 avg300=0.00 total=2500000\n"
        "full avg10=1.00 avg60=0.00 avg300=0.00 total=7\n"
    )
    pressure = cgroup(tree, 41).pressure().value
    assert (pressure.scope, pressure.some_seconds, pressure.some_avg10) == ("cgroup", 2.5, 0.125)
    assert (pressure.full_seconds, pressure.full_avg10) == (7e-6, 0.01)


def test_pressure_of_a_root_cgroup_is_called_the_machines(copied):
    tree = copied("hybrid-host")
    (tree / "proc/41/cgroup").write_text("4:memory:/box/inner\n0::/\n")
    assert cgroup(tree, 41).pressure().value.scope == "machine"


def test_pressure_without_psi_is_unsupported():
    assert cgroup(TREES / "v2-host", 41).pressure().status is Status.UNSUPPORTED


def test_pressure_of_an_old_kernel_has_no_full_line():
    pressure = parse_pressure(b"some avg10=0.00 avg60=0.00 avg300=0.00 total=9\n", "machine")
    assert (pressure.full_seconds, pressure.full_avg10) == (None, None)
    with pytest.raises(ValueError, match="no line some"):
        parse_pressure(b"", "machine")


def test_throttling_is_counted_where_the_quota_is(copied):
    tree = copied("v2-host")
    (tree / V2_BOX / "cpu.stat").write_text(
        "usage_usec 5\nnr_periods 9\nnr_throttled 4\nthrottled_usec 2500000\nnr_bursts 0\n"
    )
    assert cgroup(tree, 41).throttling().value == CpuThrottling(9, 4, 2.5)
    v1 = copied("hybrid-host")
    (v1 / "sys/fs/cgroup/cpu/box/cpu.stat").write_text(
        "nr_periods 9\nnr_throttled 4\nthrottled_time 2500000000\n"
    )
    assert cgroup(v1, 41).throttling().value == CpuThrottling(9, 4, 2.5)


def test_of_two_quotas_the_tighter_one_counts(copied):
    tree = copied("v2-host")
    for path, quota, throttled in ((V2_BOX, 50000, 4), (V2_BOX + "/inner", 80000, 9)):
        (tree / path / "cpu.max").write_text(f"{quota} 100000\n")
        (tree / path / "cpu.stat").write_text(f"nr_periods 10\nnr_throttled {throttled}\nthrottled_usec 1\n")
    assert cgroup(tree, 41).throttling().value.throttled_periods == 4
    (tree / V2_BOX / "inner/cpu.max").write_text("20000 100000\n")
    assert cgroup(tree, 41).throttling().value.throttled_periods == 9


@pytest.mark.parametrize(("tree", "pid"), [("v2-namespace", 41), ("v1-container", 1)])
def test_throttling_without_a_quota_is_absent(tree, pid):
    assert cgroup(TREES / tree, pid).throttling().status is Status.ABSENT


def test_no_limit_is_spelled_in_several_ways():
    spelled = (b"max\n", b"9223372036854771712\n", b"9223372036854710272\n", b"9223372036854775807")
    assert {parse_limit(text) for text in spelled} == {None}
    assert parse_limit(b"536870912\n") == 512 * MIB


def test_controllers_that_share_a_hierarchy_and_paths_with_colons_are_read():
    paths = parse_cgroup(b"5:cpu,cpuacct:/a:b\n1:name=systemd:/x\n0::/../other (deleted)\n")
    assert paths == {"cpu": "/a:b", "cpuacct": "/a:b", "name=systemd": "/x", "": "/../other"}


def test_mount_points_are_unescaped_and_other_file_systems_passed_over():
    mounts = parse_mounts(
        b"30 25 0:27 / /dev/shm rw - tmpfs tmpfs rw\n"
        b"35 31 0:32 /docker/a\\040b /mnt/c\\134d\\040e rw shared:9 - cgroup cgroup rw,memory,hugetlb\n"
        b"41 31 0:38 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
    )
    assert [(mount.version, mount.root, mount.point) for mount in mounts] == [
        (2, "/", "/sys/fs/cgroup"),
        (1, "/docker/a b", "/mnt/c\\d e"),
    ]
    assert {"memory", "hugetlb"} <= mounts[1].controllers
