import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from trees import TREES

from oomguard.sources import procfs

RECORDED = TREES / "processes" / "proc"


def test_a_name_with_parentheses_and_blanks_does_not_shift_the_fields():
    sample = procfs.read_process(RECORDED, 53)
    assert sample.name == "a) R 1 (b) c"
    assert sample.state == "S"
    assert sample.rss > 1 << 20


def test_a_zombie_has_no_resident_size():
    sample = procfs.read_process(RECORDED, 51)
    assert sample.state == "Z"
    assert (sample.rss, sample.rss_anon, sample.vms, sample.swap) == (None, None, None, None)


def test_an_exited_leader_whose_thread_lives_has_no_resident_size_but_is_not_gone():
    stat = procfs.read_stat(RECORDED, 52)
    assert (stat.state, stat.gone) == ("Z", False)
    assert procfs.read_process(RECORDED, 52).rss is None
    assert procfs.read_stat(RECORDED, 51).gone


def test_a_kernel_thread_has_no_resident_size_and_no_command_line():
    assert procfs.read_process(RECORDED, 2).rss is None
    assert procfs.read_cmdline(RECORDED, 2) == ()


def test_a_vanished_process_is_none():
    assert procfs.read_process(RECORDED, 99) is None
    assert procfs.process_id(RECORDED, 99) is None
    assert procfs.read_cmdline(RECORDED, 99) == ()
    assert procfs.open_fds(RECORDED, 99) is None


def test_the_start_time_counts_from_the_boot_time():
    sample = procfs.read_process(RECORDED, 53)
    assert sample.start_time == 1_700_000_000 + sample.id.start_ticks / os.sysconf("SC_CLK_TCK")


def test_the_descriptors_of_a_recorded_tree_are_listed():
    assert procfs.open_fds(TREES / "hybrid-host" / "proc", 41) == 6


def test_a_size_of_zero_is_not_zero_bytes():
    assert procfs.parse_status(b"Name:\tx\nVmSize:\t       0 kB\nVmRSS:\t       0 kB\n").rss is None


@pytest.mark.parametrize("data", [b"", b"1 (x", b"1 (x) S 1 2 3", b"no parenthesis at all"])
def test_a_cut_stat_is_a_value_error(data):
    with pytest.raises(ValueError, match="cut short"):
        procfs.parse_stat(data)


def test_a_command_line_keeps_empty_arguments_and_loses_the_padding_of_a_title():
    assert procfs.parse_cmdline(b"a\0\0b\0") == ("a", "", "b")
    assert procfs.parse_cmdline(b"gunicorn: worker\0\0\0\0") == ("gunicorn: worker",)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
class TestThisProcess:
    def test_the_sample_agrees_with_what_the_process_knows_of_itself(self):
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait)
        thread.start()
        try:
            sample = procfs.read_process("/proc", os.getpid())
        finally:
            stop.set()
            thread.join()
        assert (sample.ppid, sample.pgrp) == (os.getppid(), os.getpgrp())
        assert sample.threads >= 2
        assert sample.rss == sample.rss_anon + sample.rss_file + sample.rss_shmem
        assert sample.vms > sample.rss
        assert abs(sample.start_time - time.time()) < 3600 * 24
        assert sample.user_seconds > 0

    def test_every_open_descriptor_counts(self):
        before = procfs.open_fds("/proc", os.getpid())
        held = [os.open("/dev/null", os.O_RDONLY) for _ in range(100)]
        try:
            assert procfs.open_fds("/proc", os.getpid()) == before + 100
        finally:
            for descriptor in held:
                os.close(descriptor)

    def test_a_real_zombie_has_no_size_and_its_reaping_makes_it_vanish(self):
        child = subprocess.Popen(["true"])
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        sample = procfs.read_process("/proc", child.pid)
        assert (sample.state, sample.rss) == ("Z", None)
        child.wait()
        assert procfs.read_process("/proc", child.pid) is None

    def test_a_large_buffer_shows_as_anonymous_memory(self):
        before = procfs.read_process("/proc", os.getpid()).rss_anon
        block = bytearray(b"x") * (64 << 20)
        assert procfs.read_process("/proc", os.getpid()).rss_anon - before > 60 << 20
        del block


def test_what_the_kernel_would_kill_first_is_told() -> None:
    assert procfs.oom_score_adj("/proc", os.getpid()) == int(Path("/proc/self/oom_score_adj").read_text())
    assert procfs.oom_score_adj("/proc", 1 << 30) is None
