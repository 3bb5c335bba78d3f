"""What anybody may send, all at once or oddly written: the journal stays short, the fast lane free, a pause a pause."""

import asyncio
import json
import re

import pytest

from oomguard.actions.ladder import MOST_NAMED, Ladder
from oomguard.alerting.silencing import PAUSE
from oomguard.broker import Broker
from oomguard.broker.inbox import Inbox, Outcome
from oomguard.broker.requests import MOST_ALERTS, MalformedError, parse
from oomguard.broker.wishes import LONGEST_NAME, Action
from oomguard.counters import Counters
from oomguard.journal import Journal
from oomguard.model import Level, LimitOrigin, ProcessId, UsedKind
from oomguard.thresholds import Thresholds

LIMIT = 1000 << 20
LIMITS = Thresholds(800 << 20, 900 << 20, 700 << 20)
LEVEL = Level(1.0, 850 << 20, LIMIT, LimitOrigin.CGROUP, UsedKind.CGROUP, 0.0)


def test_a_storm_of_long_names_leaves_short_records(tmp_path):
    journal, counters = Journal(tmp_path / "journal.jsonl"), Counters("t")
    names = [f"{index:04}" + "x" * 900 for index in range(1000)]
    alerts = [{"status": "firing", "labels": {"alertname": name}} for name in names]
    body = json.dumps({"version": "4", "receiver": "r", "alerts": alerts}).encode()

    async def send():
        broker = Broker(
            (),
            ladder=lambda held: Ladder(
                (),
                measure=lambda: LEVEL,
                workers=list,
                held=held,
                root=lambda: ProcessId(41, 1),
                kills=lambda: None,
                journal=journal,
                counters=counters,
            ),
            journal=journal,
            counters=counters,
        )
        inbox = Inbox(broker, journal, counters, target="t", silenced=lambda _: False)
        receipt = inbox.take(parse(body, Action.CLEANUP), Action.CLEANUP, LEVEL, LIMITS, act=True)
        await broker.finished()
        return receipt

    receipt = asyncio.run(send())
    journal.close()
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines()
    assert max(map(len, lines)) < 2 * MOST_NAMED * LONGEST_NAME
    events = [record["event"] for record in Journal(tmp_path / "journal.jsonl").records]
    assert events == ["run_start", "request", "run_end"]
    assert json.loads(lines[0])["run"] == receipt.run


def test_more_alerts_than_anybody_sends_are_refused_before_they_take_time():
    body = b'{"version": "4", "alerts": [' + b",".join([b"{}"] * (MOST_ALERTS + 1)) + b"]}"
    with pytest.raises(MalformedError, match="at most 10000 are read"):
        parse(body, Action.CLEANUP)


@pytest.mark.parametrize("labels", [{}, {"action": ""}, {"action": "unload"}])
def test_a_pause_holds_back_whatever_the_sender_calls_the_action(labels):
    journal, counters, pause = Journal(None), Counters("t"), re.compile(PAUSE["value"])
    broker = Broker((), ladder=lambda held: None, journal=journal, counters=counters)
    inbox = Inbox(
        broker, journal, counters, target="t", silenced=lambda told: bool(pause.fullmatch(told["action"]))
    )
    alerts = [{"status": "firing", "labels": {"alertname": "High", **labels}}]
    body = json.dumps({"version": "4", "alerts": alerts}).encode()
    receipt = inbox.take(parse(body, Action.CLEANUP), Action.CLEANUP, LEVEL, LIMITS, act=True)
    assert (receipt.outcome, receipt.declined) == (Outcome.NOTHING_ASKED, {"silenced": 1})
