"""Recordings: what is written comes back, and what was torn, foreign or another sidecar's is told apart."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oomguard import recording
from oomguard.errors import UserError
from oomguard.metrics import GAUGE, Metric
from oomguard.promql.series import METRIC_NAME, is_stale
from oomguard.recording import Recorder, read
from oomguard.store import Sample

A = Metric("a", "a", GAUGE, "1", "x.", ("k",), own=True)
T = 1_795_000_000_000


def sample(key, value):
    return Sample(A, (key,), float(value))


def labels(key):
    return ((METRIC_NAME, "a"), ("k", key))


def recorder(path):
    return Recorder(path, "t", T / 1000)


def values(moment):
    return {
        dict(key)["k"]: "gone" if is_stale(value) else value for key, value in sorted(moment.values.items())
    }


def moments(path):
    return [(moment.time - T, moment.slot, values(moment)) for moment in read(path)]


def test_slots_are_whole_and_live_lines_hold_what_changed(tmp_path):
    path = tmp_path / "r"
    made = recorder(path)
    made.slot([sample("x", 1), sample("y", 2)], T)
    made.live([sample("x", 1)], T + 5)
    made.live([sample("x", 3)], T + 10)
    made.slot([sample("x", 3), sample("z", 4)], T + 1000)
    made.slot([sample("x", 3), sample("y", 5), sample("z", 4)], T + 2000)
    made.close()
    assert moments(path) == [
        (0, True, {"x": 1, "y": 2}),
        (10, False, {"x": 3}),
        (1000, True, {"x": 3, "y": "gone", "z": 4}),
        (2000, True, {"x": 3, "y": 5, "z": 4}),
    ]


def test_infinite_and_unknown_values_come_back(tmp_path):
    made = recorder(tmp_path / "r")
    made.slot([sample("x", math.inf), sample("y", -math.inf), sample("z", math.nan)], T)
    made.close()
    (moment,) = read(tmp_path / "r")
    assert moment.values[labels("x")] == math.inf
    assert moment.values[labels("y")] == -math.inf
    assert math.isnan(moment.values[labels("z")])


@given(
    st.lists(
        st.tuples(
            st.booleans(), st.dictionaries(st.sampled_from("abc"), st.integers(0, 3), min_size=1, max_size=3)
        ),
        max_size=12,
    )
)
def test_every_slot_reads_as_it_was_seen(tmp_path_factory, ticks):
    path = tmp_path_factory.mktemp("recording") / "r"
    made = recorder(path)
    seen = []
    for index, (slot, told) in enumerate(ticks):
        samples = [sample(key, value) for key, value in told.items()]
        (made.slot if slot else made.live)(samples, T + index)
        if slot:
            seen.append({labels(key): value for key, value in told.items()})
    made.close()
    read_slots = [
        {key: value for key, value in moment.values.items() if not is_stale(value)}
        for moment in read(path)
        if moment.slot
    ]
    assert read_slots == seen


def test_the_line_that_a_kill_tore_is_left_out(tmp_path):
    path = tmp_path / "r"
    made = recorder(path)
    made.slot([sample("x", 1)], T)
    made.close()
    path.write_text(path.read_text() + '{"slot": 17950')
    assert moments(path) == [(0, True, {"x": 1})]


def test_the_next_sidecar_goes_on_with_it_and_numbers_anew(tmp_path):
    path = tmp_path / "r"
    made = recorder(path)
    made.slot([sample("x", 1), sample("y", 2)], T)
    made.close()
    path.write_text(path.read_text() + '{"live": 1795000')
    after = recorder(path)
    after.live([sample("y", 6)], T + 4000)
    after.slot([sample("y", 7)], T + 5000)
    after.slot([sample("y", 8)], T + 6000)
    after.close()
    assert moments(path) == [
        (0, True, {"x": 1, "y": 2}),
        (4000, False, {"y": 6}),
        (5000, True, {"x": "gone", "y": 7}),
        (6000, True, {"y": 8}),
    ]


def test_a_file_that_is_something_else_is_not_written_over(tmp_path):
    path = tmp_path / "app.py"
    path.write_text("print('mine')\n")
    with pytest.raises(UserError, match=r"^--record .*app\.py: holds something that is no recording"):
        recorder(path)
    assert path.read_text() == "print('mine')\n"


def test_a_file_that_cant_be_written_is_a_users_mistake(tmp_path):
    with pytest.raises(
        UserError, match=r"--record .*: no such file or directory; name a file that can be written"
    ):
        recorder(tmp_path / "none" / "r")
    with pytest.raises(UserError, match="is a directory"):
        recorder(tmp_path)


def test_a_recording_ends_at_its_bound_and_that_is_said_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(recording, "MOST", 500)
    made = recorder(tmp_path / "r")
    for index in range(100):
        made.slot([sample("x", index)], T + index)
    made.close()
    assert (tmp_path / "r").stat().st_size < 700
    assert [record.message for record in caplog.records] == ["the recording ends here"]
    assert len(moments(tmp_path / "r")) > 3


def test_a_full_disk_ends_the_recording_and_nothing_else(caplog):
    from pathlib import Path

    made = recorder(Path("/dev/full"))
    made.slot([sample("x", 1)], T)
    made.slot([sample("x", 2)], T + 1000)
    made.close()
    assert [record.fields["reason"] for record in caplog.records] == ["no space left on device"]


@pytest.mark.parametrize(
    "text",
    [
        "{}\n{}\n",
        '{"oomguard_recording": 2}\n',
        '{"oomguard_recording": 1}\nx\n{}\n',
        '{"oomguard_recording": 1}\n{"slot": 1, "values": {"9": 1}}\n',
        '{"oomguard_recording": 1}\n{"slot": "x", "values": {}}\n',
        '{"oomguard_recording": 1}\n[]\n',
        "nothing of the kind",
        "a 1\n# EOF\n",
        "\x00\xff",
    ],
)
def test_what_is_no_recording_is_a_users_mistake_with_its_place(tmp_path, text):
    path = tmp_path / "r"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=rf"^{path}"):
        list(read(path))


def test_no_file_is_a_users_mistake(tmp_path):
    with pytest.raises(UserError, match="no such file or directory; name a recording"):
        list(read(tmp_path / "none"))


def test_openmetrics_text_of_other_tools_is_read(tmp_path):
    path = tmp_path / "r.om"
    path.write_text(
        '# TYPE a gauge\na{k="x"} 1 1795000000\na{k="x"} 2 1795000015.5\na{k="y"} 3 1795000000\n# EOF\n'
    )
    assert moments(path) == [(0, True, {"x": 1, "y": 3}), (15500, True, {"x": 2})]


def test_every_line_is_json(tmp_path):
    made = recorder(tmp_path / "r")
    made.slot([sample("x", 1)], T)
    made.close()
    lines = [json.loads(line) for line in (tmp_path / "r").read_text().splitlines()]
    assert lines[0] == {"oomguard_recording": 1, "target": "t", "started": T / 1000}
