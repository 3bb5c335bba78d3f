"""Recordings: every sample of a run, for ``oomguard replay``. JSON lines, of which each holds what has changed.

::

    {"oomguard_recording": 1, "target": "api", "started": 1795233618.9}
    {"series": {"0": [["__name__", "oomguard_memory_used_bytes"], ["kind", "cgroup"], ["target", "api"]]}}
    {"slot": 1795233619000, "values": {"0": 412.0}, "gone": []}
    {"live": 1795233619005, "values": {"0": 415.0}}

A slot is a slow tick: what it does not name goes on as it was, what is `gone` has ended. A live line is a fast tick.
A second first line is another sidecar's, which numbers its series anew. OpenMetrics text with timestamps is read too.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from oomguard.errors import UserError
from oomguard.log import LOGGER, fields
from oomguard.promql.series import METRIC_NAME, STALE, Labels
from oomguard.store import Key, Sample, key_of, labels_of

VERSION: Final = 1
MOST: Final = 512 << 20
"""Bytes after which a recording ends: half a day of a busy target."""
MOST_LINE: Final = 1 << 20
"""Bytes: the first slot of 2,000 series, with their labels, takes a quarter of it."""
_HEAD: Final = 100


class Recorder:
    """Writes one recording; what can't be written ends it, and nothing else.

    A recording that is there goes on: what led to a sidecar's death must not be lost with its rebirth.
    """

    def __init__(self, path: Path, target: str, started: float) -> None:
        """Raises UserError where the file can't be written, or holds something else."""
        self._ids: dict[Key, str] = {}
        self._values: dict[str, float] = {}
        self._file: IO[str] | None = None
        self._written = 0
        try:
            if path.is_file():
                self._written = _whole_lines(path)
            self._file = path.open("a", encoding="utf-8")
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UserError(f"--record {path}: {reason}; name a file that can be written") from None
        self._line({"oomguard_recording": VERSION, "target": target, "started": started})

    def slot(self, samples: Iterable[Sample], now: int) -> None:
        """Everything that a slow tick saw, at `now` in Unix milliseconds."""
        if self._file is None:
            return
        values = self._numbered(samples)
        gone = [number for number in self._values if number not in values]
        for number in gone:
            del self._values[number]
        self._line({"slot": now, "values": self._changed(values), "gone": gone}, flush=True)

    def live(self, samples: Iterable[Sample], now: int) -> None:
        """What a fast tick saw."""
        if self._file is not None and (changed := self._changed(self._numbered(samples))):
            self._line({"live": now, "values": changed})

    def close(self) -> None:
        """End the recording."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                self._end((error.strerror or str(error)).lower())

    def _numbered(self, samples: Iterable[Sample]) -> dict[str, float]:
        new: dict[str, Labels] = {}
        values: dict[str, float] = {}
        for sample in samples:
            key = key_of(sample)
            number = self._ids.get(key)
            if number is None:
                number = self._ids[key] = str(len(self._ids))
                new[number] = labels_of(sample)
            values[number] = sample.value
        if new:
            self._line({"series": new})
        return values

    def _changed(self, values: Mapping[str, float]) -> dict[str, float]:
        changed = {number: value for number, value in values.items() if self._values.get(number) != value}
        self._values.update(changed)
        return changed

    def _line(self, record: Mapping[str, Any], *, flush: bool = False) -> None:
        if self._file is None:
            return
        line = json.dumps(record, separators=(",", ":")) + "\n"
        self._written += len(line)
        try:
            self._file.write(line)
            if flush:
                self._file.flush()
        except OSError as error:
            self._end((error.strerror or str(error)).lower())
        else:
            if self._written > MOST:
                self._end("it has grown to its bound")

    def _end(self, reason: str) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # what is left in its buffer does not fit either
                file.close()
        LOGGER.warning("the recording ends here", extra=fields(reason=reason, bytes=self._written))


def _whole_lines(path: Path) -> int:
    """Bytes of the recording that a file holds, without a line that was torn; raises UserError for another file."""
    with path.open("r+b") as file:
        first = file.readline(_HEAD)
        if first and not first.startswith(b'{"oomguard_recording"'):
            raise UserError(f"--record {path}: holds something that is no recording; name another file")
        size = file.seek(0, os.SEEK_END)
        start = max(0, size - MOST_LINE)
        file.seek(start)
        size = start + file.read().rfind(b"\n") + 1
        file.truncate(size)
        return size


@dataclass(frozen=True, slots=True)
class Moment:
    """What was known at one time."""

    time: int
    """Unix milliseconds."""
    slot: bool
    """Everything was read; else only the fast lane's series were."""
    values: Mapping[Labels, float]
    """Values by labels; `STALE` for what has ended."""


def read(path: Path) -> Iterator[Moment]:
    """The moments of a recording or of OpenMetrics text, in their order; raises UserError."""
    try:
        with path.open(encoding="utf-8") as file:
            first = file.readline()
            if first.startswith("{"):
                yield from _moments(path, first, file)
            else:
                yield from _openmetrics(path, first + file.read())
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}; name a recording") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is neither a recording nor OpenMetrics text") from None


def _moments(path: Path, first: str, lines: Iterable[str]) -> Iterator[Moment]:
    series: dict[str, Labels] = {}
    values: dict[Labels, float] = {}
    before: set[Labels] = set()  # what a sidecar that ended has seen, and the next may not
    for number, line in enumerate([first, *lines], 1):
        try:
            record = json.loads(line)
            if number == 1 and record.get("oomguard_recording") != VERSION:
                raise UserError(f"{path}: is no recording of version {VERSION}; make one with --record FILE")
            if "oomguard_recording" in record:
                before |= values.keys()
                values.clear()
            for name, pairs in record.get("series", {}).items():
                series[name] = tuple((str(label), str(value)) for label, value in pairs)
            changed = {series[name]: float(value) for name, value in record.get("values", {}).items()}
            gone = [series[name] for name in record.get("gone", ())]
            time = int(record.get("slot", record.get("live", 0)))
        except (ValueError, LookupError, TypeError, AttributeError):
            if line.endswith("\n"):
                raise UserError(f"{path}:{number}: is not a line of a recording") from None
            return  # the last line, torn where the sidecar was killed
        values.update(changed)
        if "slot" in record:
            for labels in gone:
                values.pop(labels, None)
            ended = [*gone, *(before - values.keys())]
            before.clear()
            yield Moment(time, True, {**values, **dict.fromkeys(ended, STALE)})
        elif "live" in record:
            yield Moment(time, False, changed)


def _openmetrics(path: Path, text: str) -> Iterator[Moment]:
    from prometheus_client.openmetrics.parser import (  # noqa: PLC0415 - for other tools' recordings only
        text_string_to_metric_families,
    )

    moments: dict[int, dict[Labels, float]] = {}
    try:
        for family in text_string_to_metric_families(text):  # type: ignore[no-untyped-call]
            for sample in family.samples:
                if sample.timestamp is None:
                    raise UserError(
                        f"{path}: {sample.name} has no timestamp; a recording needs one on every line"
                    )
                labels = {METRIC_NAME: sample.name, **sample.labels}
                key = tuple(sorted(pair for pair in labels.items() if pair[1]))
                time = round(1000 * float(sample.timestamp))
                moments.setdefault(time, {})[key] = sample.value
    except ValueError as error:
        raise UserError(f"{path}: is neither a recording nor OpenMetrics text: {error}") from None
    for time in sorted(moments):
        yield Moment(time, True, moments[time])
