"""What it costs to evaluate PromQL: the kinds of expressions that rules are made of, over series in memory."""

from __future__ import annotations

import random
import time

from oomguard.promql import MemoryStorage, compile_expression

_NOW = 1_700_000_000_000
_EXPRESSIONS = (
    ("instant selector, one series", "used_bytes", 15.0),
    ("against a limit", "used_bytes > 0.9 * limit_bytes", 0.0),
    (
        "against a threshold series",
        'used_ratio >= ignoring(threshold) threshold_ratio{threshold="high"}',
        15.0,
    ),
    ("rate, 240 points", "rate(requests_total[4m])", 100.0),
    ("predict_linear, 240 points", "predict_linear(used_bytes[4m], 300)", 100.0),
    (
        "a prediction against a limit",
        "predict_linear(used_bytes[4m], 300) > limit_bytes and used_ratio > 0.5",
        0.0,
    ),
    ("avg_over_time, 240 points", "avg_over_time(used_bytes[4m])", 100.0),
    ("max_over_time, 240 points", "max_over_time(used_bytes[4m])", 100.0),
    ("stddev_over_time, 240 points", "stddev_over_time(used_bytes[4m])", 0.0),
    ("sum by, 100 series", "sum by (kind) (many)", 0.0),
    ("histogram_quantile, 20 buckets", "histogram_quantile(0.99, rate(pause_seconds_bucket[4m]))", 0.0),
    ("absent", "absent(gone)", 0.0),
    ("subquery, 20 steps", "max_over_time(rate(requests_total[1m])[5m:15s])", 0.0),
    ("regular expression", 'used_bytes{instance=~"web-.*", target!~"test.*"}', 0.0),
)
"""What it is, the expression, and the most it may take in microseconds (0: not stated)."""


def main() -> list[str]:
    """A Markdown table: microseconds an evaluation, the best of several rounds, on this machine."""
    storage = _storage()
    rows = ["| expression | µs | at most |", "|---|---:|---:|"]
    for name, text, most in _EXPRESSIONS:
        micros = _best(text, storage)
        limit = f"{most:.0f}" if most else ""
        rows.append(f"| {name}: `{text}` | {micros:.1f} | {limit} |")
    for row in rows:
        print(row)
    return rows


def _storage() -> MemoryStorage:
    """One target's series at one sample a second, five minutes of them."""
    rng = random.Random(1)
    storage = MemoryStorage()
    labels = {"target": "web", "job": "web", "instance": "web-1:9464"}
    moments = [_NOW - second * 1000 + 1 for second in range(300, -1, -1)]
    storage.add("used_bytes", labels, [(at, 5e8 + at % 300_000 + rng.random()) for at in moments])
    storage.add("limit_bytes", labels, [(at, 1e9) for at in moments])
    storage.add("used_ratio", labels, [(at, 0.5 + rng.random() / 3) for at in moments])
    for threshold in ("high", "critical"):
        storage.add("threshold_ratio", {**labels, "threshold": threshold}, [(at, 0.8) for at in moments])
    storage.add("requests_total", labels, [(at, float(index * 3)) for index, at in enumerate(moments)])
    for number in range(100):
        storage.add(
            "many", {**labels, "kind": str(number % 7), "n": str(number)}, [(_NOW - 500, rng.random())]
        )
    for number in range(20):
        le = {**labels, "le": str(number / 10) if number < 19 else "+Inf"}
        storage.add(
            "pause_seconds_bucket", le, [(at, float(i * (number + 1))) for i, at in enumerate(moments)]
        )
    return storage


def _best(text: str, storage: MemoryStorage) -> float:
    """Microseconds of one evaluation: the least of twenty rounds, each of about 5 ms."""
    expression = compile_expression(text)
    expression.evaluate(storage, _NOW)
    count, least = 1, 0.0
    while least < 0.005:
        count *= 2
        least = _timed(expression.evaluate, storage, count)
    return min(_timed(expression.evaluate, storage, count) for _ in range(20)) / count * 1e6


def _timed(evaluate: object, storage: MemoryStorage, count: int) -> float:
    assert callable(evaluate), "an expression's method"
    started = time.perf_counter()
    for _ in range(count):
        evaluate(storage, _NOW)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
