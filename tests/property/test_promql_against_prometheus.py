"""The evaluator beside the real Prometheus (Debian's 2.42) on the same data: thousands of random expressions, and ours.

What differs between 2.42 and 3 is set back to 2.42's rule for the comparison, and tested by hand in
tests/unit/promql/test_promql_version_three.py: where a counter's extrapolation meets zero, the name after atan2,
the variance of one infinite value, squares that overflow. Open and closed ranges are the same off the
grid (see tests/support/promql_data.py).
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from unittest.mock import patch

import pytest
from tests.support.promql_data import END, MINUTES, START, data_set, storage_of
from tests.support.promql_grammar import Grammar, Patterns
from tests.support.promql_shipped import shipped_data, shipped_expressions
from tests.support.real_prometheus import real_prometheus

from oomguard.errors import PromqlError
from oomguard.promql import aggregate, binary, compile_expression, elementary, make_labels, over_time, ranges

pytestmark = pytest.mark.real

SEEDS = tuple(range(6))
EXPRESSIONS = 2000
"""For each seed."""
PATTERNS = 1000


@pytest.fixture(scope="module")
def data():
    return data_set()


@pytest.fixture(scope="module")
def prometheus(data):
    with real_prometheus() as server:
        server.write(data)
        yield server


@pytest.fixture
def as_in_2_42(monkeypatch):
    def start_gap(to_start, threshold, average, to_zero):
        if to_zero is not None and to_zero < to_start:
            to_start = to_zero
        return to_start if to_start < threshold else average / 2

    def add(value, total, lost):
        new = total + value
        return new, lost + ((total - new) + value if abs(total) >= abs(value) else (value - new) + total)

    monkeypatch.setattr(over_time, "add", add)
    monkeypatch.setattr(ranges, "start_gap", start_gap)
    monkeypatch.setattr(aggregate, "lone_variance", lambda _value: 0.0)
    monkeypatch.setattr(binary, "NAMELESS", binary.NAMELESS - {"atan2"})


def shaken(series):
    """The data with the last digits of each value changed, and in another order: what an unstable result depends on."""
    rng = random.Random(0)
    moved = [
        (labels, [(at, v * (1 + rng.uniform(-4e-16, 4e-16)) if math.isfinite(v) else v) for at, v in points])
        for labels, points in reversed(series)
    ]
    return storage_of(moved)


def unsteady(function):
    """A function whose last digit is not to be relied on, as C's and Go's libraries round differently."""
    rng = random.Random(1)
    return lambda *values: function(*values) * (1 + rng.uniform(-4e-16, 4e-16))


def shaken_result(text, storage, at):
    steady = {"abs", "ceil", "floor", "sgn"}
    functions = {k: v if k in steady else unsteady(v) for k, v in elementary.FUNCTIONS.items()}
    operators = {name: unsteady(binary.ARITHMETIC[name]) for name in ("^", "atan2")}
    with patch.dict(elementary.FUNCTIONS, functions), patch.dict(binary.ARITHMETIC, operators):
        return evaluated(text, storage, at)


def close(one, other, tolerance=1e-9):
    if math.isnan(one) or math.isnan(other):
        return math.isnan(one) and math.isnan(other)
    return one == other or abs(one - other) <= tolerance * max(abs(one), abs(other))


def asked(prometheus, text, at):
    """The answer as {labels: value}; a string is an error."""
    answer = prometheus.query(text, at)
    if isinstance(answer, str):
        return answer
    if answer["resultType"] == "scalar":
        return {(): float(answer["result"][1])}
    return {tuple(sorted(row["metric"].items())): float(row["value"][1]) for row in answer["result"]}


def evaluated(text, storage, at):
    try:
        rows = compile_expression(text).evaluate(storage, at)
    except PromqlError as error:
        return str(error)
    assert len(dict(rows)) == len(rows), f"{text}: a label set stands twice"
    return dict(rows)


ERRORS = (
    "many-to-many matching not allowed",
    "must be explicit (group_left/group_right)",
    "grouping labels must ensure unique matches",
    "same labelset",
    "int64",
    "NaN",
)


def alike(theirs, ours):
    """Whether two errors say the same."""
    if not isinstance(theirs, str) or not isinstance(ours, str):
        return False
    return any(phrase in theirs and phrase in ours for phrase in ERRORS)


def verdict(text, at, theirs, ours, storage):
    """Agreement of any kind, by name; None where there is none."""
    if isinstance(theirs, str) or isinstance(ours, str):
        return "error" if alike(theirs, ours) else None
    if text.startswith(("topk", "bottomk")):
        # Which of equal samples are taken is left open; their values are not.
        one, other = sorted(theirs.values(), key=repr), sorted(ours.values(), key=repr)
        theirs, ours = dict(enumerate(one)), dict(enumerate(other))
    if theirs.keys() != ours.keys():
        return None
    apart = [key for key in ours if not close(theirs[key], ours[key])]
    if not apart:
        return "equal" if ours else "empty"
    moved = shaken_result(text, storage, at)
    if isinstance(moved, str) or not all(close(theirs[key], ours[key], 1e-3) for key in apart):
        return None
    unstable = all(
        abs(moved.get(key, math.inf) - ours[key]) > 0.01 * abs(theirs[key] - ours[key]) for key in apart
    )
    return "unstable" if unstable else None


@pytest.mark.usefixtures("as_in_2_42")
@pytest.mark.parametrize("seed", SEEDS)
def test_random_expressions_give_what_prometheus_gives(seed, data, prometheus, capsys):
    rng = random.Random(seed)
    grammar = Grammar(rng)
    storage, moved = storage_of(data), shaken(data)
    seen = Counter()
    wrong = []
    for _ in range(EXPRESSIONS):
        text = grammar.expression()
        at = START + rng.randrange(8 * 60, MINUTES * 60 + 400) * 1000 + 500
        theirs, ours = asked(prometheus, text, at), evaluated(text, storage, at)
        found = verdict(text, at, theirs, ours, moved)
        seen[found] += 1
        if found is None:
            wrong.append(
                f"{text} at {at}\n  prometheus: {str(theirs)[:300]}\n  oomguard:   {str(ours)[:300]}"
            )
    total = sum(seen.values())
    full = seen["equal"] + seen["unstable"]
    with capsys.disabled():
        shares = ", ".join(f"{name} {count / total:.1%}" for name, count in seen.most_common())
        print(f"\n  {total} expressions: {shares}")
    assert not wrong, f"{len(wrong)} differ:\n" + "\n".join(wrong[:10])
    assert full / total >= 0.6
    assert seen["unstable"] / total <= 0.01


@pytest.mark.usefixtures("as_in_2_42")
def test_every_shipped_expression_gives_what_prometheus_gives(capsys):
    expressions = shipped_expressions()
    assert expressions, "alerts/ holds rules"
    data = shipped_data(expressions.values())
    storage, moved = storage_of(data), shaken(data)
    rng = random.Random(5)
    seen, full, wrong = Counter(), set(), []
    with real_prometheus() as server:
        server.write(data)
        for where, text in expressions.items():
            for _ in range(60):
                at = START + rng.randrange(10 * 60, 245 * 60) * 1000 + 500
                theirs, ours = asked(server, text, at), evaluated(text, storage, at)
                found = verdict(text, at, theirs, ours, moved)
                seen[found] += 1
                full |= {where} if found == "equal" else set()
                if found is None:
                    wrong.append(f"{where} at {at}\n  prometheus: {theirs}\n  oomguard:   {ours}")
    with capsys.disabled():
        print(f"\n  {len(expressions)} shipped expressions, {len(full)} with results: {dict(seen)}")
    assert not wrong, f"{len(wrong)} differ:\n" + "\n".join(wrong[:10])
    assert not seen["error"]
    assert len(full) / len(expressions) >= 0.6


def test_patterns_match_and_capture_as_in_prometheus(prometheus, capsys):
    rng = random.Random(6)
    made = Patterns(rng)
    texts = sorted({made.text() for _ in range(300)})
    data = [(make_labels("sample", {"text": text}), [(END, 1.0)]) for text in texts]
    prometheus.write(data)
    storage = storage_of(data)
    seen, wrong = Counter(), []
    for _ in range(PATTERNS):
        pattern = json.dumps(made.pattern(), ensure_ascii=False)
        for text in (
            f'label_replace(sample, "found", "<$1|$2|$0>", "text", {pattern})',
            f"sample{{text=~{pattern}}}",
            f"sample{{text!~{pattern}}}",
        ):
            theirs, ours = asked(prometheus, text, END), evaluated(text, storage, END)
            if isinstance(ours, str):
                seen["refused by both" if isinstance(theirs, str) else "refused"] += 1
            elif theirs == ours:
                seen["equal"] += 1
            else:
                wrong.append(f"{text}\n  prometheus: {str(theirs)[:300]}\n  oomguard:   {str(ours)[:300]}")
    with capsys.disabled():
        print(f"\n  {PATTERNS} patterns on {len(texts)} texts: {dict(seen)}, {len(wrong)} differ")
    assert not wrong, f"{len(wrong)} differ:\n" + "\n".join(wrong[:10])
    assert seen["equal"] / sum(seen.values()) >= 0.4
