"""The command line's own logic; what the commands do is tested end to end."""

from __future__ import annotations

import argparse

import pytest

from oomguard import cli
from oomguard.cli import journal
from oomguard.cli.answers import summary, unknown_name
from oomguard.cli.client import running
from oomguard.cli.options import number, settings_from
from oomguard.config import SETTINGS
from oomguard.errors import ConfigError, UserError
from oomguard.log import LOGGER

MIB = 1 << 20


def options(**flags):
    return argparse.Namespace(**{"config": None} | {setting.field: None for setting in SETTINGS} | flags)


def test_every_command_has_a_module_and_a_lower_case_text():
    for name, text in cli.COMMANDS:
        assert callable(cli._module(name).run)
        assert callable(cli._module(name).add_options)
        assert text == text[0].lower() + text[1:].rstrip(".")


def test_the_sidecar_is_not_offered_to_people(capsys):
    assert cli.main([]) == 0
    assert "sidecar SETTINGS" not in capsys.readouterr().out
    assert "sidecar" not in [name for name, _ in cli.COMMANDS]


def test_a_mistake_is_one_line_on_stderr_and_2(capsys):
    assert cli.main(["run"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("oomguard: no command to run; ")
    assert err.count("\n") == 1


def test_every_mistake_of_a_configuration_has_a_line(capsys, tmp_path):
    file = tmp_path / "c.yml"
    file.write_text("limit: x\nhigh: y\n")
    assert cli.main(["check", str(file)]) == 2
    assert [line.split(" ")[1] for line in capsys.readouterr().err.splitlines()] == [
        f"{file}:1:",
        f"{file}:2:",
    ]


def test_ctrl_c_is_130(monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli._module("check"), "run", interrupted)
    assert cli.main(["check", "x"]) == 130


def test_only_the_first_two_dashes_divide(monkeypatch):
    seen = []
    monkeypatch.setattr(cli._module("run"), "run", lambda parsed: seen.append(parsed.target_command) or 0)
    assert cli.main(["run", "--", "a", "--", "b", "--limit"]) == 0
    assert seen == [["a", "--", "b", "--limit"]]


@pytest.mark.parametrize("text", ["0", "-1", "1.0", "x", "", " 1", "²", "٣"])
def test_a_number_above_zero_and_nothing_else(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not a number above zero"):
        number(text)


def test_an_empty_flag_is_a_mistake_and_an_absent_one_is_not():
    with pytest.raises(ConfigError, match=r"^--limit: its value is empty"):
        settings_from(options(limit=""))
    assert settings_from(options()).limit is None
    assert settings_from(options(limit="1GiB")).limit == 1 << 30


def test_the_file_of_the_working_directory_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "oomguard.yml").write_text("target: here\n")
    assert settings_from(options()).target == "here"
    (tmp_path / "other.yml").write_text("target: there\n")
    assert settings_from(options(config="other.yml")).target == "there"


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (
            {"event": "run_start", "alerts": ["MemoryHigh", "x"], "used": 90 * MIB, "limit": 100 * MIB,
             "goal": 70 * MIB, "steps": ["caches", "gc"]},
            "MemoryHigh, x: 90.0 MiB of 100.0 MiB used, goal 70.0 MiB, steps caches, gc",
        ),
        (
            {"event": "run_start", "alerts": ["manual"], "used": 90 * MIB, "limit": 100 * MIB, "goal": None,
             "steps": ["gc"]},
            "manual: 90.0 MiB of 100.0 MiB used, no goal, steps gc",
        ),
        ({"event": "request", "outcome": "started", "steps": ["gc"]}, "by hand: started"),
        (
            {"event": "request", "outcome": "held", "alerts": ["A", "B"], "count": 9, "receiver": "",
             "reason": "floor"},
            "A, B (9 alerts) from somebody: held: floor",
        ),
        (
            {"event": "alert_firing", "alert": "OOMKilled", "severity": "critical", "summary": "it was shot"},
            "OOMKilled (critical): it was shot",
        ),
        ({"event": "step_start", "step": "gc", "used": 90 * MIB}, "gc, 90.0 MiB used"),
        ({"event": "step_skipped", "step": "gc", "reason": "no_hook"}, "gc skipped: no hook"),
        (
            {"event": "step_end", "step": "gc", "outcome": "effective", "freed": 9 * MIB, "used_before": 90 * MIB,
             "used_after": 81 * MIB, "seconds": 0.0123, "retained": 0, "reason": ""},
            "gc freed 9.0 MiB (90.0 MiB -> 81.0 MiB) in 12 ms: effective",
        ),
        (
            {"event": "step_end", "step": "caches", "outcome": "retained", "freed": 0, "used_before": 90 * MIB,
             "used_after": 90 * MIB, "seconds": 1, "retained": 9 * MIB, "reason": "x: y"},
            "caches freed 0 B (90.0 MiB -> 90.0 MiB) in 1000 ms: retained, 9.0 MiB are free inside malloc (x: y)",
        ),
        (
            {"event": "step_end", "step": "gc", "outcome": "inconclusive", "freed": 0, "used_before": 90 * MIB,
             "used_after": None, "seconds": 0.001, "reason": "memory can't be read"},
            "gc freed 0 B in 1 ms: inconclusive (memory can't be read)",
        ),
        (
            {"event": "run_end", "outcome": "goal_reached", "freed": 9 * MIB, "used_before": 90 * MIB,
             "used_after": 81 * MIB},
            "goal reached: freed 9.0 MiB (90.0 MiB -> 81.0 MiB)",
        ),
        ({"event": "run_end", "run": 3, "outcome": "interrupted"}, "interrupted: its sidecar died"),
        (
            {"event": "step_end", "step": "models", "outcome": "effective", "freed": 9 * MIB, "used_before": 90 * MIB,
             "used_after": 81 * MIB, "seconds": 0.01, "reason": "worker-3: no answer", "hooks": {
                 "worker-1": {"status": "done", "unloaded": {"jina-v3": 5, "bge": 1}, "busy": ["large"]},
                 "worker-2": {"status": "done", "unloaded": ["jina-v3"], "busy": [], "young": ["new"]},
                 "worker-3": {"status": "failed", "reason": "no answer"}}},
            (
                "models freed 9.0 MiB (90.0 MiB -> 81.0 MiB) in 10 ms: effective, unloaded jina-v3 in 2 processes, "
                "bge, busy: large, loaded too lately: new (worker-3: no answer)"
            ),
        ),
        ({"event": "target_exit", "pid": 7, "code": 0, "time": 1}, "pid=7 code=0"),
        ({"event": "sidecar_start", "version": "1 beta", "pid": 7, "x": None, "y": ""}, 'version="1 beta" pid=7'),
        ({"event": "step_end", "step": "gc"}, "step=gc"),  # of another version: shown as it is
    ],
)  # fmt: skip
def test_what_a_record_says(record, text):
    assert journal.told(record) == text


