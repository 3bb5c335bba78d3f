"""Rule files are read as Prometheus reads them; every mistake is told with its line."""

from pathlib import Path

import promtool
import pytest

from oomguard.rules.files import load, parse_duration
from oomguard.rules.rule import AlertRule, RecordingRule

GOOD = """
groups:
- name: memory
  interval: 30s
  limit: 10
  rules:
  - record: job:used:ratio
    expr: sum by (job) (oomguard_memory_used_bytes) / sum by (job) (oomguard_memory_limit_bytes)
    labels: {unit: ratio, empty: ''}
  - alert: High
    expr: |
      job:used:ratio
        > 0.8
    for: 1m30s
    keep_firing_for: 5m
    labels:
      severity: page
      job_was: '{{ $labels.job }}'
    annotations:
      summary: 'at {{ $value | humanizePercentage }}'
- name: empty
"""


def read(text, **options):
    problems = []
    groups = load(Path("r.yml"), problems, text, **options)
    return groups, [str(problem) for problem in problems]


def rule(lines, kind="alert: A", expr="expr: up == 0"):
    body = "\n".join(f"    {line}" for line in ([expr] if expr else []) + list(lines))
    return f"groups:\n- name: g\n  rules:\n  - {kind}\n{body}\n"


def test_a_file_becomes_groups_of_rules():
    groups, problems = read(GOOD)
    assert problems == []
    memory, empty = groups
    assert (memory.name, memory.file, memory.interval, memory.limit) == ("memory", "r.yml", 30_000, 10)
    assert (empty.name, empty.rules, empty.interval, empty.limit) == ("empty", (), None, 0)
    record, alert = memory.rules
    assert isinstance(record, RecordingRule)
    assert isinstance(alert, AlertRule)
    assert (record.name, record.labels, record.where) == (
        "job:used:ratio",
        (("empty", ""), ("unit", "ratio")),
        "r.yml:7",
    )
    assert (alert.name, alert.hold, alert.keep_firing, alert.where) == ("High", 90_000, 300_000, "r.yml:10")
    assert alert.expression.text == "job:used:ratio\n  > 0.8"
    assert [(name, template.text) for name, template in alert.labels] == [
        ("job_was", "{{ $labels.job }}"),
        ("severity", "page"),
    ]
    assert [name for name, _ in alert.annotations] == ["summary"]


def test_a_file_without_groups_holds_no_rules():
    assert read("") == ((), [])
    assert read("groups:\n") == ((), [])
    assert read("groups: []\n") == ((), [])


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("0", 0), ("0s", 0), ("250ms", 250), ("15s", 15_000), ("1h30m", 5_400_000), ("1d", 86_400_000),
     ("1w2d", 777_600_000), ("1y", 31_536_000_000), ("90s", 90_000)],
)  # fmt: skip
def test_durations_are_those_of_prometheus(text, milliseconds):
    assert parse_duration(text) == milliseconds


