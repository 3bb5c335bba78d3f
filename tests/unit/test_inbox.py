"""From bodies to receipts: what a real Alertmanager sends, and everything that it would never send."""

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.test_broker import LIMITS, MIB, Box

from oomguard.broker.inbox import Inbox, Outcome
from oomguard.broker.requests import MalformedError, Order, Payload, parse
from oomguard.broker.wishes import Action, parse_steps
from oomguard.errors import UserError

FIXTURES = Path(__file__).parents[1] / "fixtures" / "alertmanager"
FIRING = (FIXTURES / "firing.json").read_bytes()
RESOLVED = (FIXTURES / "resolved.json").read_bytes()


def payload(*alerts, **fields):
    return json.dumps({"version": "4", "alerts": list(alerts), **fields}).encode()


def firing(name="MemoryHigh", **labels):
    return {"status": "firing", "labels": {"alertname": name, **labels}, "startsAt": "2026-11-21T04:00:18Z"}


def test_a_recorded_payload_is_read_whole():
    request = parse(FIRING, Action.CLEANUP)
    (alert,) = request.alerts
    assert (request.receiver, alert.name, alert.fingerprint) == ("hook", "MemoryHigh", "020d5ca0c88ac14c")
    assert (alert.starts_at, alert.ends_at) == (1795233618.957, None)
    assert alert.annotations["summary"] == "RSS of 127.0.0.1:18000 is 200B"
    (resolved,) = parse(RESOLVED, Action.CLEANUP).alerts
    assert resolved.ends_at == 1795233621.957


def test_the_short_form_needs_nothing():
    assert parse(b"", Action.CLEANUP) == Order(("caches", "gc", "trim"), None, unconditional=False)
    assert parse(b"{}", Action.UNLOAD) == Order(("models",), None, unconditional=True)


