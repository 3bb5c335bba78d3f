"""Evaluation: what rules cost, in process and beside Prometheus' own figures for the same file on the same series.

The series are those of a real run (one guarded process, every series that the sidecar stored), with a history
of 15 minutes at a slot a second, and of 6 hours at a slot every 15 s where rules ask for it. Values move as
they do in a service: gauges wander by a per cent, counters rise. No evaluation is timed twice on the same slot.
The median is what it costs; p99 is what this machine, on which others worked too, made of it.

"500 rules" are the shipped ones under other names and with other thresholds, windows included, until there are
500. Of a fast tick, `Store.live` with the rules of the fast lane is timed, and the guardian's whole tick on a
real cgroup: one right after the other, and with 5 ms of sleep between, after which caches are cold, as they
always are in a real sidecar; once more with memory as it was at the tick before, which is not evaluated again.
What 200 ticks a second cost in the end is read from a real sidecar (/proc/PID/stat) whose target idles 2 MB
below the threshold (its memory mostly as it was), less what the same one takes when the target is far below it.

Prometheus gets the same 15 minutes by remote write, evaluates the same file once a second while the series go
on, and tells itself how long it took (prometheus_rule_group_last_duration_seconds, all groups added; the median
over the run). It has Go and several threads; it also writes what it made to its own storage.
"""

from __future__ import annotations

import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.boxes import MIB, BoxV1
from tests.support.guarded import Guarded, workload

from bench.footprint import cpu_seconds
from bench.prometheus import Prometheus
from bench.table import milliseconds, percentile, table
from oomguard.alerting import Alerting, loading
from oomguard.alerting.loading import Loaded
from oomguard.collect import Collector, process_tree, rss_reader
from oomguard.config import Settings
from oomguard.counters import Counters
from oomguard.guardian import Guardian
from oomguard.journal import Journal
from oomguard.level import LevelReader
from oomguard.metrics import BY_NAME, COUNTER, FAST, HISTOGRAM, Metric
from oomguard.promql.series import METRIC_NAME, Labels
from oomguard.recording import read
from oomguard.rules.engine import Lane
from oomguard.sources.hooks import Hooks
from oomguard.sources.procfs import read_stat
from oomguard.state import State
from oomguard.store import LONG_SLOTS, LONG_STEP, SLOTS, Sample, Store

LIMIT = 512 * MIB
EVALUATIONS = 200
FAST_TICKS = 4000
MANY = 500
TICKING_SECONDS = 60.0
PROMETHEUS_SECONDS = 45


def measure() -> str:
    """The section for RESULTS.md."""
    series = recorded()
    shipped = loading.load(Settings())
    with tempfile.TemporaryDirectory(prefix="oomguard-bench-") as folder:
        many = Path(folder, "many.rules.yml")
        many.write_text(multiplied(loading.RULES.read_text(), MANY))
        rows = [_all(series, shipped), _all(series, loading.load(Settings(rules=str(many))))]
        rows += [_fast(series, shipped), _tick(series, shipped)]
        rows += [_tick(series, shipped, pause=0.005), _tick(series, shipped, pause=0.005, reader=LevelReader)]
        print(*(row.cells() for row in rows), sep="\n", flush=True)
        theirs = [_prometheus(series, loading.RULES), _prometheus(series, many)]
    for row, seconds in zip(rows, theirs, strict=False):
        row.prometheus = seconds
    cells = [row.cells() for row in rows]
    text = table(["evaluated", "n", "median", "p99", "target", "Prometheus", "ratio"], cells)
    return "\n".join([(__doc__ or "").strip(), "", f"{len(series)} series.", "", text, "", ticking(), ""])


@dataclass
class Row:
    """One line of the table."""

    name: str
    seconds: Sequence[float]
    target: float
    prometheus: float | None = None

    def cells(self) -> list[object]:
        """Median, the slowest hundredth, the target, and what Prometheus said."""
        median = statistics.median(self.seconds)
        beside = ["-", "-"]
        if self.prometheus is not None:
            beside = [_fine(self.prometheus), f"{median / self.prometheus:.2f}"]
        figures = [_fine(median), _fine(percentile(self.seconds, 0.99)), _fine(self.target)]
        return [self.name, len(self.seconds), *figures, *beside]


def _fine(seconds: float) -> str:
    return milliseconds(seconds) if seconds >= 0.01 else f"{seconds * 1e3:.3f} ms"


# -- series -----------------------------------------------------------------------------------


def recorded() -> list[Sample]:
    """Every series of a real sidecar and its target, as the last slot of a recording has them."""
    with tempfile.TemporaryDirectory(prefix="oomguard-bench-") as folder:
        path = Path(folder, "recording.jsonl")
        argv = workload("idle_tree", "--processes", 1, "--seconds", 60)
        with BoxV1(LIMIT) as box, Guarded(box, argv, flags=["--record", str(path)]) as program:
            program.port()
            program.wait_until_guarding(hooks=1)
            time.sleep(8)
        slots = [moment.values for moment in read(path) if moment.slot]
    return [_sample(labels, value) for labels, value in slots[-2].items() if value == value]  # noqa: PLR0124


