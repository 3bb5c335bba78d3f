"""The expressions that oomguard ships, and data in which they find something."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import yaml
from tests.support.promql_data import START

from oomguard.metrics import TABLE
from oomguard.promql import compile_expression, make_labels

ROOT = Path(__file__).parents[2]


def shipped_expressions():
    """Every expression of the rules and dashboards, by where it stands; a dashboard's variables are filled in."""
    found = {}
    for file in sorted((ROOT / "alerts").glob("*.rules.yml")):
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                found[f"{file.name}: {rule.get('alert') or rule['record']}"] = rule["expr"]
    for file in sorted((ROOT / "dashboards").rglob("*.json")):
        for index, text in enumerate(_expressions(json.loads(file.read_text()))):
            filled = re.sub(r"\$__\w+|\$\{__\w+\}", "5m", text)
            found[f"{file.name}: {index}"] = re.sub(r"\$\w+|\$\{\w+(:\w+)?\}", ".*", filled)
    return found


def _expressions(tree):
    """The values of all keys ``expr`` in a dashboard."""
    if isinstance(tree, dict):
        if isinstance(tree.get("expr"), str):
            yield tree["expr"]
        for value in tree.values():
            yield from _expressions(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _expressions(value)


def shipped_data(expressions, hours=4):
    """Series of two targets for everything that the expressions select, with values that cross thresholds often."""
    rng = random.Random(4)
    wanted = {}
    for text in expressions:
        for selector in compile_expression(text).selectors:
            equal = {(m.name, m.value) for m in selector.matchers if m.op == "=" and m.value}
            wanted.setdefault(selector.name, set()).update(equal)
    known = {metric.name: metric.labels for metric in TABLE}
    series = []
    for name, pairs in wanted.items():
        values = {label: {"main", *(v for k, v in pairs if k == label)} for label in known.get(name, ())}
        for job in ("api", "web"):
            here = {"job": job, "instance": f"{job}:9464", "target": job}
            # One process: what ignores it in matching must find one series.
            here |= {"process": "main"} if "process" in values else {}
            series += [
                (make_labels(name, here | extra), list(_shipped_points(rng, name, hours)))
                for extra in _combinations({k: v for k, v in values.items() if k != "process"})
            ]
    return series


def _combinations(values):
    rows = [{}]
    for label, choices in sorted(values.items()):
        rows = [{**row, label: choice} for row in rows for choice in sorted(choices)]
    return rows


def _shipped_points(rng, name, hours):
    """A sample a minute, with a gap now and then; counters grow, levels wander within what their unit allows."""
    total, level, phase = 0.0, rng.random(), rng.randrange(1, 499)
    for minute in range(hours * 60):
        if rng.random() < 0.02:
            level = rng.random()
        level = min(1.0, max(0.0, level + rng.gauss(0, 0.03)))
        total += rng.choice((0, 0, 0, level, 1)) * (60 if "seconds" in name else 1)
        value = level
        if name.endswith(("_total", "_sum", "_count", "_bucket")):
            value = total
        elif name.endswith("_bytes"):
            value = level * 1e9
        elif name.endswith(("_up", "_connected", "_state", "_info")) or name == "up":
            value = float(level > 0.4)
        elif not name.endswith("_ratio"):
            value = level * 1000 // 1
        if not 0 < minute % 97 < 9:
            yield START + minute * 60_000 + phase, value
