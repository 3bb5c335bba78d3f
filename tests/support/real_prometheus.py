"""The real Prometheus, started empty on loopback, filled by remote write, asked over one connection."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import struct
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode


class RealPrometheus:
    """One running server; `write` takes samples, `query` gives what the HTTP API says."""

    def __init__(self, port):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def write(self, series):
        """Sends [(labels, [(Unix ms, value), …])] in the order of their times: the head takes nothing much older."""
        samples = sorted(
            (at, index, value) for index, (_, points) in enumerate(series) for at, value in points
        )
        for start in range(0, len(samples), 2000):
            by_series = {}
            for at, index, value in samples[start : start + 2000]:
                by_series.setdefault(index, []).append((at, value))
            body = b"".join(
                _field(1, _time_series(series[index][0], points)) for index, points in by_series.items()
            )
            status, answer = self._post("/api/v1/write", _snappy(body), "application/x-protobuf")
            assert status == 204, answer

    def query(self, text, at):
        """The ``data`` of an instant query at Unix ms; a string is the error."""
        form = urlencode({"query": text, "time": f"{at / 1000:.3f}"}).encode()
        _, answer = self._post("/api/v1/query", form, "application/x-www-form-urlencoded")
        parsed = json.loads(answer)
        return parsed["data"] if parsed["status"] == "success" else parsed["error"]

    def _post(self, path, body, kind):
        headers = {"Content-Type": kind}
        if "protobuf" in kind:
            headers |= {"Content-Encoding": "snappy", "X-Prometheus-Remote-Write-Version": "0.1.0"}
        self._connection.request("POST", path, body, headers)
        response = self._connection.getresponse()
        return response.status, response.read()


@contextmanager
def real_prometheus():
    """A server of its own directory and port, ended and cleaned up after."""
    program = shutil.which("prometheus")
    assert program, "Debian's package prometheus is needed: see tests/apt.txt"
    home = Path(tempfile.mkdtemp(prefix="oomguard-prometheus-"))
    try:
        (home / "prometheus.yml").write_text("global: {}\n")
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    program,
                    f"--config.file={home}/prometheus.yml",
                    f"--storage.tsdb.path={home}/data",
                    "--storage.tsdb.retention.time=100y",
                    "--web.enable-remote-write-receiver",
                    "--web.listen-address=127.0.0.1:0",
                ],
                stdout=log,
                stderr=log,
                env={**os.environ, "GOMAXPROCS": "1"},
            )
        try:
            yield RealPrometheus(_ready_port(process, home / "log"))
        finally:
            process.terminate()
            process.wait(30)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _ready_port(process, log):
    """The port that the kernel gave it, once it answers: its log names it."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        found = re.search(r'msg="Listening on" address=127\.0\.0\.1:(\d+)', log.read_text())
        if found:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=5)
                connection.request("GET", "/-/ready")
                if connection.getresponse().status == 200:
                    return int(found[1])
            except OSError:
                pass
        time.sleep(0.1)
    raise AssertionError(f"prometheus is not ready: {log.read_text()}")


def _varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number, payload):
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _time_series(labels, points):
    """A message TimeSeries of Prometheus' prompb/types.proto: labels = 1, samples = 2."""
    body = b"".join(_field(1, _field(1, k.encode()) + _field(2, v.encode())) for k, v in labels)
    for at, value in points:
        body += _field(2, b"\x09" + struct.pack("<d", value) + b"\x10" + _varint(at))
    return body


def _snappy(data):
    """Snappy's block format with nothing compressed: the length, then literals (format_description.txt)."""
    out = [_varint(len(data))]
    for start in range(0, len(data), 65536):
        piece = data[start : start + 65536]
        out.append(b"\xf4" + struct.pack("<H", len(piece) - 1) + piece)
    return b"".join(out)