def _sample(labels: Labels, value: float) -> Sample:
    named = dict(labels)
    name = named.pop(METRIC_NAME)
    metric, suffix = BY_NAME.get(name), ""
    if metric is None:
        name, _, suffix = name.rpartition("_")
        metric, suffix = BY_NAME[name], f"_{suffix}"
    bound = (named.pop("le"),) if "le" in named else ()
    if not set(named) <= set(metric.label_names):  # ALERTS: it has the labels of its alert
        names = tuple(sorted(named))
        metric = Metric(metric.name, metric.otel, metric.kind, metric.unit, metric.help, names, own=True)
    return Sample(metric, (*(named.get(label, "") for label in metric.label_names), *bound), value, suffix)


class Service:
    """The series of a service that lives on: every call moves them by a second."""

    def __init__(self, series: Sequence[Sample]) -> None:
        self._first = series
        self._random = random.Random(1)
        self._grown = [sample.value for sample in series]

    def second(self) -> list[Sample]:
        """The next values."""
        moved = []
        for index, sample in enumerate(self._first):
            value = sample.value
            if sample.metric.kind in (COUNTER, HISTOGRAM):
                self._grown[index] += self._random.random() * 0.01 * max(1.0, value) if value else 0.0
                value = self._grown[index]
            elif sample.metric.unit in ("By", "By/s") or sample.metric in FAST:
                value *= 1 + 0.01 * self._random.random()
            moved.append(Sample(sample.metric, sample.labels, value, sample.suffix))
        return moved


def filled(service: Service, loaded: Loaded, end: float) -> Store:
    """A store that is as full as it gets, up to `end` (Unix seconds)."""
    store = Store()
    store.keep_long(loaded.long_names)
    step = LONG_STEP / 1000
    begin = end - step * LONG_SLOTS
    while begin < end - SLOTS:
        store.write(begin, service.second())
        begin += step
    for second in range(SLOTS):
        store.write(end - SLOTS + second, service.second())
    return store


