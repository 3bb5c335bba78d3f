import json
import logging
import os

import pytest

from oomguard import log
from oomguard.log import LOGGER, fields, quoted, timestamp


@pytest.fixture(autouse=True)
def unlogged():
    before = LOGGER.handlers[:], LOGGER.level, LOGGER.propagate
    yield
    LOGGER.handlers[:], LOGGER.propagate = before[0], before[2]
    LOGGER.setLevel(before[1])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ("", '""'),
        ("a=b", '"a=b"'),
        ('say "x"', '"say \\"x\\""'),
        ("line\nbreak", '"line\\nbreak"'),
        (1.23456789, "1.23457"),
        (True, "true"),
        (12, "12"),
    ],
)
def test_values_are_quoted_only_where_they_must_be(value, text):
    assert quoted(value) == text


def test_a_time_reads_as_that_of_a_line():
    assert timestamp(1795280947.5) == "2026-11-21T17:09:07.500Z"


def test_logfmt_goes_to_stderr_and_never_to_stdout(capsys):
    log.setup("info", "logfmt")
    LOGGER.info("caches freed 196 MB", extra=fields(run=1, reason=None))
    LOGGER.debug("too quiet")
    out, err = capsys.readouterr()
    assert out == ""
    stamp, rest = err.split(" ", 1)
    assert stamp.startswith("ts=20")
    assert rest == 'level=info msg="caches freed 196 MB" run=1\n'


def test_json_lines_hold_the_same(capsys):
    log.setup("debug", "json")
    LOGGER.warning("careful", extra=fields(path="/x y"))
    told = json.loads(capsys.readouterr().err)
    assert (told["level"], told["msg"], told["path"]) == ("warning", "careful", "/x y")


def test_an_exception_is_one_line(capsys):
    log.setup("info", "logfmt")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        LOGGER.exception("step failed")
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert 'error="ValueError: two\\nlines"' in err


def test_a_stderr_that_nobody_reads_is_not_waited_for(monkeypatch):
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr("sys.stderr", pipe)
        log.setup("info", "logfmt")
        for _ in range(3000):
            LOGGER.info("x" * 100)
    os.close(reading)


def test_other_libraries_logs_are_left_alone():
    log.setup("info", "logfmt")
    assert not logging.getLogger().handlers or LOGGER.propagate is False
