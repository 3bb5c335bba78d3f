"""Every metric, declared once: name, OpenTelemetry name, kind, unit, labels, help; standard library only.

The exporter, the reference page (docs/metrics.md) and the checks of rules and dashboards read this
table; nothing else names a metric's help or labels. Names follow Prometheus' naming practices, OTel names the
semantic conventions where they have one and ``oomguard.*`` where they have none. Every metric of the
target carries the label ``target`` besides those listed; those of `OWN` describe the sidecar itself
and carry none.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

GAUGE, COUNTER, HISTOGRAM, INFO = "gauge", "counter", "histogram", "info"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family."""

    name: str
    """As Prometheus text shows it, ``_total`` of counters included."""
    otel: str
    kind: str
    unit: str
    """UCUM, as OpenTelemetry writes it: ``By``, ``s``, ``1``, ``{process}``."""
    help: str
    labels: tuple[str, ...] = ()
    own: bool = False
    """Describes the sidecar, not the target: no ``target`` label."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """All labels, ``target`` first unless the metric is the sidecar's own."""
        return self.labels if self.own else ("target", *self.labels)


def _gauge(name: str, otel: str, unit: str, text: str, *labels: str) -> Metric:
    return Metric(name, otel, GAUGE, unit, text, labels)


def _counter(name: str, otel: str, unit: str, text: str, *labels: str) -> Metric:
    return Metric(name, otel, COUNTER, unit, text, labels)


# fmt: off
# The level: what decisions are made on.
MEMORY_USED = _gauge("oomguard_memory_used_bytes", "oomguard.memory.used", "By",
    "Memory the kernel would kill for: usage less what it can reclaim (or PSS, working set, RSS: see kind).", "kind")
MEMORY_LIMIT = _gauge("oomguard_memory_limit_bytes", "oomguard.memory.limit", "By",
    "The limit in force and where it comes from.", "origin")
MEMORY_RATIO = _gauge("oomguard_memory_used_ratio", "oomguard.memory.utilization", "1",
    "Used memory by the limit in force.")
MEMORY_RATE = _gauge("oomguard_memory_growth_bytes_per_second", "oomguard.memory.growth", "By/s",
    "Growth of used memory over the last ticks; negative when it falls.")
MEMORY_THRESHOLD = _gauge("oomguard_memory_threshold_bytes", "oomguard.memory.threshold", "By",
    "The configured thresholds in bytes of this limit: high, critical, goal.", "threshold")
MEMORY_THRESHOLD_RATIO = _gauge("oomguard_memory_threshold_ratio", "oomguard.memory.threshold_ratio", "1",
    "The thresholds in force as parts of the limit: high, critical (both lowered by growth times lateness), goal.",
    "threshold")

# The limiting cgroup.
CGROUP_USAGE = _gauge("oomguard_cgroup_memory_usage_bytes", "container.memory.usage", "By",
    "Usage of the limiting cgroup, page cache included.")
CGROUP_LIMIT = _gauge("oomguard_cgroup_memory_limit_bytes", "container.memory.limit", "By",
    "The tightest limit of the target's cgroup and those above it; left out where there is none.")
CGROUP_WORKING_SET = _gauge("oomguard_cgroup_memory_working_set_bytes", "container.memory.working_set", "By",
    "Usage less inactive file cache, as cAdvisor and the kubelet count it.")
CGROUP_RECLAIMABLE = _gauge("oomguard_cgroup_memory_reclaimable_bytes", "oomguard.cgroup.memory.reclaimable", "By",
    "File cache and slab that the kernel can drop without killing.")
CGROUP_PART = _gauge("oomguard_cgroup_memory_part_bytes", "oomguard.cgroup.memory.part", "By",
    "Parts of the usage: anon, file, shmem, kernel.", "part")
CGROUP_SWAP = _gauge("oomguard_cgroup_memory_swap_bytes", "oomguard.cgroup.memory.swap", "By",
    "Swap used by the limiting cgroup.")
CGROUP_PEAK = _gauge("oomguard_cgroup_memory_peak_bytes", "oomguard.cgroup.memory.peak", "By",
    "Highest usage that the kernel recorded.")
