"""From a snapshot to /metrics: a golden scrape, and what promtool and prometheus-client's own parsers say of it.

Regenerate the golden file with ``UPDATE_GOLDEN=1 pytest tests/unit/test_export.py`` and read the diff.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from tests.unit.test_hook_reading import FULL, NODE_GC

from oomguard import metrics as m
from oomguard.export.hook_series import HookTotals, health_samples
from oomguard.export.prometheus import Exporter, families
from oomguard.export.series import fast_samples, snapshot_samples, threshold_samples
from oomguard.export.status import health, snapshot_json
from oomguard.hookmodel import AllocatorStats, CacheStats, Distribution, GcStats
from oomguard.model import (
    CgroupEvents,
    CgroupMemory,
    CpuThrottling,
    HookReading,
    Level,
    LimitOrigin,
    MachineMemory,
    Process,
    ProcessId,
    ProcessMappings,
    ProcessMemory,
    ProcessSample,
    Reading,
    Snapshot,
    Status,
    Tree,
    UsedKind,
)
from oomguard.sources.hook_reading import app_stats
from oomguard.thresholds import Thresholds

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics.prom"
MIB = 1 << 20


def ok(value, seconds=0.001):
    return Reading(Status.OK, value, seconds=seconds)


def process(slot, pid, rss=100 * MIB):
    sample = ProcessSample(
        id=ProcessId(pid, 5000), ppid=1, pgrp=pid, state="S", name="app", rss=rss, rss_anon=80 * MIB,
        rss_file=15 * MIB, rss_shmem=5 * MIB, vms=400 * MIB, swap=0, threads=3, user_seconds=1.5, system_seconds=0.25,
        minor_faults=1000, major_faults=2, start_time=1700000000.0, open_fds=12,
    )  # fmt: skip
    memory = ok(ProcessMemory(rss or 0, 90 * MIB, 80 * MIB, 79 * MIB, 0))
    mappings = ok(ProcessMappings(40 * MIB, 35 * MIB, 10 * MIB, 4 * MIB, MIB, 0))
    return Process(slot, sample, ("python", "app.py", "--key=secret"), memory, mappings)


def hook(slot="main", pid=41):
    gc = GcStats(
        (30, 3, 1), (100, 10, 4), (0, 0, 0), Distribution((0.001, 0.1), (30, 3, 1), 0.5), 0.2, frozen=False
    )
    return HookReading(
        slot, pid, "python", "3.11.7", "0.1.0", False, ok(gc),
        ok(AllocatorStats("glibc", 70 * MIB, 30 * MIB, 4 * MIB, 25 * MIB)),
        (CacheStats("vectors", 50 * MIB, 1200),), 0.0004,
    )  # fmt: skip


SNAPSHOT = Snapshot(
    at=10.0, time=1700000100.0, target="svc",
    tree=ok(
        Tree(ProcessId(41, 5000), (process("main", 41), process("other", 42), process("other", 43)), 3, 0)
    ),
    cgroup=ok(CgroupMemory(
        version=2, path="/sys/fs/cgroup/x", limit=512 * MIB, usage=300 * MIB, anon=200 * MIB, file=90 * MIB,
        shmem=5 * MIB, active_file=30 * MIB, inactive_file=60 * MIB, slab_reclaimable=2 * MIB, kernel=8 * MIB, swap=0,
        peak=310 * MIB, refaults_file=17,
    )),
    events=ok(CgroupEvents(1, 1, 0, 40, None)),
    pressure=Reading(Status.UNSUPPORTED, reason="this kernel has no /proc/pressure"),
    throttling=ok(CpuThrottling(100, 7, 0.5)),
    machine=ok(MachineMemory(24 << 30, 20 << 30, 0, 0, 10 * MIB)),
    hooks=ok((hook(),)),
    own=ok(process("own", 7, 35 * MIB).sample),
)  # fmt: skip
LEVEL = Level(10.0, 208 * MIB, 512 * MIB, LimitOrigin.CGROUP, UsedKind.CGROUP, 1024.0)
LIMITS = Thresholds(high=409 * MIB, critical=460 * MIB, goal=358 * MIB)
SAMPLES = [
    *fast_samples(LEVEL, "svc", LIMITS),
    *threshold_samples(LIMITS, "svc"),
    *snapshot_samples(SNAPSHOT),
    *HookTotals().samples(
        "svc", (hook(), replace(hook("worker-1", 42), app=app_stats({**FULL, "gc": NODE_GC})))
    ),
    *health_samples("svc", [("main", 0.0), ("worker-1", 12.5)]),
]
EXPORTER = Exporter(lambda: SAMPLES)
PROMETHEUS_OWN = (m.ALERTS, m.ALERTS_FOR_STATE)
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def value(name, **labels):
    for family in parse_text(EXPORTER.render("")[0].decode()):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return None


def test_the_scrape_is_the_golden_one():
    text = EXPORTER.render("")[0].decode()
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_text_and_openmetrics_hold_the_same_samples():
    plain = {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for f in parse_text(EXPORTER.render("text/plain")[0].decode())
        for s in f.samples
    }
    body, content_type = EXPORTER.render(OPENMETRICS)
    open_ = {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for f in parse_openmetrics(body.decode())
        for s in f.samples
    }
    assert content_type.startswith("application/openmetrics-text")
    assert plain == open_


@pytest.mark.real
@pytest.mark.skipif(
    shutil.which("promtool") is None and os.environ.get("OOMGUARD_TEST_REAL") != "1",
    reason="promtool is not installed",
)
def test_promtool_finds_nothing_to_complain_of():
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=EXPORTER.render("")[0], capture_output=True
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_a_scrape_opens_nothing():
    opened = []
    watching = [True]
    sys.addaudithook(
        lambda event, args: (
            opened.append(args) if watching[0] and event in ("open", "os.listdir", "os.scandir") else None
        )
    )
    EXPORTER.render("")
    EXPORTER.render(OPENMETRICS)
    watching[0] = False
    assert opened == []


def test_unknown_is_left_out_and_never_zero():
    assert value("oomguard_source_status", source="pressure", status="unsupported") == 1
    assert value("oomguard_source_status", source="pressure", status="ok") == 0
    assert value("oomguard_memory_pressure_seconds_total") is None
    assert value("oomguard_cgroup_memory_events_total", event="failcnt") is None
    assert value("oomguard_cgroup_memory_events_total", event="high") == 0
    zombie = replace(SNAPSHOT, tree=ok(Tree(ProcessId(41, 1), (process("main", 41, rss=None),), 1, 0)))
    names = {sample.metric.name for sample in snapshot_samples(zombie)}
    assert m.PROCESS_RSS.name not in names
    assert m.PROCESS_CPU.name in names


def test_processes_beyond_the_bound_are_summed():
    assert value("oomguard_process_resident_memory_bytes", process="other") == 200 * MIB
    assert value("oomguard_process_start_time_seconds", process="other") is None, (
        "a sum of times means nothing"
    )


def test_the_pause_histogram_is_cumulative():
    assert [value("oomguard_gc_pause_seconds_bucket", le=le) for le in ("0.001", "0.1", "+Inf")] == [
        30,
        33,
        34,
    ]
    assert value("oomguard_gc_pause_seconds_count") == 34
    assert value("oomguard_gc_pause_seconds_sum") == 0.5


def test_no_label_holds_a_pid():
    for sample in SAMPLES:
        assert not {"41", "42", "43"} & set(sample.labels), sample


def test_each_sample_has_the_labels_of_its_metric():
    for family in families(SAMPLES):
        for sample in family.samples:
            metric = (
                m.BY_NAME.get(sample.name)
                or m.BY_NAME[sample.name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count")]
            )
            assert set(sample.labels) - {"le"} == set(metric.label_names)


def test_names_follow_prometheus_rules():
    assert len({metric.name for metric in m.TABLE}) == len(m.TABLE)
    assert len({metric.otel for metric in m.TABLE}) == len(m.TABLE)
    for metric in m.TABLE:
        assert metric.name.startswith(("oomguard_", "process_")) or metric in PROMETHEUS_OWN
        assert metric.name.endswith("_total") == (metric.kind == m.COUNTER), metric.name
        assert metric.name.endswith("_info") == (metric.kind == m.INFO), metric.name
        assert metric.help.endswith("."), metric.name
        for unit, suffix in (("By", "_bytes"), ("s", "_seconds")):
            if metric.unit == unit and metric not in PROMETHEUS_OWN:
                assert metric.name.removesuffix("_total").endswith(suffix), metric.name


def test_health_follows_the_thresholds():
    thresholds = {"high": 409 * MIB, "critical": 460 * MIB, "goal": 358 * MIB}
    states = [
        health(replace(LEVEL, used=used * MIB), thresholds, "svc")["status"] for used in (408, 409, 460)
    ]
    assert states == ["healthy", "degraded", "critical"]
    assert health(None, {}, "svc") == {"status": "unknown", "target": "svc", "shedding": False}
    told = health(LEVEL, thresholds, "svc")
    shut = replace(hook(), app=app_stats({"shed": {"on": True, "refused": 3}}))
    assert health(LEVEL, thresholds, "svc", (hook(), shut))["shedding"]
    assert not health(LEVEL, thresholds, "svc", (hook(),))["shedding"]
    assert (told["memory_mb"], told["memory_limit_mb"], told["memory_percent"]) == (208.0, 512.0, 40.6)


def test_command_lines_are_shown_on_request_only():
    assert "secret" not in str(snapshot_json(SNAPSHOT, command_lines=False))
    assert "secret" in str(snapshot_json(SNAPSHOT, command_lines=True))
