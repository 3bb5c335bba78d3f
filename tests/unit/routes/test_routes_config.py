"""The configuration file: what is accepted, what is said of the rest, and what Alertmanager says of the same."""

import subprocess
from pathlib import Path

import pytest
from routes_samples import BAD, GOOD, MINIMAL, OURS, with_child, with_route, with_webhook

from oomguard.routes.config import load

SHIPPED = Path(__file__).parents[3] / "alerts" / "alertmanager.yml"


def read(text, path=Path("am.yml")):
    problems = []
    return load(path, problems, text), [str(problem) for problem in problems]


def loaded(text):
    config, problems = read(text)
    assert problems == []
    return config


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_what_alertmanager_takes_is_taken(text):
    assert loaded(text)


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_what_alertmanager_refuses_is_refused_with_file_and_line(text):
    config, problems = read(text)
    assert config is None
    assert problems
    assert all(problem.startswith("am.yml") for problem in problems)


@pytest.mark.parametrize(("good", "text"), OURS.values(), ids=OURS)
def test_what_differs_on_purpose(good, text):
    assert (read(text)[0] is not None) is good


def amtool_takes(file):
    return subprocess.run(["amtool", "check-config", file], capture_output=True, timeout=60).returncode == 0


@pytest.mark.real
def test_amtool_says_the_same(tmp_path):
    file = tmp_path / "am.yml"
    for good, texts in ((True, GOOD), (False, BAD)):
        for name, text in texts.items():
            file.write_text(text)
            assert amtool_takes(file) is good, name


def test_the_shipped_file_is_read():
    problems = []
    config = load(SHIPPED, problems)
    assert problems == []
    (route,) = (route for route in config.route.walk() if route.receiver == "oomguard")
    assert (route.group_wait, route.group_interval, route.repeat_interval) == (0, 1, 30)
    assert route.group_by == {"target", "instance"}
    assert config.receivers["oomguard"].webhooks[0].send_resolved


def test_all_mistakes_are_told_at_once_with_their_lines():
    _, problems = read(
        "route:\n  receiver: nobody\n  group_wait: soon\n  routes:\n  - matchers: [a]\n    colour: red\n"
        "receivers:\n- name: hook\n  slack_configs:\n  - channel: '#x'\n"
    )
    assert [problem.split(": ")[0] for problem in sorted(problems)] == [
        "am.yml:2", "am.yml:3", "am.yml:5", "am.yml:6", "am.yml:9",
    ]  # fmt: skip
    assert any("run Alertmanager" in problem for problem in problems)


def test_an_empty_file_and_a_missing_one_are_told():
    assert read("")[1] == ["am.yml: is empty; it needs at least a route and its receiver"]
    problems = []
    assert load(Path("/nowhere/am.yml"), problems) is None
    assert "can't be read" in str(problems[0])


def test_defaults_are_alertmanagers():
    root = loaded(MINIMAL).route
    assert (root.group_wait, root.group_interval, root.repeat_interval) == (30, 300, 14400)
    assert root.group_by == frozenset()
    webhook = loaded(MINIMAL).receivers["hook"].webhooks[0]
    assert (webhook.send_resolved, webhook.max_alerts, webhook.timeout) == (True, 0, 10)
    assert webhook.http.follow_redirects


def test_routes_inherit_all_but_matchers_and_time_intervals():
    config = loaded(
        with_route(
            "group_by: [a], group_wait: 1s, group_interval: 2s, repeat_interval: 3s, routes: ["
            "{match: {x: y}, mute_time_intervals: [t], routes: [{match: {z: w}, group_wait: 0s, group_by: ['...']}]}]"
        )
        + "time_intervals: [{name: t}]\n"
    )
    (child,) = config.route.routes
    (grandchild,) = child.routes
    assert (child.receiver, child.group_by, child.group_wait) == ("hook", {"a"}, 1)
    assert child.mute_time_intervals == ("t",)
    assert (grandchild.group_by, grandchild.group_wait, grandchild.group_interval) == (None, 0, 2)
    assert (grandchild.mute_time_intervals, grandchild.repeat_interval) == ((), 3)
    assert grandchild.key == '{}/{x="y"}/{z="w"}'


def test_an_empty_group_by_inherits_too():
    config = loaded(with_route("group_by: ['...'], routes: [{group_by: []}, {group_by: [a]}]"))
    assert [route.group_by for route in config.route.routes] == [None, {"a"}]


def test_webhooks_take_the_global_http_config_unless_they_have_their_own():
    config = loaded(
        "global: {http_config: {authorization: {credentials: abc}}}\nroute: {receiver: a}\nreceivers:\n"
        "- name: a\n  webhook_configs: [{url: 'http://h/'}, {url: 'http://h/', http_config: {}}]\n"
    )
    first, second = config.receivers["a"].webhooks
    assert first.http.credentials.secret.reveal() == "abc"
    assert second.http.credentials is None


def test_files_are_relative_to_the_configuration():
    text = with_webhook(
        "http_config: {authorization: {credentials_file: token}, tls_config: {ca_file: /ca.pem}}"
    )
    config, _ = read(text, Path("/etc/oomguard/am.yml"))
    http = config.receivers["hook"].webhooks[0].http
    assert http.credentials.file == Path("/etc/oomguard/token")
    assert http.tls.ca_file == Path("/ca.pem")


def test_a_timeout_of_zero_is_the_default_and_never_for_ever():
    assert loaded(with_webhook("timeout: 0s")).receivers["hook"].webhooks[0].timeout == 10
    assert loaded(with_webhook("timeout: 1m30s")).receivers["hook"].webhooks[0].timeout == 90


def test_matchers_of_all_three_kinds_add_up_and_are_sorted():
    (child,) = loaded(
        with_child("{match: {b: x}, match_re: {c: y}, matchers: ['a!=\"z\"', 'd!~w']}")
    ).route.routes
    assert child.key == '{}/{a!="z",b="x",c=~"y",d!~"w"}'
