"""How many processes become one series: sums, the longest, the shortest, and counters that never fall."""

from dataclasses import replace

from tests.unit.test_hook_reading import FULL, NODE_GC

from oomguard import metrics as m
from oomguard.export.hook_series import MOST_GONE, HookTotals, health_samples
from oomguard.hookmodel import AppStats, ModelState
from oomguard.model import HookReading
from oomguard.sources import hook_reading


def hook(pid, slot="main", told=FULL, **app):
    parsed = hook_reading.app_stats(told)
    return HookReading(
        slot, pid, "python", "3.11.7", "0.1.0", False, hook_reading.gc_reading(told),
        hook_reading.allocator_reading(told), hook_reading.caches(told), 0.001, (pid, 1), replace(parsed, **app),
    )  # fmt: skip


class Totals:
    """What the series say after each slow tick."""

    def __init__(self):
        self.totals = HookTotals()

    def tick(self, *hooks):
        self.samples = list(self.totals.samples("t", hooks))
        return self

    def value(self, metric, *labels, suffix=""):
        found = [
            sample.value
            for sample in self.samples
            if sample.metric is metric and sample.labels == ("t", *labels) and sample.suffix == suffix
        ]
        assert len(found) < 2, "one value for a series"
        return found[0] if found else None


def loads(pid, count, slot="main"):
    (model,) = hook_reading.app_stats(FULL).models
    return hook(pid, slot, models=(replace(model, loads=count),))


def test_every_series_is_there_once_and_has_its_metrics_labels():
    seen = Totals().tick(hook(1, "main"), hook(2, "other"), hook(3, "other", {**FULL, "gc": NODE_GC})).samples
    keys = [(sample.metric.name, sample.labels, sample.suffix) for sample in seen]
    assert len(keys) == len(set(keys))
    for sample in seen:
        names = sample.metric.label_names + (("le",) if sample.suffix == "_bucket" else ())
        assert len(sample.labels) == len(names), sample


def test_every_metric_of_the_hooks_is_fed():
    fed = {sample.metric for sample in Totals().tick(hook(1), hook(2, told={**FULL, "gc": NODE_GC})).samples}
    text = "HOOK GC_ ALLOCATOR CACHE_ BUDGET LIMIT_ REQUEST SHED EVENT_LOOP STREAM MODEL_ CONSTRUCTED NAMED NODE ALONE"
    elsewhere = {m.HOOK_CONNECTED, m.HOOK_STALLED, m.HOOK_ERRORS}
    for name, metric in vars(m).items():
        if isinstance(metric, m.Metric) and name.startswith(tuple(text.split())) and metric not in elsewhere:
            assert metric in fed, name


def test_sizes_and_counts_are_added_up_over_workers():
    totals = Totals().tick(hook(1, "worker-1"), hook(2, "worker-2"))
    assert totals.value(m.CACHE_BYTES, "vectors") == 20
    assert totals.value(m.MODEL_BYTES, "jina") == 6000
    assert totals.value(m.MODEL_LOADS, "jina") == 4
    assert totals.value(m.BUDGET_RESERVED, "weights") == 340
    assert totals.value(m.CONSTRUCTED, "fastembed.TextEmbedding") == 82
    assert totals.value(m.STREAM_DURATION, suffix="_count") == 76
    assert totals.value(m.STREAM_DURATION, "60.0", suffix="_bucket") == 70
    assert totals.value(m.STREAMS_OPEN, "worker-1") == 12
    assert totals.value(m.NAMED_CHILD_EXITS, "tools", "oom_kill") == 2
    assert not [sample for sample in totals.samples if sample.metric is m.CHILD_EXITS], (
        "the sidecar has counted them"
    )


def test_loaded_is_counted_and_idle_is_the_shortest_of_those():
    (model,) = hook_reading.app_stats(FULL).models
    unloaded = replace(model, state=ModelState.UNLOADED, idle=1.0, bytes=None)
    totals = Totals().tick(
        hook(1, models=(model,)), hook(2, models=(replace(model, idle=30.0),)), hook(3, models=(unloaded,))
    )
    assert totals.value(m.MODEL_STATE, "jina", "loaded") == 2
    assert totals.value(m.MODEL_STATE, "jina", "unloaded") == 1
    assert totals.value(m.MODEL_STATE, "jina", "failed") == 0
    assert totals.value(m.MODEL_IDLE, "jina") == 30.0