@pytest.mark.parametrize("text", ["", "5", "1.5h", "-1m", "1m1h", "1m1m", "1 m", "1M", "5min", "300y", "٣s"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a duration|is too long"):
        parse_duration(text)


# What promtool refuses, and where we point.
BAD = {
    "an unknown key at the top": ("groups: []\nrules: []\n", "r.yml:2: unknown key 'rules'"),
    "an unknown key of a group": ("groups:\n- name: g\n  color: red\n", "r.yml:3: unknown key 'color' in a group"),
    "a group without a name": ("groups:\n- rules: []\n", "r.yml:2: a group needs a name"),
    "two groups of one name": ("groups:\n- name: g\n- name: g\n", "r.yml:3: group 'g' stands in this file twice"),
    "a limit that is no number": ("groups:\n- name: g\n  limit: many\n", "limit: 'many' is not a whole number"),
    "an interval that is no duration": ("groups:\n- name: g\n  interval: 1.5m\n", "r.yml:3: interval: '1.5m' is not"),
    "rules that are no list": ("groups:\n- name: g\n  rules: {alert: A}\n", "rules must be a list"),
    "groups that are no list": ("groups: {name: g}\n", "groups must be a list"),
    "an unknown key of a rule": (rule(["four: 1m"]), "r.yml:6: unknown key 'four' in a rule"),
    "an unknown function in an expression": (rule([], expr="expr: nosuch(up)"), "r.yml:5: rule A: "),
    "no expression": (rule([], expr=""), "rule A needs an expr"),
    "an empty expression": (rule([], expr="expr: ''"), "r.yml:5: rule A needs an expr"),
    "alert and record": (rule(["record: r"]), "r.yml:4: a rule needs either alert or record; it has both"),
    "neither alert nor record": (rule([], kind="labels: {}"), "r.yml:4: a rule needs either alert or record"),
    "for on a recording rule": (rule(["for: 1m"], kind="record: r"), "r.yml:6: recording rule r: for belongs"),
    "keep_firing_for on a recording rule": (rule(["keep_firing_for: 1m"], kind="record: r"), "keep_firing_for belongs"),
    "annotations on a recording rule": (rule(["annotations: {a: b}"], kind="record: r"), "annotations belongs"),
    "a recorded name that is none": (rule([], kind="record: a-b"), "r.yml:4: 'a-b' is not a metric name"),
    "a label name that is none": (rule(["labels: {a-b: c}"]), "r.yml:6: rule A, label a-b: 'a-b' is not a label name"),
    "the metric's name as a label": (rule(["labels: {__name__: c}"]), "'__name__' is not a label name"),
    "an annotation name that is none": (rule(["annotations: {a.b: c}"]), "rule A, annotation a.b: 'a.b' is not"),
    "for without a unit": (rule(["for: 5"]), "r.yml:6: for: '5' is not a duration"),
    "an empty for": (rule(["for: ''"]), "r.yml:6: for: '' is not a duration"),
    "a negative keep_firing_for": (rule(["keep_firing_for: -1m"]), "keep_firing_for: '-1m' is not a duration"),
    "a template with an unknown function": (rule(["labels: {a: '{{ nosuch }}'}"]), "rule A, label a: line 1 of"),
    "a template without an end": (rule(["annotations: {a: '{{ if $value }}'}"]), "{{if}} without {{end}}"),
    "an unclosed action": (rule(["annotations: {a: '{{ $value'}"]), "{{ is not closed by }}"),
    "a key twice": (rule(["for: 1m", "for: 2m"]), "r.yml:7: 'for' stands here a second time"),
    "labels that are a list": (rule(["labels: [a]"]), "r.yml:6: labels of rule A must hold keys and values"),
    "a label that is a list": (rule(["labels: {a: [b]}"]), "takes a single value"),
    "broken YAML": ("groups: [\n", "is not valid YAML"),
}  # fmt: skip

# What promtool takes, and we refuse rather than answer otherwise than Prometheus would.
STRICTER = {
    "a limit with a fraction": ("groups:\n- name: g\n  limit: 1.5\n", "limit: '1.5' is not a whole number"),
    "a range vector": (rule([], expr="expr: up[5m]"), "r.yml:5: rule A: expr gives a matrix"),
    "a string": (rule([], expr="expr: '\"a\"'"), "rule A: expr gives a string"),
    "an experimental function": (rule([], expr="expr: holt_winters(up[1h], 0.5, 0.5)"), "holt_winters"),
    "a template that ranges": (rule(["annotations: {a: '{{ range query \"up\" }}x{{ end }}'}"]), "{{range}}"),
    "a template that queries": (rule(["annotations: {a: '{{ query \"up\" | first | value }}'}"]), "function query"),
    "a comparison that always fails": (rule(["annotations: {a: '{{ gt $value 1 }}'}"]), "as 1.0"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "told"), [*BAD.values(), *STRICTER.values()], ids=[*BAD, *STRICTER])
def test_a_mistake_is_told_with_its_line(text, told):
    _, problems = read(text)
    assert len(problems) == 1, problems
    assert told in problems[0]


# What only Prometheus 3 has is refused by the promtool of version 2 as well.
@pytest.mark.parametrize(
    ("key", "told"), [("query_offset: 1m", "query_offset is not"), ("labels: {a: b}", "labels of a group")]
)
def test_what_only_groups_of_prometheus_3_have_is_refused_with_a_way_out(key, told):
    _, problems = read(f"groups:\n- name: g\n  {key}\n")
    assert len(problems) == 1
    assert told in problems[0]


def test_all_mistakes_are_told_at_once_and_the_good_rules_remain():
    groups, problems = read(
        GOOD
        + "- name: empty\n- rules:\n  - alert: B\n    expr: '('\n    for: x\n  - alert: C\n    expr: up\n"
    )
    assert [problem.split(": ")[0] for problem in problems] == [
        "r.yml:23",
        "r.yml:25",
        "r.yml:26",
        "r.yml:22",
    ]
    assert [rule.name for rule in groups[-1].rules] == ["C"]


def test_an_expression_that_looks_back_further_than_the_store_is_refused():
    text = rule([], expr="expr: rate(up[5h] offset 90m)")
    assert read(text, max_reach=7 * 3_600_000)[1] == []
    assert read(text)[1] == []
    _, problems = read(text, max_reach=6 * 3_600_000)
    assert "expr looks back 390m, the store keeps 6h" in problems[0]


def test_an_expression_at_a_named_time_is_refused_where_a_store_forgets():
    text = rule([], expr="expr: up @ 1609746000 > 0")
    assert read(text)[1] == []
    assert "names a time with @" in read(text, max_reach=6 * 3_600_000)[1][0]


def test_a_file_that_is_not_there_is_a_problem(tmp_path):
    problems = []
    assert load(tmp_path / "none.yml", problems) == ()
    assert "can't be read: no such file" in str(problems[0])


ALSO_GOOD = {
    "the whole": GOOD,
    "nothing": "",
    "no groups": "groups: []\n",
    "numbers as texts": rule(["labels: {severity: 1, on: true}", "annotations: {a: 1.5}"]),
    "a null for": rule(["for:", "labels:", "annotations:"]),
    "for 0": rule(["for: 0", "keep_firing_for: 0s"]),
    "a scalar": rule([], expr="expr: 1"),
    "a boolean as a number": rule([], expr="expr: vector(1) == bool 1"),
    "for 0 on a recording rule": rule(["for: 0s"], kind="record: r"),
    "an alert's name with spaces": rule([], kind="alert: 'Too much, really'"),
    "a negative limit": "groups:\n- name: g\n  limit: -1\n",
    "interval 0": "groups:\n- name: g\n  interval: 0s\n",
    "a template over lines": rule(
        ["annotations:", "  a: |", "    {{ if $value }}", "    x", "    {{- end }}"]
    ),
    "a folded expression": rule([], expr="expr: >-\n      up\n      == 0"),
    "a template in a recording rule's label": rule(["labels: {a: '{{ nosuch'}"], kind="record: r"),
    "a time with @": rule([], expr="expr: up @ 1609746000"),
    "the shipped rules": (Path(__file__).parents[3] / "alerts" / "oomguard.rules.yml").read_text(
        encoding="utf-8"
    ),
}


@pytest.mark.real
@pytest.mark.parametrize("text", ALSO_GOOD.values(), ids=ALSO_GOOD)
def test_what_we_take_promtool_takes(tmp_path, text):
    assert read(text)[1] == []
    taken, told = promtool.check(tmp_path, text)
    assert taken, told


@pytest.mark.real
@pytest.mark.parametrize("text", [text for text, _ in BAD.values()], ids=BAD)
def test_what_is_a_mistake_here_promtool_refuses_too(tmp_path, text):
    taken, told = promtool.check(tmp_path, text)
    assert not taken, told


@pytest.mark.real
@pytest.mark.parametrize("text", [text for text, _ in STRICTER.values()], ids=STRICTER)
def test_where_we_are_stricter_promtool_takes_it(tmp_path, text):
    taken, told = promtool.check(tmp_path, text)
    assert taken, told