CGROUP_EVENTS = _counter("oomguard_cgroup_memory_events_total", "oomguard.cgroup.memory.events", "{event}",
    "memory.events of the limiting cgroup: oom, oom_kill, high, max; failcnt under cgroup v1.", "event")
CGROUP_REFAULTS = _counter("oomguard_cgroup_memory_refaults_total", "oomguard.cgroup.memory.refaults", "{page}",
    "File pages read again after the kernel had reclaimed them.")
PRESSURE = _counter("oomguard_memory_pressure_seconds_total", "oomguard.memory.pressure", "s",
    "PSI: time in which some or all (full) tasks waited for memory; of the cgroup, else of the machine.",
    "scope", "kind")
THROTTLED = _counter("oomguard_cgroup_cpu_throttled_seconds_total", "oomguard.cgroup.cpu.throttled", "s",
    "Time for which the target's cgroup was held back by its CPU quota.")
THROTTLED_PERIODS = _counter("oomguard_cgroup_cpu_throttled_periods_total", "oomguard.cgroup.cpu.throttled_periods",
    "{period}", "CPU periods in which the quota ran out.")

# The machine.
MACHINE_TOTAL = _gauge("oomguard_machine_memory_total_bytes", "oomguard.machine.memory.total", "By",
    "Memory of the machine.")
MACHINE_AVAILABLE = _gauge("oomguard_machine_memory_available_bytes", "oomguard.machine.memory.available", "By",
    "MemAvailable of the machine.")
MACHINE_SWAP = _gauge("oomguard_machine_swap_bytes", "oomguard.machine.swap", "By",
    "Swap of the machine: total, free.", "state")

# The target's processes.
PROCESSES = _gauge("oomguard_processes", "oomguard.processes", "{process}",
    "Processes of the target's tree.")
PROCESSES_STARTED = _counter("oomguard_processes_started_total", "oomguard.processes.started", "{process}",
    "Processes seen to come, since the sidecar began to look.")
PROCESSES_EXITED = _counter("oomguard_processes_exited_total", "oomguard.processes.exited", "{process}",
    "Processes seen to go.")
CHILD_EXITS = _counter("oomguard_child_exits_total", "oomguard.child.exits", "{process}",
    "Children of the target's main process seen to go; reason oom_kill where the kernel's counter of OOM kills rose "
    "in the same interval, else unknown.", "reason")
PROCESS_RSS = _gauge("oomguard_process_resident_memory_bytes", "process.memory.usage", "By",
    "Resident memory (VmRSS).", "process")
PROCESS_VMS = _gauge("oomguard_process_virtual_memory_bytes", "process.memory.virtual", "By",
    "Virtual memory (VmSize).", "process")
PROCESS_PART = _gauge("oomguard_process_resident_part_bytes", "oomguard.process.memory.resident_part", "By",
    "Resident memory by part: anon, file, shmem.", "process", "part")
PROCESS_SWAP = _gauge("oomguard_process_swap_bytes", "oomguard.process.memory.swap", "By",
    "Swapped-out memory (VmSwap).", "process")
PROCESS_PSS = _gauge("oomguard_process_proportional_memory_bytes", "oomguard.process.memory.proportional", "By",
    "PSS: shared pages count in proportion to how many share them.", "process")
PROCESS_USS = _gauge("oomguard_process_unique_memory_bytes", "oomguard.process.memory.unique", "By",
    "USS: what would come back if this process alone ended.", "process")
PROCESS_MAPPINGS = _gauge("oomguard_process_mapping_bytes", "oomguard.process.memory.mapping", "By",
    "PSS by kind of mapping: heap, anonymous, file, shared, stack, other.", "process", "mapping")
PROCESS_CPU = _counter("oomguard_process_cpu_seconds_total", "process.cpu.time", "s",
    "CPU time by mode: user, system.", "process", "mode")
PROCESS_THREADS = _gauge("oomguard_process_threads", "process.thread.count", "{thread}",
    "Threads.", "process")
PROCESS_FDS = _gauge("oomguard_process_open_fds", "process.unix.file_descriptor.count", "{file_descriptor}",
    "Open file descriptors.", "process")
