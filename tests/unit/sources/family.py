"""Processes for the tests of the tree: a tree in files, and a real parent that does as it is told."""

import os
import shutil
import signal
import subprocess
import sys
import time

from oomguard.model import ProcessId

PARENT = """
import os, subprocess, sys, time
kept = []
print("ready", flush=True)
for line in sys.stdin:
    what = line.strip()
    if what == "fork":
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.write(write, b"x")
            time.sleep(1000)
        os.read(read, 1)
        os.close(read)
        os.close(write)
    elif what == "spawn":
        kept.append(subprocess.Popen(["sleep", "1000"]))
        pid = kept[-1].pid
    elif what == "orphan":
        read, write = os.pipe()
        middle = os.fork()
        if middle == 0:
            child = os.fork()
            if child == 0:
                time.sleep(1000)
            os.write(write, b"%d" % child)
            os._exit(0)
        os.waitpid(middle, 0)
        pid = int(os.read(read, 20))
    elif what.startswith("reap"):
        pid = os.waitpid(int(what.split()[1]), 0)[0]
    print(pid, flush=True)
"""


class Family:
    """A real process whose children the test asks for; whatever came of it is killed at the end."""

    def __init__(self):
        self.parent = subprocess.Popen(
            [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.parent.stdout.readline()
        self.pid = self.parent.pid
        self.made = []

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        for pid in self.made:
            self.kill(pid)
        self.parent.kill()
        self.parent.communicate()

    def ask(self, what):
        """One command; the PID that it answers with."""
        self.parent.stdin.write(f"{what}\n")
        self.parent.stdin.flush()
        pid = int(self.parent.stdout.readline())
        if what.startswith("reap"):
            self.made.remove(pid)
        else:
            self.made.append(pid)
        return pid

    def end(self, pid):
        """Kill a child and have it reaped."""
        os.kill(pid, signal.SIGKILL)
        self.ask(f"reap {pid}")

    @staticmethod
    def kill(pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return


class FileTree:
    """A /proc in files, where a test chooses PIDs, parents and start times."""

    def __init__(self, path):
        self.path = path
        path.mkdir(exist_ok=True)
        (path / "stat").write_text("btime 1700000000\n")
        self.reads = 0

    def add(self, pid, ppid, start=None, *, stack=0, cmdline="serve", state="S"):
        folder = self.path / str(pid)
        folder.mkdir(exist_ok=True)
        start = pid if start is None else start
        fields = [
            state,
            ppid,
            pid,
            1,
            0,
            -1,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            20,
            0,
            1,
            0,
            start,
            0,
            0,
            0,
            0,
            0,
            stack,
            0,
        ]
        (folder / "stat").write_text(f"{pid} (x) " + " ".join(map(str, fields)))
        (folder / "status").write_text("VmSize:\t 200 kB\nVmRSS:\t 100 kB\n")
        (folder / "cmdline").write_text(cmdline + "\0")
        return ProcessId(pid, start)

    def remove(self, pid):
        shutil.rmtree(self.path / str(pid))


def wait_for(condition, timeout=10.0):
    """Poll until a condition holds; what it returned."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)
    return result
