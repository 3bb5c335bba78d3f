"""Debian's Prometheus and Alertmanager with the files of alerts/: instead of our engine, beside it, compared."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from examples.stack import stack
from tests.support.boxes import require
from tests.support.client import read, read_json
from tests.support.command import OBEDIENT, Running, environment
from tests.support.stack import (
    LIMIT,
    OTHERS_ACT,
    PATIENCE,
    RealOnes,
    Receiver,
    Service,
    alerts_of,
    real_ones,
    servers_problem,
    service,
)
from tests.support.supervised import children, process_state, wait_for

from oomguard.model import fingerprint

pytestmark = pytest.mark.real

SHIPPED = stack.ROUTES.read_text()
CALM = ("--critical", "99%")
"""Sudden growth on a busy machine lowers thresholds, at most halfway to the goal: this one to 84.5 %."""
HIGH = 0.82
"""So that this is above `high`, and never critical."""


def posting_to(port: int, token_file: Path) -> str:
    """The shipped configuration, for another port and token file."""
    return stack.alertmanager_config(
        SHIPPED, url=f"http://127.0.0.1:{port}/admin/cleanup", token_file=token_file
    )


def check_nothing_collides(real: RealOnes) -> None:
    """The sidecar's own ALERTS stand beside Prometheus', whose rules all work on what is scraped."""
    assert real.query('ALERTS{engine="oomguard"}'), "the sidecar's"
    assert real.query('ALERTS{engine=""}'), "Prometheus' own"
    for fault in ("duplicate_timestamp", "out_of_order", "out_of_bounds"):
        assert real.metric(real.prometheus, f"prometheus_target_scrapes_sample_{fault}_total") == 0, fault
    assert real.metric(real.prometheus, "prometheus_rule_evaluation_failures_total") == 0
    assert real.complaints() == []


# -- the real ones act


def test_what_prometheus_sees_and_alertmanager_posts_frees_memory() -> None:
    with (
        service(*CALM, "--routes", OTHERS_ACT) as guarded,
        real_ones(guarded.port, posting_to(guarded.port, guarded.token_file)) as real,
    ):
        guarded.fill(HIGH)
        request = guarded.until_request(lambda request: request["outcome"] == "started", "a run")
        assert (request["receiver"], request["alerts"], request["declined"]) == (
            "oomguard",
            ["MemoryHigh"],
            {},
        )
        assert request["used"] > 0.8 * LIMIT
        guarded.until_below(0.5)
        entry = wait_for(
            lambda: (
                told
                if (told := read_json(guarded.port, f"/api/v1/journal/{request['id']}"))["ended"]
                else None
            ),
            "the outcome",
            PATIENCE,
        )
        assert (entry["run"], entry["outcome"]) == (request["run"], "goal_reached")
        over = guarded.until_request(lambda request: request["declined"], "resolved")
        assert (over["outcome"], over["run"], over["declined"]) == ("nothing_asked", None, {"resolved": 1})
        assert [record["run"] for record in guarded.journal("run_start")] == [request["run"]]
        failed = real.metric(
            real.alertmanager, "alertmanager_notifications_failed_total", integration="webhook"
        )
        assert failed == 0
        check_nothing_collides(real)


def test_alertmanager_posts_straight_to_the_applications_own_admin() -> None:
    with (
        service(*CALM, "--routes", OTHERS_ACT) as guarded,
        real_ones(guarded.port, posting_to(guarded.app_port, guarded.token_file)) as real,
    ):
        guarded.fill(HIGH)
        guarded.until_below(0.5)
        assert real.value("max_over_time(oomguard_memory_used_ratio[5m])") > 0.8
        sent = "alertmanager_notifications_total"
        wait_for(lambda: real.metric(real.alertmanager, sent, integration="webhook"), "a webhook", PATIENCE)
        assert real.metric(real.alertmanager, "alertmanager_notifications_failed_total") == 0
        assert guarded.journal("request", "run_start") == [], "the sidecar was not asked"


def test_what_comes_while_the_target_restarts_is_delivered_once_it_is_back(tmp_path: Path) -> None:
    require(servers_problem())
    pid_file = tmp_path / "pid"

    def start_target() -> subprocess.Popen[bytes]:
        target = subprocess.Popen(OBEDIENT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        pid_file.write_text(str(target.pid))
        return target

    with Running("watch", "--pid-file", pid_file, "--limit", "1GiB", "--routes", OTHERS_ACT) as watching:
        first = start_target()
        try:
            watching.until_guarding()
            name = watching.status()["target"]
        finally:
            first.kill()
            first.communicate()
        watching.until_status(lambda status: status["pid"] is None, "no target", PATIENCE)
        config = posting_to(watching.port, watching.runtime_dir / "token")
        with real_ones(watching.port, config) as real:
            tell(real, alertname="MemoryHigh", target=name, action="cleanup", severity="none")
            refused = "oomguard_admin_requests_total"
            wait_for(lambda: watching.metric(refused, outcome="no_target"), "a refusal", PATIENCE)
            assert watching.journal("request") == []
            second = start_target()
            try:
                (request,) = watching.until_journal("request", timeout=PATIENCE)
            finally:
                second.kill()
                second.communicate()
    assert (request["outcome"], request["alerts"]) == ("not_needed", ["MemoryHigh"])


def tell(real: RealOnes, **labels: str) -> None:
    """Give Alertmanager an alert, as Prometheus would."""
    request = urllib.request.Request(
        f"{real.alertmanager.url}/api/v2/alerts",
        json.dumps([{"labels": labels}]).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert answer.status == 200


# -- both engines on


def test_with_both_engines_on_one_crossing_takes_each_step_once() -> None:
    with (
        service(*CALM) as guarded,
        real_ones(guarded.port, posting_to(guarded.port, guarded.token_file)) as real,
    ):
        # A cleanup that takes until the real ones have seen the crossing too: theirs joins it.
        guarded.ask("arm")
        guarded.fill(HIGH)
        request = guarded.until_request(lambda request: request["receiver"] == "oomguard", "the real ones")
        guarded.ask("release")
        guarded.until_below(0.5)
        (run,) = guarded.until_journal("run_end")
        # On a machine so slow that the cleanup was given up before: what it learned holds theirs back.
        assert (request["outcome"], request["run"]) in [("joined", run["run"]), ("held", None)]
        guarded.until_request(lambda request: request["declined"] == {"resolved": 1}, "resolved")
        check_each_step_once(guarded, runs=1)

        # A cleanup that gives nothing back: theirs asks for the same once more, and is held.
        before = len(guarded.journal("request"))
        guarded.fill(HIGH, "hold")
        again = wait_for(lambda: guarded.journal("request")[before:], "the real ones again", PATIENCE)[0]
        last = guarded.until_journal("run_end", 2)[-1]
        assert last["outcome"] == "goal_not_reached"
        assert (again["outcome"], again["run"]) in [("held", None), ("joined", last["run"])]
        check_each_step_once(guarded, runs=2)
        check_nothing_collides(real)


def check_each_step_once(guarded: Service, runs: int) -> None:
    taken = [(record["run"], record["step"]) for record in guarded.journal("step_start")]
    assert len(taken) == len(set(taken)), taken
    assert len(guarded.journal("run_start")) == runs


def test_a_spike_between_two_scrapes_is_seen_by_the_embedded_engine_alone() -> None:
    with (
        service(*CALM) as guarded,
        real_ones(guarded.port, posting_to(guarded.port, guarded.token_file)) as real,
    ):
        guarded.fill(0.60, "hold")
        fired = 'sum(count_over_time(ALERTS{alertname="MemoryHigh", engine=""}[1h]))'
        for _ in range(10):
            after_a_scrape(real)
            before, runs = real.value(fired), len(guarded.journal("run_start"))
            guarded.ask(f"spike/{round((HIGH - 0.6) * LIMIT) >> 20}/100")
            for _ in range(3):
                after_a_scrape(real)
            # On a busy machine one may last until the next scrape, or the sidecar sleep through it: once more.
            if (started := guarded.journal("run_start")[runs:]) and real.value(fired) == before:
                break
        else:
            pytest.fail("of 10 spikes of 100 ms none was seen by the embedded engine alone")
        assert [run["alerts"] for run in started] == [["MemoryHigh"]]
        assert started[0]["used"] > 0.7 * LIMIT


def after_a_scrape(real: RealOnes) -> None:
    """Return as soon as Prometheus has scraped once more."""

    def last() -> str:
        (target,) = real.prometheus.get_json("/api/v1/targets?state=active")["data"]["activeTargets"]
        return str(target["lastScrape"])

    before = last()
    wait_for(lambda: last() != before, "a scrape", PATIENCE)


# -- the same alerts of both engines


PAGING = """
groups:
  - name: pages
    rules:
      - alert: HighForAWhile
        expr: oomguard_memory_used_ratio > 0.75
        for: 3s
        labels: {severity: critical, team: "{{ $labels.target }}s"}
        annotations:
          summary: "{{ $labels.target }} uses {{ $value | humanizePercentage }}"
