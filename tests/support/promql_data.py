"""One data set for the evaluator and the real Prometheus: resets, gaps, stale markers, NaN, infinities, histograms.

No sample lies on a full or half second. Expressions are evaluated at half seconds, with ranges and offsets of whole
seconds and steps of subqueries on full ones, so that no boundary ever meets a sample: ranges are closed on the left
in Prometheus 2 and open in 3, and off the grid both agree.
"""

from __future__ import annotations

import math
import random

from oomguard.promql import MemoryStorage, make_labels
from oomguard.promql.series import STALE

START = 1_700_000_000_000
MINUTES = 80
END = START + MINUTES * 60_000

STRANGE = {
    "nan": (math.nan, 1.0, 2.0),
    "inf": (math.inf, 3.0),
    "mixed": (math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.5, 1e100, -1e-100),
    "steady": (0.1,),
}


def data_set(seed=1):
    """[(labels, [(Unix ms, value), …])]."""
    rng = random.Random(seed)
    series = []
    for job in ("api", "web"):
        limit = 2e9 if job == "api" else 1e9
        series.append(("limit_bytes", {"job": job}, _walk(rng, 60, lambda _, limit=limit: limit)))
        version = {"job": job, "version": "1.2" if job == "api" else "2.0"}
        series.append(("build_info", version, _walk(rng, 60, lambda _: 1.0)))
        for number in range(3):
            series += _instance(rng, job, number)
    for kind, pool in STRANGE.items():
        series.append(("strange", {"kind": kind}, _walk(rng, 15, lambda _, pool=pool: rng.choice(pool))))
    for name in ("left_total", "right_total"):
        for a in "123":
            labels = {"a": a, "b": "x" if a == "1" else "y"}
            series.append((name, labels, _counter(rng, 30, reset=True)))
    series.append(("right_total", {"a": "2", "b": "z"}, _counter(rng, 30, reset=False)))
    brief = _walk(rng, 15, float)[:41]
    series.append(("brief", {"job": "api"}, [*brief[:-1], (brief[-1][0], STALE)]))
    return [(make_labels(name, labels), points) for name, labels, points in series]


def _instance(rng, job, number):
    """The series of one of a job's instances."""
    here = {"job": job, "instance": f"{job}-{number}:90{number}0"}
    for code in ("200", "404", "500"):
        if code != "404" or number != 2:
            labels = {**here, "code": code, "method": "get"}
            yield "http_requests_total", labels, _counter(rng, 15, reset=code == "500")
    yield "errors_total", here, _gaps(rng, _counter(rng, 60, reset=True))
    yield "memory_bytes", here, _gauge(rng, 15, 5e8, 3e6)
    if number:
        yield "temperature_celsius", here, _stale(rng, _gauge(rng, 60, -3, 0.7))
    yield "queue_length", {**here, "queue": "a"}, _walk(rng, 15, lambda _: float(rng.randrange(5)))
    yield (
        "queue_length",
        {**here, "queue": "b"},
        _gaps(rng, _walk(rng, 15, lambda _: float(rng.randrange(4)))),
    )
    for le, points in _histogram(rng, number):
        yield "latency_seconds_bucket", {**here, "le": le}, points


def storage_of(series):
    """The same data as a storage."""
    storage = MemoryStorage()
    for labels, points in series:
        found = storage.series(dict(labels)["__name__"], {k: v for k, v in labels if k != "__name__"})
        for at, value in points:
            found.append(at, value)
    return storage


def _walk(rng, seconds, value):
    points = []
    phase = rng.randrange(seconds * 1000)
    for index in range(MINUTES * 60 // seconds):
        at = START + phase + index * seconds * 1000 + rng.randrange(-2000, 2000)
        if at % 500 == 0:
            at += 1
        points.append((at, value(index)))
    return points


def _counter(rng, seconds, reset):
    count = float(rng.choice((0, 3, 10_000)))
    points = []
    for at, _ in _walk(rng, seconds, float):
        if reset and rng.random() < 0.03:
            count = 0.0
        count += rng.choice((0, 1, 1, 2, 7, 0.5))
        points.append((at, count))
    return points


def _gauge(rng, seconds, start, step):
    value = float(start)
    points = []
    for at, _ in _walk(rng, seconds, float):
        value += rng.gauss(0, step)
        points.append((at, value))
    return points


def _gaps(rng, points):
    kept = list(points)
    for _ in range(2):
        start = rng.randrange(len(kept) // 2)
        del kept[start : start + len(kept) // 8]
    return kept


def _stale(rng, points):
    return [(at, STALE if rng.random() < 0.12 else value) for at, value in points]


def _histogram(rng, number):
    bounds = {0: ("0.1", "0.5", "1", "5", "+Inf"), 1: ("0.1", "1", "1.0", "+Inf"), 2: ("-1", "0", "2", "x")}[
        number
    ]
    counts = [0.0] * len(bounds)
    rows = {le: [] for le in bounds}
    times = {le: _walk(rng, 30, float) for le in bounds}
    for index in range(MINUTES * 2):
        for place, le in enumerate(bounds):
            # Independent steps: now and then a bucket holds more than a wider one, which must be levelled.
            counts[place] += rng.randrange(3) * (place + 1)
            rows[le].append((times[le][index][0], counts[place]))
    return list(rows.items())
