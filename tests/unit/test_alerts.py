"""The shipped rules and routes: what acts and what pages stand apart, and each alert has its tests and its runbook."""

import re
import shutil
import subprocess
from pathlib import Path

import promql_parser
import pytest
import yaml
from tests.support.boxes import require

from oomguard import cli
from oomguard.metrics import BY_NAME, FAST, HISTOGRAM
from oomguard.sizes import parse_threshold

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "alerts"
RULES = ALERTS / "oomguard.rules.yml"
ROUTES = ALERTS / "alertmanager.yml"
TESTS = sorted((ALERTS / "tests").glob("*_test.yml"))
RUNBOOK_URL = "https://github.com/oomguard/oomguard/blob/main/alerts/runbooks"
SCRAPED = {"job", "instance", "target"}
COMMANDS = {name for name, _ in cli.COMMANDS}
PACKAGES = {"promtool": "prometheus", "amtool": "prometheus-alertmanager"}
AT_ONCE = {"OOMKilled", "ChildKilled"}
"""What page without waiting: a kill needs no second look."""


def rules():
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def named(rule):
    return rule["alert"]


def acting():
    return [rule for rule in rules() if "action" in rule["labels"]]


def paging():
    return [rule for rule in rules() if rule["labels"]["severity"] != "none"]


def nodes(expr):
    """Every node of an expression, the selector of a range included."""
    found = []
    promql_parser.walk(promql_parser.parse(expr), found.append)
    return found


def selectors(expr):
    return [node for node in nodes(expr) if isinstance(node, promql_parser.VectorSelector)]


def labels_of(name):
    """The labels of a metric by the name of one of its series; None where there is no such metric."""
    if name == "up":
        return {"job", "instance"}
    metric = BY_NAME.get(name)
    if metric is None:
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        metric = BY_NAME.get(base)
        if metric is None or metric.kind != HISTOGRAM:
            return None
    return {*metric.label_names, "job", "instance", *(["le"] if name.endswith("_bucket") else [])}


def runbook(rule):
    return ALERTS / "runbooks" / f"{rule['alert']}.md"


def sections(page):
    """Titles of the second level and what stands below them."""
    parts = re.split(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def expected():
    """Names of the alerts that a test expects to fire, and of those it expects not to."""
    fires, silent = set(), set()
    for file in TESTS:
        for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
            for case in test.get("alert_rule_test", ()):
                (fires if case["exp_alerts"] else silent).add(case["alertname"])
    return fires, silent


def test_every_alert_has_a_name_of_its_own():
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))


def test_every_alert_either_acts_or_pages_but_for_the_watchdog():
    apart = {rule["alert"] for rule in rules()} - {rule["alert"] for rule in (*acting(), *paging())}
    assert apart == {"Watchdog"}


@pytest.mark.parametrize("rule", acting(), ids=named)
def test_a_rule_that_acts_does_so_at_once_and_pages_nobody(rule):
    labels = rule["labels"]
    assert rule["for"] == "0s"
    assert labels["severity"] == "none"
    assert set(labels) <= {"severity", "action", "steps", "goal"}
    assert labels["action"] in {"cleanup", "unload", "notify"}
    if labels["action"] == "cleanup":
        steps = labels["steps"].split(",")
        ladder = ["caches", "gc", "trim", "streams", "models", "shed"]
        assert steps == ["all"] or steps == [step for step in ladder if step in steps]
    if "goal" in labels:
        parse_threshold(labels["goal"])


@pytest.mark.parametrize("rule", paging(), ids=named)
def test_a_rule_that_pages_does_not_act_and_waits(rule):
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert set(rule["labels"]) == {"severity"}
    assert (rule["for"] == "0s") == (rule["alert"] in AT_ONCE)


