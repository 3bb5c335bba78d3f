"""The journal: what was done to the target and what it gave back, as append-only JSON lines.

A record is written before the action it announces starts; a worker thread syncs it to the disk. A
journal that can't be written never stops an action: the record keeps ``journaled: false`` in memory
and a counter rises. The file is rotated once (``.1``) when it exceeds `ROTATE_BYTES`.

Every record has ``time`` (Unix seconds) and ``event``; records of a run share ``run``, an id that goes
on across sidecars. After a sidecar died the next one reads the tail and goes on from there.
"""

from __future__ import annotations

import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

ROTATE_BYTES = 4 << 20
"""About 10,000 records; two files of this size are the most that a container's disk is asked for."""

KEPT_RECORDS = 200
"""Records held in memory for the page and the API."""

_TAIL_BYTES = 256 << 10

Record = dict[str, object]


class Journal:
    """The journal file of one target.

    `path` None keeps the records in memory only. `sync` is called with a file descriptor after each
    write that announces an action; the application gives one that calls fsync in its worker thread.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        now: Callable[[], float] = time.time,
        sync: Callable[[int], object] | None = None,
    ) -> None:
        self.path = path
        self.errors = 0
        """Records that could not be written."""
        self.error = ""
        """Why the last write failed, one line; empty while writing works."""
        self.records: deque[Record] = deque(maxlen=KEPT_RECORDS)
        self.latest: dict[str, Record] = {}
        """The last record of each event, further back than `records` reaches."""
        self._now = now
        self._sync = sync
        self._fd: int | None = None
        self._size = 0
        if path is not None:
            for file in (_older(path), path):
                for record in read_tail(file, limit=_TAIL_BYTES):
                    self._remember(record)
            self._open()

    def write(self, event: str, **fields: object) -> Record:
        """Append a record and return it; never raises."""
        record: Record = {"time": round(self._now(), 3), "event": event, **fields}
        if self.path is not None:
            line = json.dumps(record, separators=(",", ":"), default=str).encode() + b"\n"
            if not self._append(line):
                self.errors += 1
                record["journaled"] = False
        self._remember(record)
        return record

    def records_of(self, number: int) -> list[Record]:
        """The records of a request or a run, oldest first, as far back as the files reach. Any thread may call it."""
        kept = [record for record in list(self.records) if number in (record.get("id"), record.get("run"))]
        if (kept and _begins(kept[0], number)) or self.path is None:
            return kept
        return [
            record
            for file in (_older(self.path), self.path)
            for record in read_tail(file, limit=_TAIL_BYTES)
            if number in (record.get("id"), record.get("run"))
        ]

    def lost(self) -> Mapping[str, object] | None:
        """What is known of a sidecar before this one that did not live to say that it stopped; None: there was none.

        `last_seen` is when it last wrote (Unix seconds), `used` and `limit` (bytes) the last that it wrote of memory.
        Ask before a start is written. Where the kernel kills whole groups, this is all that anybody will know.
        """
        started, stopped = self.latest.get("sidecar_start"), self.latest.get("sidecar_stop")
        if started is None or (stopped is not None and _time(stopped) >= _time(started)):
            return None
        known: dict[str, object] = {"pid": started.get("pid"), "last_seen": _time(self.records[-1])}
        for record in self.records:
            known.update({name: record[name] for name in ("used", "limit") if name in record})
        return known

    def _remember(self, record: Record) -> None:
        self.records.append(record)
        self.latest[str(record["event"])] = record

    def close(self) -> None:
        """Sync and close; the journal must not be written afterwards."""
        if self._fd is not None:
            try:
                os.fsync(self._fd)
            except OSError:
                self.errors += 1
            os.close(self._fd)
            self._fd = None

    def _open(self) -> None:
        assert self.path is not None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
            self._size = os.fstat(self._fd).st_size
            self.error = ""
        except OSError as error:
            self._fd = None
            self.error = f"can't open {self.path}: {(error.strerror or str(error)).lower()}"

    def _append(self, line: bytes) -> bool:
        """Whether the whole line was written; `error` says why not."""
        try:
            return self._try_append(line)
        except OSError as error:
            self.error = f"can't write {self.path}: {(error.strerror or str(error)).lower()}"
            return False

    def _rotate(self, descriptor: int) -> None:
        assert self.path is not None
        try:
            self.path.replace(_older(self.path))
        except OSError:
            # A file that is mounted by itself can't be renamed: the last records matter more than the first.
            os.ftruncate(descriptor, 0)
            self._size = 0
            return
        os.close(descriptor)
        self._open()

    def _try_append(self, line: bytes) -> bool:
        assert self.path is not None
        if self._fd is None:
            self._open()  # the disk may have become writable again
        if self._fd is not None and self._size + len(line) > ROTATE_BYTES:
            self._rotate(self._fd)
        if self._fd is None:
            return False
        written = os.write(self._fd, line)
        self._size += written
        if written != len(line):
            # A full disk took half a line: end it, so that the next record starts on a line of its own.
            os.write(self._fd, b"\n")
            raise OSError(28, "no space left on device")
        if self._sync is not None:
            self._sync(self._fd)
        self.error = ""
        return True


def _begins(record: Record, number: int) -> bool:
    """Whether it is the first record of a run or a request."""
    return (record["event"] == "run_start" and record.get("run") == number) or record.get("id") == number


def _older(path: Path) -> Path:
    return path.with_name(path.name + ".1")


def read_tail(path: Path, limit: int = KEPT_RECORDS) -> list[Record]:
    """The last records of a journal, oldest first; lines that are not records (a torn write) are left out.

    A journal that does not exist or can't be read has none.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read(_TAIL_BYTES).split(b"\n")
    except OSError:
        return []
    if size > _TAIL_BYTES:
        del lines[0]
    return list(_records(lines))[-limit:]


def _records(lines: Iterable[bytes]) -> Iterable[Record]:
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("event"), str):
            yield record


def number(record: Mapping[str, object], key: str) -> float | None:
    """A numeric field of a record, None where it is missing or of another type."""
    value = record.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _time(record: Mapping[str, object]) -> float:
    time_ = record.get("time")
    return float(time_) if isinstance(time_, int | float) else 0.0
