"""What a reload takes over, and what a mistake leaves alone."""

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from oomguard import config
from oomguard import metrics as m
from oomguard.alerting import Alerting, loading
from oomguard.alerting.reloading import Reloader
from oomguard.counters import Counters
from oomguard.errors import ConfigError, Problem
from oomguard.journal import Journal
from oomguard.log import LOGGER
from oomguard.state import State
from oomguard.store import Store

RULES = "groups:\n  - name: g\n    rules:\n      - alert: {name}\n        expr: {expr}\n"


class Rig:
    def __init__(self, folder, problems=()):
        self.file, self.rules = folder / "oomguard.yml", folder / "rules.yml"
        self.write()
        settings = config.load({"critical": "95%"}, {}, self.file)
        self.state, self.store, self.journal = State("t", settings), Store(), Journal(None)
        self.alerting = Alerting(
            loading.load(settings), self.store, Counters("t"), self.journal, target="t", write=self.store.live
        )
        self.worker = ThreadPoolExecutor(max_workers=1)
        self.reloader = Reloader(self.state, self.alerting, self.store, self.journal, self.worker, problems)

    def reload(self):
        return asyncio.run(asyncio.wait_for(self.reloader.reload(), 20))

    def write(self, high="80%", name="A", expr="up == 0", more=""):
        self.file.write_text(f"thresholds:\n  high: {high}\nrules: {self.rules}\n{more}")
        self.rules.write_text(RULES.format(name=name, expr=expr))

    def names(self):
        return [rule.rule.name for rule in self.alerting.engine.rules]

    def samples(self):
        return {sample.metric: sample.value for sample in self.reloader.samples()}


@pytest.fixture
def rig(tmp_path, monkeypatch):
    monkeypatch.delenv("OOMGUARD_HIGH", raising=False)
    level = LOGGER.level
    rig = Rig(tmp_path)
    yield rig
    rig.worker.shutdown()
    LOGGER.setLevel(level)


def test_what_the_files_say_now_is_taken_over_and_flags_stay(rig):
    rig.write("70%", name="B", expr="avg_over_time(x[1h]) > 1", more="log:\n  level: warning\nlimit: 1GiB\n")
    assert rig.reload() == [str(rig.rules), str(loading.ROUTES)]
    assert rig.names() == ["B"]
    assert str(rig.state.settings.high) == "70%"
    assert str(rig.state.settings.critical) == "95%", "a flag"
    assert rig.state.settings.limit is None, "holds until the sidecar starts again"
    assert LOGGER.level == logging.WARNING
    assert rig.samples()[m.CONFIG_RELOAD] == 1
    assert rig.journal.records[-1]["ok"] is True
    assert rig.reloader.status()["ok"]


@pytest.mark.parametrize(
    ("broken", "places"),
    [({"high": "lots"}, 1), ({"expr": "sum("}, 1), ({"more": "routes: nowhere.yml\n"}, 1)],
)
def test_a_mistake_changes_nothing_and_is_told_until_it_is_mended(rig, broken, places):
    before = rig.state.settings
    loaded_at = rig.samples()[m.CONFIG_RELOAD_TIME]
    rig.write(name="B", **broken)
    with pytest.raises(ConfigError) as raised:
        rig.reload()
    assert len(raised.value.problems) == places
    assert (rig.names(), rig.state.settings) == (["A"], before)
    assert rig.samples() == {m.CONFIG_RELOAD: 0, m.CONFIG_RELOAD_TIME: loaded_at}
    told = rig.reloader.status()
    assert (told["ok"], told["problems"]) == (False, [str(problem) for problem in raised.value.problems])
    assert rig.journal.records[-1]["problems"] == told["problems"]
    rig.write(name="B")
    rig.reload()
    assert (rig.names(), rig.reloader.status()["problems"]) == (["B"], [])
    assert rig.samples()[m.CONFIG_RELOAD] == 1


def test_a_start_with_older_files_counts_as_a_failed_reading(tmp_path):
    rig = Rig(tmp_path, [Problem("rules.yml:1", "x")])
    assert rig.samples() == {m.CONFIG_RELOAD: 0}, "when it last worked is not known"
    assert rig.reloader.status()["problems"] == ["rules.yml:1: x"]
    rig.reload()
    assert rig.samples()[m.CONFIG_RELOAD] == 1


def test_a_file_that_has_gone_is_a_mistake(rig):
    rig.file.unlink()
    with pytest.raises(ConfigError):
        rig.reload()
    assert rig.names() == ["A"]


def test_while_files_are_read_the_event_loop_goes_on_and_nothing_changes(rig):
    gate = threading.Event()
    rig.write(name="B")

    async def body():
        rig.worker.submit(gate.wait, 20)
        first = asyncio.create_task(rig.reloader.reload())
        second = asyncio.create_task(rig.reloader.reload())
        await asyncio.sleep(0.05)
        assert rig.names() == ["A"]
        rig.write(name="C")
        gate.set()
        assert await first == await second

    asyncio.run(asyncio.wait_for(body(), 20))
    assert rig.names() == ["C"]
    assert [record["event"] for record in rig.journal.records] == ["reload", "reload"]
