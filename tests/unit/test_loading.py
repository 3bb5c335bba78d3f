"""Which rules and routes are in force, and every mistake of them at once."""

import dataclasses
import json
from pathlib import Path

import pytest

from oomguard.alerting import loading
from oomguard.config import Settings
from oomguard.errors import ConfigError

RULES = """groups:
  - name: g
    rules:
      - alert: {name}
        expr: {expr}
        labels: {{severity: none, action: {action}{more}}}
"""
ROUTES = "route: {receiver: oomguard}\nreceivers: [{name: oomguard}]\n"


def rules(path, name="A", expr="up == 0", action="cleanup", more=""):
    path.write_text(RULES.format(name=name, expr=expr, action=action, more=more))
    return path


def settings(rules=None, routes=None):
    return Settings(rules=rules and str(rules), routes=routes and str(routes))


def problems(told):
    with pytest.raises(ConfigError) as raised:
        loading.load(told)
    return [str(problem) for problem in raised.value.problems]


def names(loaded):
    return [rule.name for group in loaded.groups for rule in group.rules]


def test_what_ships_is_right_and_leads_to_the_sidecar():
    loaded = loading.load(Settings())
    assert {"MemoryHigh", "MemoryCritical", "Watchdog"} <= set(names(loaded))
    assert "oomguard" in loaded.routes.receivers


def test_files_and_patterns_are_read_once_each_in_order(tmp_path):
    for name in "cab":
        rules(tmp_path / f"{name}.rules.yml", name=name.upper())
    told = settings(f"{tmp_path}/b.rules.yml, {tmp_path}/*.rules.yml ,")
    assert names(loading.load(told)) == ["B", "A", "C"]


def test_every_mistake_of_every_file_is_told_at_once_with_its_line(tmp_path):
    one = rules(tmp_path / "one.yml", expr="sum(")
    two = rules(tmp_path / "two.yml", more=", steps: dance")
    three = rules(tmp_path / "three.yml", action="explode")
    routes = tmp_path / "routes.yml"
    routes.write_text("route:\n  receiver: nobody\nreceivers: []\n")
    told = problems(settings(f"{one},{two},{three},{tmp_path}/none.yml", routes))
    places = [line.split(": ")[0] for line in told]
    files = {place.rpartition(":")[0] for place in places if place != "rules"}
    assert files == {str(one), str(two), str(three), str(routes)}, "each with its line"
    text = "\n".join(told)
    assert "unknown step 'dance'; the steps are caches, gc, trim, streams, models, shed" in text
    assert "unknown action 'explode'; the actions are cleanup, unload, restart, notify" in text
    assert f"{tmp_path}/none.yml: there is no such file" in text


def test_labels_are_looked_at_where_the_expression_is_wrong_too(tmp_path):
    path = rules(tmp_path / "r.yml", expr="sum(", action="explode")
    told = problems(settings(path))
    assert [line.split(": ")[1] for line in told] == ["rule A", "rule A"]


@pytest.mark.parametrize(
    "text",
    [
        "groups: 3",
        "groups: [3]",
        "groups: [{rules: 3}]",
        "groups: [{name: g, rules: [3,\n null,\n {alert: [], labels: 4},\n {alert: A, expr: up, labels: {a: []}}]}]",
        "- 1",
        "groups: [",
    ],
)
def test_whatever_a_rule_file_holds_each_mistake_is_told_once(tmp_path, text):
    (tmp_path / "r.yml").write_text(text)
    told = problems(settings(tmp_path / "r.yml"))
    assert len(set(told)) == len(told) > 0
    assert all(line.startswith(f"{tmp_path}/r.yml:") for line in told)


def test_a_goal_that_is_none_is_refused(tmp_path):
    (told,) = problems(settings(rules(tmp_path / "r.yml", more=", goal: low")))
    assert "goal: 'low' is not a threshold" in told


def test_labels_that_a_template_makes_are_left_to_the_evaluation(tmp_path):
    path = rules(tmp_path / "r.yml", more=", steps: '{{ $labels.steps }}'")
    assert names(loading.load(settings(path))) == ["A"]


