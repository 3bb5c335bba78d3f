"""The same alerts, silences and misbehaving receivers for Debian's Alertmanager and for ours: the same notifications.

Bodies are compared byte for byte, times included, since both are told the same ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.server
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from oomguard.model import Alert
from oomguard.routes.config import load
from oomguard.routes.deliver import Deliverer, Outcome
from oomguard.routes.dispatch import Dispatcher
from oomguard.routes.payload import rfc3339
from oomguard.routes.silences import SilenceError, Silences

pytestmark = pytest.mark.real

EXTERNAL = "http://alerts.example/a?b=<c>"
PATIENCE = 60.0
"""Seconds; only a failure takes so long."""

CONFIG = """
route:
  receiver: rest
  group_by: [alertname, instance]
  group_wait: 3s # longer than it takes to tell both
  group_interval: 1s
  repeat_interval: 1h
  routes:
    - {matchers: [case="plain"], receiver: plain}
    - {matchers: [case="unresolved"], receiver: unresolved}
    - {matchers: [case="many"], receiver: many, group_by: [case]}
    - {matchers: [case="inhibited"], receiver: inhibited}
    - {matchers: [case="silenced"], receiver: silenced}
    - {matchers: [case="unavailable"], receiver: unavailable}
    - {matchers: [case="rejected"], receiver: rejected, group_interval: 1h}
    - {matchers: [case="rejected-often"], receiver: rejected-often}
    - {matchers: [case="closes"], receiver: closes}
    - {matchers: [case="both"], receiver: first, continue: true}
    - matchers: [case="both"]
      receiver: second
      group_by: ['...']
      routes:
        - {matchers: ['text=~".*\\\\.x|a\\"b(?s).*"', instance!=""], receiver: 'se.co+nd'}
    - {matchers: [case="repeated"], receiver: repeated, repeat_interval: 1s}
    - {matchers: [case="moved"], receiver: moved}
    - {matchers: [case="seen-other"], receiver: seen-other}
    - {matchers: [case="stays"], receiver: stays}
    - {matchers: [case="muted"], receiver: muted, mute_time_intervals: [always]}
    - {matchers: [case="inactive"], receiver: inactive, active_time_intervals: [long ago]}
    - {matchers: [case="two"], receiver: two}
    - {matchers: [case="basic"], receiver: basic}
time_intervals:
  - {name: always, time_intervals: [{times: [{start_time: '00:00', end_time: '24:00'}]}]}
  - {name: long ago, time_intervals: [{years: ['1970:1980']}]}
inhibit_rules:
  - source_matchers: [severity="critical"]
    target_matchers: [severity="warning"]
    equal: [instance]
receivers:
  - {name: rest}
  - {name: plain, webhook_configs: [{url: BASE/plain, http_config: {authorization: {credentials: example}}}]}
  - {name: unresolved, webhook_configs: [{url: BASE/unresolved, send_resolved: false}]}
  - {name: many, webhook_configs: [{url: BASE/many, max_alerts: 2}]}
  - {name: inhibited, webhook_configs: [{url: BASE/inhibited}]}
  - {name: silenced, webhook_configs: [{url: BASE/silenced}]}
  - {name: unavailable, webhook_configs: [{url: BASE/unavailable}]}
  - {name: rejected, webhook_configs: [{url: BASE/rejected}]}
  - {name: rejected-often, webhook_configs: [{url: BASE/rejected-often}]}
  - {name: closes, webhook_configs: [{url: BASE/closes}]}
  - {name: first, webhook_configs: [{url: BASE/first}]}
  - {name: second, webhook_configs: [{url: BASE/second}]}
  - {name: 'se.co+nd', webhook_configs: [{url: BASE/nested}]}
  - {name: repeated, webhook_configs: [{url: BASE/repeated}]}
  - {name: moved, webhook_configs: [{url: BASE/moved, http_config: {authorization: {credentials: example}}}]}
  - {name: seen-other, webhook_configs: [{url: BASE/seen-other}]}
  - {name: stays, webhook_configs: [{url: BASE/stays, http_config: {follow_redirects: false}}]}
  - {name: muted, webhook_configs: [{url: BASE/muted}]}
  - {name: inactive, webhook_configs: [{url: BASE/inactive}]}
  - {name: two, webhook_configs: [{url: BASE/two-a}, {url: BASE/two-b, send_resolved: false}]}
  - {name: basic, webhook_configs: [{url: BASE/basic, http_config: {basic_auth: {username: u, password: 'ü'}}}]}
