"""Descriptors that know when their number is another's."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from oomguard.hook import descriptors


def test_a_number_that_another_file_took_is_not_ours_and_is_not_closed(tmp_path: Path) -> None:
    reading, writing = descriptors.pipe()
    other = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.dup2(other, reading.number)
    assert not reading.ours()
    reading.close()
    os.write(reading.number, b"still open")
    os.close(reading.number)
    os.close(other)
    writing.close()


def test_a_closed_number_is_not_ours() -> None:
    reading, writing = descriptors.pipe()
    assert reading.ours()
    os.close(reading.number)
    assert not reading.ours()
    reading.close()
    writing.close()
    assert not writing.ours()


def test_an_open_file_below_three_is_moved_and_its_low_number_is_free_again() -> None:
    said, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(0)
        low = os.open("/dev/null", os.O_RDONLY)
        moved = descriptors.Descriptor(low)
        flags = fcntl.fcntl(moved.number, fcntl.F_GETFD)
        fine = low == 0 and moved.number > 2 and bool(flags & fcntl.FD_CLOEXEC) and moved.ours()
        fine = fine and not descriptors.stdio_is_open()
        os.write(tell, b"yes" if fine else b"no")
        os._exit(0)
    os.waitpid(pid, 0)
    assert os.read(said, 10) == b"yes"
    os.close(said)
    os.close(tell)
