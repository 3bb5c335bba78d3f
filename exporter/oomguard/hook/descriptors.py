"""File descriptors that notice when their number has become another's, and that keep off 0 to 2.

A daemonizing process closes every descriptor it finds and opens files of its own, which then have the
numbers that were ours. So a number is compared with the file it was made for, (st_dev, st_ino),
before each use, and never closed when it is another's. Between the comparison and the use another
thread could still close it: that window is a few microseconds in a process that is just daemonizing.
"""

from __future__ import annotations

import fcntl
import os

_STDIO = (0, 1, 2)


class Descriptor:
    """An open file of the hook's own; `number` may be used right after `ours()` has said yes."""

    __slots__ = ("_identity", "number")

    def __init__(self, number: int) -> None:
        """Take over an open number; one of 0 to 2 is moved above them."""
        self.number = above_stdio(number)
        self._identity = _identity(self.number)

    def ours(self) -> bool:
        """Whether the number still means the file that it was made for."""
        try:
            return _identity(self.number) == self._identity
        except OSError:
            return False

    def close(self) -> None:
        """Close the number if it is still ours; do nothing otherwise."""
        if self.ours():
            os.close(self.number)


def _identity(number: int) -> tuple[int, int]:
    status = os.fstat(number)
    return (status.st_dev, status.st_ino)


def above_stdio(number: int) -> int:
    """Move an open file to a number above 2, close-on-exec; the low number is free again."""
    if number not in _STDIO:
        return number
    try:
        return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, len(_STDIO))
    finally:
        os.close(number)


def stdio_is_open() -> bool:
    """Whether none of the numbers 0 to 2 is free: then no new file can get one of them."""
    try:
        for number in _STDIO:
            fcntl.fcntl(number, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def pipe() -> tuple[Descriptor, Descriptor]:
    """Both ends of a pipe that never blocks, close-on-exec; raises OSError (EMFILE)."""
    reading, writing = os.pipe()
    try:
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        return Descriptor(reading), Descriptor(writing)
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
