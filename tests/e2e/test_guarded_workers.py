"""Many workers behind one sidecar: what they tell is added up, and steps reach one cache or model, all, or the door."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.client import read_json
from tests.support.command import Running
from tests.support.guarded import workload
from tests.support.supervised import wait_for

MB = 1_000_000
RULES = """
groups:
  - name: door
    rules:
      - alert: DoorShut
        expr: oomguard_memory_used_ratio > 0.35
        labels: {severity: none, action: cleanup, steps: shed, goal: 10%}
        annotations: {summary: full}
"""
"""Two workers use about a quarter of 256 MiB, their models as much again."""


@pytest.fixture
def running() -> Iterator[Running]:
    with Running("run", "--limit", "4GiB", target=workload("parts")) as running:
        running.answer()
        running.until_status(
            lambda status: len([hook for hook in status.get("hooks", ()) if hook.get("streams")]) == 2,
            "both workers' parts",
        )
        yield running


def until_metric(running: Running, value: float | None, name: str, **labels: str) -> None:
    running.status()  # somebody looks: what is shown is kept fresh
    try:
        wait_for(lambda: running.metric(name, **labels) == value, name)
    except TimeoutError:
        raise AssertionError((name, labels, running.metric(name, **labels), "is not", value)) from None


def last_step(running: Running) -> dict[str, Any]:
    return running.journal("step_end", "step_skipped")[-1]


def test_what_workers_tell_is_added_up_and_loses_no_count_with_one_of_them(running: Running) -> None:
    for order in ("use 0", "use 1", "use 1"):
        running.order(order)
    until_metric(running, 2, "oomguard_model_state", model="jina", state="loaded")
    until_metric(running, 3, "oomguard_model_uses_total", model="jina")
    assert (running.metric("oomguard_model_bytes", model="jina") or 0) > 50 * MB
    assert running.metric("oomguard_cache_bytes", cache="bulk") == 40 * MB
    assert running.metric("oomguard_budget_reserved_bytes", budget="weights") == 120 * MB
    assert running.metric("oomguard_streams_open", process="worker-1") == 1
    running.order("end 1")
    until_metric(running, 1, "oomguard_model_state", model="jina", state="loaded")
    until_metric(running, 20 * MB, "oomguard_cache_bytes", cache="bulk")
    assert running.metric("oomguard_model_uses_total", model="jina") == 3
    assert running.metric("oomguard_model_loads_total", model="jina") == 2


def test_one_cache_is_cleared_by_its_name_in_every_worker(running: Running) -> None:
    done = running.cleanup("--steps", "caches:bulk")
    assert "caches:bulk freed" in done.stdout
    until_metric(running, 0, "oomguard_cache_bytes", cache="bulk")
    assert running.metric("oomguard_cache_bytes", cache="small") == 2 * MB
    assert "cleared bulk in 2 processes" in done.stdout
    unknown = running.cleanup("--steps", "caches:large")
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("oomguard: no process has registered caches:large; ")
    assert (last_step(running)["step"], last_step(running)["reason"]) == (
        "caches:large",
        "nothing_registered",
    )


def test_one_model_is_unloaded_by_its_name_and_gc_and_trim_follow(running: Running) -> None:
    running.order("use 0")
    running.order("use 1")
    until_metric(running, 2, "oomguard_model_state", model="jina", state="loaded")
    done = running.cleanup("--steps", "models:jina")
    assert "models:jina freed" in done.stdout, done.stdout
    assert "unloaded jina in 2 processes" in done.stdout
    until_metric(running, 2, "oomguard_model_state", model="jina", state="unloaded")
    until_metric(running, 2, "oomguard_model_unloads_total", model="jina")


def test_every_worker_sheds_when_it_is_ordered_to(running: Running) -> None:
    assert running.metric("oomguard_shedding", process="worker-1") == 0
    running.cleanup("--steps", "shed")
    for worker in ("worker-1", "worker-2"):
        until_metric(running, 1, "oomguard_shedding", process=worker)
    assert last_step(running)["outcome"] == "effective", "memory does not grow"
    assert read_json(running.port, "/health")["shedding"] is True
    lines = running.command("status").stdout.splitlines()
    assert {"shedding worker-1, worker-2", "budgets  weights 114.4 MiB of 190.7 MiB"} <= set(lines)
    assert any(line.startswith("streams  2 open, oldest ") for line in lines)
    assert running.cleanup("--steps", "shed:off").returncode == 0
    for worker in ("worker-1", "worker-2"):
        until_metric(running, 0, "oomguard_shedding", process=worker)
    assert running.journal("shed_end")


def test_every_worker_with_streams_is_asked_where_no_goal_ends_it_before(running: Running) -> None:
    running.cleanup("--steps", "streams")
    streams, *after = running.journal("step_end", "step_skipped")
    assert [streams["step"], *(step["step"] for step in after)] == ["streams", "gc", "trim"]
    asked = {slot: said.get("asked", 0) for slot, said in streams["hooks"].items()}
    assert asked == {"main": 0, "worker-1": 1, "worker-2": 1}


def test_an_alert_sheds_for_as_long_as_it_fires(tmp_path: Path) -> None:
    rules = tmp_path / "door.rules.yml"
    rules.write_text(RULES)
    with Running("run", "--limit", "256MiB", "--rules", rules, target=workload("parts")) as running:
        running.answer()
        running.until_guarding(hooks=3)
        until_metric(running, 0, "oomguard_shedding", process="worker-1")
        running.order("use 0")
        running.order("use 1")
        until_metric(running, 1, "oomguard_shedding", process="worker-1")
        running.order("end 1")
        (ended,) = running.until_journal("shed_end")
        until_metric(running, 0, "oomguard_shedding", process="worker-1")
        begun = [record for record in running.journal("step_end") if record["step"] == "shed"]
        assert ended["time"] - begun[-1]["time"] < 25, (
            "by the alert's end, not by the processes' own patience"
        )
