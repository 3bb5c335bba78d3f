import mmap
import os
import shutil
import subprocess
import sys

import pytest
from trees import MIB, TREES

from oomguard.model import Status
from oomguard.sources import smaps

RECORDED = TREES / "hybrid-host" / "proc"


def total(mappings):
    kinds = ("heap", "anonymous", "file", "shared", "stack", "other")
    return sum(getattr(mappings, kind) for kind in kinds)


def test_the_recorded_rollup_is_read_in_bytes():
    memory = smaps.read_memory(RECORDED, 41).value
    assert 30 * MIB < memory.uss <= memory.pss <= memory.rss
    assert memory.private_dirty <= memory.uss
    assert memory.swap_pss == 0


def test_the_kinds_of_the_recorded_mappings_add_up_to_its_pss():
    mappings = smaps.read_mappings(RECORDED, 41).value
    rollup = smaps.read_memory(RECORDED, 41).value
    # smaps rounds every mapping to a kilobyte, the rollup only their sum.
    mapped = (RECORDED / "41" / "smaps").read_bytes().count(b"\nVmFlags")
    assert abs(total(mappings) - rollup.pss) <= mapped * 1024
    assert mappings.anonymous > 30 * MIB
    assert mappings.shared >= 6 * MIB
    assert mappings.heap > 0
    assert mappings.stack > 0
    assert mappings.file > 0


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("0-1 rw-p 00000000 00:00 0 ", "anonymous"),
        ("0-1 rw-p 00000000 00:00 0                  [anon:glibc: malloc arena]", "anonymous"),
        ("0-1 rw-p 00000000 00:00 0                  [heap]", "heap"),
        ("0-1 rw-p 00000000 00:00 0                  [stack]", "stack"),
        ("0-1 rw-p 00000000 00:00 0                  [stack:12]", "stack"),
        ("0-1 rw-s 00000000 00:01 1025               /dev/zero (deleted)", "shared"),
        ("0-1 rw-s 00000000 00:01 9                  /memfd:x (deleted)", "shared"),
        ("0-1 rw-s 00000000 00:01 9                  /SYSV00000000 (deleted)", "shared"),
        ("0-1 rw-s 00000000 00:1a 3                  /dev/shm/torch_1 (deleted)", "shared"),
        ("0-1 r--p 00000000 fe:00 12                 /models/a b.safetensors", "file"),
        ("0-1 r-xp 00000000 fe:00 12                 /usr/lib/libc.so.6 (deleted)", "file"),
        ("0-1 r-xp 00000000 00:00 0                  [vdso]", "other"),
        ("0-1 rw-s 00000000 00:0e 9                  anon_inode:[perf_event]", "other"),
    ],
)
def test_each_mapping_counts_as_its_kind(header, kind):
    lines = (
        "Size: 8 kB",
        "KernelPageSize: 4 kB",
        "MMUPageSize: 4 kB",
        "Rss: 8 kB",
        "Pss: 5 kB",
        "Pss_Dirty: 1 kB",
    )
    data = "\n".join((header, *lines, "VmFlags: rd mr", ""))
    mappings = smaps.parse_mappings((data * 2).encode())
    assert getattr(mappings, kind) == 2 * 5 * 1024
    assert total(mappings) == 2 * 5 * 1024


def test_old_kernels_without_a_rollup_get_the_sums_of_smaps(tmp_path):
    (tmp_path / "41").mkdir()
    shutil.copy(RECORDED / "41" / "smaps", tmp_path / "41" / "smaps")
    summed, rollup = smaps.read_memory(tmp_path, 41).value, smaps.read_memory(RECORDED, 41).value
    assert (summed.rss, summed.uss) == (rollup.rss, rollup.uss)


def test_a_kernel_without_either_is_unsupported(tmp_path):
    (tmp_path / "41").mkdir()
    assert smaps.read_memory(tmp_path, 41).status is Status.UNSUPPORTED
    assert smaps.read_mappings(tmp_path, 41).status is Status.UNSUPPORTED


def test_a_vanished_process_is_absent(tmp_path):
    assert smaps.read_memory(tmp_path, 41).status is Status.ABSENT


def test_an_empty_smaps_is_absent_and_not_zero_bytes(tmp_path):
    (tmp_path / "41").mkdir()
    (tmp_path / "41" / "smaps").touch()
    assert smaps.read_mappings(tmp_path, 41).status is Status.ABSENT
    assert smaps.read_memory(tmp_path, 41).status is Status.ABSENT


def test_a_file_that_can_not_be_read_fails_with_its_path(tmp_path):
    (tmp_path / "41" / "smaps_rollup").mkdir(parents=True)
    reading = smaps.read_memory(tmp_path, 41)
    assert (reading.status, "smaps_rollup: is a directory" in reading.reason) == (Status.FAILED, True)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
class TestRealProcesses:
    def test_shared_anonymous_memory_counts_as_shared_and_private_as_anonymous(self):
        before = smaps.read_mappings("/proc", os.getpid()).value
        with mmap.mmap(-1, 32 * MIB) as shared:
            shared.write(b"x" * (32 * MIB))
            block = bytearray(b"x") * (48 * MIB)
            after = smaps.read_mappings("/proc", os.getpid()).value
        assert abs(after.shared - before.shared - 32 * MIB) < 2 * MIB
        assert after.anonymous - before.anonymous >= 48 * MIB - 2 * MIB
        del block

    @pytest.mark.real
    @pytest.mark.skipif(os.geteuid() != 0, reason="dropping a uid needs root")
    def test_another_users_process_fails_with_the_fix(self):
        code = (
            "import os\n"
            "from oomguard.sources import smaps\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            f"print(smaps.read_memory('/proc', {os.getpid()}).reason)"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert "permission denied; run oomguard with the target's uid and gid" in said.stdout, said.stderr

    def test_a_zombie_has_no_mappings(self):
        child = subprocess.Popen(["true"])
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        try:
            assert smaps.read_memory("/proc", child.pid).status is Status.ABSENT
            assert smaps.read_mappings("/proc", child.pid).status is Status.ABSENT
        finally:
            child.wait()
