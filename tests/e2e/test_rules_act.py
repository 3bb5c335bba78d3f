"""Rules and routes at work in a real sidecar: every action is their consequence, and nothing of it is forgotten."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.test_page import BROWSERS, load
from tests.e2e.test_page import text as shown_as
from tests.support.boxes import BoxV1, require
from tests.support.command import OBEDIENT, Running, environment, oomguard
from tests.support.guarded import Guarded
from tests.support.supervised import wait_for

from oomguard.routes.silences import parse_time

MIB = 1 << 20
LIMIT = ("--limit", "128MiB")
ROUTES = """
route:
  receiver: {default}
  group_by: [alertname]
  group_wait: 0s
  group_interval: 1s
  repeat_interval: 1h
  routes:
    - matchers: [action!=""]
      receiver: oomguard
receivers:
  - name: oomguard
  - name: "null"
  - name: people
    webhook_configs: [{{url: "http://127.0.0.1:{port}/"}}]
"""


def rule(
    name: str,
    expr: str,
    *,
    for_: str = "0s",
    labels: str = "severity: none, action: cleanup",
    summary: str = "x",
) -> str:
    """A rule file with one alert."""
    return (
        f"groups:\n  - name: own\n    rules:\n      - alert: {name}\n        expr: {expr}\n        for: {for_}\n"
        f"        labels: {{{labels}}}\n        annotations: {{summary: {summary!r}}}\n"
    )


def flags(folder: Path, rules: str = "", routes: str = "") -> list[str | Path]:
    """Flags for rules and routes of one's own."""
    told: list[str | Path] = [*LIMIT]
    for name, text in (("rules", rules), ("routes", routes)):
        if text:
            (folder / f"{name}.yml").write_text(text)
            told += [f"--{name}", folder / f"{name}.yml"]
    return told


class Receiver:
    """A webhook receiver on loopback that keeps what it is sent; it answers `status`."""

    def __init__(self) -> None:
        self.payloads: list[dict[str, Any]] = []
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if receiver.status == 200:
                    receiver.payloads.append(body)
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Receiver:  # noqa: PYI034 - Self is not in the typing of Python 3.10
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def told(self) -> list[tuple[str, str]]:
        """Status and name of every alert that arrived."""
        return [
            (alert["status"], alert["labels"]["alertname"])
            for payload in self.payloads
            for alert in payload["alerts"]
        ]


@contextlib.contextmanager
def guarded(*arguments: str | Path, hooks: int = 1, runtime_dir: Path | None = None) -> Iterator[Running]:
    """The obedient target with a registered cache under ``oomguard run``."""
    with Running("run", *(arguments or LIMIT), target=OBEDIENT, runtime_dir=runtime_dir) as running:
        running.answer()
        running.order("register")
        running.until_guarding(hooks=hooks)
        yield running


