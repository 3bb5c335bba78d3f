import pytest
from trees import TREES

from oomguard.model import Status
from oomguard.sources.machine import parse_meminfo, read_machine


def test_the_recorded_meminfo_is_read_in_bytes():
    machine = read_machine(TREES / "hybrid-host" / "proc").value
    text = (TREES / "hybrid-host" / "proc" / "meminfo").read_text()
    lines = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines()}
    assert machine.total == lines["MemTotal"] * 1024
    assert machine.available == lines["MemAvailable"] * 1024
    assert machine.shmem == lines["Shmem"] * 1024
    assert (machine.swap_total, machine.swap_free) == (0, 0)


def test_a_missing_line_is_an_error_and_not_a_zero():
    with pytest.raises(ValueError, match="MemAvailable"):
        parse_meminfo(b"MemTotal:  10 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n")


def test_a_missing_file_fails_with_its_path(tmp_path):
    reading = read_machine(tmp_path)
    assert reading.status is Status.FAILED
    assert str(tmp_path / "meminfo") in reading.reason