@pytest.mark.parametrize(
    ("turn", "hooks", "text"),
    [
        ("streams", {"a": {"asked": 6, "closed": 5, "left": 1}, "b": {"closed": 3, "left": 0}}, "closed 8, 1 left"),
        ("streams", {"a": {"asked": 0, "closed": 0, "left": 0}}, "closed 0"),
        ("caches:bulk", {"a": {"cleared": ["bulk"], "expired": 1200}}, "cleared bulk, 1,200 entries had expired"),
        ("caches", {"a": {"cleared": [f"c{n}" for n in range(7)]}}, "cleared c0, c1, c2, c3, c4, 2 more"),
        ("caches", {"a": {"cleared": ["red\x1b[31m"]}}, "cleared red [31m"),
        ("gc", {"a": {"collected": 12000}, "b": {"collected": 345}}, "12,345 objects"),
        ("trim", {"a": {"returned": 5}}, ""),
        ("gc", None, ""),
        ("models", {"a": 3, "b": {"unloaded": 7, "busy": None}}, ""),  # of another version
    ],
)  # fmt: skip
def test_what_hooks_did_is_told_in_a_few_words_summed_over_processes(turn, hooks, text):
    assert summary(turn, hooks) == text


@pytest.mark.parametrize(
    ("step", "outcome", "hooks", "unknown"),
    [
        ("caches:nope", "skipped", {"a": {"status": "skipped", "reason": "nothing_registered", "missing": "nope"},
                                    "b": {"status": "skipped", "reason": "nothing_registered"}}, True),
        ("models:nope", "skipped", {"a": {"status": "unsupported", "reason": "this hook has no step"}}, True),
        ("models:jina", "skipped", {"a": {"status": "skipped", "reason": "nothing_registered", "missing": "jina"},
                                    "b": {"status": "skipped", "reason": "nothing_registered", "loaded": []}}, False),
        ("models:jina", "skipped", {"a": {"status": "skipped", "reason": "busy", "busy": ["jina"]}}, False),
        ("caches:bulk", "effective", {"a": {"status": "done", "cleared": ["bulk"]}}, False),
        ("caches", "skipped", {"a": {"status": "skipped", "reason": "nothing_registered"}}, False),
        ("caches:bulk", "skipped", {}, False),  # held back, or no hook was there to be asked
    ],
)  # fmt: skip
def test_a_name_is_unknown_where_no_process_has_it(step, outcome, hooks, unknown):
    record = {"event": "step_end", "step": step, "outcome": outcome, "hooks": hooks}
    assert unknown_name(record) == (step.partition(":")[2] if unknown else "")


def test_no_sidecar_here_is_a_users_error(monkeypatch):
    monkeypatch.setattr("oomguard.runtime.RuntimeDir.find", classmethod(lambda cls: []))
    with pytest.raises(
        UserError, match=r"^no sidecar is running here; start one with oomguard run -- COMMAND"
    ):
        running(argparse.Namespace(url=None))


def test_an_address_needs_no_scheme_and_no_slash(monkeypatch):
    monkeypatch.setattr("oomguard.runtime.RuntimeDir.find", classmethod(lambda cls: []))
    assert running(argparse.Namespace(url="box:1/")) == ("http://box:1", "")
    assert running(argparse.Namespace(url="http://box:1")) == ("http://box:1", "")


@pytest.mark.parametrize("lines", [0, 1, 3])
def test_replay_tells_how_long_a_recording_is(capsys, tmp_path, monkeypatch, lines):
    monkeypatch.setattr(LOGGER, "disabled", False)  # the command turns it off, for the rest of its process
    path = tmp_path / "r"
    series = '{"series": {"0": [["__name__", "oomguard_memory_used_bytes"], ["target", "api"]]}}'
    slots = [f'{{"slot": {1000 * at}, "values": {{"0": 1}}}}' for at in range(1, lines + 1)]
    path.write_text("\n".join(['{"oomguard_recording": 1}', series, *slots, ""]))
    code = cli.main(["replay", str(path)])
    out, err = capsys.readouterr()
    assert "alert firing" not in err
    if not lines:
        assert (code, err) == (2, f"oomguard: {path}: holds no samples\n")
    else:
        assert code == 0
        assert out.splitlines()[-1].startswith(f"{lines - 1} s of api: ")