def ask(
    running: Running, method: str, path: str, body: object = None, *, token: str | None = "", raw: bytes = b""
) -> tuple[int, Any]:
    """Status and JSON of an answer; `token` empty: the right one, None: none."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    try:
        headers = {}
        if token is not None:
            headers["Authorization"] = (
                f"Bearer {token or (running.runtime_dir / 'token').read_text().strip()}"
            )
        data = raw or (json.dumps(body).encode() if body is not None else None)
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        text = answer.read()
        return answer.status, json.loads(text) if text else None
    finally:
        connection.close()


def payload(*alerts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"version": "4", "status": "firing", "receiver": "oomguard", "alerts": list(alerts), **more}


def alert(**labels: str) -> dict[str, Any]:
    return {
        "status": "firing",
        "labels": {"alertname": "Outside", **labels},
        "annotations": {},
        "startsAt": "2026-11-21T04:00:18.5Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": "0123456789abcdef",
    }


def ratio(running: Running, above: float) -> None:
    running.until_status(lambda status: status["level"]["ratio"] > above, f"more than {above} used")


def ticks(running: Running, lane: str = "live", count: int = 8) -> None:
    """Return once all rules of a lane have been evaluated so many times more."""

    def evaluated() -> float:
        return running.metric("oomguard_rule_evaluations_total", lane=lane) or 0.0

    before = evaluated()
    wait_for(lambda: evaluated() >= before + count, f"{count} evaluations of the lane {lane}")


# -- what acts ----------------------------------------------------------------------------------


def test_without_a_rule_that_asks_for_it_nothing_is_done_at_95_percent(tmp_path: Path) -> None:
    rules = rule("Told", "oomguard_memory_used_ratio > 0.5", labels="severity: warning")
    with guarded(*flags(tmp_path, rules)) as running:
        running.order("cache 114")
        ratio(running, 0.9)
        ticks(running)
        assert running.journal("run_start", "step_start") == []
        assert running.until_journal("alert_firing")[0]["alert"] == "Told"
        assert running.until_log("alert firing")["alert"] == "Told"
        assert running.status()["health"] == "critical"


def test_a_rule_of_ones_own_acts_where_it_says(tmp_path: Path) -> None:
    labels = "severity: none, action: cleanup, steps: caches, goal: 30%"
    with guarded(
        *flags(tmp_path, rule("HalfFull", "oomguard_memory_used_ratio > 0.5", labels=labels))
    ) as running:
        running.order("cache 50")
        ticks(running)
        assert running.journal("run_start") == []
        running.order("cache 20")
        (end, *_) = running.until_journal("run_end")
        (start, *_) = running.journal("run_start")
        assert (start["alerts"], start["steps"]) == (["HalfFull"], ["caches"])
        assert start["goal"] == int(0.3 * 128 * MIB)
        assert start["used"] > 64 * MIB
        assert end["outcome"] == "goal_reached"


def test_where_no_route_leads_here_nothing_is_done_and_that_is_said(tmp_path: Path) -> None:
    routes = 'route: {receiver: "null"}\nreceivers: [{name: "null"}, {name: oomguard}]\n'
    with guarded(*flags(tmp_path, routes=routes)) as running:
        running.order("cache 114")
        ratio(running, 0.9)
        ticks(running)
        firing = {
            told["labels"]["alertname"] for told in running.status()["alerts"] if told["state"] == "firing"
        }
        assert {"MemoryHigh", "MemoryCritical"} <= firing
        assert running.journal("run_start") == []
        assert running.until_log("no route leads to the receiver 'oomguard'")["level"] == "warning"


def test_with_dry_run_everything_is_journaled_and_no_step_taken() -> None:
    with guarded(*LIMIT, "--dry-run") as running:
        running.order("cache 114")
        (end, *_) = running.until_journal("run_end")
        assert end["alerts"][0] in ("MemoryHigh", "MemoryCritical")
        assert end["freed"] == 0
        assert running.journal("step_start") == []
        assert {record["reason"] for record in running.journal("step_skipped")} == {"dry_run"}
        assert running.status()["level"]["used"] > 100 * MIB


def test_with_cleanup_turned_off_nothing_is_done_but_by_hand() -> None:
    with Running("run", *LIMIT, target=OBEDIENT, env={"MEMORY_CLEANUP": "0"}) as running:
        running.answer()
        running.order("register")
        running.until_guarding(hooks=1)
        running.order("cache 114")
        ratio(running, 0.9)
        ticks(running)
        status, told = ask(running, "POST", "/admin/cleanup", payload(alert()))
        assert (status, told["outcome"], told["run"]) == (202, "off", None)
        assert running.journal("run_start") == []
        assert running.cleanup("--steps", "caches").returncode == 0
        assert running.until_journal("run_end")[0]["alerts"] == ["manual"]


# -- what comes from outside --------------------------------------------------------------------


def test_bad_input_is_refused_in_json_with_nothing_done_and_the_sidecar_goes_on() -> None:
    deep = b'{"alerts": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"
    with guarded() as running:
        refused: Sequence[tuple[int, str, object, dict[str, Any]]] = [
            (400, "not JSON", None, {"raw": b"{"}),
            (400, "not JSON", None, {"raw": b"\xff\xfe"}),
            (400, "not JSON", None, {"raw": deep}),
            (400, "not an object", [], {}),
            (400, 'version is "3"', payload() | {"version": "3"}, {}),
            (400, "version is 4", payload() | {"version": 4}, {}),
            (400, "alerts is", payload() | {"alerts": {}}, {}),
            (400, "alerts[0]", payload() | {"alerts": [3]}, {}),
            (400, "alerts[0].labels", payload(alert() | {"labels": {"a": 1}}), {}),
            (400, "alerts[0].startsAt", payload(alert() | {"startsAt": "today"}), {}),
            (400, "alerts[1].status", payload(alert(), alert() | {"status": "odd"}), {}),
            (400, "steps is", {"steps": "gc"}, {}),
            (400, "goal is", {"goal": [1]}, {}),
            (413, "larger than 1048576 bytes", None, {"raw": b" " * (2 * MIB)}),
            (401, "no token", payload(alert()), {"token": None}),
            (403, "wrong token", payload(alert()), {"token": "wrong"}),
            (422, "the steps are caches, gc, trim, streams, models, shed", {"steps": ["dance"]}, {}),
            (422, "the steps are caches, gc, trim, streams, models, shed", payload(alert(steps="dance")), {}),
            (422, "the actions are", payload(alert(action="explode")), {}),
            (422, "goal", payload(alert(goal="low")), {}),
        ]
        for path in ("/admin/cleanup", "/admin/unload"):
            for status, text, body, how in refused:
                got, told = ask(running, "POST", path, body, **how)
                assert (got, text in told["error"]) == (status, True), (path, body, told)
        assert running.journal("request", "run_start") == []
        assert running.metric("oomguard_admin_requests_total", outcome="malformed") == 2 * (len(refused) - 2)
        assert running.metric("oomguard_admin_requests_total", outcome="unauthorized") == 4

        status, told = ask(running, "POST", "/admin/cleanup", {"steps": ["caches"], "mood": "good"})
        assert (status, told["outcome"]) == (202, "started")
        running.until_journal("run_end")


def test_an_order_is_202_once_journaled_and_its_entry_tells_the_outcome() -> None:
    with guarded() as running:
        running.order("cache 60")
        status, told = ask(running, "POST", "/admin/cleanup", {"steps": ["caches"]})
        assert (status, told["outcome"]) == (202, "started")
        assert running.journal("request")[0]["id"] == told["id"]

        def entry() -> Any:
            _, shown = ask(running, "GET", f"/api/v1/journal/{told['id']}", token=None)
            return shown if shown["ended"] else None

        shown = wait_for(entry, "the outcome")
        assert (shown["run"], shown["outcome"]) == (told["run"], "done")
        assert [record["event"] for record in shown["records"]] == [
            "request", "run_start", "step_start", "step_end", "run_end",
        ]  # fmt: skip
        assert ask(running, "GET", f"/api/v1/journal/{told['run']}", token=None)[1]["outcome"] == "done"
        assert ask(running, "GET", "/api/v1/journal/999", token=None)[0] == 404


def test_a_payload_is_a_wish_and_no_order() -> None:
    with guarded() as running:
        target = running.status()["target"]
        alerts = [alert(), alert(target="another"), alert(action="notify"), alert() | {"status": "resolved"}]
        status, told = ask(running, "POST", "/admin/cleanup", payload(*alerts, mood="good"))
        assert (status, told["outcome"]) == (202, "not_needed")
        assert told["declined"] == {"other_target": 1, "notify": 1, "resolved": 1}
        status, told = ask(running, "POST", "/admin/cleanup", payload(*[alert(target=target)] * 1000))
        assert (status, told["outcome"]) == (202, "not_needed")
        status, told = ask(running, "POST", "/admin/cleanup", payload(alert(action="restart")))
        assert (status, told["outcome"], told["declined"]) == (202, "nothing_asked", {"not_allowed": 1})
        assert running.journal("run_start") == []

        running.order("cache 60")
        ratio(running, 0.45)
        asked = alert(goal="20%", steps="caches")
        answers = [ask(running, "POST", "/admin/cleanup", payload(asked))[1] for _ in range(3)]
        assert answers[0]["outcome"] == "started"
        assert {answer["outcome"] for answer in answers[1:]} <= {"joined", "not_needed"}
        running.until_journal("run_end")
        assert len(running.journal("run_start")) == 1


def test_a_target_that_has_ended_for_good_is_409() -> None:
    with (
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as target,
        Running("watch", "--pid", str(target.pid), *LIMIT) as running,
    ):
        running.until_guarding()
        target.kill()
        target.wait()

        def gone() -> Any:
            status, told = ask(running, "POST", "/admin/cleanup", payload(alert()))
            return told if status == 409 else None

        assert "ended for good" in wait_for(gone, "409")["error"]
        assert running.metric("oomguard_admin_requests_total", outcome="no_target") >= 1
        assert running.journal("request") == []


def test_while_the_target_is_restarted_it_is_503_so_that_alertmanager_tries_again() -> None:
    target = [sys.executable, "-c", "import time; time.sleep(0.5); raise SystemExit(3)"]
    with Running("run", *LIMIT, "--restart", target=target) as running:
        running.until_journal("target_exit")

        def away() -> Any:
            with contextlib.suppress(OSError):
                status, told = ask(running, "POST", "/admin/cleanup", payload(alert()))
                return told if status == 503 else None
            return None

        assert wait_for(away, "503")["error"]


# -- pauses and silences ------------------------------------------------------------------------


def test_a_pause_holds_actions_back_shows_and_survives_and_its_end_lets_them_act_at_once() -> None:
    with guarded() as running:
        paused = running.command("pause", "1h", "--comment", "a deploy")
        assert (paused.returncode, "oomguard pause --end" in paused.stdout) == (0, True)
        running.order("cache 118")
        ratio(running, 0.9)
        ticks(running)
        assert running.journal("run_start") == []
        status = running.status()
        assert 3500 < status["paused_until"] - status["time"] < 3700
        assert [silence["comment"] for silence in status["silences"]] == ["a deploy"]
        held = {
            told["labels"]["alertname"]: told["held"]
            for told in status["alerts"]
            if told["state"] == "firing"
        }
        assert held["MemoryHigh"] == held["MemoryCritical"] == "silenced"
        assert (running.metric("oomguard_paused"), running.metric("oomguard_silences", state="active")) == (
            1,
            1,
        )
        assert "paused" in running.command("status").stdout

        status, told = ask(running, "POST", "/admin/cleanup", payload(alert()))
        assert (told["outcome"], told["declined"]) == ("nothing_asked", {"silenced": 1})

        wait_for(
            lambda: '"comment":"a deploy"' in (running.runtime_dir / "alerts.json").read_text(), "it on disk"
        )
        kill(running)
        running.until_guarding(hooks=1)
        assert running.metric("oomguard_paused") == 1
        ticks(running)
        assert running.journal("run_start") == []

        assert running.cleanup("--steps", "gc").returncode == 0
        assert [record["alerts"] for record in running.until_journal("run_end")] == [["manual"]]
        assert "no goal, steps gc" in running.command("journal").stdout
        ended = running.command("pause", "--end")
        assert (ended.returncode, ended.stdout) == (0, "actions go on\n")
        end = running.until_journal("run_end", 2, timeout=5)[-1]
        assert "MemoryCritical" in end["alerts"]
        assert end["outcome"] == "goal_reached"
        assert running.command("pause", "--end").stdout == "nothing was paused\n"
        assert running.metric("oomguard_paused") == 0


@pytest.mark.real
def test_the_page_shows_a_pause_and_what_it_holds_back(tmp_path: Path) -> None:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    require(None if browser else "chromium is missing (apt-get install chromium)")
    assert browser is not None
    with guarded() as running:
        assert running.command("pause", "1h", "--comment", "<b>deploy</b>").returncode == 0
        running.order("cache 118")
        ratio(running, 0.9)
        ticks(running)
        dom, _ = load(browser, running.url + "/", tmp_path)
        assert re.fullmatch(r"paused until .*\d\d:\d\d.*", shown_as(dom, "paused"))
        assert "&lt;b&gt;deploy&lt;/b&gt;" in dom
        assert "silenced" in dom
        assert running.journal("run_start") == []


@pytest.mark.parametrize("arguments", [[], ["1h", "--end"], ["soon"], ["0s"], ["-1h"], [""]])
def test_a_pause_of_no_time_is_a_users_mistake(arguments: list[str]) -> None:
    told = oomguard("pause", *arguments)
    assert (told.returncode, told.stdout) == (2, "")
    assert len(told.stderr.strip().splitlines()) >= 1


@pytest.mark.real
def test_amtool_silences_the_sidecar_as_it_does_an_alertmanager(tmp_path: Path) -> None:
    require(None if shutil.which("amtool") else "amtool is missing (apt-get install prometheus-alertmanager)")
    with guarded() as running:

        def amtool(*arguments: str) -> str:
            config = tmp_path / "http.yml"
            token = running.runtime_dir / "token"
            config.write_text(f"authorization: {{type: Bearer, credentials_file: {token}}}\n")
            done = subprocess.run(
                ["amtool", *arguments, f"--alertmanager.url={running.url}", f"--http.config.file={config}"],
                capture_output=True, text=True, timeout=30, env=environment(HOME=str(tmp_path)),
            )  # fmt: skip
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout.strip()

        silence = amtool("silence", "add", "-a", "me", "-c", "by hand", "-d", "1h", "alertname=~Memory.*")
        assert silence in amtool("silence", "query")
        running.order("cache 118")
        ratio(running, 0.9)
        ticks(running)
        assert running.journal("run_start") == []
        assert running.status()["paused_until"] is None, "a silence, and not a pause"
        amtool("silence", "expire", silence)
        running.until_journal("run_end", timeout=5)


# -- what survives ------------------------------------------------------------------------------


def kill(running: Running) -> None:
    """``kill -9`` of the sidecar; returns once another one is there."""
    old = running.sidecar
    os.kill(old, signal.SIGKILL)
    wait_for(lambda: running.sidecar != old, "a new sidecar")


def active(running: Running, name: str) -> dict[str, Any]:
    """The alert of this name, once there is one."""

    def found() -> dict[str, Any] | None:
        with contextlib.suppress(OSError):
            _, told = ask(running, "GET", "/api/v1/alerts", token=None)
            return next(
                (each for each in told["data"]["alerts"] if each["labels"]["alertname"] == name), None
            )
        return None

    return wait_for(found, name)


def seconds(time: str) -> float:
    """Unix seconds of a time of the API."""
    return parse_time(time)


def kept(running: Running, text: str) -> None:
    """Return once the saved state holds this."""
    path = running.runtime_dir / "alerts.json"
    wait_for(lambda: path.exists() and text in path.read_text(), f"{text} on disk")


def test_a_pending_alert_goes_on_pending_after_kill_9(tmp_path: Path) -> None:
    rules = rule("Slow", "oomguard_target_up == 1", for_="1h", labels="severity: warning")
    with guarded(*flags(tmp_path, rules)) as running:
        before = active(running, "Slow")
        assert before["state"] == "pending"
        kept(running, '"Slow"')
        ticks(running, "all", 2)
        saved = json.loads((running.runtime_dir / "alerts.json").read_text())["rules"]["time"] / 1000
        kill(running)
        running.until_guarding(hooks=1)
        after = active(running, "Slow")
        assert after["state"] == "pending"
        # As with Prometheus the time for which nobody looked does not count; all the time before does.
        away = running.journal("sidecar_start")[-1]["time"] - saved
        assert 0 <= seconds(after["activeAt"]) - seconds(before["activeAt"]) <= away + 0.01


def test_nobody_is_told_twice_what_is_owed_is_delivered_and_the_end_is_told_too(tmp_path: Path) -> None:
    rules = rule(
        "Full", "oomguard_memory_used_ratio > 0.5", labels="severity: warning", summary="{{ $value }} used"
    )
    with Receiver() as receiver:
        routes = ROUTES.format(default="people", port=receiver.port)
        with guarded(*flags(tmp_path, rules, routes)) as running:
            receiver.status = 503
            running.order("hold 80")
            active(running, "Full")
            wait_for(
                lambda: running.metric("oomguard_notifications_total", receiver="people", outcome="retried"),
                "a retry",
            )
            kept(running, '"Full"')
            kill(running)
            receiver.status = 200
            wait_for(receiver.told, "what was owed", timeout=60)
            assert receiver.told() == [("firing", "Full")]
            assert receiver.payloads[0]["externalURL"].startswith("http://127.0.0.1:")

            kept(running, '"log":[{')
            kill(running)
            running.until_guarding(hooks=1)
            ticks(running, "all", 4)
            assert receiver.told() == [("firing", "Full")]
            assert running.journal("alert_firing")[0]["summary"].endswith("used")
            assert len(running.journal("alert_firing")) == 1

            assert running.command("cleanup").returncode == 0
            running.process.stdin.close()  # the target ends, and its memory with it
            running.wait()
        assert receiver.told()[0] == ("firing", "Full")


def test_an_alert_that_was_resolved_while_no_sidecar_ran_is_told(tmp_path: Path) -> None:
    labels = "severity: warning"
    rules = rule("Cached", "oomguard_cache_bytes > 30e6", labels=labels)
    with Receiver() as receiver:
        routes = ROUTES.format(default="people", port=receiver.port)
        with guarded(*flags(tmp_path, rules, routes)) as running:
            running.order("cache 40")
            wait_for(receiver.told, "the alert", timeout=60)
            kept(running, '"log":[{')
            (tmp_path / "rules.yml").write_text(rules.replace("30e6", "90e6"))
            kill(running)
            wait_for(lambda: len(receiver.told()) > 1, "its end", timeout=60)
            assert receiver.told() == [("firing", "Cached"), ("resolved", "Cached")]


# -- changes while it runs ----------------------------------------------------------------------


def test_a_broken_file_keeps_what_runs_and_a_mended_one_is_taken_over(tmp_path: Path) -> None:
    rules = rule("Own", "oomguard_memory_used_ratio > 0.5", labels="action: cleanup, goal: 30%")
    with guarded(*flags(tmp_path, rules)) as running:
        file = tmp_path / "rules.yml"
        file.write_text(rules.replace("> 0.5", "> > 0.5").replace("action: cleanup", "action: dance"))
        status, told = ask(running, "POST", "/-/reload")
        assert (status, told["error"]) == (500, "the running configuration is kept")
        assert len(told["problems"]) == 2
        assert all(problem.startswith(f"{file}:") for problem in told["problems"])
        assert running.status()["config"]["problems"] == told["problems"]
        assert running.metric("oomguard_config_last_reload_success") == 0
        assert running.journal("reload")[-1]["ok"] is False

        kill(running)
        running.until_guarding(hooks=1)
        config = running.status()["config"]
        assert (config["ok"], config["problems"]) == (False, told["problems"])
        assert running.metric("oomguard_config_last_reload_success") == 0
        running.order("cache 70")
        assert running.until_journal("run_end")[0]["alerts"] == ["Own"], "the rules that were in force"

        file.write_text(rule("New", "oomguard_memory_used_ratio > 0.3", labels="action: cleanup, goal: 20%"))
        status, told = ask(running, "POST", "/-/reload")
        assert (status, told["loaded"][0]) == (200, str(file))
        assert running.status()["config"]["ok"]
        assert running.metric("oomguard_config_last_reload_success") == 1
        running.order("cache 45")
        wait_for(lambda: running.journal("run_start")[-1]["alerts"] == ["New"], "the new rule's run")


def test_what_was_recorded_replays_to_the_same_alerts_and_actions(tmp_path: Path) -> None:
    recording = tmp_path / "recording.jsonl"
    with guarded(*LIMIT, "--record", recording) as running:
        running.order("cache 118")
        running.until_journal("run_end")
        ratio_below = running.until_status(lambda status: status["level"]["ratio"] < 0.7, "the cleanup")
        assert ratio_below
        ticks(running, "all", 3)
        starts = running.journal("run_start")
        target = running.status()["target"]
    told = oomguard("replay", recording)
    assert told.returncode == 0, told.stderr
    lines = [line.split(None, 3) for line in told.stdout.splitlines()[:-1]]
    actions = [text for _, _, kind, text in lines if kind == "action"]
    assert len(actions) == len(starts) == 1
    assert all(name in actions[0] for name in starts[0]["alerts"])
    assert f"of {target}:" in told.stdout.splitlines()[-1]
    firing = {text.split(":")[0] for _, _, kind, text in lines if kind == "firing"}
    assert {"MemoryHigh", "Watchdog"} <= firing
    other = oomguard("replay", recording, "--rules", tmp_path / "none.yml")
    assert (other.returncode, "none.yml" in other.stderr) == (2, True)


def test_check_tells_every_mistake_at_once_with_its_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(rule("A", "sum(", labels="action: dance"))
    (tmp_path / "routes.yml").write_text("route:\n  receiver: nobody\nreceivers: []\n")
    config = tmp_path / "oomguard.yml"
    config.write_text(
        f"thresholds:\n  high: 200%\nrules: {tmp_path}/rules.yml\nroutes: {tmp_path}/routes.yml\n"
    )
    told = oomguard("check", config)
    assert (told.returncode, told.stdout) == (2, "")
    for place in ("oomguard.yml:2:", "rules.yml:5:", "rules.yml:4:", "routes.yml:2:"):
        assert f"{tmp_path}/{place}" in told.stderr, told.stderr
    apart = oomguard("check", tmp_path / "rules.yml", tmp_path / "routes.yml")
    assert apart.returncode == 2
    assert apart.stderr.count("\n") == told.stderr.count("\n") - 1
    assert oomguard("check", cwd=tmp_path).stderr.count("\n") == told.stderr.count("\n")
    for command in (
        ["run", "--rules", tmp_path / "rules.yml", "--", "true"],
        ["watch", "--pid", str(os.getpid()), "--rules", tmp_path / "rules.yml"],
    ):
        started = oomguard(*command)
        assert (started.returncode, "rules.yml:5:" in started.stderr) == (2, True)


# -- what the kernel did ------------------------------------------------------------------------

PARENT = """
import json, os, subprocess, sys, time
eat = (
    "import sys; open('/proc/self/oom_score_adj', 'w').write('1000'); sys.stdin.read(1);"
    "b = bytearray(b'x') * (400 << 20)"
)
child = subprocess.Popen([sys.executable, "-c", eat], stdin=subprocess.PIPE)
print(json.dumps({"child": child.pid}), flush=True)
sys.stdin.readline()
child.communicate(b"x")
print(json.dumps({"code": child.returncode}), flush=True)
time.sleep(600)
"""


@pytest.mark.real
def test_a_child_that_the_kernel_shot_is_counted_and_told(tmp_path: Path) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    program = f"import sys; sys.stdin = open({str(go)!r})\n{PARENT}"
    with BoxV1(200 * MIB) as box, Guarded(box, [sys.executable, "-c", program]) as program_:
        opened = os.open(go, os.O_RDWR)
        try:
            program_.next_line()
            program_.wait_until_guarding()
            wait_for(lambda: len(program_.status().get("processes", ())) == 2, "the child in the tree")
            assert program_.metric("oomguard_child_exits_total", reason="oom_kill") == 0
            os.write(opened, b"go\n")
            assert program_.next_line()["code"] == -signal.SIGKILL
            wait_for(
                lambda: program_.metric("oomguard_child_exits_total", reason="oom_kill") == 1, "the count"
            )
            assert program_.metric("oomguard_child_exits_total", reason="unknown") == 0
            assert [record["count"] for record in program_.journal("child_killed")] == [1]
            wait_for(lambda: 'alertname="ChildKilled"' in program_.metrics(), "the alert")
        finally:
            os.close(opened)
