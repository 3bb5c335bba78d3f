"""What the sidecar answers, from a real guardian, broker and journal over a memory that the test sets."""

import asyncio
import json
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.test_guardian import MIB, Rig

from oomguard import metrics as m
from oomguard.alerting.reloading import Reloader
from oomguard.broker.inbox import Inbox
from oomguard.broker.requests import MalformedError
from oomguard.broker.wishes import Action
from oomguard.config import Settings
from oomguard.counters import Counters
from oomguard.errors import TargetError, UserError
from oomguard.rules.engine import Lane
from oomguard.store import Store
from oomguard.view import SidecarView


class Viewed(Rig):
    """A rig with a view of it."""

    def __init__(self, tmp_path, **settings):
        super().__init__(tmp_path, **settings)
        self.hooks.errors = Counter()
        self.store, counters = Store(), Counters("t")
        inbox = Inbox(
            self.guardian.broker, self.journal, counters, target="t",
            silenced=lambda labels: self.alerting.silenced(labels, self.now()),
        )  # fmt: skip
        self.view = SidecarView(
            self.state, self.guardian, self.alerting,
            Reloader(self.state, self.alerting, self.store, self.journal, None), inbox, self.hooks, self.journal,
            counters, self.store, slow_seconds=lambda: 0.001, receivers=lambda: [{"waiting": 2}, {"waiting": 1}],
            kept=self.kept,
        )  # fmt: skip

    async def kept(self):
        """Nothing survives a rig."""

    def order(self, body, action=Action.CLEANUP):
        return self.view.order(json.dumps(body).encode(), action)

    def scrape(self):
        text = self.view.metrics("")[0].decode()
        return [sample for family in text_string_to_metric_families(text) for sample in family.samples]

    def alerts_scraped(self):
        return [sample.labels["alertname"] for sample in self.scrape() if sample.name == "ALERTS"]


@pytest.fixture
def viewed(tmp_path):
    return Viewed(tmp_path)


def on_loop(test):
    def run(viewed):
        async def body():
            await test(viewed)
            await viewed.guardian.broker.finished()

        asyncio.run(asyncio.wait_for(body(), 20))

    run.__name__ = test.__name__
    return run


@on_loop
async def test_the_status_is_json_at_any_time(viewed):
    assert json.loads(json.dumps(viewed.view.status(command_lines=True)))["level"] is None
    viewed.tick(950)
    told = json.loads(json.dumps(viewed.view.status(command_lines=True)))
    assert told["level"]["used"] == 950 * MIB
    assert told["cleanup"]["active"] == 1
    assert {alert["labels"]["alertname"] for alert in told["alerts"]} == {"MemoryHigh", "MemoryCritical"}
    assert told["config"]["ok"]


@on_loop
async def test_an_order_is_followed_and_its_entry_tells_the_outcome(viewed):
    viewed.tick(500)
    told = viewed.order({"steps": ["gc"]})
    running = viewed.view.entry(told["id"])
    assert (running["outcome"], running["ended"]) == ("started", False)
    await viewed.guardian.broker.finished()
    for number in (told["id"], told["run"]):
        ended = viewed.view.entry(number)
        assert (ended["outcome"], ended["ended"], ended["run"]) == ("done", True, told["run"])
        assert {record["event"] for record in ended["records"]} >= {"request", "run_start", "run_end"}
    with pytest.raises(LookupError):
        viewed.view.entry(99)


@on_loop
async def test_a_request_that_led_to_nothing_has_ended(viewed):
    viewed.tick(500)
    told = viewed.order({"version": "4", "alerts": [{"status": "firing", "labels": {}}]})
    entry = viewed.view.entry(told["id"])
    assert (entry["outcome"], entry["ended"], entry["run"]) == ("not_needed", True, None)


@on_loop
async def test_without_a_target_an_order_waits_or_never_comes(viewed):
    viewed.tick(500)
    viewed.state.root = None
    with pytest.raises(LookupError, match="no target is running"):
        viewed.order({})
    viewed.state.gone = True
    with pytest.raises(TargetError, match="ended for good"):
        viewed.order({})
    with pytest.raises(MalformedError):
        viewed.view.order(b"{", Action.CLEANUP)
    with pytest.raises(UserError, match="unknown step"):
        viewed.order({"steps": ["dance"]})
    assert list(viewed.journal.records) == []


@on_loop
async def test_when_actions_are_off_a_payload_is_not_followed_and_a_person_is(viewed):
    viewed.state.settings = Settings(act=False)
    viewed.tick(950)
    assert viewed.runs() == []
    alert = {"status": "firing", "labels": {"alertname": "A"}}
    assert viewed.order({"version": "4", "alerts": [alert]})["outcome"] == "off"
    assert viewed.order({})["outcome"] == "started"


@on_loop
async def test_a_scrape_tells_the_alerts_of_now_and_no_older_ones(viewed):
    viewed.tick(950, 1.0)
    viewed.store.write(viewed.now() / 1000, viewed.view.slot())
    assert sorted(viewed.alerts_scraped()) == ["MemoryCritical", "MemoryHigh"]
    viewed.tick(100, 1.01)
    assert viewed.alerts_scraped() == []


@on_loop
async def test_no_series_is_scraped_twice(viewed):
    viewed.tick(950, 1.0)
    viewed.alerting.evaluate(Lane.ALL, viewed.now())
    viewed.store.write(viewed.now() / 1000, viewed.view.slot())
    viewed.tick(960, 1.5)
    series = Counter((sample.name, tuple(sorted(sample.labels.items()))) for sample in viewed.scrape())
    assert [name for name, count in series.items() if count > 1] == []
    told = {name for name, _ in series}
    assert {m.PAUSED.name, m.NOTIFICATION_QUEUE.name, m.CONFIG_RELOAD.name} <= told


@on_loop
async def test_it_is_ready_once_memory_is_read(viewed):
    assert viewed.view.ready() == "memory can't be read; see /api/v1/status"
    viewed.tick(100)
    assert viewed.view.ready() == ""
    viewed.state.root = viewed.state.level = None
    assert viewed.view.ready() == "waiting for the target"
    assert viewed.view.health()["status"] == "unknown"
