"""The controlling terminal: which process group is in its foreground."""

# ruff: noqa: SIM105
# contextlib would cost 0.6 MB of private dirty memory.

import os


class Terminal:
    """The controlling terminal, if there is one; all methods do nothing where there is none.

    SIGTTOU must be blocked: tcsetpgrp(3) is then allowed from a background group too.
    """

    def __init__(self) -> None:
        self.group = os.getpgrp()
        try:
            # Not stdin: that may be redirected while Ctrl-C is still typed on the terminal.
            self.fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            self.fd = -1

    @property
    def present(self) -> bool:
        """Whether there is a terminal at all."""
        return self.fd >= 0

    def foreground(self) -> int:
        """Ask for the foreground process group; -1 where there is none, or the terminal was hung up."""
        try:
            return os.tcgetpgrp(self.fd) if self.present else -1
        except OSError:
            return -1

    def give(self, group: int) -> None:
        """Make `group` the foreground group if ours is."""
        if self.foreground() == self.group:
            self._set(group)

    def take(self, group: int) -> bool:
        """Take it back from `group`, or from a group that is gone; tell whether it was theirs."""
        foreground = self.foreground()
        if foreground <= 0 or foreground == self.group:
            return False
        if foreground != group and group_exists(foreground):
            return False
        self._set(self.group)
        return True

    def _set(self, group: int) -> None:
        try:
            os.tcsetpgrp(self.fd, group)
        except OSError:
            pass


def group_exists(group: int) -> bool:
    """Whether any process is left in a process group."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