PROCESS_FAULTS = _counter("oomguard_process_page_faults_total", "process.paging.faults", "{fault}",
    "Page faults by type: minor, major.", "process", "type")
PROCESS_START = _gauge("oomguard_process_start_time_seconds", "oomguard.process.start_time", "s",
    "Start time of the process, in Unix seconds.", "process")

# What the hooks say.
HOOK_CONNECTED = _gauge("oomguard_hook_connected", "oomguard.hook.connected", "1",
    "1 where a process's hook is connected and answers, 0 where it is connected and does not (stalled).", "process")
HOOK_STALLED = _gauge("oomguard_hook_stalled_seconds", "oomguard.hook.stalled", "s",
    "How long a process's hook has not answered, though it should have; 0 where it answers in time.", "process")
HOOK_ALONE = _gauge("oomguard_hook_alone", "oomguard.hook.alone", "1",
    "1 while a process's hook guards it by itself, because no sidecar read it.", "process")
ALONE_RUNS = _counter("oomguard_hook_alone_runs_total", "oomguard.hook.alone_runs", "{run}",
    "Cleanups that hooks began by themselves.", "process")
ALONE_FREED = _counter("oomguard_hook_alone_freed_bytes_total", "oomguard.hook.alone_freed", "By",
    "What the cleanups that hooks began by themselves gave back.", "process")
HOOK_ROUND_TRIP = _gauge("oomguard_hook_round_trip_seconds", "oomguard.hook.round_trip", "s",
    "Time from question to answer of the last reading.", "process")
HOOK_ERRORS = _counter("oomguard_hook_errors_total", "oomguard.hook.errors", "{error}",
    "Connections ended or answers dropped, by reason.", "reason")
GC_COLLECTIONS = _counter("oomguard_gc_collections_total", "cpython.gc.collections", "{collection}",
    "Collections by generation.", "process", "generation")
GC_COLLECTED = _counter("oomguard_gc_collected_objects_total", "cpython.gc.collected_objects", "{object}",
    "Objects collected by generation.", "process", "generation")
GC_UNCOLLECTABLE = _counter("oomguard_gc_uncollectable_objects_total", "cpython.gc.uncollectable_objects", "{object}",
    "Objects found to be uncollectable, by generation.", "process", "generation")
GC_PAUSE = Metric("oomguard_gc_pause_seconds", "oomguard.gc.pause", HISTOGRAM, "s",
    "How long collections held the process.", ("process",))
NODE_GC_PAUSE = Metric("oomguard_node_gc_pause_seconds", "v8js.gc.duration", HISTOGRAM, "s",
    "V8's collections by kind: minor, major, incremental, weakcb.", ("process", "kind"))
ALLOCATOR_INFO = Metric("oomguard_allocator_info", "oomguard.allocator.info", INFO, "1",
    "The malloc that a process runs on.", ("process", "allocator"))
ALLOCATOR = _gauge("oomguard_allocator_bytes", "oomguard.allocator.memory", "By",
    "malloc's view: in_use, free (inside its arenas), mmapped, retained (what a trim is expected to return).",
    "process", "state")
ALLOCATOR_ARENAS = _gauge("oomguard_allocator_arenas", "oomguard.allocator.arenas", "{arena}",
    "Arenas of malloc; threads that allocate at the same time get one each.", "process")
CACHE_BYTES = _gauge("oomguard_cache_bytes", "oomguard.cache.memory", "By",
    "Size of a registered cache, as the application tells it; processes are summed.", "cache")
CACHE_ENTRIES = _gauge("oomguard_cache_entries", "oomguard.cache.entries", "{entry}",
    "Entries of a registered cache; processes are summed.", "cache")
CACHE_MAX = _gauge("oomguard_cache_max_bytes", "oomguard.cache.limit", "By",
    "Size at which a bounded cache evicts; processes are summed.", "cache")
CACHE_EVICTIONS = _counter("oomguard_cache_evictions_total", "oomguard.cache.evictions", "{entry}",
    "Entries that made room for others.", "cache")