def test_beyond_the_bound_lag_is_the_longest():
    late = replace(hook_reading.app_stats(FULL).loop, lag=2.0)
    totals = Totals().tick(hook(1, "other", loop=late), hook(2, "other"))
    assert totals.value(m.EVENT_LOOP_LAG, "other") == 2.0
    assert totals.value(m.EVENT_LOOP_TASKS, "other") == 28
    assert totals.value(m.SHEDDING, "other") == 1


def test_counters_do_not_fall_when_a_worker_goes():
    totals = Totals().tick(loads(1, 5, "worker-1"), loads(2, 7, "worker-2"))
    assert totals.value(m.MODEL_LOADS, "jina") == 12
    assert totals.tick(loads(2, 7, "worker-2")).value(m.MODEL_LOADS, "jina") == 12
    assert totals.tick(loads(2, 8, "worker-2"), loads(3, 1, "worker-1")).value(m.MODEL_LOADS, "jina") == 14
    assert totals.tick().value(m.MODEL_LOADS, "jina") == 14


def test_a_gauge_goes_with_its_worker():
    totals = Totals().tick(hook(1, "worker-1"), hook(2, "worker-2"))
    totals.tick(hook(2, "worker-2"))
    assert totals.value(m.MODEL_BYTES, "jina") == 3000
    assert totals.value(m.STREAMS_OPEN, "worker-1") is None


def test_one_that_did_not_answer_for_a_while_is_not_counted_twice():
    totals = Totals().tick(loads(1, 5), loads(2, 7))
    totals.tick(loads(1, 5))
    assert totals.tick(loads(1, 5), loads(2, 9)).value(m.MODEL_LOADS, "jina") == 14


def test_a_process_that_begins_anew_under_its_pid_goes_on_from_what_it_had_counted():
    totals = Totals().tick(loads(1, 5))
    assert totals.tick(loads(1, 2)).value(m.MODEL_LOADS, "jina") == 7
    assert totals.tick(loads(1, 3)).value(m.MODEL_LOADS, "jina") == 8


def test_a_pid_that_is_used_again_is_another_process():
    first = loads(1, 5)
    totals = Totals().tick(first)
    assert totals.tick(replace(loads(1, 6), identity=(1, 999))).value(m.MODEL_LOADS, "jina") == 11


def test_a_model_that_is_left_out_of_a_line_keeps_its_counts():
    totals = Totals().tick(loads(1, 5))
    assert totals.tick(hook(1, models=())).value(m.MODEL_LOADS, "jina") == 5
    assert totals.tick(loads(1, 6)).value(m.MODEL_LOADS, "jina") == 6


def test_a_process_that_gets_its_name_late_is_counted_under_one():
    totals = Totals().tick(hook(1, "other"))
    totals.tick(hook(1, "worker-1"))
    assert totals.value(m.STREAMS_OPENED, "worker-1") == 50
    assert totals.value(m.STREAMS_OPENED, "other") is None


def test_thousands_of_workers_that_come_and_go_leave_a_sum_and_no_more():
    totals = Totals()
    for pid in range(1, 2001):
        totals.tick(loads(pid, 1))
    assert totals.value(m.MODEL_LOADS, "jina") == 2000
    assert len(totals.totals._last) <= MOST_GONE + 1


def test_an_earlier_hook_feeds_what_it_tells():
    totals = Totals().tick(replace(hook(1), app=AppStats()))
    assert totals.value(m.CACHE_BYTES, "vectors") == 10
    assert totals.value(m.STREAMS_OPEN, "main") is None


def test_of_those_beyond_the_bound_the_one_that_is_stalled_longest_speaks():
    samples = {
        (sample.metric, sample.labels): sample.value
        for sample in health_samples("t", [("other", 0.0), ("other", 3.0), ("other", 1.0), ("main", 0.0)])
    }
    assert samples == {
        (m.HOOK_CONNECTED, ("t", "other")): 0.0,
        (m.HOOK_STALLED, ("t", "other")): 3.0,
        (m.HOOK_CONNECTED, ("t", "main")): 1.0,
        (m.HOOK_STALLED, ("t", "main")): 0.0,
    }