@pytest.mark.parametrize("name", ["MemoryHigh", "MemoryCritical"])
def test_the_rules_of_the_fast_lane_read_it_alone_and_at_one_instant(name):
    (rule,) = (rule for rule in rules() if rule["alert"] == name)
    assert {selector.name for selector in selectors(rule["expr"])} <= {metric.name for metric in FAST}
    kinds = (promql_parser.MatrixSelector, promql_parser.SubqueryExpr)
    assert not [node for node in nodes(rule["expr"]) if isinstance(node, kinds)]
    assert not any(selector.offset or selector.at for selector in selectors(rule["expr"]))


@pytest.mark.parametrize("rule", rules(), ids=named)
def test_a_rule_reads_only_metrics_and_labels_that_there_are(rule):
    for selector in selectors(rule["expr"]):
        known = labels_of(selector.name)
        assert known is not None, selector.name
        assert {matcher.name for matcher in selector.matchers.matchers} <= known, selector.name


@pytest.mark.parametrize("rule", rules(), ids=named)
def test_a_rule_joins_and_groups_by_labels_that_there_are_and_keeps_those_of_a_fleet(rule):
    known = SCRAPED.union(*(labels_of(selector.name) for selector in selectors(rule["expr"])))
    for node in nodes(rule["expr"]):
        modifier = getattr(node, "modifier", None)
        labels = getattr(getattr(modifier, "matching", None) or modifier, "labels", ())
        assert set(labels) <= known
        if isinstance(node, promql_parser.AggregateExpr):
            assert modifier is not None
            assert modifier.type == promql_parser.AggModifierType.Without
            assert not set(labels) & SCRAPED


@pytest.mark.parametrize("rule", rules(), ids=named)
def test_a_window_holds_four_scrapes_of_a_minute_and_lies_within_what_the_sidecar_keeps(rule):
    for node in nodes(rule["expr"]):
        assert not isinstance(node, promql_parser.SubqueryExpr), "a subquery costs too much in the sidecar"
        if isinstance(node, promql_parser.MatrixSelector):
            offset = node.vector_selector.offset
            assert node.range.total_seconds() >= 240
            assert node.range.total_seconds() + (offset.total_seconds() if offset else 0) <= 6 * 3600


@pytest.mark.parametrize("rule", rules(), ids=named)
def test_annotations_say_what_how_much_and_what_to_do(rule):
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert annotations["runbook_url"] == f"{RUNBOOK_URL}/{rule['alert']}.md"
    assert "$value" in annotations["description"]
    assert "\n" not in "".join(annotations.values())
    allowed = r"\$labels\.[a-z_]+|\$value( \| (humanize\w*|printf \"%\.0f\"))?|if( eq)? \$[\w. ]+|else|end"
    for action in re.findall(r"\{\{(.*?)\}\}", "".join(annotations.values())):
        assert re.fullmatch(allowed, action.strip()), action


@pytest.mark.parametrize("rule", rules(), ids=named)
def test_the_comment_above_a_rule_gives_its_reason(rule):
    lines = RULES.read_text(encoding="utf-8").splitlines()
    at = lines.index(f"      - alert: {rule['alert']}")
    assert lines[at - 1].strip().startswith("# ")


@pytest.mark.parametrize("rule", rules(), ids=named)
def test_a_runbook_has_its_four_sections_with_commands(rule):
    found = sections(runbook(rule))
    assert list(found) == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
    assert all(body.strip() for body in found.values())
    assert runbook(rule).read_text(encoding="utf-8").startswith(f"# {rule['alert']}\n")
    assert re.search(r"```sh\n.+?```", found["Diagnosis"], re.DOTALL)


@pytest.mark.parametrize("page", sorted((ALERTS / "runbooks").glob("*.md")), ids=lambda page: page.stem)
def test_a_runbook_names_only_alerts_commands_metrics_and_pages_that_there_are(page):
    body = page.read_text(encoding="utf-8")
    assert page.stem in {rule["alert"] for rule in rules()}
    blocks = "\n".join(re.findall(r"```sh\n(.*?)```", body, re.DOTALL))
    said = blocks + "\n" + "\n".join(re.findall(r"`(oomguard [^`]+)`", body))
    assert set(re.findall(r"^oomguard ([a-z]+)", said, re.MULTILINE)) <= COMMANDS
    for name in re.findall(r"\b(oomguard_[a-z0-9_]+_(?:total|bytes|seconds|ratio|info))\b", body):
        assert labels_of(name) is not None, name
    for target in re.findall(r"\]\(([^)#]+)\)", body):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("rule", rules(), ids=named)
