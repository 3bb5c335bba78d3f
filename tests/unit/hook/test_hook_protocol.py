"""The hook's lines, as docs/hook-protocol.md has them."""

from __future__ import annotations

import json

import pytest

from oomguard.hook import protocol


def test_a_question_keeps_fields_that_are_not_known() -> None:
    line = b'{"id": 7, "ask": "reading", "new": [1]}'
    assert protocol.parse(line, first=False) == {"id": 7, "ask": "reading", "new": [1]}


@pytest.mark.parametrize(
    "line",
    [b"", b"no", b"[]", b"1", b"{}", b'{"id": 1}', b'{"ask": "x"}', b'{"id": null, "ask": "x"}', b"\xff"],
)
def test_what_is_not_a_question_is_malformed(line: bytes) -> None:
    with pytest.raises(protocol.MalformedError):
        protocol.parse(line, first=False)


def test_an_error_refuses_the_hook_only_as_the_first_line() -> None:
    line = b'{"error": "hello 1 is too old"}'
    with pytest.raises(protocol.RefusedError, match="hello 1 is too old"):
        protocol.parse(line, first=True)
    with pytest.raises(protocol.MalformedError):
        protocol.parse(line, first=False)


def test_a_line_is_ascii_and_ends_with_its_only_newline() -> None:
    line = protocol.encode({"hello": 1, "target": "naïve\n\udcff"})
    assert line.isascii()
    assert line.index(b"\n") == len(line) - 1
    assert json.loads(line)["target"] == "naïve\n\udcff"


def test_a_reading_that_is_too_long_says_how_many_caches_it_leaves_out() -> None:
    caches = [{"name": "c" * 100, "bytes": 1, "entries": 1} for _ in range(1000)]
    line = protocol.encode({"id": 1, "reading": {"caches": caches, "gc": {"status": "ok"}}})
    reading = json.loads(line)["reading"]
    assert len(line) <= protocol.MAX_LINE
    assert len(reading["caches"]) + reading["caches_omitted"] == 1000
    assert reading["gc"] == {"status": "ok"}


def test_a_step_that_is_too_long_loses_its_details_and_nothing_else() -> None:
    step = {"step": "caches", "status": "done", "details": {"cleared": ["x" * 1000] * 100}}
    line = protocol.encode({"id": 1, "step": step})
    assert len(line) <= protocol.MAX_LINE
    assert json.loads(line)["step"]["status"] == "done"