CACHE_EXPIRED = _counter("oomguard_cache_expired_total", "oomguard.cache.expired", "{entry}",
    "Entries dropped because their time was over.", "cache")
BUDGET_LIMIT = _gauge("oomguard_budget_limit_bytes", "oomguard.budget.limit", "By",
    "A budget; processes are summed.", "budget")
BUDGET_RESERVED = _gauge("oomguard_budget_reserved_bytes", "oomguard.budget.reserved", "By",
    "What is reserved of a budget; processes are summed.", "budget")
BUDGET_REFUSED = _counter("oomguard_budget_refused_total", "oomguard.budget.refused", "{reservation}",
    "Reservations refused because the budget would not hold them.", "budget")
BUDGET_STATE = _gauge("oomguard_budget_state", "oomguard.budget.state", "{process}",
    "Processes whose budget is in a state: ok, warning (80 % reserved), critical (90 %).", "budget", "state")
LIMIT_SLOTS = _gauge("oomguard_limit_slots", "oomguard.limit.slots", "{slot}",
    "How many may do something at once (guard.limit); processes are summed.", "limit")
LIMIT_IN_USE = _gauge("oomguard_limit_in_use", "oomguard.limit.in_use", "{slot}",
    "How many do it now.", "limit")
LIMIT_WAITING = _gauge("oomguard_limit_waiting", "oomguard.limit.waiting", "{waiter}",
    "How many wait for their turn now.", "limit")
LIMIT_WAITED = _counter("oomguard_limit_waited_total", "oomguard.limit.waited", "{waiter}",
    "How many had to wait.", "limit")
REQUESTS_IN_FLIGHT = _gauge("oomguard_requests_in_flight", "oomguard.requests.in_flight", "{request}",
    "Requests under way, without streams, as the mounted middleware sees them.", "process")
REQUESTS = _counter("oomguard_requests_total", "oomguard.requests", "{request}",
    "Requests that the mounted middleware has seen, without streams.", "process")
REQUEST_GROWTH = Metric("oomguard_request_growth_bytes", "oomguard.request.growth", HISTOGRAM, "By",
    "By how much resident memory grew in requests that ran alone.")
SHEDDING = _gauge("oomguard_shedding", "oomguard.shedding", "1",
    "1 while a process turns new requests away (503), else 0.", "process")
SHED_REQUESTS = _counter("oomguard_shed_requests_total", "oomguard.shed_requests", "{request}",
    "Requests turned away to shed load.", "process")
EVENT_LOOP_TASKS = _gauge("oomguard_event_loop_tasks", "oomguard.event_loop.tasks", "{task}",
    "Tasks on the event loop.", "process")
EVENT_LOOP_LAG = _gauge("oomguard_event_loop_lag_seconds", "oomguard.event_loop.lag", "s",
    "Longest that the event loop was late since the reading before.", "process")
STREAMS_OPEN = _gauge("oomguard_streams_open", "oomguard.streams.open", "{stream}",
    "Open streams (SSE responses, websockets and others that stay open).", "process")
STREAMS_LIMIT = _gauge("oomguard_streams_limit", "oomguard.streams.limit", "{stream}",
    "Streams above which new ones are turned away.", "process")
STREAMS_OPENED = _counter("oomguard_streams_opened_total", "oomguard.streams.opened", "{stream}",
    "Streams opened.", "process")
STREAMS_CLOSED = _counter("oomguard_streams_closed_total", "oomguard.streams.closed", "{stream}",
    "Streams closed, by reason: client, server, evicted, error.", "process", "reason")
STREAMS_REJECTED = _counter("oomguard_streams_rejected_total", "oomguard.streams.rejected", "{stream}",
    "Streams turned away because the limit was reached.", "process")
STREAM_OLDEST = _gauge("oomguard_stream_oldest_age_seconds", "oomguard.stream.oldest_age", "s",
    "Age of the stream that has been open longest.", "process")
STREAM_DURATION = Metric("oomguard_stream_duration_seconds", "oomguard.stream.duration", HISTOGRAM, "s",
    "How long streams that have ended were open.")
