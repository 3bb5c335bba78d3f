"""Starting a child, and telling what a wait status or /proc says of it."""

import errno
import os

from oomguard.supervisor.signals import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

NOT_EXECUTABLE = 126
NOT_FOUND = 127


def spawn(
    argv: list[str], environment: dict[str, str], mask: set[int], prepare: "Callable[[int], None]"
) -> tuple[int, list[tuple[str, int]]]:
    """Start a process in a group of its own; return when it has been executed or has failed.

    `prepare` runs in the child with all signals still blocked; it may report ``name errno`` lines to
    the descriptor it is given. Returns the PID and the reports, ``exec`` among them if the exec failed (the
    child then ends with 126 or 127). Raises OSError when no process can be forked.
    """
    read, write = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(read)
        os.close(write)
        raise
    if pid == 0:
        code = NOT_EXECUTABLE
        try:
            # The parent need not do the same: it goes on only once this child has been executed.
            os.setpgid(0, 0)
            prepare(write)
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and so would the child
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.execvpe(argv[0], argv, environment)  # noqa: S606 - no shell is wanted
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                code = NOT_FOUND
            os.write(write, b"exec %d\n" % (error.errno or 0))
        finally:
            os._exit(code)
    os.close(write)
    said = b""
    while chunk := os.read(read, 512):
        said += chunk
    os.close(read)
    words = [line.split() for line in said.decode().splitlines()]
    return pid, [(name, int(number)) for name, number in words]


def exit_code(status: int) -> int:
    """Translate a wait status as a shell does: the exit code, or 128 + signal."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def start_ticks(pid: int) -> int:
    """Field 22 of /proc/PID/stat (proc_pid_stat(5)); 0 where that can't be read."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123 - pathlib would cost 1 MB
            stat = file.read(4096)
    except OSError:
        return 0
    return int(stat[stat.rindex(b")") + 2 :].split()[19])