def multiplied(text: str, count: int) -> str:
    """A rule file with every rule many times, until there are `count`: other names, other thresholds."""
    head, *groups = re.split(r"(?m)^(?=  - name: )", text)
    per_copy = text.count("- alert:")
    made = [head]
    for copy in range(-(-count // per_copy)):
        for group in groups:
            renamed = re.sub(r"(- name: |- alert: )(\w[\w-]*)", rf"\g<1>\g<2>{copy}", group)
            made.append(re.sub(r"(> |>= )(0\.\d+)", rf"\g<1>\g<2>{copy:02d}1", renamed))
    whole = "".join(made)
    # The last copy may be a part of one.
    starts = [match.start() for match in re.finditer(r"(?m)^      - alert: ", whole)]
    return whole[: starts[count]] if len(starts) > count else whole


# -- in process -------------------------------------------------------------------------------


def _alerting(store: Store, loaded: Loaded) -> Alerting:
    return Alerting(
        loaded,
        store,
        Counters("bench"),
        Journal(None),
        target="bench",
        write=store.live,
        clock=time.perf_counter,
    )


def _timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _all(series: Sequence[Sample], loaded: Loaded) -> Row:
    """All rules, as after a slow tick."""
    service, now = Service(series), 1_800_000_000.0
    store = filled(service, loaded, now)
    alerting = _alerting(store, loaded)
    seconds = []
    for _ in range(EVALUATIONS):
        now += 1
        store.write(now, service.second())
        at = round(1000 * now) + 1
        seconds.append(_timed(lambda at=at: alerting.evaluate(Lane.ALL, at)))  # type: ignore[misc]
    count = len(alerting.engine.rules)
    broken = [rule.last_error for rule in alerting.engine.rules if rule.last_error]
    assert not broken, broken
    return Row(f"all {count} rules", seconds, 0.002 if count < MANY else 0.05)


def _fast(series: Sequence[Sample], loaded: Loaded) -> Row:
    """The rules of the fast lane, with the store's part of a fast tick."""
    service, now = Service(series), 1_800_000_000.0
    store = filled(service, loaded, now)
    alerting = _alerting(store, loaded)
    alerting.evaluate(Lane.ALL, round(1000 * now))
    seconds, at = [], round(1000 * now)
    for _ in range(FAST_TICKS):
        at += 5
        live = [sample for sample in service.second() if sample.metric in FAST]

        def tick(live: Sequence[Sample] = live, at: int = at) -> None:
            store.live(at, live)
            alerting.evaluate(Lane.FAST, at)
            alerting.wishes(at)

        seconds.append(_timed(tick))
    count = sum(rule.lane is Lane.FAST for rule in alerting.engine.rules)
    return Row(f"a fast tick's {count} rules, with Store.live", seconds, 0.0002)


class _Moving(LevelReader):
    """Finds other memory at every tick."""

    _reads = 0

    def _used(self) -> int | None:
        self._reads += 1
        used = super()._used()
        return None if used is None else used + self._reads % 2 * 4096


def _tick(
    series: Sequence[Sample],
    loaded: Loaded,
    *,
    pause: float = 0.0,
    reader: type[LevelReader] = _Moving,
) -> Row:
    """The guardian's whole tick, on the files of a real box; every 50th is a live one, as at 200 a second."""
    argv = workload("idle_tree", "--processes", 1, "--seconds", 120)
    with BoxV1(LIMIT) as box:
        target = box.run(argv)
        try:
            seconds = list(_guardian_ticks(target.pid, series, loaded, pause, reader))
        finally:
            target.terminate()
            target.wait()
    name = "the whole fast tick" + (f", {pause * 1e3:g} ms after the last" if pause else "")
    name += "" if reader is _Moving else ", memory as it was"
    return Row(name, seconds, 0.05 / 200)


def _guardian_ticks(
    pid: int, series: Sequence[Sample], loaded: Loaded, pause: float, make_reader: type[LevelReader]
) -> Iterator[float]:
    stat = read_stat("/proc", pid)
    assert stat is not None
    state = State("bench", Settings(), root=stat.id)
    reader = make_reader(state, rss_reader("/proc"))
    collected = Collector(process_tree("/proc", adopted_by=None, excluded=frozenset())).collect(state.root)
    assert collected.tree.value is not None
    reader.update(collected.cgroup, collected.source, collected.machine.value, collected.tree.value.processes)
    store = filled(Service(series), loaded, time.time())
    counters, journal = Counters("bench"), Journal(None)
    alerting = Alerting(loaded, store, counters, journal, target="bench", clock=time.perf_counter)
    hooks = Hooks("\0oomguard-bench", lambda _: False)
    at = [time.monotonic()]
    guardian = Guardian(state, reader, hooks, journal, counters, store, alerting, clock=lambda: at[0])
    tick = guardian.lane._tick  # noqa: SLF001 - the lane would sleep between two
    for _ in range(FAST_TICKS):
        at[0] += 0.005
        time.sleep(pause)
        yield _timed(lambda: tick(at[0]))
    reader.close()


# -- the real ones ----------------------------------------------------------------------------


def ticking() -> str:
    """What fast ticks cost a real sidecar: its CPU time with the target just below the threshold, less far below."""
    argv = workload("idle_tree", "--processes", 1, "--seconds", 300)
    with BoxV1(LIMIT) as box, Guarded(box, argv) as program:
        program.port()
        program.wait_until_guarding(hooks=1)
        time.sleep(10)
        pid = program.journal("sidecar_start")[-1]["pid"]
        idle, idle_rate = _spent(program, pid)
        # Limits are read again at every slow tick: the threshold comes to the memory.
        box.set_limit(int((program.status()["level"]["used"] + 2 * MIB) / 0.8))
        time.sleep(8)
        near, near_rate = _spent(program, pid)
        runs = program.journal("run_start")
    a_tick = (near - idle) / (near_rate - idle_rate)
    return (
        f"A real sidecar: {idle:.2%} of a core at {idle_rate:.1f} ticks a second, {near:.2%} at {near_rate:.0f} "
        f"(target idle just below the threshold; {len(runs)} cleanups meanwhile): {a_tick * 1e3:.3f} ms a tick, "
        f"so that 200 a second cost {a_tick * 200:.1%} of a core (target: under 5%)."
    )


def _spent(program: Guarded, pid: int) -> tuple[float, float]:
    """Share of a core, and fast ticks a second."""
    began, cpu, ticks = time.monotonic(), cpu_seconds(pid), program.status()["sampler"]["ticks"]
    time.sleep(TICKING_SECONDS)
    ticks = program.status()["sampler"]["ticks"] - ticks
    took = time.monotonic() - began
    return (cpu_seconds(pid) - cpu) / took, ticks / took


def _prometheus(series: Sequence[Sample], rules: Path) -> float:
    """Seconds that one evaluation of all groups takes Prometheus, by its own account."""
    service = Service(series)
    with Prometheus(rules=[rules]) as prometheus:
        began = time.time()
        history = [(began - SLOTS + second, service.second()) for second in range(SLOTS)]
        prometheus.write(history)
        totals = []
        for _ in range(PROMETHEUS_SECONDS):
            prometheus.write([(time.time(), service.second())])
            time.sleep(1)
            durations = prometheus.metric("prometheus_rule_group_last_duration_seconds")
            if all(durations):
                totals.append(sum(durations))
    return statistics.median(totals[len(totals) // 3 :])