def test_every_alert_has_a_test_that_it_fires_and_one_that_it_does_not(rule):
    fires, silent = expected()
    assert rule["alert"] in fires
    assert rule["alert"] in silent or rule["alert"] == "Watchdog"


def test_tests_name_only_alerts_that_there_are_and_each_firing_one_with_its_labels_and_texts():
    fires, silent = expected()
    assert fires | silent == {rule["alert"] for rule in rules()}
    for file in TESTS:
        for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
            for case in test["alert_rule_test"]:
                for alert in case["exp_alerts"]:
                    assert "severity" in alert["exp_labels"]
                    assert set(alert["exp_annotations"]) == {"summary", "description", "runbook_url"}


def test_some_tests_are_of_one_target_alone_and_some_of_a_fleet():
    alone, fleet = 0, 0
    for file in TESTS:
        for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
            series = "".join(entry["series"] for entry in test["input_series"])
            instances = set(re.findall(r'instance="([^"]+)"', series))
            alone += not instances
            fleet += len(instances) > 1
    assert alone >= 10
    assert fleet >= 10


def test_a_cleanup_is_never_inhibited():
    for rule in yaml.safe_load(ROUTES.read_text(encoding="utf-8"))["inhibit_rules"]:
        assert 'action=""' in rule["target_matchers"]


def test_the_route_of_actions_does_not_wait_and_tells_the_end():
    routes = yaml.safe_load(ROUTES.read_text(encoding="utf-8"))
    (route,) = (route for route in routes["route"]["routes"] if route["receiver"] == "oomguard")
    (receiver,) = (receiver for receiver in routes["receivers"] if receiver["name"] == "oomguard")
    assert route["matchers"] == ['action!=""']
    assert route["group_by"] == ["target", "instance"]
    waits = [route[wait] for wait in ("group_wait", "group_interval", "repeat_interval")]
    assert waits == ["0s", "1s", "30s"]
    assert route["continue"] is True
    (webhook,) = receiver["webhook_configs"]
    assert webhook["send_resolved"] is True


def test_inhibition_names_only_alerts_that_there_are():
    names = {rule["alert"] for rule in rules()}
    for said in re.findall(r'alertname=~?"([^"]+)"', ROUTES.read_text(encoding="utf-8")):
        assert set(said.split("|")) <= names


def run(*command):
    tool = command[0]
    require(None if shutil.which(tool) else f"{tool} is missing (apt-get install {PACKAGES[tool]})")
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.real
def test_promtool_takes_the_rules():
    assert f"{len(rules())} rules found" in run("promtool", "check", "rules", RULES)


@pytest.mark.real
@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.stem)
def test_promtool_finds_every_alert_as_its_tests_expect(file):
    assert "SUCCESS" in run("promtool", "test", "rules", file)


@pytest.mark.real
def test_amtool_takes_the_routes():
    assert "SUCCESS" in run("amtool", "check-config", ROUTES)


@pytest.mark.real
@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        (("alertname=MemoryHigh", "action=cleanup", "severity=none"), "oomguard,null"),
        (("alertname=Mine", "action=cleanup", "severity=critical"), "oomguard,people"),
        (("alertname=OOMKilled", "severity=critical"), "people"),
        (("alertname=HookDown", "severity=warning"), "people"),
        (("alertname=Unlabelled",), "people"),
        (("alertname=Watchdog", "severity=none"), "watchdog"),
    ],
)
def test_an_alert_goes_where_it_should(labels, receivers):
    run(
        "amtool",
        "config",
        "routes",
        "test",
        f"--config.file={ROUTES}",
        f"--verify.receivers={receivers}",
        *labels,
    )