"""

ANSWERS: dict[str, Sequence[int | str]] = {
    "unavailable": (500, 503, 200),
    "rejected": (400,),
    "rejected-often": (404, 404, 429, 200),
    "closes": ("close", "close", 200),
    "moved": ("307 moved-to",),
    "seen-other": ("302 elsewhere",),
    "stays": ("308 nowhere",),
}
"""By path; the last goes on for ever. Other paths answer 200."""


@dataclass(frozen=True)
class Request:
    """What came in."""

    method: str
    body: bytes
    authorization: str | None


class Recorder(http.server.ThreadingHTTPServer):
    """A receiver of webhooks that misbehaves as `ANSWERS` say, for each side (the first part of the path) by itself."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: dict[str, list[Request]] = {}
        self.lock = threading.Lock()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients go away; that is what they are here for."""

    def seen(self, path: str) -> list[Request]:
        with self.lock:
            return list(self.requests.get(path, []))


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Recorder
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.strip("/")
        side, name = path.split("/")
        with self.server.lock:
            seen = self.server.requests.setdefault(path, [])
            seen.append(Request(self.command, body, self.headers.get("Authorization")))
            answers = ANSWERS.get(name, (200,))
            answer = answers[min(len(seen), len(answers)) - 1]
        if answer == "close":
            self.close_connection = True
            return
        status, _, target = str(answer).partition(" ")
        self.send_response(int(status))
        if target:
            self.send_header("Location", f"/{side}/{target}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST  # noqa: N815 - the base class's way

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    with Recorder() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def call(url: str, body: object) -> bytes:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return bytes(answer.read())


@contextlib.contextmanager
def alertmanager(directory: Path, config: str) -> Iterator[str]:
    """Debian's Alertmanager on a port of its own; yields its address."""
    program = shutil.which("prometheus-alertmanager")
    assert program, "prometheus-alertmanager is not installed (tests/apt.txt)"
    file = directory / "alertmanager.yml"
    file.write_text(config)
    for _ in range(5):
        address = f"127.0.0.1:{free_port()}"
        command = [
            program, f"--config.file={file}", f"--storage.path={directory / 'data'}", "--cluster.listen-address=",
            f"--web.listen-address={address}", f"--web.external-url={EXTERNAL}", "--web.route-prefix=/",
        ]  # fmt: skip
        with (directory / "alertmanager.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            if ready(process, f"http://{address}/-/ready"):
                yield f"http://{address}"
                return
        finally:
            process.terminate()
            process.wait(PATIENCE)
    raise AssertionError((directory / "alertmanager.log").read_text())


def ready(process: subprocess.Popen[bytes], url: str) -> bool:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1):
            return True
        time.sleep(0.05)
    return False