"""


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, RealOnes, Receiver]]:
    """Both engines on one service, with the same files; each posts to a path of its own, and nobody acts."""
    require(servers_problem())
    folder = tmp_path_factory.mktemp("compared")
    pages = folder / "pages.rules.yml"
    pages.write_text(PAGING)
    with Receiver() as receiver:
        embedded = folder / "embedded.yml"
        embedded.write_text(captured_at(f"{receiver.url}/embedded"))
        with (
            service("--routes", embedded, "--rules", f"{stack.RULES},{pages}") as guarded,
            real_ones(guarded.port, captured_at(f"{receiver.url}/real"), stack.RULES, pages) as real,
        ):
            yield guarded, real, receiver


def captured_at(url: str) -> str:
    """The shipped configuration with every receiver at `url`, the sidecar under another name, and short waits."""
    config = yaml.safe_load(SHIPPED)

    def hurry(route: dict[str, Any]) -> None:
        route["receiver"] = renamed(route["receiver"])
        waits = {"group_wait": "0s", "group_interval": "1s", "repeat_interval": "2s"}
        route.update({name: wait for name, wait in waits.items() if name in route})
        for child in route.get("routes", ()):
            hurry(child)

    hurry(config["route"])
    for receiver in config["receivers"]:
        receiver["name"] = renamed(receiver["name"])
        if receiver["name"] != "null":
            receiver["webhook_configs"] = [{"url": f"{url}/{receiver['name']}"}]
    return yaml.safe_dump(config)


def renamed(receiver: str) -> str:
    return "acting" if receiver == "oomguard" else receiver


def test_a_slow_ramp_gives_the_same_alerts_and_payloads(
    compared: tuple[Service, RealOnes, Receiver],
) -> None:
    guarded, real, receiver = compared
    goal = guarded.ratio()
    while goal < 0.93:
        goal += 0.008  # 2 MiB: 40 MB/s or less
        guarded.fill(min(goal, 0.93))
        time.sleep(0.05)

    names = {
        "acting": {"MemoryHigh", "MemoryCritical"},
        "people": {"HighForAWhile"},
        "watchdog": {"Watchdog"},
    }
    for path, expected in names.items():
        ours, theirs = (
            receiver.until_all_fire(f"/{engine}/{path}", expected) for engine in ("embedded", "real")
        )
        assert comparable(ours) == comparable(theirs)
        assert list(ours) == list(theirs), "the order of the fields too"
        assert list(ours["alerts"][0]) == list(theirs["alerts"][0])
        for alert in (*ours["alerts"], *theirs["alerts"]):
            assert alert["fingerprint"] == fingerprint(alert["labels"])
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", alert["startsAt"])

    ours, theirs = (
        sorted((shown(alert) for alert in told["data"]["alerts"] if alert["state"] == "firing"), key=str)
        for told in (read_json(guarded.port, "/api/v1/alerts"), real.prometheus.get_json("/api/v1/alerts"))
    )
    assert ours == theirs

    guarded.ask("empty")
    for path in ("acting", "people"):
        ours, theirs = (
            resolved(receiver, f"/{engine}/{path}", names[path]) for engine in ("embedded", "real")
        )
        assert ours == theirs
    for engine in ("embedded", "real"):
        seen = {
            name for path in names for told in receiver.got(f"/{engine}/{path}") for name in alerts_of(told)
        }
        assert seen == set().union(*names.values()), engine
    check_nothing_collides(real)


def shown(alert: dict[str, Any]) -> dict[str, Any]:
    """An alert of /api/v1/alerts without what only one engine knows: when it began, and a value that was measured."""
    own = {"activeAt"} | ({"value"} if "target" in alert["labels"] else set())
    return {
        **{name: value for name, value in alert.items() if name not in own},
        "labels": unscraped(alert["labels"]),
        "annotations": measured(alert["annotations"]),
    }


def resolved(receiver: Receiver, path: str, names: set[str]) -> list[dict[str, Any]]:
    """What was told of each alert when it was over, by name."""

    def found() -> dict[str, dict[str, Any]] | None:
        told = {
            alert["labels"]["alertname"]: comparable_alert(alert)
            for payload in receiver.got(path)
            for alert in payload["alerts"]
            if alert["status"] == "resolved"
        }
        return told if told.keys() == names else None

    return [alert for _, alert in sorted(wait_for(found, f"{path}: the end of {names}", PATIENCE).items())]


def comparable(payload: dict[str, Any]) -> dict[str, Any]:
    """A payload without what only one engine knows: its addresses, its times, the labels that a scrape adds."""
    shared = {name: value for name, value in payload.items() if name != "externalURL"}
    return {
        **shared,
        "alerts": [comparable_alert(alert) for alert in payload["alerts"]],
        "groupLabels": unscraped(payload["groupLabels"]),
        "commonLabels": unscraped(payload["commonLabels"]),
        "commonAnnotations": measured(payload["commonAnnotations"]),
        "groupKey": re.sub(r'(?<=[{ ])instance="[^"]*"(, )?', "", payload["groupKey"]),
    }


def comparable_alert(alert: dict[str, Any]) -> dict[str, Any]:
    own = {"startsAt", "fingerprint"} | ({"endsAt"} if alert["status"] == "resolved" else set())
    return {
        **{name: value for name, value in alert.items() if name not in own},
        "labels": unscraped(alert["labels"]),
        "annotations": measured(alert["annotations"]),
        "generatorURL": re.sub(r"^http://[^/]+", "", alert["generatorURL"]),
    }


def unscraped(labels: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in labels.items() if name not in ("job", "instance")}


def measured(annotations: dict[str, str]) -> dict[str, str]:
    """Annotations with every number as N: each engine tells what it has measured itself."""
    return {name: re.sub(r"\d+(\.\d+)?", "N", text) for name, text in annotations.items()}


# -- make stack


def test_make_stack_shows_the_real_ones_at_work_and_ends_all_that_it_started() -> None:
    require(servers_problem())
    program = Path(stack.__file__)
    with subprocess.Popen(
        [sys.executable, str(program)],
        env={**environment(), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdout is not None
        said, alarm = "", threading.Timer(2 * PATIENCE, running.terminate)
        alarm.start()
        try:
            for line in running.stdout:
                said += line
                if "cleanup goal reached" in line and "MemoryHigh" in line:
                    break
            asked, told, sidecar = (
                int(port)
                for port in re.findall(r"(?:Prometheus|Alertmanager|sidecar): http://127.0.0.1:(\d+)", said)
            )
            records = read_json(sidecar, "/api/v1/journal")["records"]
            assert "started" in [record["outcome"] for record in records if record["event"] == "request"]
            assert "oomguard-act" in read(asked, "/api/v1/rules")
            assert "/admin/cleanup" in read_json(told, "/api/v2/status")["config"]["original"]
            mine = list(children(running.pid))
            assert len(mine) == 3
            running.send_signal(signal.SIGINT)
            assert running.wait(PATIENCE) == 0
        finally:
            alarm.cancel()
            running.terminate()
        assert not [pid for pid in mine if process_state(pid)]


def test_make_stack_says_what_is_missing_and_how_to_install_it() -> None:
    done = subprocess.run(
        [sys.executable, stack.__file__],
        env=environment(PATH=""),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2
    assert "apt-get install prometheus prometheus-alertmanager" in done.stderr
    assert "Traceback" not in done.stderr