def test_a_file_that_cant_be_read_is_a_mistake(tmp_path):
    (tmp_path / "r.yml").write_bytes(b"\xff\xfe")
    folder = tmp_path / "folder"
    folder.mkdir()
    told = problems(settings(tmp_path / "r.yml", folder))
    assert [line.partition(": ")[2].partition(":")[0] for line in told] == [
        "is not UTF-8 text",
        "can't be read",
    ]


def test_a_window_that_is_longer_than_the_store_is_refused(tmp_path):
    (told,) = problems(settings(rules(tmp_path / "r.yml", expr="rate(x_total[7h]) > 1")))
    assert told.startswith(f"{tmp_path}/r.yml:")


def test_what_is_read_for_more_than_15_minutes_is_kept_long(tmp_path):
    path = rules(tmp_path / "r.yml", expr="avg_over_time(a[1h]) > 1 and b offset 14m and c offset 5m")
    assert loading.load(settings(path)).long_names == {"a", "b"}


def test_what_was_in_force_is_read_again_from_its_texts(tmp_path):
    path, routes = rules(tmp_path / "r.yml"), tmp_path / "routes.yml"
    routes.write_text(ROUTES)
    loaded = loading.load(settings(path, routes))
    texts = json.loads(json.dumps(loaded.texts))
    path.write_text("broken: [")
    routes.unlink()
    again = loading.load_kept(texts)
    assert names(again) == ["A"]
    assert again.texts == loaded.texts
    assert [str(Path(name)) for name in again.texts["rules"]] == [str(path)]


@pytest.mark.parametrize(
    "texts", [{}, {"rules": []}, {"rules": {}, "routes": []}, [], None, {"rules": 3, "routes": 4}]
)
def test_texts_that_are_none_are_a_mistake(texts):
    with pytest.raises(ConfigError):
        loading.load_kept(texts)


def test_what_was_loaded_cant_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        loading.load(Settings()).groups = ()


def rules_at(path, expr, **labels):
    told = "{" + ", ".join(f"{name}: {value!r}" for name, value in labels.items()) + "}"
    path.write_text(f"groups: [{{name: g, rules: [{{alert: A, expr: {expr!r}, labels: {told}}}]}}]")
    return str(path)


def test_shipped_stands_for_the_rules_that_ship(tmp_path):
    mine = rules_at(tmp_path / "mine.yml", "up == 0")
    alone, both = loading.load(Settings(rules=mine)), loading.load(Settings(rules=f"shipped,{mine}"))
    assert sum(len(group.rules) for group in alone.groups) == 1
    assert sum(len(group.rules) for group in both.groups) == 1 + sum(
        len(group.rules) for group in loading.load(Settings()).groups
    )


def test_rules_and_routes_that_disarm_are_told(tmp_path):
    assert list(loading.load(Settings()).warnings()) == []
    mine = rules_at(tmp_path / "mine.yml", "up == 0", severity="page")
    routes = tmp_path / "routes.yml"
    routes.write_text("{route: {receiver: x}, receivers: [{name: x}]}")
    rules, leads = loading.load(Settings(rules=mine, routes=str(routes))).warnings()
    assert "--rules shipped,FILE" in rules
    assert "no route leads to the receiver 'oomguard'" in leads
    restart = rules_at(tmp_path / "mine.yml", "up == 0", action="restart")
    (told,) = loading.load(Settings(rules=restart)).warnings()
    assert told == "rule A asks for a restart: nothing allows one, so that it does nothing"


def test_a_metric_of_ours_that_there_is_not_is_a_mistake(tmp_path):
    problems = []
    loading.load_rules(Path(rules_at(tmp_path / "a.yml", "oomguard_memory_used_ration > 0.8")), problems)
    (problem,) = problems
    assert problem.text == (
        "rule A: there is no metric oomguard_memory_used_ration; did you mean oomguard_memory_used_ratio?"
    )
    rules_at(tmp_path / "a.yml", "rate(oomguard_gc_pause_seconds_sum[5m]) > other_metric")
    problems.clear()
    loading.load_rules(tmp_path / "a.yml", problems)
    assert problems == []