class Both:
    """An Alertmanager and ours, told the same."""

    def __init__(self, recorder: Recorder, address: str, directory: Path) -> None:
        self.recorder = recorder
        self.address = address
        problems: list[object] = []
        text = CONFIG.replace("BASE", f"http://127.0.0.1:{recorder.server_port}/us")
        config = load(directory / "ours.yml", problems, text)
        assert config is not None, problems
        self.silences = Silences()
        self.dispatcher = Dispatcher(config, self.silences)
        self.outcomes: list[tuple[str, Outcome]] = []
        self.deliverer = Deliverer(external_url=EXTERNAL, wanted=self.dispatcher.wanted, report=self.report)

    def report(self, notification, outcome) -> None:
        self.outcomes.append((notification.receiver, outcome))
        if outcome is Outcome.DELIVERED:
            self.dispatcher.delivered(notification, time.time())
        elif outcome is not Outcome.RETRIED:
            self.dispatcher.failed(notification)

    async def pump(self) -> None:
        while True:
            for notification in self.dispatcher.due(time.time()):
                self.deliverer.submit(notification)
            await asyncio.sleep(0.02)

    async def tell(self, *alerts: Alert) -> None:
        body = [
            {
                "labels": alert.labels,
                "annotations": alert.annotations,
                "startsAt": rfc3339(alert.starts_at),
                "generatorURL": alert.generator_url,
                **({"endsAt": rfc3339(alert.ends_at)} if alert.ends_at is not None else {}),
            }
            for alert in alerts
        ]
        await asyncio.to_thread(call, f"{self.address}/api/v2/alerts", body)
        self.dispatcher.update(alerts, time.time())

    async def silence(self, body: dict[str, object]) -> None:
        self.silences.set(body, time.time())
        await asyncio.to_thread(call, f"{self.address}/api/v2/silences", body)

    async def until(self, condition: Callable[[str], bool]) -> None:
        """Wait until something holds on both sides."""
        deadline = time.monotonic() + PATIENCE
        while not all(condition(side) for side in ("am", "us")):
            counts = {path: len(requests) for path, requests in sorted(self.recorder.requests.items())}
            assert time.monotonic() < deadline, json.dumps(counts)
            await asyncio.sleep(0.05)

    async def requests(self, name: str, count: int) -> tuple[list[Request], list[Request]]:
        """The first requests to a path on both sides, once there are so many."""
        await self.until(lambda side: len(self.recorder.seen(f"{side}/{name}")) >= count)
        theirs, ours = (self.recorder.seen(f"{side}/{name}")[:count] for side in ("am", "us"))
        return theirs, ours

    async def same(self, name: str, count: int) -> list[dict]:
        """They are the same; returns what they say."""
        theirs, ours = await self.requests(name, count)
        assert ours == theirs, name
        return [json.loads(request.body) if request.body else {} for request in ours]

    def silent(self, name: str) -> None:
        assert not self.recorder.seen(f"am/{name}")
        assert not self.recorder.seen(f"us/{name}")


def alert(case: str, instance: str = "a:1", **labels: str) -> Alert:
    now = round(time.time(), 3)
    return Alert(
        {"alertname": "MemoryHigh", "case": case, "instance": instance, **labels},
        {"summary": f'{instance} <is> & stays\u2028full \x01\x7f\b\f\t"\\', "same": "ü €"},
        now,
        generator_url="http://prometheus.example/graph?g0.expr=a+%3E+1&g0.tab=1",
    )


def over(*alerts: Alert) -> list[Alert]:
    now = round(time.time(), 3)
    return [replace(each, ends_at=now) for each in alerts]


async def scenario(both: Both) -> None:
    pump = asyncio.create_task(both.pump())
    try:
        await asyncio.gather(*(part(both) for part in PARTS))
    finally:
        pump.cancel()
        await both.deliverer.stop()
    both.silent("muted")
    both.silent("inactive")
    both.silent("nowhere")


async def fires_and_resolves(both: Both) -> None:
    one, other = alert("plain"), alert("plain", severity="page")
    await both.tell(one, other)
    (first,) = await both.same("plain", 1)
    assert len(first["alerts"]) == 2
    await both.tell(*over(one))
    assert [each["status"] for each in (await both.same("plain", 2))[1]["alerts"]] == ["resolved", "firing"]
    await both.tell(*over(other))
    assert (await both.same("plain", 3))[2]["status"] == "resolved"
    await both.tell(alert("plain"))
    assert (await both.same("plain", 4))[3]["status"] == "firing"


async def resolved_is_not_told_where_it_is_not_wanted(both: Both) -> None:
    one, other = alert("unresolved"), alert("unresolved", severity="page")
    await both.tell(one, other)
    await both.same("unresolved", 1)
    await both.tell(*over(one))
    third = alert("unresolved", severity="x")
    await asyncio.sleep(2.5)  # a flush that says nothing
    await both.tell(third)
    assert [len(body["alerts"]) for body in await both.same("unresolved", 2)] == [2, 2]
    await both.tell(*over(other, third))
    await asyncio.sleep(2.5)
    again = alert("unresolved")
    await both.tell(again)
    assert len((await both.same("unresolved", 3))[2]["alerts"]) == 1


async def many_alerts_are_cut(both: Both) -> None:
    jobs = [{}, {"job": "b"}, {"job": "a"}, {"a": "1"}, {"zone": "1"}]
    alerts = [alert("many", f"i:{3 - index % 2}", **labels) for index, labels in enumerate(jobs)]
    await both.tell(*alerts)
    (body,) = await both.same("many", 1)
    assert (len(body["alerts"]), body["truncatedAlerts"]) == (2, 3)


