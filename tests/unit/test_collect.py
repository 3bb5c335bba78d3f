"""Whether a process is there, as a run of the ladder asks before it takes credit for what memory fell by."""

import os
import subprocess
import sys

from oomguard.collect import lives
from oomguard.model import ProcessId
from oomguard.sources.procfs import process_id


def test_a_process_lives_until_it_is_a_zombie():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        here = process_id("/proc", child.pid)
        assert lives("/proc", here)
        assert not lives("/proc", ProcessId(child.pid, here.start_ticks + 1)), "another one has its number"
        child.stdin.close()
        child.stdin = None
        # Waits for the end and leaves the zombie (waitid(2), WNOWAIT).
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not lives("/proc", here)
    assert not lives("/proc", here)


def test_what_cant_be_read_is_taken_for_alive(tmp_path):
    (tmp_path / "41").mkdir()
    (tmp_path / "41" / "stat").write_text("41 (app")
    assert lives(str(tmp_path), ProcessId(41, 1))
