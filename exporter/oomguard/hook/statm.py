"""The process's own /proc/self/statm, through a descriptor that is kept open (1.4 microseconds a read)."""

from __future__ import annotations

import os

from oomguard.hook.descriptors import Descriptor, stdio_is_open

_PAGE = os.sysconf("SC_PAGE_SIZE")
_SIZE = 256


class Statm:
    """Resident memory of this process; open it again after a fork, whose copy still shows the parent."""

    def __init__(self) -> None:
        self._file: Descriptor | None = None

    def open(self) -> None:
        """Open the file if it is not; without /proc it stays closed."""
        if self._file is not None and self._file.ours():
            return
        try:
            self._file = Descriptor(os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            self._file = None

    def close(self) -> None:
        """Close the file if the number is still ours."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def anonymous(self) -> int | None:
        """RSS less shared, in bytes (proc_pid_statm(5)); None where it can't be read now."""
        if self._file is None or not self._file.ours():
            # The host closed it. Never opened while a number from 0 to 2 is free: the host may be
            # about to open a file that it expects there.
            if not stdio_is_open():
                return None
            self.open()
        if self._file is None:
            return None
        try:
            fields = os.pread(self._file.number, _SIZE, 0).split()
            return (int(fields[1]) - int(fields[2])) * _PAGE
        except (OSError, ValueError, IndexError):
            return None
