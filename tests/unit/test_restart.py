"""What a new sidecar takes from the journal of the one before, whatever that is full of."""

from oomguard.actions.ladder import Ladder
from oomguard.broker import Broker
from oomguard.config import Settings
from oomguard.counters import Counters
from oomguard.guardian import Guardian
from oomguard.journal import KEPT_RECORDS, Journal
from oomguard.model import RunOutcome
from oomguard.sources.hooks import Hooks
from oomguard.state import State
from oomguard.store import Store

ENDED = {"outcome": "goal_not_reached", "floor": 850 << 20, "failures": 2, "steps": ["caches"]}


class Quiet:
    """Rules and routes that ask for nothing."""

    def evaluate(self, lane, now):
        pass

    def flush(self, now):
        pass

    def wishes(self, now):
        return ()


def began_anew(path):
    """The broker of a sidecar that finds this journal."""
    journal = Journal(path)
    state, hooks = State("t", Settings()), Hooks(str(path) + ".sock", lambda pid: True)
    return Guardian(state, None, hooks, journal, Counters("t"), Store(), Quiet()).broker


def test_ids_and_the_floor_outlive_a_journal_full_of_alerts(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.write("run_start", run=500)
    journal.write("run_end", run=500, **ENDED)
    for _ in range(2 * KEPT_RECORDS):
        journal.write("alert_firing", alert="Flaps", severity="warning", summary="")
    journal.close()
    broker = began_anew(tmp_path / "journal.jsonl")
    assert broker.take_id() == 501
    assert broker.restraint.floor == 850 << 20
    assert broker.restraint.failures == 2


def test_a_run_that_a_dead_sidecar_left_open_is_ended_once_and_teaches_nothing(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    journal.write("run_start", run=7)
    journal.write("run_end", run=7, **ENDED)
    journal.write("run_start", run=8)
    journal.close()
    for _ in range(3):
        broker = began_anew(path)
        assert broker.restraint.floor == 850 << 20
    ends = [record for record in Journal(path).records if record["event"] == "run_end" and record["run"] == 8]
    assert [end["outcome"] for end in ends] == [RunOutcome.INTERRUPTED.value]


def test_a_journal_whose_beginning_is_gone_has_no_open_run(tmp_path):
    journal = Journal(None)
    journal.write("run_end", run=3, **ENDED)
    counters = Counters("t")

    def ladder(held):
        return Ladder(
            (), measure=lambda: None, workers=list, held=held, root=lambda: None, kills=lambda: None,
            journal=journal, counters=counters,
        )  # fmt: skip

    Broker((), ladder=ladder, journal=journal, counters=counters, past=tuple(journal.records))
    assert [record["event"] for record in journal.records] == ["run_end"]