async def inhibited_alerts_are_not_sent(both: Both) -> None:
    source = alert("inhibited", "x:1", severity="critical")
    target, free = (
        alert("inhibited", "x:1", severity="warning"),
        alert("inhibited", "y:1", severity="warning"),
    )
    await both.tell(source)
    await both.same("inhibited", 1)
    await both.tell(target, free)
    await both.requests("inhibited", 2)
    await both.tell(*over(source))
    theirs, ours = await both.requests("inhibited", 3)
    assert sorted(ours, key=str) == sorted(theirs, key=str)  # two groups, in any order


async def silenced_alerts_are_not_sent(both: Both) -> None:
    now = time.time()
    await both.silence({
        "matchers": [
            {"name": "case", "value": "silenced", "isRegex": False},
            {"name": "instance", "value": "q.*", "isRegex": True, "isEqual": True},
        ],
        "startsAt": rfc3339(now),
        "endsAt": rfc3339(now + 600),
        "createdBy": "me",
        "comment": "deploy",
    })  # fmt: skip
    await both.tell(alert("silenced", "q:1"), alert("silenced", "r:1"))
    (body,) = await both.same("silenced", 1)
    assert body["groupLabels"]["instance"] == "r:1"


async def what_fails_for_now_is_tried_again(both: Both) -> None:
    await both.tell(alert("unavailable"), alert("closes"))
    for name in ("unavailable", "closes"):
        bodies = await both.same(name, 3)
        assert bodies[0] == bodies[1] == bodies[2]


async def what_is_refused_is_not_tried_again_before_the_next_flush(both: Both) -> None:
    await both.tell(alert("rejected"), alert("rejected-often"), alert("stays"))
    await both.same("rejected-often", 4)
    await both.same("stays", 1)
    assert len(await both.same("rejected", 1)) == 1
    for side in ("am", "us"):
        assert len(both.recorder.seen(f"{side}/rejected")) == 1
    assert ("rejected", Outcome.REJECTED) in both.outcomes


async def routes_continue_and_nest(both: Both) -> None:
    await both.tell(
        alert("both", "m:1", text='a"b\nc\u2028é\x7f\t\\'),
        alert("both", "n:1", text="y.x"),
        alert("both", "o:1", text="z"),
    )
    for name, count in (("first", 3), ("nested", 2), ("second", 1)):
        theirs, ours = await both.requests(name, count)
        assert sorted(ours, key=str) == sorted(theirs, key=str), name


async def what_goes_on_is_repeated(both: Both) -> None:
    await both.tell(alert("repeated"))
    await both.same("repeated", 3)


async def redirects_are_followed(both: Both) -> None:
    await both.tell(alert("moved"), alert("seen-other"))
    (body,) = await both.same("moved-to", 1)
    assert body["receiver"] == "moved"
    theirs, ours = await both.requests("elsewhere", 1)
    assert ours == theirs == [Request("GET", b"", None)]


async def nothing_is_sent_at_the_wrong_time(both: Both) -> None:
    await both.tell(alert("muted"), alert("inactive"))


async def each_webhook_of_a_receiver_is_told(both: Both) -> None:
    one = alert("two")
    await both.tell(one)
    await both.same("two-a", 1)
    await both.same("two-b", 1)
    await both.tell(*over(one))
    await both.same("two-a", 2)
    for side in ("am", "us"):
        assert len(both.recorder.seen(f"{side}/two-b")) == 1


async def credentials_are_sent(both: Both) -> None:
    await both.tell(alert("basic"))
    await both.same("basic", 1)
    theirs, ours = await both.requests("basic", 1)
    assert ours[0].authorization == theirs[0].authorization != None  # noqa: E711


PARTS = (
    fires_and_resolves,
    resolved_is_not_told_where_it_is_not_wanted,
    many_alerts_are_cut,
    inhibited_alerts_are_not_sent,
    silenced_alerts_are_not_sent,
    what_fails_for_now_is_tried_again,
    what_is_refused_is_not_tried_again_before_the_next_flush,
    routes_continue_and_nest,
    what_goes_on_is_repeated,
    redirects_are_followed,
    nothing_is_sent_at_the_wrong_time,
    each_webhook_of_a_receiver_is_told,
    credentials_are_sent,
)


