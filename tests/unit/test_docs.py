"""The reference pages are made from the code, and every other page names only what there is."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from oomguard import cli
from oomguard.actions import STEP_NAMES
from oomguard.config import SETTINGS
from oomguard.config import load as load_settings
from oomguard.metrics import TABLE

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_reference_pages_are_up_to_date():
    check = subprocess.run(
        [sys.executable, ROOT / "docs/build.py", "--check"], capture_output=True, text=True
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_every_metric_setting_command_and_step_is_documented():
    metrics, configuration, commands = (
        text(f"docs/{name}.md") for name in ("metrics", "configuration", "commands")
    )
    assert all(f"`{metric.name}`" in metrics for metric in TABLE)
    assert all(f"`{setting.key}`" in configuration for setting in SETTINGS)
    assert all(f"## oomguard {name}" in commands for name, _ in cli.COMMANDS)
    assert all(f"`{step}`" in commands for step in STEP_NAMES)


def test_the_example_file_is_a_configuration(tmp_path):
    (example,) = re.findall(r"```yaml\n(.*?)```", text("docs/configuration.md"), re.DOTALL)
    file = tmp_path / "oomguard.yml"
    file.write_text(example)
    assert load_settings({}, {}, file).target == "embedding-api"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_only_metrics_and_commands_that_there_are(page):
    body = page.read_text(encoding="utf-8")
    known = {metric.name for metric in TABLE} | {f"{metric.name}_bucket" for metric in TABLE}
    named = set(
        re.findall(r"\boomguard_[a-z_]+(?:bytes|total|ratio|seconds|info|firing|up|active|connected)\b", body)
    )
    assert named <= known
    blocks = "\n".join(re.findall(r"```[a-z]*\n(.*?)```", body, re.DOTALL))
    commands = set(re.findall(r"^oomguard ([a-z]+)", blocks, re.MULTILINE))
    assert commands <= {name for name, _ in cli.COMMANDS}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_decision_has_a_number_and_a_title():
    decisions = sorted((ROOT / "docs/decisions").glob("*.md"))
    assert [page.name[:4] for page in decisions] == [
        f"{number:04d}" for number in range(1, len(decisions) + 1)
    ]
    assert all(page.read_text(encoding="utf-8").startswith(f"# {int(page.name[:4])}. ") for page in decisions)


def test_the_examples_of_the_hooks_page_run(tmp_path):
    """In the order in which they stand, as one program; what they leave out stands in front."""
    blocks = re.findall(r"```python\n(.*?)```", text("docs/hook.md"), re.DOTALL)
    assert len(blocks) > 6
    model = "class Jina:\n    def encode(self, text):\n        return [float(len(text))]\n"
    (tmp_path / "models.py").write_text(f"{model}\n\ndef load_small():\n    return Jina()\n")
    program = tmp_path / "service.py"
    program.write_text(model + "\n\n".join(blocks))
    done = subprocess.run([sys.executable, program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "b'hello\\n'\n"), done.stderr
