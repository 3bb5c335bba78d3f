"""The lines of ``oomguard status`` about the application's parts, from readings as hooks send them."""

import json
from dataclasses import replace

import pytest
from tests.unit.test_export import SNAPSHOT, hook, ok
from tests.unit.test_hook_reading import FULL

from oomguard.cli.parts import MOST_NAMED, MOST_WARNINGS, lines
from oomguard.export.status import snapshot_json
from oomguard.sources.hook_reading import app_stats

MIB = 1 << 20


def shown(*readings):
    """The lines for processes with these readings, by way of the status as it is sent."""
    hooks = tuple(
        replace(hook(f"worker-{number}"), app=app_stats(reading))
        for number, reading in enumerate(readings, 1)
    )
    status = snapshot_json(replace(SNAPSHOT, hooks=ok(hooks)), command_lines=False)
    return list(lines(json.loads(json.dumps(status))["hooks"]))


def model(name="jina-v3", state="loaded", **fields):
    known = dict.fromkeys(
        (
            "bytes",
            "load_seconds",
            "idle",
            "uses",
            "in_use",
            "loads",
            "failures",
            "unloads",
            "busy",
            "returned",
        )
    )
    return {"models": [{"name": name, "state": state, **known, "isolated": False, **fields}]}


def test_everything_that_there_is_has_a_line_summed_over_processes():
    second = {**FULL, "shed": {"on": False, "refused": 0}, "models": [{**FULL["models"][0], "idle": 12.0}]}
    assert shown(FULL, second) == [
        "models   jina loaded in 2 of 2 processes, 5.9 KiB, idle 12 s",
        "streams  24 open (limit 40), oldest 3 h",
        "shedding worker-1",
        "budgets  weights 340 B of 400 B (warning)",
        "limits   agents 4 of 4, 2 waiting",
        "children tools running, restarted 4 times (oom_kill 2, unknown 2)",
        "hook     cache 'vectors' was registered again",
    ]


def test_an_application_without_parts_has_no_line():
    assert shown({}, {}) == []


@pytest.mark.parametrize(
    ("readings", "line"),
    [
        ((model(bytes=320 * MIB, in_use=1), model(state="unloaded")),
         "models   jina-v3 loaded in 1 of 2 processes, 320.0 MiB, in use in 1"),
        ((model(state="failed"),), "models   jina-v3 loaded in 0 of 1 process, failed in 1"),
        (({"children": [{"name": "mcp", "alive": False, "starts": 2, "exits": {"oom_kill": 1}}]},),
         "children mcp running in 0 of 1 process, restarted once (oom_kill 1)"),
        (({"limits": [{"name": "agents", "limit": 2, "in_use": 1, "waiting": 0, "waited": 0}]},),
         "limits   agents 1 of 2"),
        (({"budgets": [{"name": "w", "limit": 200 * MIB, "reserved": 20 * MIB, "refused": 0, "state": "ok"}]},
          {"budgets": [{"name": "w", "limit": 200 * MIB, "reserved": 190 * MIB, "refused": 0, "state": "critical"}]}),
         "budgets  w 210.0 MiB of 400.0 MiB (critical)"),
        (({"streams": {"open": 1, "limit": None, "opened": 1, "closed": {}, "rejected": 0, "oldest_age": 61.0}},),
         "streams  1 open, oldest 1 min"),
    ],
)  # fmt: skip
def test_what_a_part_says(readings, line):
    assert shown(*readings) == [line]


def test_names_and_warnings_are_bounded_and_cannot_write_to_the_terminal():
    many = {
        "limits": [{"name": f"l{n}", "limit": 1, "in_use": 0, "waiting": 0, "waited": 0} for n in range(14)]
    }
    assert len(shown(many)) == MOST_NAMED + 1
    assert shown(many)[-1] == "limits   and 4 more"
    warnings = {"warnings": ["red\x1b[31m", *map(str, range(9))]}
    assert shown(warnings, warnings)[0] == "hook     red [31m"
    assert len(shown(warnings, warnings)) == MOST_WARNINGS
