"""The app's own /admin endpoints, without a framework: who may ask, what a body orders, and what is answered."""

from __future__ import annotations

import gc
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from oomguard.hook import Guard
from oomguard.hook.admin import level, order, size
from oomguard.hook.admin.endpoint import CLEANUP, MAX_BODY, MEMORY, Endpoint
from oomguard.hook.admin.level import Level, Origin
from oomguard.sizes import parse_threshold

MIB = 1 << 20
TOKEN = {"OOMGUARD_TOKEN": "s3cret"}
BEARER = {"authorization": "Bearer s3cret"}


class Recorder:
    """Takes steps by noting them; `during` is called in the midst of each."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.during: Callable[[str], object] = str

    def __call__(self, step: str) -> dict[str, object]:
        self.taken.append(step)
        self.during(step)
        return {"step": step, "status": "done", "reason": "", "seconds": 0.1, "stall": 0.1, "details": {}}


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def alone(own: int | None) -> Level:
    """The level of a process that no cgroup limits."""
    return Level(MIB, MIB, own, Origin.PROCESS)


def endpoint(
    take: Callable[[str], dict[str, object]],
    environ: Mapping[str, str] = TOKEN,
    look: Callable[[int | None], Level] = alone,
) -> Endpoint:
    return Endpoint(environ, take, lambda: ({"caches": []}, 0.0), look)


def post(served: Endpoint, body: object, headers: Mapping[str, str] = BEARER) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    answer = served.answer("POST", CLEANUP, headers, data)
    assert dict(answer.headers)["content-length"] == str(len(answer.body))
    return answer.status, json.loads(answer.body)


def payload(*alerts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"version": "4", "status": "firing", "receiver": "app", "alerts": list(alerts), **fields}


def alert(status: str = "firing", **labels: str) -> dict[str, Any]:
    return {"status": status, "labels": {"alertname": "MemoryHigh", **labels}, "fingerprint": "02"}


# -- who may ask


@pytest.mark.parametrize(
    ("headers", "environ", "status"),
    [
        ({}, TOKEN, 401),
        ({"authorization": "Bearer other"}, TOKEN, 403),
        ({"authorization": "Basic s3cret"}, TOKEN, 403),
        ({"authorization": "Bearer \udcff"}, TOKEN, 403),
        ({"authorization": "Bearer "}, {}, 403),
        ({"authorization": "Bearer s3cret"}, {}, 403),
        ({"authorization": "Bearer s3cret"}, {"OOMGUARD_RUNTIME_DIR": "@abstract"}, 403),
        ({"authorization": "bearer s3cret"}, TOKEN, 200),
        ({"authorization": "Bearer gehörig"}, {"OOMGUARD_TOKEN": "gehörig"}, 200),
    ],
)
def test_only_the_right_token_opens(
    recorder: Recorder, headers: dict[str, str], environ: dict[str, str], status: int
) -> None:
    served = endpoint(recorder, environ)
    assert post(served, {"steps": ["gc"]}, headers)[0] == status
    assert served.answer("GET", MEMORY, headers, b"").status == status
    assert bool(recorder.taken) == (status == 200)


def test_the_token_of_the_runtime_directory_opens_as_soon_as_it_is_there(
    recorder: Recorder, tmp_path: Path
) -> None:
    served = endpoint(recorder, {"OOMGUARD_RUNTIME_DIR": str(tmp_path)})
    assert post(served, {})[0] == 403
    (tmp_path / "token").write_text("s3cret\n")
    assert post(served, {"steps": ["gc"]})[0] == 200


def test_a_token_file_that_would_block_or_leads_elsewhere_opens_nothing(
    recorder: Recorder, tmp_path: Path
) -> None:
    served = endpoint(recorder, {"OOMGUARD_RUNTIME_DIR": str(tmp_path)})
    os.mkfifo(tmp_path / "token")
    assert post(served, {}, {"authorization": "Bearer "})[0] == 403
    (tmp_path / "token").unlink()
    (tmp_path / "elsewhere").write_text("s3cret")
    (tmp_path / "token").symlink_to(tmp_path / "elsewhere")
    assert post(served, {})[0] == 403


def test_a_wrong_method_is_told_the_right_one(recorder: Recorder) -> None:
    answer = endpoint(recorder).answer("GET", CLEANUP, BEARER, b"")
    assert (answer.status, dict(answer.headers)["allow"]) == (405, "POST")


# -- what a body orders


@pytest.mark.parametrize(
    ("body", "steps"),
    [
        (b"", ["caches", "gc", "trim"]),
        ({}, ["caches", "gc", "trim"]),
        ({"steps": ["trim", "caches"], "reason": "a field of the future"}, ["caches", "trim"]),
        ({"steps": []}, ["caches", "gc", "trim"]),
        (payload({"labels": {"steps": "", "action": "", "goal": ""}}), ["caches", "gc", "trim"]),
        (payload(alert(target="other", action="theirs"), {"status": "firing"}), ["caches", "gc", "trim"]),
        (payload(alert()), ["caches", "gc", "trim"]),
        (
            payload(alert(steps="gc, caches"), alert(steps="trim"), future={"a": [1]}),
            ["caches", "gc", "trim"],
        ),
        (payload(alert(steps="gc", action="cleanup")), ["gc"]),
        (
            {"steps": ["models:jina", "gc", "caches:bulk", "shed:off"]},
            ["caches:bulk", "gc", "models:jina", "shed:off"],
        ),
        (payload(alert(steps="all")), ["caches", "gc", "trim", "streams", "models", "shed"]),
        (payload(alert("resolved")), []),
        (payload(alert(action="unload"), alert(action="notify"), alert(action="restart")), ["models"]),
        (payload(alert(target="other"), alert(target="api", steps="gc")), ["gc"]),
        (payload(), []),
    ],
)
def test_the_steps_are_those_that_were_asked_for_in_the_order_of_the_ladder(
    recorder: Recorder, body: object, steps: list[str]
) -> None:
    status, reply = post(endpoint(recorder, {**TOKEN, "OOMGUARD_TARGET": "api"}), body)
    assert (status, recorder.taken) == (200, steps)
    assert [taken["step"] for taken in reply.get("steps", [])] == steps
    assert reply["outcome"] == ("done" if steps else "nothing_asked")


def test_the_payload_that_an_alertmanager_sent_is_understood(recorder: Recorder) -> None:
    recorded = {
        "receiver": "hook",
        "status": "firing",
        "alerts": [
            {
                "status": "firing",
                "labels": {"alertname": "MemoryHigh", "instance": "127.0.0.1:18000", "severity": "page"},
                "annotations": {"summary": "RSS of 127.0.0.1:18000 is 200B"},
                "startsAt": "2026-11-21T04:00:18.957Z",
                "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://127.0.0.1:19090/graph?g0.expr=demo_rss_bytes+%3E+100&g0.tab=1",
                "fingerprint": "020d5ca0c88ac14c",
            }
        ],
        "groupLabels": {"alertname": "MemoryHigh"},
        "commonLabels": {"alertname": "MemoryHigh"},
        "commonAnnotations": {},
        "externalURL": "http://127.0.0.1:19093",
        "version": "4",
        "groupKey": '{}:{alertname="MemoryHigh"}',
        "truncatedAlerts": 0,
    }
    status, reply = post(endpoint(recorder), recorded)
    assert (status, reply["declined"], recorder.taken) == (200, {}, ["caches", "gc", "trim"])


def test_a_thousand_alerts_are_one_run(recorder: Recorder) -> None:
    storm = [alert(pod=f"api-{n}", target="other" if n % 2 else "api", steps="gc") for n in range(1000)]
    status, reply = post(endpoint(recorder, {**TOKEN, "OOMGUARD_TARGET": "api"}), payload(*storm))
    assert (status, recorder.taken) == (200, ["gc"])
    assert reply["declined"] == {"other_target": 500}


@pytest.mark.parametrize("off", [{"MEMORY_CLEANUP": "0"}, {"OOMGUARD_ACT": "False", "MEMORY_CLEANUP": "1"}])
def test_turned_off_alerts_do_nothing_and_a_person_does(recorder: Recorder, off: dict[str, str]) -> None:
    served = endpoint(recorder, {**TOKEN, **off})
    assert post(served, payload(alert()))[1]["outcome"] == "off"
    assert post(served, {"steps": ["gc"]})[1]["outcome"] == "done"
    assert recorder.taken == ["gc"]


def test_why_an_alert_asks_for_nothing_is_counted(recorder: Recorder) -> None:
    others = [alert(action=action) for action in ("restart", "notify")]
    _, reply = post(endpoint(recorder), payload(*others, alert("resolved")))
    assert reply["declined"] == {"not_allowed": 1, "notify": 1, "resolved": 1}


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b"{", 400, "not JSON"),
        (b"\xff\xfe{}", 400, "not JSON"),
        (b"\x80", 400, "not JSON"),
        (b"[1]", 400, "the body is a list"),
        (b"null", 400, "the body is missing"),
        (b"[" * 500_000, 400, "nested"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400, "nested"),
        (b'"' + b'\\"' * 500_000, 400, "not JSON"),
        (b"9" * 5000, 400, "JSON"),
        ({"steps": "gc"}, 400, "steps is"),
        ({"steps": [1]}, 400, "steps is"),
        ({"goal": [0.7]}, 400, "goal is a list"),
        ({"goal": True}, 400, "goal is a boolean"),
        ({"goal": "soon"}, 422, "goal 'soon'"),
        (b'{"goal": NaN}', 422, "goal 'nan'"),
        (b'{"goal": 1e999}', 422, "goal 'inf'"),
        ({"goal": -1}, 422, "goal '-1'"),
        ({"steps": ["dance"]}, 422, "there are caches, gc, trim, streams, models, shed, restart"),
        (payload(version="3"), 400, 'version is "3"'),
        (payload(version=4), 400, "version is 4"),
        ({"alerts": []}, 400, "version is null"),
        ({"version": "4"}, 400, "alerts is missing"),
        (payload("x"), 400, "alerts[0] is a text"),  # type: ignore[arg-type]
        (payload(alert(), {"labels": ["a"]}), 400, "alerts[1]: labels is a list"),
        (payload({"status": "firing", "labels": {"a": 1}}), 400, "alerts[0]: labels is an object"),
        (payload({"status": "pending", "labels": {}}), 400, 'alerts[0]: status is "pending"'),
        (payload(alert(), alert(steps="gc,dance")), 422, 'unknown step "dance"'),
        ({"steps": ["gc:full"]}, 422, '"gc:full": a name stands behind caches, streams, models, shed only'),
        ({"steps": ["caches:"]}, 422, '"caches:": a name stands behind'),
        (payload(alert(action="dance")), 422, "there are cleanup, unload, restart, notify"),
        (payload(alert(goal="much")), 422, "goal 'much'"),
        (b" " * (MAX_BODY + 1), 413, "larger than 1048576"),
    ],
)
def test_a_bad_body_is_answered_with_its_fault_and_nothing_is_done(
    recorder: Recorder, body: object, status: int, text: str
) -> None:
    answered, reply = post(endpoint(recorder), body)
    assert answered == status
    assert text in reply["error"]
    assert recorder.taken == []


def test_brackets_in_texts_are_not_depth(recorder: Recorder) -> None:
    assert post(endpoint(recorder), {"note": '\\"' + "[{" * 200, "steps": ["gc"]})[0] == 200


def test_a_body_too_large_is_refused_by_its_head(recorder: Recorder) -> None:
    head = {**BEARER, "content-length": str(MAX_BODY + 1)}
    refusal = endpoint(recorder).refusal("POST", CLEANUP, head)
    assert refusal is not None
    assert refusal.status == 413


@pytest.mark.parametrize(
    "text", ["0.7", "70%", "1", "450MiB", "450MB", "0.5GiB", " 512 M ", ".5g", 0.7, 1, "1048576"]
)
def test_goals_are_read_as_the_sidecar_reads_them(text: float | str) -> None:
    assert size.parse_goal(text).of(1 << 40) == parse_threshold(text).of(1 << 40)


@pytest.mark.parametrize("text", ["", "70", "0", "0%", "101%", "12x", "-1", "GiB", "\u0661%", 1.5, 70])
def test_what_the_sidecar_refuses_as_a_goal_is_refused_here(text: float | str) -> None:
    with pytest.raises(ValueError, match="goal"):
        size.parse_goal(text)


# -- one run


def test_an_order_joins_the_run_under_way(recorder: Recorder) -> None:
    served = endpoint(recorder)
    joined: list[tuple[int, dict[str, Any]]] = []

    def during(step: str) -> None:
        if step == "gc":
            joined.append(post(served, payload(alert(steps="caches,gc"))))
            joined.append(post(served, {"steps": ["trim"]}))

    recorder.during = during
    status, reply = post(served, payload(alert(steps="caches,gc")))
    assert (status, recorder.taken) == (200, ["caches", "gc", "trim"]), (
        "nothing twice, and what was new besides"
    )
    assert [(code, said["outcome"], said["run"]) for code, said in joined] == [
        (202, "joined", reply["run"])
    ] * 2
    recorder.during = str
    assert post(served, {"steps": ["gc"]})[1]["run"] == reply["run"] + 1, "a later order is a run of its own"


def test_a_run_that_breaks_off_leaves_the_way_free(recorder: Recorder) -> None:
    served = endpoint(recorder)
    recorder.during = lambda _: 1 / 0
    assert post(served, {"steps": ["gc"]}) == (500, {"error": "ZeroDivisionError: division by zero"})
    recorder.during = str
    assert post(served, {"steps": ["gc"]})[0] == 200


def test_steps_end_where_the_goal_is_reached(recorder: Recorder) -> None:
    used = [900 * MIB]

    def look(own: int | None) -> Level:
        return Level(used[0], used[0], own, Origin.PROCESS)

    served = endpoint(recorder, {**TOKEN, "MEMORY_LIMIT_MB": "1000"}, look)
    recorder.during = lambda _: used.append(used.pop() - 150 * MIB)
    _, reply = post(served, {"goal": 0.7})
    assert (reply["outcome"], recorder.taken) == ("goal_reached", ["caches", "gc"])
    assert (reply["goal"], reply["freed"], reply["steps"][0]["freed"]) == (700 * MIB, 300 * MIB, 150 * MIB)
    assert post(served, {"goal": "700MiB"})[1]["outcome"] == "not_needed"
    assert post(served, {"goal": "10MiB", "steps": ["gc"]})[1]["outcome"] == "goal_not_reached"
    assert post(served, payload(alert(goal="70%")))[1]["outcome"] == "not_needed"
    assert post(served, payload(alert()))[1]["outcome"] == "done", "one process can't say that all is well"


def test_a_part_of_a_limit_that_is_not_known_stops_nothing(recorder: Recorder) -> None:
    _, reply = post(endpoint(recorder), {"goal": 0.7})
    assert (reply["outcome"], reply["goal"], len(reply["steps"])) == ("done", None, 3)


def test_an_alert_in_a_cgroup_that_is_below_the_default_goal_is_not_needed(recorder: Recorder) -> None:
    def look(_: int | None) -> Level:
        return Level(1, 60, 100, Origin.CGROUP)

    assert post(endpoint(recorder, TOKEN, look), payload(alert()))[1]["outcome"] == "not_needed"
    strict = endpoint(recorder, {**TOKEN, "OOMGUARD_GOAL": "50%"}, look)
    assert post(strict, payload(alert(steps="gc")))[1]["outcome"] == "goal_not_reached"


# -- the level


def tree(root: Path, files: Mapping[str, str]) -> tuple[str, str]:
    for name, content in {"proc/self/statm": "9 5 1 0 0 0 0\n", **files}.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return str(root / "proc"), str(root / "cgroup")


@pytest.mark.parametrize(
    "files",
    [
        {  # version 2, in a namespace of its own
            "proc/self/cgroup": "0::/\n",
            "cgroup/memory.max": "1000\n",
            "cgroup/memory.current": "700\n",
            "cgroup/memory.stat": "anon 1\nactive_file 50\ninactive_file 40\nslab_reclaimable 10\n",
        },
        {  # version 2, the limit is the parent's
            "proc/self/cgroup": "0::/box/worker\n",
            "cgroup/box/worker/memory.max": "max\n",
            "cgroup/box/memory.max": "1000\n",
            "cgroup/box/memory.current": "600\n",
            "cgroup/box/memory.stat": "anon 1\n",
        },
        {  # version 1 beside version 2; the host's path is not there in a container
            "proc/self/cgroup": "4:cpu,memory:/docker/12ab\n0::/\n",
            "cgroup/memory/memory.limit_in_bytes": "1000\n",
            "cgroup/memory/memory.usage_in_bytes": "700\n",
            "cgroup/memory/memory.stat": "active_file 1\ntotal_active_file 60\ntotal_inactive_file 40\n",
        },
    ],
)
def test_used_is_the_cgroups_where_it_has_a_limit(tmp_path: Path, files: dict[str, str]) -> None:
    proc, cgroups = tree(tmp_path, files)
    page = os.sysconf("SC_PAGE_SIZE")
    assert level.read(None, proc=proc, cgroups=cgroups) == Level(5 * page, 600, 1000, Origin.CGROUP)
    assert level.read(900, proc=proc, cgroups=cgroups).limit == 900


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"proc/self/cgroup": "garbage\n"},
        {"proc/self/cgroup": "0::/../../x\n"},
        {"proc/self/cgroup": "0::/\n", "cgroup/memory.max": "max\n"},
        {"proc/self/cgroup": "0::/\n", "cgroup/memory.max": "many\n"},
        {
            "proc/self/cgroup": "1:memory:/\n",
            "cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    ],
)
def test_used_is_the_process_own_where_no_cgroup_limits_it(tmp_path: Path, files: dict[str, str]) -> None:
    proc, cgroups = tree(tmp_path, files)
    found = level.read(4096, proc=proc, cgroups=cgroups)
    assert found == Level(found.rss, found.rss, 4096, Origin.PROCESS)


def test_what_cannot_be_read_is_unknown_and_not_zero(tmp_path: Path) -> None:
    found = level.read(None, proc=str(tmp_path), cgroups=str(tmp_path))
    assert found == Level(None, None, None, Origin.PROCESS)


# -- with the guard behind it


@pytest.fixture
def guard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Guard]:
    monkeypatch.setenv("OOMGUARD_TOKEN", "s3cret")
    made = Guard()
    yield made
    made.stop()


def served_by(guard: Guard) -> Endpoint:
    found = guard._endpoint()
    assert found is not None
    return found


def test_every_step_named_here_is_one_that_the_hook_has(guard: Guard) -> None:
    _, reply = post(served_by(guard), {"steps": [*order.LADDER]})
    reasons = {step["step"]: step["reason"] for step in reply["steps"]}
    assert [*reasons] == [*order.LADDER]
    assert [step for step, reason in reasons.items() if "this hook has no step" in reason] == ["restart"]


def test_one_cache_is_cleared_by_its_name(guard: Guard) -> None:
    bulk, other = [1], [2]
    guard.cache("bulk", bulk.clear)
    guard.cache("other", other.clear)
    _, reply = post(served_by(guard), {"steps": ["caches:bulk"]})
    assert reply["steps"][0]["details"]["cleared"] == ["bulk"]
    assert (bulk, other) == ([], [2])


def test_memory_shows_a_reading(guard: Guard) -> None:
    held = [b"x" * 1000]
    guard.cache("held", held.clear, size=lambda: sum(map(len, held)))
    reply = json.loads(served_by(guard).answer("GET", MEMORY, BEARER, b"").body)
    assert reply["caches"] == [{"name": "held", "bytes": 1000, "entries": None}]
    assert (reply["gc"]["status"], reply["reading_age"], reply["run"]) == ("ok", 0.0, None)
    assert reply["rss"] > MIB


def test_memory_shows_the_last_reading_while_a_step_is_under_way(guard: Guard) -> None:
    begun, go_on = threading.Event(), threading.Event()
    guard.cache("slow", lambda: begun.set() or go_on.wait(10))
    served = served_by(guard)
    first = json.loads(served.answer("GET", MEMORY, BEARER, b"").body)
    run = threading.Thread(target=post, args=(served, {"steps": ["caches"]}))
    run.start()
    assert begun.wait(10)
    reply = json.loads(served.answer("GET", MEMORY, BEARER, b"").body)
    go_on.set()
    run.join()
    assert reply["run"] == 1
    assert reply["reading_age"] > 0
    assert reply["gc"]["collections"] == first["gc"]["collections"]


def test_a_forked_child_answers_for_itself_while_its_parent_is_in_the_midst_of_a_run(guard: Guard) -> None:
    begun, go_on = threading.Event(), threading.Event()
    guard.cache("slow", lambda: begun.set() or go_on.wait(10))
    served = served_by(guard)
    run = threading.Thread(target=post, args=(served, {"steps": ["caches"]}))
    run.start()
    assert begun.wait(10)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        go_on.set()
        try:
            os.write(writing, json.dumps(post(served, {"steps": ["caches", "gc"]})[1]).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answered:
        reply = json.loads(answered.read())
    os.waitpid(child, 0)
    go_on.set()
    run.join()
    assert (reply["pid"], reply["steps"][0]["status"]) == (child, "done")
    assert reply["steps"][1]["reason"] == "shared_heap", "a collection would copy the parent's heap"


def test_turned_off_the_application_is_returned_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OOMGUARD_HOOK", "0")
    for mount in (Guard().asgi, Guard().wsgi):
        assert mount(gc.collect) is gc.collect


def test_what_is_no_application_is_told_at_once(guard: Guard) -> None:
    for mount in (guard.asgi, guard.wsgi, guard.aiohttp):
        with pytest.raises(TypeError, match="is needed"):
            mount("app")  # type: ignore[arg-type]