MATCHER = {"name": "case", "value": "x", "isRegex": False}
SILENCE = {"matchers": [MATCHER], "createdBy": "me", "comment": "why"}
SILENCES: tuple[dict[str, object], ...] = (
    {},
    {"matchers": [{**MATCHER, "isEqual": False}, {"name": "b", "value": "y.*", "isRegex": True}]},
    {"matchers": [{**MATCHER, "isEqual": False}]},
    {"matchers": [{**MATCHER, "value": ".*", "isRegex": True}]},
    {"matchers": [{**MATCHER, "value": "(", "isRegex": True}]},
    {"matchers": [{**MATCHER, "name": "a-b"}]},
    {"matchers": [{**MATCHER, "name": ""}]},
    {"matchers": [{"name": "a", "value": "b"}]},
    {"matchers": [{"name": "a", "isRegex": False}]},
    {"matchers": [{**MATCHER, "isRegex": 1}]},
    {"matchers": []},
    {"matchers": None},
    {"matchers": "case=x"},
    {"startsAt": None},
    {"endsAt": "soon"},
    {"startsAt": -10, "endsAt": -5},
    {"startsAt": 20, "endsAt": 10},
    {"startsAt": 10, "endsAt": 10},
    {"startsAt": -100},
    {"startsAt": 100},
    {"createdBy": None},
    {"comment": None},
    {"comment": ""},
    {"comment": 5},
    {"id": "00000000-0000-0000-0000-000000000000"},
    {"unknown": "field"},
)
"""What is changed in `SILENCE`; times are seconds from now."""


def silence(now: float, changes: dict[str, object]) -> dict[str, object]:
    made = {**SILENCE, "startsAt": 0, "endsAt": 600, **changes}
    for key in ("startsAt", "endsAt"):
        if isinstance(made[key], int):
            made[key] = rfc3339(now + made[key])
    return {key: value for key, value in made.items() if value is not None}


def theirs(address: str, body: dict[str, object]) -> dict[str, object] | None:
    """The silence as Alertmanager then tells it; None: it was refused."""
    try:
        made = json.loads(call(f"{address}/api/v2/silences", body))["silenceID"]
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise
        return None
    with urllib.request.urlopen(f"{address}/api/v2/silence/{made}", timeout=PATIENCE) as answer:
        return dict(json.load(answer))


def ours(silences: Silences, body: dict[str, object]) -> dict[str, object] | None:
    try:
        made = silences.set(body, time.time())
    except SilenceError:
        return None
    return silences.get(made.id).to_json(time.time())


def but_for_chance(told: dict[str, object] | None) -> dict[str, object] | None:
    """Without ids and what the clock says."""
    if told is None:
        return None
    return {key: value for key, value in told.items() if key not in ("id", "updatedAt", "startsAt", "endsAt")}


def test_both_take_and_tell_the_same_silences(tmp_path: Path) -> None:
    silences = Silences()
    with alertmanager(tmp_path, CONFIG.replace("BASE", "http://127.0.0.1:1")) as address:
        for changes in SILENCES:
            body = silence(time.time(), changes)
            assert but_for_chance(ours(silences, body)) == but_for_chance(theirs(address, body)), changes
        for first, then in (
            ({}, {"endsAt": 1200}),
            ({}, {"matchers": [{**MATCHER, "value": "y"}]}),
            ({"startsAt": 100}, {"startsAt": 200}),
            ({"startsAt": 100}, {"startsAt": 0}),
        ):
            kept = []
            for put in (lambda body: ours(silences, body), lambda body: theirs(address, body)):
                before = put(silence(time.time(), first))
                start = {} if "startsAt" in then else {"startsAt": before["startsAt"]}
                after = put({**silence(time.time(), then), **start, "id": before["id"]})
                kept.append(before["id"] == after["id"])
            assert kept[0] == kept[1], (first, then)


def test_both_send_the_same_notifications(recorder: Recorder, tmp_path: Path) -> None:
    config = CONFIG.replace("BASE", f"http://127.0.0.1:{recorder.server_port}/am")
    with alertmanager(tmp_path, config) as address:
        asyncio.run(scenario(Both(recorder, address, tmp_path)))
