"""The sidecar's own engine fires the shipped alerts where promtool's tests of them say so."""

import re
from pathlib import Path

import promql_parser
import pytest
import yaml

from oomguard.promql.memory import MemoryStorage
from oomguard.promql.series import STALE
from oomguard.routes import config
from oomguard.rules import files
from oomguard.rules.alerts import AlertState
from oomguard.rules.engine import Engine
from oomguard.rules.lanes import Lane
from oomguard.store import MAX_REACH

ALERTS = Path(__file__).parents[2] / "alerts"
MINUTE = 60_000
RUN = re.compile(r"(-?[\d.e]+|_)(?:([+-][\d.e]+))?x(\d+)")


def cases():
    for file in sorted((ALERTS / "tests").glob("*_test.yml")):
        for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
            yield pytest.param(test, id=f"{file.stem.removesuffix('_test')}: {test['name'][:70]}")


def groups():
    problems = []
    found = files.load(ALERTS / "oomguard.rules.yml", problems, max_reach=MAX_REACH)
    assert problems == []
    return found


def milliseconds(text):
    return files.parse_duration(text)


def values(text):
    """Values of a series as promtool writes them, None for a gap."""
    for word in text.split():
        match = RUN.fullmatch(word)
        if match and match[1] == "_":
            yield from [None] * int(match[3])
        elif match:
            yield from (float(match[1]) + step * float(match[2] or 0) for step in range(int(match[3]) + 1))
        else:
            yield {"_": None, "stale": STALE}[word] if word in ("_", "stale") else float(word)


def stored(test):
    """The series of a test."""
    storage, interval = MemoryStorage(), milliseconds(test["interval"])
    for entry in test["input_series"]:
        selector = promql_parser.parse(entry["series"])
        labels = {matcher.name: matcher.value for matcher in selector.matchers.matchers}
        samples = (
            (at * interval, value) for at, value in enumerate(values(entry["values"])) if value is not None
        )
        storage.add(selector.name, labels, samples)
    return storage


def fired(engine, name):
    """Labels and annotations of what fires under a name, as promtool lists it."""
    return [
        ({key: value for key, value in alert.labels.items() if key != "alertname"}, dict(alert.annotations))
        for alert in engine.alerts()
        if alert.state is AlertState.FIRING and alert.labels["alertname"] == name
    ]


def by_labels(alerts):
    return sorted(alerts, key=lambda alert: sorted(alert[0].items()))


@pytest.mark.parametrize("test", list(cases()))
def test_an_alert_fires_in_the_sidecar_as_in_prometheus(test):
    engine, wanted = Engine(groups(), stored(test)), test["alert_rule_test"]
    times = {milliseconds(case["eval_time"]) for case in wanted}
    for now in sorted({*range(0, max(times) + 1, MINUTE), *times}):
        engine.evaluate(Lane.ALL, now)
        assert not [running.last_error for running in engine.rules if running.last_error]
        for case in wanted:
            if milliseconds(case["eval_time"]) == now:
                expected = [(alert["exp_labels"], alert["exp_annotations"]) for alert in case["exp_alerts"]]
                assert by_labels(fired(engine, case["alertname"])) == by_labels(expected), case["alertname"]


def test_the_sidecar_takes_the_shipped_routes():
    problems = []
    assert config.load(ALERTS / "alertmanager.yml", problems) is not None
    assert problems == []


def test_the_rules_that_run_at_every_fast_tick_are_those_of_the_level():
    engine = Engine(groups(), MemoryStorage())
    fast = {running.rule.name for running in engine.rules if running.lane is Lane.FAST}
    assert fast == {"MemoryHigh", "MemoryCritical"}
