"""A real child in a real cgroup, shot by the real OOM killer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support.boxes import MIB, BoxV1, run_in_uml

pytestmark = pytest.mark.real

# The service, which runs inside the box. Its tools answer, or eat until the kernel shoots them.
SERVICE = """
import json, subprocess, sys, threading, time
from oomguard.hook.children import ChildDied, Children
from oomguard.hook.chores import Chores
from oomguard.hook.parts import Core

TOOLS = '''
import sys
blocks = []
for line in sys.stdin:
    if line.startswith("eat"):
        # At once: bit by bit the kernel would drop and read this program's code again and again, for minutes.
        blocks.append(bytearray(b"x") * (1 << 28))
    print(line.strip().upper(), flush=True)
'''
resets, started, lock = [], [], threading.Lock()

def start():
    started.append(
        subprocess.Popen([sys.executable, "-S", "-c", TOOLS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    )
    return started[-1]

def say(word):
    def speak(process):
        with lock:
            process.stdin.write(word + "\\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        if not answer:
            raise EOFError("no answer")
        return answer.strip()
    return speak

def attempt(word, **more):
    try:
        return tools.call(say(word), **more)
    except ChildDied as died:
        return [died.reason, str(died)]

core = Core({}, Chores(int, int), threading.RLock(), int)
children = Children(core)
tools = children.register("tools", start, lambda: resets.append(len(started)))
said = {"warnings": core.warnings, "first": attempt("one")}
print(json.dumps({"ready": True}), flush=True)
if "whole group" in sys.argv:
    print(json.dumps(said), flush=True)
    attempt("eat")
    print("not reached", flush=True)
said["eaten"] = attempt("eat")
said["after"] = attempt("two")
# Another is shot while several calls are under way.
started[-1].stdin.write("eat\\n")
started[-1].stdin.flush()
answers = []
threads = [
    threading.Thread(target=lambda n=n: answers.append(attempt(f"w{n}", idempotent=True))) for n in range(4)
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
said["together"] = sorted(answers)
# One that somebody else kills.
started[-1].kill()
started[-1].wait()
said["killed"] = attempt("three")
# One that is shot while nobody calls it is noticed by a reading.
started[-1].stdin.write("eat\\n")
started[-1].stdin.flush()
deadline = time.monotonic() + 60
while children.reading()[0]["alive"] and time.monotonic() < deadline:
    time.sleep(0.02)
said["reading"] = children.reading()[0]
said["starts"], said["resets"] = len(started), resets
print(json.dumps(said), flush=True)
"""


def judge(said: dict[str, Any]) -> None:
    assert (said["first"], said["after"], said["warnings"]) == ("ONE", "TWO", [])
    reason, text = said["eaten"]
    assert (reason, text[:53]) == ("oom_kill", "child 'tools' was killed by the kernel's OOM killer (")
    assert said["together"] == ["W0", "W1", "W2", "W3"]
    assert said["killed"][0] == "unknown"
    assert said["reading"] == {
        "name": "tools", "alive": False, "starts": 4, "exits": {"oom_kill": 3, "unknown": 1}, "pid": None,
    }  # fmt: skip
    assert (said["starts"], said["resets"]) == (4, [2, 3, 4])


def test_the_reason_is_the_kernels_and_the_child_is_started_again_once() -> None:
    with BoxV1(96 * MIB) as box:
        service = box.run([sys.executable, "-c", SERVICE], stdout=subprocess.PIPE, text=True)
        out, _ = service.communicate(timeout=120)
        assert service.returncode == 0
        judge(json.loads(out.splitlines()[-1]))
        assert box.oom_kills() == 3


V2 = """
cd /sys/fs/cgroup
box() {{
    mkdir $1
    echo 100663296 > $1/memory.max
    echo $2 > $1/memory.oom.group
    sh -c 'echo $$ > '$1'/cgroup.procs && exec {python} {service} "'"$3"'"'
    echo "$1 ended with $?"
    cat $1/memory.events
}}
export PYTHONPATH={path}
box one 0 ""
box group 1 "whole group"
"""


def test_version_2_tells_the_same_and_a_whole_group_is_announced(tmp_path: Path) -> None:
    service = tmp_path / "service.py"
    service.write_text(SERVICE)
    path = ":".join(entry for entry in sys.path if entry)
    script = V2.format(python=sys.executable, service=service, path=path)
    code, out = run_in_uml(script, timeout=240)
    assert code == 0, out
    first, group = out.split("one ended with ", 1)
    judge(json.loads(first.splitlines()[-1]))
    assert group.startswith("0\n"), out
    assert "\noom_kill 3\n" in group.split("ready")[0], out
    lines = group.splitlines()
    said = next(json.loads(line) for line in lines if line.startswith('{"warnings"'))
    assert "memory.oom.group is set, so the kernel kills the whole group" in said["warnings"][0]
    # The service could not be told: it went with its child.
    assert "not reached" not in lines
    assert "group ended with 137" in lines