MODEL_STATE = _gauge("oomguard_model_state", "oomguard.model.state", "{process}",
    "Processes in which a model is in a state: unloaded, loading, loaded, unloading, failed.", "model", "state")
MODEL_BYTES = _gauge("oomguard_model_bytes", "oomguard.model.memory", "By",
    "Memory gained when the model was loaded; processes are summed.", "model")
MODEL_IDLE = _gauge("oomguard_model_idle_seconds", "oomguard.model.idle", "s",
    "Time since the model was last used in any process that has it loaded.", "model")
MODEL_USES = _counter("oomguard_model_uses_total", "oomguard.model.uses", "{use}",
    "Uses of the model.", "model")
MODEL_IN_USE = _gauge("oomguard_model_in_use", "oomguard.model.in_use", "{use}",
    "Uses of the model under way.", "model")
MODEL_LOAD_SECONDS = _gauge("oomguard_model_load_seconds", "oomguard.model.load_time", "s",
    "How long the last load took; of several processes, the longest.", "model")
MODEL_FAILURES = _counter("oomguard_model_load_failures_total", "oomguard.model.load_failures", "{load}",
    "Loads that failed.", "model")
MODEL_UNLOADS = _counter("oomguard_model_unloads_total", "oomguard.model.unloads", "{unload}",
    "Times the model was unloaded.", "model")
MODEL_BUSY = _counter("oomguard_model_unloads_busy_total", "oomguard.model.unloads_busy", "{unload}",
    "Unloads given up because the model was in use.", "model")
MODEL_RETURNED = _counter("oomguard_model_returned_bytes_total", "oomguard.model.returned", "By",
    "What unloading the model really gave back to the system.", "model")
CONSTRUCTED = _counter("oomguard_model_constructions_total", "oomguard.model.constructions", "{object}",
    "Objects of a known model class that were made, by whomever.", "class")
CONSTRUCTED_LIVE = _gauge("oomguard_model_constructions_live", "oomguard.model.constructions_live", "{object}",
    "Those of them that are still there.", "class")
CONSTRUCTED_BYTES = _gauge("oomguard_model_constructions_bytes", "oomguard.model.constructions_memory", "By",
    "Memory gained while they were made, those that are gone included.", "class")
CHILD_UP = _gauge("oomguard_named_children", "oomguard.named_child.count", "{process}",
    "Child processes of a name (guard.child, isolated models) that live.", "child")
CHILD_STARTS = _counter("oomguard_named_child_starts_total", "oomguard.named_child.starts", "{process}",
    "Starts of child processes of a name.", "child")
NAMED_CHILD_EXITS = _counter("oomguard_named_child_exits_total", "oomguard.named_child.exits", "{process}",
    "Child processes of a name that went unasked, as their parent saw it, by reason: oom_kill, unknown. "
    "oomguard_child_exits_total counts the same exits as the sidecar saw them.", "child", "reason")
MODEL_LOADS = _counter("oomguard_model_loads_total", "oomguard.model.loads", "{load}",
    "Times the model was loaded.", "model")
NODE_HEAP_USED = _gauge("oomguard_node_heap_used_bytes", "v8js.memory.heap.used", "By",
    "V8's used heap.", "process")
NODE_HEAP_LIMIT = _gauge("oomguard_node_heap_limit_bytes", "v8js.memory.heap.limit", "By",
    "V8's heap_size_limit: where a Node process dies.", "process")
NODE_HEAP_SIZE = _gauge("oomguard_node_heap_size_bytes", "oomguard.node.heap.size", "By",
    "What V8 has committed for its heap.", "process")
NODE_HEAP_SPACE = _gauge("oomguard_node_heap_space_bytes", "oomguard.node.heap.space", "By",
    "V8's heap by space: used, size.", "process", "space", "state")
NODE_EXTERNAL = _gauge("oomguard_node_external_bytes", "oomguard.node.external", "By",
    "Memory of C++ objects bound to JavaScript's, array buffers included.", "process")
NODE_ARRAY_BUFFERS = _gauge("oomguard_node_array_buffers_bytes", "oomguard.node.array_buffers", "By",
    "ArrayBuffers, SharedArrayBuffers and Buffers of Node.", "process")