def test_steps_without_a_goal_are_taken_at_any_level():
    assert parse(b'{"steps": ["trim", "caches"]}', Action.CLEANUP).unconditional
    assert not parse(b'{"steps": ["trim"], "goal": "70%"}', Action.CLEANUP).unconditional


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff\xfe",
        b"[]",
        b'"text"',
        b"[" * 100_000,
        b'{"steps": "gc"}',
        b'{"steps": [1]}',
        b'{"goal": true}',
        b'{"goal": [1]}',
        b'{"version": "3", "alerts": []}',
        b'{"version": 4, "alerts": []}',
        b'{"alerts": []}',
        payload(1),
        b'{"version": "4", "alerts": {}}',
        payload({"status": "burning"}),
        payload({"labels": {"alertname": 1}}),
        payload({"labels": []}),
        payload({"annotations": {"a": None}}),
        payload({"startsAt": "yesterday"}),
        payload({"startsAt": "2026-13-41T00:00:00Z"}),
        payload({"startsAt": 5}),
    ],
    ids=lambda body: body[:30].decode(errors="replace"),
)
def test_what_is_no_request_says_what_would_be_one(body):
    with pytest.raises(MalformedError) as error:
        parse(body, Action.CLEANUP)
    assert len(str(error.value)) < 250


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["version", "alerts", "labels", "status", "steps", "goal", "endsAt"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_whatever_json_comes_it_is_read_or_refused(told):
    try:
        parse(json.dumps(told).encode(), Action.CLEANUP)
    except (MalformedError, UserError) as error:
        reason = str(error)
    else:
        reason = "read"
    assert reason


def test_unknown_fields_are_accepted():
    told = parse(payload({**firing(), "mood": 1}, weather="fair"), Action.CLEANUP)
    assert isinstance(told, Payload)


def test_a_person_may_let_requests_in_again_and_an_alert_may_not():
    told = parse(b'{"steps": ["shed:off", "caches"]}', Action.CLEANUP)
    assert isinstance(told, Order)
    assert told.steps == ("caches", "shed:off")
    with pytest.raises(
        UserError, match="unknown step 'shed:on'; only caches:NAME, models:NAME, shed:off are"
    ):
        parse(b'{"steps": ["shed:on"]}', Action.CLEANUP)
    with pytest.raises(UserError, match="unknown step 'shed:off'"):
        parse_steps("shed:off")


def test_an_unknown_step_is_told_with_those_there_are():
    with pytest.raises(UserError, match="unknown step 'dance'; the steps are caches, gc, trim"):
        parse(b'{"steps": ["dance"]}', Action.CLEANUP)


class Rig:
    def __init__(self, tmp_path):
        self.box = Box(tmp_path)
        self.silenced = set()
        self.inbox = Inbox(
            self.box.broker,
            self.box.journal,
            self.box.counters,
            target="t",
            silenced=lambda labels: labels["action"] in self.silenced,
        )

    def post(self, body, *, act=True, default=Action.CLEANUP):
        return self.inbox.take(parse(body, default), default, self.box.memory.level(), LIMITS, act=act)

    @property
    def runs(self):
        return len(self.box.events("run_start"))


def with_rig(test):
    def run(tmp_path):
        async def body():
            rig = Rig(tmp_path)
            await test(rig)
            await rig.box.settle()

        asyncio.run(asyncio.wait_for(body(), 20))

    run.__name__ = test.__name__
    return run


@with_rig
async def test_a_payload_starts_a_run_and_is_journaled_with_it(rig):
    receipt = rig.post(FIRING)
    assert (receipt.outcome, receipt.run, receipt.id) == (Outcome.STARTED, 1, 2)
    (record,) = rig.box.events("request")
    assert (record["id"], record["run"], record["outcome"], record["alerts"]) == (
        2,
        1,
        "started",
        ["MemoryHigh"],
    )
    rig.box.caches.frees = [200 * MIB]
    await rig.box.settle()
    assert [record["event"] for record in rig.box.journal.records_of(1)] == [
        "run_start",
        "request",
        "step_start",
        "step_end",
        "run_end",
    ]


@with_rig
async def test_below_the_goal_a_payload_is_not_needed(rig):
    rig.box.memory.used = 600 * MIB
    assert rig.post(FIRING).outcome is Outcome.NOT_NEEDED
    assert rig.runs == 0


@with_rig
async def test_a_resolved_alert_orders_nothing(rig):
    receipt = rig.post(RESOLVED)
    assert (receipt.outcome, receipt.declined) == (Outcome.NOTHING_ASKED, {"resolved": 1})
    assert rig.runs == 0


@with_rig
async def test_resolved_before_firing_makes_no_difference(rig):
    rig.post(RESOLVED)
    assert rig.post(FIRING).outcome is Outcome.STARTED


@with_rig
async def test_a_redelivery_while_its_run_is_under_way_joins_it(rig):
    rig.box.caches.gate = asyncio.Event()
    first = rig.post(FIRING)
    await asyncio.sleep(0)
    again = rig.post(FIRING)
    assert (again.outcome, again.run) == (Outcome.JOINED, first.run)
    rig.box.caches.frees = [200 * MIB]
    rig.box.caches.gate.set()
    await rig.box.settle()
    assert rig.box.caches.taken == 1


@with_rig
async def test_both_engines_on_one_crossing_runs_each_step_once(rig):
    rig.box.caches.frees = [40 * MIB]
    rig.box.gc.frees = [150 * MIB]
    rig.box.tick("MemoryHigh")
    await rig.box.settle()
    late = rig.post(payload(firing(), firing("MemoryCritical", job="x", instance="y", steps="all")))
    assert late.outcome is Outcome.NOT_NEEDED
    assert [step.taken for step in rig.box.steps] == [1, 1, 0]


@with_rig
async def test_what_the_first_engine_tried_in_vain_the_second_does_not_repeat(rig):
    rig.box.tick("MemoryHigh")
    await rig.box.settle()
    late = rig.post(FIRING)
    assert (late.outcome, late.reason) == (Outcome.HELD, "floor")
    assert [step.taken for step in rig.box.steps] == [1, 1, 1]


@with_rig
async def test_a_second_climb_without_a_resolve_in_between_acts_again(rig):
    for _ in range(2):
        rig.box.memory.used = 850 * MIB
        rig.box.caches.frees = [300 * MIB]
        assert rig.post(FIRING).outcome is Outcome.STARTED
        await rig.box.settle()
    assert rig.box.caches.taken == 2


@with_rig
async def test_three_alerts_that_fire_together_make_one_run_with_all_their_steps(rig):
    rig.box.trim.frees = [400 * MIB]
    receipt = rig.post(
        payload(
            firing("MemoryHigh", action="cleanup", steps="caches"),
            firing("MemoryCritical", action="cleanup", steps="caches,gc"),
            firing("MemoryExhaustionPredicted", action="cleanup", steps="trim", goal="50%"),
        )
    )
    await rig.box.settle()
    assert rig.runs == 1
    (start,) = rig.box.events("run_start")
    assert start["alerts"] == ["MemoryHigh", "MemoryCritical", "MemoryExhaustionPredicted"]
    assert (start["steps"], start["goal"], receipt.goal) == (["caches", "gc", "trim"], 500 * MIB, 500 * MIB)


@with_rig
async def test_alerts_for_other_targets_are_left_out_one_by_one(rig):
    receipt = rig.post(payload(firing(target="u", steps="dance"), firing(target="t"), firing(target="v")))
    assert (receipt.outcome, receipt.declined) == (Outcome.STARTED, {"other_target": 2})


@with_rig
async def test_a_storm_of_a_thousand_alerts_makes_one_run_and_one_record(rig):
    alerts = [firing(f"A{n % 7}", pod=str(n)) for n in range(1000)]
    rig.post(payload(*alerts))
    await rig.box.settle()
    assert rig.runs == 1
    (record,) = rig.box.events("request")
    assert (record["count"], len(record["alerts"])) == (1000, 7)


@with_rig
async def test_one_unknown_step_among_many_does_nothing_at_all(rig):
    with pytest.raises(UserError, match="unknown step 'dance'"):
        rig.post(payload(firing(), firing(steps="dance")))
    assert rig.box.journal.records_of(1) == []


@with_rig
async def test_what_is_silenced_is_left_out_and_a_person_is_not(rig):
    rig.silenced = {"cleanup"}
    receipt = rig.post(FIRING)
    assert (receipt.outcome, receipt.declined) == (Outcome.NOTHING_ASKED, {"silenced": 1})
    assert rig.post(b"{}").outcome is Outcome.STARTED


@with_rig
async def test_with_actions_off_a_payload_is_told_so_and_a_person_is_followed(rig):
    assert rig.post(FIRING, act=False).outcome is Outcome.OFF
    assert rig.post(b"{}", act=False).outcome is Outcome.STARTED


@with_rig
async def test_alerts_posted_to_unload_ask_for_models(rig):
    rig.post(FIRING, default=Action.UNLOAD)
    (start,) = rig.box.events("run_start")
    assert start["steps"] == []
    assert rig.box.broker.active.steps == {"models"}


def test_a_replay_after_a_restart_is_judged_by_the_level_and_by_what_was_learned(tmp_path):
    async def first():
        rig = Rig(tmp_path)
        rig.post(FIRING)
        await rig.box.settle()

    async def second():
        box = Box(tmp_path)
        rig = Rig(tmp_path)
        rig.box.broker._resume(tuple(box.journal.records))
        receipt = rig.post(FIRING)
        assert (receipt.outcome, receipt.reason) == (Outcome.HELD, "floor")
        assert receipt.id > 2, "ids go on"

    asyncio.run(first())
    asyncio.run(second())
