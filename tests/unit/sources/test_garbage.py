"""Whatever a file holds, a parser returns a record or raises ValueError, which `read` turns into FAILED."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trees import TREES

from oomguard.sources import machine, procfs, smaps
from oomguard.sources.cgroup import files, locate, pressure

HOST = TREES / "hybrid-host" / "proc"
PARSERS = [
    (procfs.parse_stat, HOST / "41/stat"),
    (procfs.parse_status, HOST / "41/status"),
    (procfs.parse_cmdline, HOST / "41/cmdline"),
    (smaps.parse_sums, HOST / "41/smaps_rollup"),
    (smaps.parse_mappings, HOST / "41/smaps"),
    (machine.parse_meminfo, HOST / "meminfo"),
    (locate.parse_cgroup, HOST / "41/cgroup"),
    (locate.parse_mounts, HOST / "41/mountinfo"),
    (files.parse_flat, TREES / "hybrid-host/sys/fs/cgroup/memory/box/memory.stat"),
    (files.parse_limit, TREES / "hybrid-host/sys/fs/cgroup/memory/box/memory.limit_in_bytes"),
    (lambda data: pressure.parse_pressure(data, "machine"), HOST / "pressure/memory"),
]


@pytest.mark.parametrize(("parse", "path"), PARSERS)
@given(data=st.data())
def test_damaged_files_raise_nothing_but_value_errors(parse, path, data):
    whole = path.read_bytes()[:4000]
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    damaged = whole[:start] + data.draw(st.binary(max_size=20)) + whole[end:]
    with contextlib.suppress(ValueError):
        parse(damaged)


@pytest.mark.parametrize(("parse", "path"), PARSERS)
def test_the_whole_file_is_understood(parse, path):
    assert parse(path.read_bytes()) is not None
