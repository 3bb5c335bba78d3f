"""The kernel's count of OOM kills, from recorded files; tests/e2e has real kills."""

from __future__ import annotations

import pytest

from oomguard.hook.oomkills import OomKills

VMSTAT = "nr_free_pages 5\noom_kill 41\npgfault 7\n"


@pytest.fixture
def tree(tmp_path):
    """A function that writes files and returns the counter that reads them."""

    def make(files):
        for name, content in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        return OomKills(proc=str(tmp_path / "proc"), cgroups=str(tmp_path / "cgroup"))

    return make


def test_version_2_counts_in_memory_events(tree):
    kills = tree(
        {
            "proc/self/cgroup": "0::/app.slice/svc\n",
            "proc/vmstat": VMSTAT,
            "cgroup/app.slice/svc/memory.events": "low 0\nhigh 3\nmax 9\noom 2\noom_kill 2\noom_group_kill 1\n",
            "cgroup/app.slice/svc/memory.oom.group": "0\n",
            "cgroup/app.slice/memory.oom.group": "0\n",
        }
    )
    assert kills.count() == 2
    assert kills.group_kill() is False


def test_a_group_kill_of_a_group_above_counts(tree):
    kills = tree(
        {
            "proc/self/cgroup": "0::/pod/app\n",
            "cgroup/pod/app/memory.oom.group": "0\n",
            "cgroup/pod/memory.oom.group": "1\n",
        }
    )
    assert kills.group_kill() is True


def test_a_container_sees_its_own_group_as_the_root(tree):
    files = {"cgroup/memory.events": "oom_kill 3\n", "cgroup/memory.oom.group": "1\n"}
    for path in ("/", "/../../app", "/kubepods/pod1/app"):
        kills = tree({"proc/self/cgroup": f"0::{path}\n", **files})
        assert (kills.count(), kills.group_kill()) == (3, True)


def test_version_1_counts_in_oom_control_and_kills_one_process(tree):
    kills = tree(
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/a\n4:memory:/b:c\n0::/\n",
            "cgroup/memory/b:c/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n",
        }
    )
    assert kills.count() == 7
    assert kills.group_kill() is False


def test_without_a_memory_controller_the_machine_counts(tree):
    kills = tree({"proc/self/cgroup": "0::/\n", "proc/vmstat": VMSTAT})
    assert kills.count() == 41
    assert kills.group_kill() is None


def test_where_nothing_tells_nothing_is_known(tree):
    assert tree({}).count() is None
    assert tree({}).group_kill() is None
    assert tree({"proc/self/cgroup": "nonsense\n::\n"}).count() is None