# What was done.
RUNS = _counter("oomguard_cleanup_runs_total", "oomguard.cleanup.runs", "{run}",
    "Runs of the ladder by outcome.", "outcome")
RUN_ACTIVE = _gauge("oomguard_cleanup_active", "oomguard.cleanup.active", "1",
    "1 while a run of the ladder is under way.")
STEPS = _counter("oomguard_cleanup_steps_total", "oomguard.cleanup.steps", "{step}",
    "Steps by outcome.", "step", "outcome")
STEP_FREED = _counter("oomguard_cleanup_freed_bytes_total", "oomguard.cleanup.freed", "By",
    "What steps gave back to the system, as measured.", "step")
STEP_SECONDS = _counter("oomguard_cleanup_step_seconds_total", "oomguard.cleanup.step_time", "s",
    "Time spent in steps.", "step")
STEP_STALL = _counter("oomguard_cleanup_stall_seconds_total", "oomguard.cleanup.stall", "s",
    "How long steps held the target's threads.", "step")
ADMIN_REQUESTS = _counter("oomguard_admin_requests_total", "oomguard.admin.requests", "{request}",
    "Orders and payloads that came to /admin, by what became of them.", "outcome")
REACTION = _gauge("oomguard_cleanup_last_reaction_seconds", "oomguard.cleanup.reaction", "s",
    "From the tick that saw the threshold crossed to the order's going out, in the last run.")
TARGET_UP = _gauge("oomguard_target_up", "oomguard.target.up", "1",
    "1 while the target's main process lives.")
TARGET_STARTS = _counter("oomguard_target_starts_total", "oomguard.target.starts", "{start}",
    "Starts of the target's main process that this sidecar saw.")

# The sidecar's own work.
SOURCE_STATUS = _gauge("oomguard_source_status", "oomguard.source.status", "1",
    "1 for the status that a source has now: ok, absent, unsupported, failed; 0 for the others.", "source", "status")
SOURCE_SECONDS = _gauge("oomguard_source_read_seconds", "oomguard.source.read", "s",
    "How long the last read of a source took.", "source")


def _own(name: str, otel: str, kind: str, unit: str, text: str, *labels: str) -> Metric:
    return Metric(name, otel, kind, unit, text, labels, own=True)


BUILD_INFO = _own("oomguard_build_info", "oomguard.build.info", INFO, "1",
    "Version of oomguard and of its Python.", "version", "python_version")
TICKS = _own("oomguard_sampler_ticks_total", "oomguard.sampler.ticks", COUNTER, "{tick}",
    "Ticks of the sampler by lane.", "lane")
LATE_TICKS = _own("oomguard_sampler_late_ticks_total", "oomguard.sampler.late_ticks", COUNTER, "{tick}",
    "Fast ticks that came more than 10 ms after their time.")
LATENESS = _own("oomguard_sampler_lateness_seconds", "oomguard.sampler.lateness", GAUGE, "s",
    "How late fast ticks have come lately (a maximum that decays); thresholds are lowered by growth times this.")
INTERVAL = _own("oomguard_sampler_interval_seconds", "oomguard.sampler.interval", GAUGE, "s",
    "The fast lane's present interval.")
SLOW_SECONDS = _own("oomguard_sampler_slow_seconds", "oomguard.sampler.slow", GAUGE, "s",
    "How long the last slow tick took.")
JOURNAL_ERRORS = _own("oomguard_journal_errors_total", "oomguard.journal.errors", COUNTER, "{error}",
    "Records that could not be written to the journal.")
STORE_SERIES = _own("oomguard_store_series", "oomguard.store.series", GAUGE, "{series}",
    "Series held in memory.")
STORE_REFUSED = _own("oomguard_store_refused_series_total", "oomguard.store.refused", COUNTER, "{series}",
    "New series refused because the store was full.")
RULE_EVALUATIONS = _own("oomguard_rule_evaluations_total", "oomguard.rule.evaluations", COUNTER, "{evaluation}",
    "Evaluations of rules, by lane: fast (at fast ticks), live (every 250 ms), all (at slow ticks).", "lane")
