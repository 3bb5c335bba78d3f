import pytest
from family import FileTree

from oomguard.sources import scan
from oomguard.sources.scan import ROTATION, Scanner


@pytest.fixture
def proc(tmp_path):
    tree = FileTree(tmp_path / "proc")
    tree.add(1, 0)
    return tree


def test_descendants_are_members_and_nobody_else_is(proc):
    root = proc.add(10, 1)
    for pid, ppid in ((11, 10), (12, 11), (20, 1), (21, 20)):
        proc.add(pid, ppid)
    assert set(Scanner(proc.path, None, frozenset()).scan(root)) == {10, 11, 12}


def test_an_orphan_that_was_seen_as_a_member_stays_one_with_its_children(proc):
    root = proc.add(10, 1)
    proc.add(11, 10)
    proc.add(12, 11)
    scanner = Scanner(proc.path, None, frozenset())
    scanner.scan(root)
    proc.remove(11)
    proc.add(12, 1)
    proc.add(13, 12)
    assert set(scanner.scan(root)) == {10, 12, 13}


def test_a_child_whose_parent_died_between_the_scans_is_still_a_member(proc):
    root = proc.add(10, 1)
    proc.add(11, 10)
    scanner = Scanner(proc.path, None, frozenset())
    scanner.scan(root)
    proc.remove(11)
    proc.add(12, 11)  # read before the kernel gave it another parent
    assert set(scanner.scan(root)) == {10, 12}


def test_a_process_of_an_unknown_parent_is_asked_again(proc):
    root = proc.add(10, 1)
    proc.add(12, 11)
    scanner = Scanner(proc.path, 5, frozenset())
    proc.add(5, 1)
    assert set(scanner.scan(root)) == {10}
    proc.add(12, 5)
    assert set(scanner.scan(root)) == {10, 12}


def test_all_descendants_of_the_subreaper_are_members_but_the_excluded_and_theirs(proc):
    proc.add(5, 1)
    root = proc.add(10, 5)
    for pid, ppid in ((6, 5), (7, 6), (11, 10), (30, 5), (31, 30)):
        proc.add(pid, ppid)
    scanner = Scanner(proc.path, 5, frozenset({6}))
    assert set(scanner.scan(root)) == {10, 11, 30, 31}
    proc.add(7, 5)  # the excluded one's child, adopted: still foreign
    for _ in range(2 * ROTATION):
        assert set(scanner.scan(root)) == {10, 11, 30, 31}


def test_a_foreign_pid_that_is_used_again_is_noticed_within_a_rotation(proc):
    root = proc.add(10, 1)
    proc.add(20, 1)
    scanner = Scanner(proc.path, None, frozenset())
    assert set(scanner.scan(root)) == {10}
    proc.add(20, 10, start=5000)
    seen = [set(scanner.scan(root)) for _ in range(ROTATION)]
    assert seen[-1] == {10, 20}


def test_a_new_child_of_a_reused_foreign_pid_is_noticed_at_once(proc):
    root = proc.add(10, 1)
    proc.add(20, 1)
    scanner = Scanner(proc.path, None, frozenset())
    scanner.scan(root)
    proc.add(20, 10, start=5000)
    proc.add(21, 20, start=5001)
    assert set(scanner.scan(root)) == {10, 20, 21}


def test_a_members_pid_that_is_used_again_by_a_stranger_is_no_member(proc):
    root = proc.add(10, 1)
    proc.add(11, 10)
    scanner = Scanner(proc.path, None, frozenset())
    scanner.scan(root)
    proc.add(11, 1, start=5000)
    assert set(scanner.scan(root)) == {10}


def test_a_new_root_may_be_one_that_was_foreign_before(proc):
    first = proc.add(10, 1)
    second = proc.add(20, 1)
    proc.add(21, 20)
    scanner = Scanner(proc.path, None, frozenset())
    scanner.scan(first)
    assert set(scanner.scan(second)) == {20, 21}


def test_a_root_whose_pid_is_used_again_is_missing(proc):
    root = proc.add(10, 1)
    scanner = Scanner(proc.path, None, frozenset())
    proc.add(10, 1, start=5000)
    assert scanner.scan(root) == {}


def test_parents_that_form_a_circle_end_the_search(proc):
    root = proc.add(10, 1)
    proc.add(20, 21)
    proc.add(21, 20)
    assert set(Scanner(proc.path, None, frozenset()).scan(root)) == {10}


def test_a_chain_of_thousands_is_followed(proc):
    root = proc.add(10, 1)
    for pid in range(11, 3011):
        proc.add(pid, pid - 1)
    assert len(Scanner(proc.path, None, frozenset()).scan(root)) == 3001


def test_a_scan_of_a_large_host_reads_only_a_share_of_the_foreign_ones(proc, monkeypatch):
    root = proc.add(10, 1)
    for pid in range(100, 900):
        proc.add(pid, 1)
    scanner = Scanner(proc.path, None, frozenset())
    scanner.scan(root)
    read, reads = scan.read_stat, []
    monkeypatch.setattr(scan, "read_stat", lambda path, pid: reads.append(pid) or read(path, pid))
    scanner.scan(root)
    assert len(reads) <= 800 / ROTATION + 2
    for _ in range(ROTATION - 1):
        scanner.scan(root)
    assert set(range(100, 900)) <= set(reads)


def test_a_process_that_may_not_be_read_is_foreign_and_the_root_is_an_error(proc, monkeypatch):
    root = proc.add(10, 1)
    proc.add(20, 1)
    proc.add(21, 20)
    read, denied = scan.read_stat, {1, 20}

    def guarded(path, pid):
        if pid in denied:
            raise PermissionError(1, "Operation not permitted", f"{path}/{pid}/stat")
        return read(path, pid)

    monkeypatch.setattr(scan, "read_stat", guarded)
    scanner = Scanner(proc.path, None, frozenset())
    for _ in range(2 * ROTATION):
        assert set(scanner.scan(root)) == {10}
    denied.add(10)
    with pytest.raises(PermissionError):
        scanner.scan(root)
