"""The route tree: who takes an alert. Compared with amtool over generated trees and labels."""

import json
import random
import subprocess
import time
from pathlib import Path

import pytest

from oomguard.routes.config import load
from oomguard.routes.tree import Router

NAMES, LABEL_VALUES = "abcd", ["", "x", "y", "xy"]


def tree(generator, depth=0):
    """A route of a generated tree, and the receivers below it."""
    receiver = f"r{generator.randrange(10**9)}"
    route = {}
    if depth:
        route["continue"] = generator.random() < 0.4
        kind = generator.choice(["match", "match_re", "matchers", "matchers"])
        names = generator.sample(NAMES, generator.choice([0, 1, 1, 2]))
        if kind == "match":
            route[kind] = {name: generator.choice(LABEL_VALUES) for name in names}
        elif kind == "match_re":
            route[kind] = {name: generator.choice(["x.*", "x|y", ".+", ".*"]) for name in names}
        else:
            route[kind] = [
                f'{name}{generator.choice(["=", "!=", "=~", "!~"])}"{generator.choice(LABEL_VALUES)}"'
                for name in names
            ]
    receivers = []
    if not depth or generator.random() < 0.8:
        route["receiver"] = receiver
        receivers.append(receiver)
    children = [tree(generator, depth + 1) for _ in range(generator.randrange(4 if depth < 3 else 1))]
    if children:
        route["routes"] = [child for child, _ in children]
    return route, receivers + [name for _, names in children for name in names]


def configuration(seed):
    route, receivers = tree(random.Random(seed))
    return json.dumps({"route": route, "receivers": [{"name": name} for name in receivers]})


@pytest.mark.real
def test_amtool_routes_the_same_way(tmp_path):
    file = tmp_path / "am.yml"
    several = 0
    for seed in range(40):
        file.write_text(configuration(seed))
        router = Router(load(file, []).route)
        generator = random.Random(seed)
        for _ in range(8):
            labels = {name: value for name in NAMES if (value := generator.choice(LABEL_VALUES))}
            pairs = [f"{name}={value}" for name, value in labels.items()]
            command = ["amtool", "config", "routes", "test", "--config.file", file, *pairs]
            theirs = subprocess.run(
                command, capture_output=True, text=True, check=True, timeout=60
            ).stdout.strip()
            assert ",".join(router.receivers_of(labels)) == theirs, (seed, labels)
            several += "," in theirs
    assert several > 20, "the trees are too simple"


def router_of(*routes):
    names = [name for route in routes for name in [route["receiver"]]]
    text = json.dumps({
        "route": {"receiver": "root", "routes": list(routes)},
        "receivers": [{"name": name} for name in {"root", *names}],
    })  # fmt: skip
    problems = []
    config = load(Path("am.yml"), problems, text)
    assert problems == []
    return Router(config.route)


def test_the_first_match_wins_unless_it_continues():
    router = router_of(
        {"receiver": "a", "match": {"x": "1"}, "continue": True},
        {"receiver": "b", "match": {"x": "1"}},
        {"receiver": "c", "match": {"x": "1"}},
    )
    assert router.receivers_of({"x": "1"}) == ("a", "b")
    assert router.receivers_of({"x": "2"}) == ("root",)


def test_any_number_of_siblings_can_continue():
    names = [{"receiver": name, "match": {"x": "1"}, "continue": True} for name in "abcd"]
    assert router_of(*names).receivers_of({"x": "1"}) == ("a", "b", "c", "d")


def test_a_remembered_answer_takes_under_5_microseconds():
    router = router_of({"receiver": "a", "match_re": {"alertname": "Memory.*"}})
    labels = {
        "alertname": "MemoryHigh",
        "target": "api",
        "severity": "none",
        "action": "cleanup",
        "steps": "all",
    }
    router.receivers_of(labels)
    best = 1.0
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(100):
            router.receivers_of(labels)
        best = min(best, time.perf_counter() - start)
    assert best / 100 < 5e-6


def test_the_memory_is_bounded():
    router = router_of({"receiver": "a", "match": {"x": "1"}})
    for number in range(10_000):
        router.receivers_of({"n": str(number)})
    assert len(router._receivers) <= 4096
