import json
import os
from pathlib import Path

import pytest

from oomguard import journal as journal_module
from oomguard.journal import Journal, read_tail


def test_a_record_is_on_disk_before_write_returns(tmp_path):
    path = tmp_path / "journal.jsonl"
    journal = Journal(path, now=lambda: 12.3456)
    journal.write("run_start", run=1, steps=["caches"])
    assert json.loads(path.read_text()) == {
        "time": 12.346,
        "event": "run_start",
        "run": 1,
        "steps": ["caches"],
    }


def test_each_write_asks_for_a_sync(tmp_path):
    synced = []
    journal = Journal(tmp_path / "journal.jsonl", sync=synced.append)
    journal.write("run_start", run=1)
    assert len(synced) == 1
    os.fsync(synced[0])


def test_a_new_sidecar_reads_where_the_last_one_ended(tmp_path):
    path = tmp_path / "journal.jsonl"
    Journal(path).write("run_start", run=7)
    assert [record["run"] for record in Journal(path).records] == [7]


def test_a_torn_line_costs_itself_only(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"event":"a"}\n{"event":"b"\n\xff\xfe\n[]\n{"no":"event"}\n{"event":"c"}\n')
    assert [record["event"] for record in read_tail(path)] == ["a", "c"]


def test_what_cant_be_written_is_kept_in_memory_and_counted(tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a directory should be")
    journal = Journal(blocked / "journal.jsonl")
    record = journal.write("run_start", run=1)
    assert record["journaled"] is False
    assert list(journal.records) == [record]
    assert journal.errors == 1
    assert journal.error == f"can't open {blocked}/journal.jsonl: file exists"


def test_writing_goes_on_once_the_disk_can_be_written_again(tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    journal = Journal(blocked / "journal.jsonl")
    journal.write("lost")
    blocked.unlink()
    assert "journaled" not in journal.write("kept")
    assert journal.error == ""
    assert [record["event"] for record in read_tail(blocked / "journal.jsonl")] == ["kept"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_stops_nothing():
    journal = Journal(Path("/dev/full"))
    assert journal.write("run_start", run=1)["journaled"] is False
    assert "no space left" in journal.error


def test_the_file_is_rotated_and_nothing_is_lost_on_the_way(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "ROTATE_BYTES", 2000)
    path = tmp_path / "journal.jsonl"
    journal = Journal(path)
    for number in range(60):
        journal.write("run_start", run=number)
    old = path.with_name("journal.jsonl.1")
    assert path.stat().st_size <= 2000
    assert old.stat().st_size <= 2000
    kept = [record["run"] for file in (old, path) for record in read_tail(file)]
    assert kept == list(range(60))[-len(kept) :]
    assert len(kept) > 30


def test_a_file_that_cant_be_renamed_is_begun_again(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "ROTATE_BYTES", 500)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(16, "busy")))
    journal = Journal(tmp_path / "journal.jsonl")
    for number in range(50):
        assert "journaled" not in journal.write("run_start", run=number)
    assert read_tail(tmp_path / "journal.jsonl")[-1]["run"] == 49


def test_the_last_record_of_an_event_is_known_across_a_rotation(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.with_name("journal.jsonl.1").write_text('{"event":"target_start","pid":7}\n')
    path.write_text('{"event":"run_end","run":3}\n' * 300)
    journal = Journal(path)
    assert journal.latest["target_start"]["pid"] == 7
    assert len(journal.records) == 200


def test_a_long_journal_is_read_from_its_end(tmp_path):
    path = tmp_path / "journal.jsonl"
    with path.open("w") as file:
        for number in range(20_000):
            file.write(json.dumps({"event": "run_start", "run": number}) + "\n")
    assert [record["run"] for record in read_tail(path, 3)] == [19_997, 19_998, 19_999]


def filled(path):
    """A journal with run 1, request 2 for it, and 300 records of run 3 after them."""
    journal = Journal(path)
    journal.write("run_start", run=1)
    journal.write("request", id=2, run=1, outcome="started")
    journal.write("run_end", run=1, outcome="goal_reached")
    journal.write("run_start", run=3)
    for number in range(300):
        journal.write("step_start", run=3, number=number)
    journal.write("request", id=4, run=3, outcome="joined")
    return journal


def told(records):
    return [(record["event"], record.get("id"), record.get("run")) for record in records]


def test_records_of_a_run_or_a_request_are_found_as_far_back_as_the_file_reaches(tmp_path):
    journal = filled(tmp_path / "journal.jsonl")
    assert told(journal.records_of(1)) == [("run_start", None, 1), ("request", 2, 1), ("run_end", None, 1)]
    assert told(journal.records_of(2)) == [("request", 2, 1)]
    assert told(journal.records_of(4)) == [("request", 4, 3)]
    assert len(journal.records_of(3)) == 302, "although a request of it is among the last records"
    assert journal.records_of(99) == []


def test_records_of_a_journal_without_a_file_are_those_that_are_kept():
    journal = filled(None)
    assert journal.records_of(1) == []
    assert told(journal.records_of(4)) == [("request", 4, 3)]


def test_records_of_a_run_are_found_in_the_file_before(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "ROTATE_BYTES", 14_000)
    journal = filled(tmp_path / "journal.jsonl")
    assert (tmp_path / "journal.jsonl.1").exists()
    assert told(journal.records_of(1))[0] == ("run_start", None, 1)


def test_a_sidecar_that_did_not_live_to_stop_is_known_to_the_next_with_the_last_it_wrote(tmp_path):
    path, times = tmp_path / "journal.jsonl", iter(range(100, 200))

    def journal():
        return Journal(path, now=lambda: next(times))

    first = journal()
    assert first.lost() is None
    first.write("sidecar_start", pid=41)
    first.write("run_start", used=500, limit=512)
    first.write("alert_firing", alert="MemoryHigh")
    first.close()
    second = journal()
    assert second.lost() == {"pid": 41, "last_seen": 102.0, "used": 500, "limit": 512}
    second.write("sidecar_start", pid=42)
    second.write("sidecar_stop", pid=42)
    second.close()
    assert journal().lost() is None