RULE_SECONDS = _own("oomguard_rule_evaluation_seconds_total", "oomguard.rule.evaluation_time", COUNTER, "s",
    "Time spent in evaluating rules.", "lane")
RULE_FAILURES = _own("oomguard_rule_evaluation_failures_total", "oomguard.rule.failures", COUNTER, "{evaluation}",
    "Evaluations that failed, by rule.", "rule")
NOTIFICATIONS = _own("oomguard_notifications_total", "oomguard.notifications", COUNTER, "{notification}",
    "Notifications by receiver and outcome: delivered, rejected (4xx), dropped (queue full); "
    "each attempt that is tried again counts as retried.", "receiver", "outcome")
NOTIFICATION_QUEUE = _own("oomguard_notification_queue_length", "oomguard.notification.queue", GAUGE,
    "{notification}", "Notifications that wait to be delivered.")
SILENCES = _own("oomguard_silences", "oomguard.silences", GAUGE, "{silence}",
    "Silences by state: active, pending, expired.", "state")
PAUSED = _own("oomguard_paused", "oomguard.paused", GAUGE, "1",
    "1 while automatic actions are paused (oomguard pause), else 0.")
CONFIG_RELOAD = _own("oomguard_config_last_reload_success", "oomguard.config.last_reload_success", GAUGE, "1",
    "1 if configuration, rules and routes could be read the last time, 0 while older ones go on.")
CONFIG_RELOAD_TIME = _own("oomguard_config_last_reload_success_timestamp_seconds",
    "oomguard.config.last_reload_success_time", GAUGE, "s",
    "When configuration, rules and routes were last read with success, in Unix seconds.")
ALERTS = _own("ALERTS", "oomguard.alerts", GAUGE, "1",
    "1 for each alert that is pending or firing, with its labels, as Prometheus has it; engine=oomguard keeps it "
    "apart from those that a scraping Prometheus computes by itself.", "alertname", "alertstate", "engine")
ALERTS_FOR_STATE = _own("ALERTS_FOR_STATE", "oomguard.alerts.for_state", GAUGE, "s",
    "Since when an alert has been active, in Unix seconds, with its labels.", "alertname", "engine")
OWN_RSS = _own("process_resident_memory_bytes", "oomguard.sidecar.memory", GAUGE, "By",
    "Resident memory of the sidecar.")
OWN_VMS = _own("process_virtual_memory_bytes", "oomguard.sidecar.virtual", GAUGE, "By",
    "Virtual memory of the sidecar.")
OWN_CPU = _own("process_cpu_seconds_total", "oomguard.sidecar.cpu", COUNTER, "s",
    "CPU time of the sidecar.")
OWN_FDS = _own("process_open_fds", "oomguard.sidecar.fds", GAUGE, "{file_descriptor}",
    "Open file descriptors of the sidecar.")
OWN_START = _own("process_start_time_seconds", "oomguard.sidecar.start_time", GAUGE, "s",
    "Start time of the sidecar, in Unix seconds.")

# fmt: on

FAST = (MEMORY_USED, MEMORY_LIMIT, MEMORY_RATIO, MEMORY_RATE, MEMORY_THRESHOLD_RATIO)
"""What the fast lane refreshes: rules that read nothing else run at every fast tick."""


def series_names(metric: Metric) -> tuple[str, ...]:
    """The names of a metric's series: a histogram has three."""
    if metric.kind == HISTOGRAM:
        return tuple(metric.name + suffix for suffix in ("_bucket", "_sum", "_count"))
    return (metric.name,)


TABLE: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
BY_NAME = {metric.name: metric for metric in TABLE}


class HookErrorReason(enum.Enum):
    """Why the sidecar ended a hook's connection or dropped an answer (`HOOK_ERRORS`)."""

    REJECTED = "rejected"
    """The peer is neither root, nor of the sidecar's uid or gid, nor in the target's tree."""
    VERSION = "version"
    GARBAGE = "garbage"
    TOO_LONG = "too_long"
    TIMEOUT = "timeout"
    """It did not answer in time: it was stalled."""
