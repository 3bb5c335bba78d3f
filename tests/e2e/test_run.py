"""``oomguard run`` as a whole: the real supervisor, sidecar, hook and target, with nothing stood in."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from tests.support.boxes import require
from tests.support.client import read, read_json
from tests.support.command import OBEDIENT, OOMGUARD, Running, environment, oomguard
from tests.support.guarded import workload
from tests.support.supervised import wait_for

from oomguard.inject import STARTUP

MIB = 1 << 20
ECHO = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())"


def run(*arguments: str | Path, target: list[str]) -> subprocess.CompletedProcess[str]:
    return oomguard("run", "--listen", "127.0.0.1:0", *arguments, "--", *target)


# -- what the target sees


@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_code_is_the_targets(code: int) -> None:
    assert run(target=["sh", "-c", f"exit {code}"]).returncode == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_target_that_dies_of_a_signal_gives_128_and_its_number(number: int) -> None:
    assert run(target=["sh", "-c", f"kill -{int(number)} $$"]).returncode == 128 + number


def test_sigterm_goes_to_the_target_whose_own_exit_code_is_passed_on() -> None:
    script = "import signal, sys; signal.signal(15, lambda *_: sys.exit(7)); print('{}', flush=True); signal.pause()"
    with Running("run", target=[sys.executable, "-c", script]) as running:
        running.answer()
        running.process.terminate()
        assert running.wait() == 7
        assert running.journal("target_exit")[0]["code"] == 7


def test_the_targets_environment_is_extended_and_never_replaced() -> None:
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    own = {"PYTHONPATH": "/somewhere", "SERVICE": "a b=c", "LD_PRELOAD": ""}
    with Running("run", "--target", "svc", target=[sys.executable, "-c", script], env=own) as running:
        seen = running.answer()
        assert running.wait() == 0
    assert seen["PYTHONPATH"].split(os.pathsep) == [STARTUP, "/somewhere"]
    assert seen["SERVICE"] == "a b=c"
    assert seen["LD_PRELOAD"] == ""
    assert seen["OOMGUARD_RUNTIME_DIR"] == str(running.runtime_dir)
    assert seen["OOMGUARD_TARGET"] == "svc"
    given = environment(**own)
    assert {name: seen[name] for name in given if name != "PYTHONPATH"} == {
        name: value for name, value in given.items() if name != "PYTHONPATH"
    }
    assert not [name for name in seen if name.endswith("_FD")]  # the supervisor's pipes are not its business


def test_the_hook_arrives_in_code_that_never_mentions_it() -> None:
    with Running("run", target=OBEDIENT) as running:
        pid = running.answer()["pid"]
        status = running.until_guarding(hooks=1)
        assert [hook["pid"] for hook in status["hooks"]] == [pid]
        assert status["hooks"][0]["allocator"]["name"] == "glibc"
        assert status["sources"]["hook"]["status"] == "ok"


def test_no_inject_keeps_the_hook_out_and_everything_else_works() -> None:
    with Running("run", "--no-inject", "--limit", "1GiB", target=OBEDIENT) as running:
        running.answer()
        said = running.until_log("no hook has connected")
        assert "--no-inject" in said["reason"]
        status = running.status()
        assert status["hooks"] == []
        assert status["sources"]["hook"] == {
            "status": "absent",
            "reason": "no hook is connected",
            "seconds": status["sources"]["hook"]["seconds"],
        }
        assert status["level"]["limit"] == 1 << 30
        assert status["processes"][0]["process"] == "main"


def test_a_stdio_server_sees_every_byte_as_it_was_sent() -> None:
    sent = bytes(range(256)) * 64 + os.urandom(3 * MIB) + b"no newline at the end"
    done = subprocess.run(
        [*OOMGUARD, "run", "--listen", "127.0.0.1:0", "--", sys.executable, "-c", ECHO],
        input=sent, capture_output=True, env=environment(), timeout=60,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout == sent
    assert b"oomguard started" in done.stderr


def test_a_stdio_server_answers_line_by_line_while_it_is_guarded() -> None:
    with Running("run", target=OBEDIENT) as running:
        running.answer()
        running.until_guarding(hooks=1)
        assert [running.order("hold 1")["did"] for _ in range(50)] == ["hold"] * 50


# -- the ladder


def test_a_leak_is_cleaned_and_the_journal_says_so_before_and_after() -> None:
    with Running("run", "--limit", "192MiB", target=OBEDIENT) as running:
        running.answer()
        running.order("register")
        running.until_guarding(hooks=1)
        running.order("cache 165")
        running.until_journal("run_end")
        records = [record for record in running.journal() if "run" in record]
        status = running.status()

    events = [record["event"] for record in records]
    assert events[:3] == ["run_start", "step_start", "step_end"]
    assert events[-1] == "run_end"
    start, _, step, end = records[0], records[1], records[2], records[-1]
    assert start["limit"] == 192 * MIB
    assert start["used"] >= 0.75 * 192 * MIB
    assert step["step"] == "caches"
    assert step["outcome"] == "effective"
    assert step["hooks"]["main"]["cleared"] == ["pieces"]
    assert step["freed"] == step["used_before"] - step["used_after"] > 100 * MIB
    assert end["outcome"] == "goal_reached"
    assert end["used_after"] <= start["goal"]
    assert status["cleanup"]["last"] == {"run": end["run"], "outcome": "goal_reached"}


def test_a_service_that_leaks_all_the_time_is_saved_again_and_again() -> None:
    argv = workload("clearable_cache", "--rate", 150, "--seconds", 6)
    with Running("run", "--limit", "160MiB", target=argv) as running:
        running.answer()
        assert running.wait(60) == 0
        last = running.answer()
        ends = running.journal("run_end")
    assert last["cleared"] >= 3
    assert {end["outcome"] for end in ends} == {"goal_reached"}
    assert [end["run"] for end in ends] == list(range(1, len(ends) + 1))


def test_what_malloc_keeps_is_predicted_and_returned_by_trim() -> None:
    with Running("run", "--limit", "300MiB", target=OBEDIENT) as running:
        running.answer()
        running.until_guarding(hooks=1)
        running.order("scatter 200")
        running.order("drop")
        status = running.until_status(
            lambda status: (status["hooks"][0]["allocator"]["retained"] or 0) > 150e6, "a prediction"
        )
        predicted = status["hooks"][0]["allocator"]["retained"]
        assert "trim returns it" in status["advice"]
        running.order("hold 60")  # over 80 %: the ladder starts by itself
        running.until_journal("run_end")
        steps = {record["step"]: record for record in running.journal("step_end", "step_skipped")}
        assert running.order("hold 1")["did"] == "hold"
    trim = steps["trim"]
    assert trim["outcome"] == "effective"
    assert abs(trim["freed"] - predicted) < 0.2 * predicted
    assert steps["caches"]["reason"] == "nothing_registered"
    assert trim["stall"] > 0


def test_memory_cleanup_0_warns_and_never_acts() -> None:
    with Running("run", "--limit", "128MiB", target=OBEDIENT, env={"MEMORY_CLEANUP": "0"}) as running:
        running.answer()
        running.order("register")
        running.until_guarding(hooks=1)
        running.order("cache 108")
        running.until_log("memory usage warning: ")
        running.order("cache 15")
        running.until_log("memory usage critical: ")
        assert running.journal("run_start", "step_start") == []
        firing = [alert["labels"]["alertname"] for alert in running.status()["alerts"]]
        assert firing[:2] == ["MemoryHigh", "MemoryCritical"]
        assert "turned off (MEMORY_CLEANUP=0" in running.command("status").stdout


def test_a_cleanup_without_a_hook_says_which_steps_it_could_not_take() -> None:
    with Running("run", "--no-inject", "--limit", "128MiB", target=OBEDIENT) as running:
        running.answer()
        running.until_guarding()
        running.order("hold 120")
        (end, *_) = running.until_journal("run_end")
        skipped = running.journal("step_skipped")
        assert end["outcome"] == "goal_not_reached"
        assert {record["reason"] for record in skipped} == {"no_hook"}
        assert running.order("hold 1")["did"] == "hold"


# -- several processes


def test_forked_workers_are_summed_named_and_left_out_of_gc() -> None:
    with Running("run", "--limit", "2GiB", target=OBEDIENT) as running:
        main = running.answer()["pid"]
        running.order("hold 40")
        children = running.order("fork 3")["children"]
        status = running.until_guarding(hooks=4)
        status = running.until_status(lambda status: len(status["processes"]) == 4, "four processes")
        by_slot = {process["process"]: process["pid"] for process in status["processes"]}
        assert by_slot["main"] == main
        assert set(by_slot) == {"main", "worker-1", "worker-2", "worker-3"}
        assert {by_slot[f"worker-{number}"] for number in (1, 2, 3)} == set(children)
        assert {hook["process"]: hook["forked"] for hook in status["hooks"]} == {
            "main": False, "worker-1": True, "worker-2": True, "worker-3": True,
        }  # fmt: skip
        # The heap is shared: PSS adds up to what there is, RSS would count it four times.
        rss = sum(process["rss"] for process in status["processes"])
        assert status["level"]["used"] < 0.6 * rss
        assert running.metric("oomguard_processes") == 4

        ordered = running.cleanup("--steps", "gc,trim", "--goal", "1MiB")
        assert ordered.returncode == 1
        assert "gc" in ordered.stdout
        assert "shared_heap" in ordered.stdout
        gc, trim = running.until_journal("step_end", 2)
        assert gc["outcome"] == "skipped"
        assert gc["reason"] == "shared_heap"
        assert {told["reason"] for told in gc["hooks"].values()} == {"shared_heap"}
        assert list(trim["hooks"]) != []


def test_the_worst_worker_comes_first() -> None:
    script = """
import json, os, sys, time
for size in (10, 90, 40):
    if os.fork() == 0:
        held = bytearray(b"x" * (size << 20))
        time.sleep(600)
        os._exit(0)
print(json.dumps({"pid": os.getpid()}), flush=True)
sys.stdin.read()
os.killpg(0, 9)
"""
    with Running("run", "--limit", "4GiB", target=[sys.executable, "-c", script]) as running:
        running.answer()
        running.until_guarding(hooks=4)
        status = running.until_status(
            lambda status: sum((process["uss"] or 0) > 9 * MIB for process in status["processes"]) == 3,
            "all sizes",
        )
        heaviest = sorted(status["processes"], key=lambda process: -process["uss"])
        running.cleanup("--steps", "trim", "--goal", "1MiB")
        (trim,) = running.until_journal("step_end")
    assert list(trim["hooks"])[:3] == [process["process"] for process in heaviest[:3]]


# -- restarts


def test_a_service_that_fails_is_started_again_until_it_succeeds(tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = f"echo x >> {count}; [ $(wc -l < {count}) -ge 3 ] || exit 9"
    with Running("run", "--restart", target=["sh", "-c", script]) as running:
        assert running.wait(60) == 0
        starts, exits = running.journal("target_start"), running.journal("target_exit")
        restarts = [pairs for pairs in running.log() if pairs["msg"] == "target restarts"]
    assert len(count.read_text().split()) == 3
    assert [record["code"] for record in exits] == [9, 9, 0]
    assert len({(record["pid"], record["start_ticks"]) for record in starts}) == 3
    assert [(float(pairs["in_seconds"]), pairs["restart"]) for pairs in restarts] == [(1.0, "1"), (2.0, "2")]


def test_what_one_process_could_not_give_is_asked_of_the_next() -> None:
    with Running("run", "--restart", "--limit", "160MiB", target=OBEDIENT) as running:
        running.answer()
        running.until_guarding(hooks=1)
        running.order("hold 145")
        running.until_journal("run_end")
        running.tell("exit 5")
        running.until_journal("target_start", 2)
        running.answer()
        running.until_guarding(hooks=1)
        before = len(running.journal())
        running.order("hold 145")
        wait_for(lambda: any(record["event"] == "run_end" for record in running.journal()[before:]), "a run")
        trim = next(record for record in running.journal()[before:] if record.get("step") == "trim")
    # The first one's failure would have held it back for 10 s. So steep a climb may leave it no time.
    assert trim.get("reason") != "cooldown"


def test_restarts_end_at_their_cap_with_the_targets_code() -> None:
    with Running("run", "--restart", "--max-restarts", "1", target=["sh", "-c", "exit 9"]) as running:
        assert running.wait(60) == 9
        assert running.until_log("giving up on the command")["restarts"] == "1"


# -- the log


def test_the_log_tells_start_warning_critical_actions_and_end() -> None:
    with Running("run", "--limit", "256MiB", "--goal", "50%", target=OBEDIENT) as running:
        pid = running.answer()["pid"]
        running.order("register")
        running.until_guarding(hooks=1)
        running.order("hold 120")
        running.order("cache 95")
        running.until_log("memory usage warning: ")
        running.until_journal("run_end")
        running.order("hold 125")
        running.until_log("memory usage critical: ")
        running.process.stdin.close()
        assert running.wait() == 0
        lines = running.log()

    def first(text: str) -> dict[str, str]:
        return next(pairs for pairs in lines if pairs["msg"].startswith(text))

    started = first("oomguard started")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", started["ts"])
    assert {"version", "url", "target", "journal", "acts", "high", "critical"} <= set(started)
    guarding = first("guarding")
    assert (guarding["pid"], guarding["limit"], guarding["origin"]) == (str(pid), "256.0 MiB", "configured")

    for kind, level in (("warning", "warning"), ("critical", "error")):
        said = first(f"memory usage {kind}: ")
        assert said["level"] == level
        found = re.fullmatch(rf"memory usage {kind}: (\d+\.\d)% of limit \((\d+) MB / 256 MB\)", said["msg"])
        assert found
        assert float(found[1]) == pytest.approx(100 * int(found[2]) / 256, abs=0.3)
        assert all(re.fullmatch(r"\d+ MB", said[name]) for name in ("rss", "vms", "available"))

    action = first("caches freed")
    found = re.fullmatch(r"caches freed (\d+) MB \((\d+) MB -> (\d+) MB\)", action["msg"])
    assert found
    assert int(found[1]) == pytest.approx(int(found[2]) - int(found[3]), abs=1)
    assert action["outcome"] == "effective"
    assert float(action["ratio_before"]) > float(action["ratio_after"])
    assert first("target ended")["code"] == "0"
    assert lines[-1]["msg"] == "oomguard stopped"


def test_the_log_can_be_json() -> None:
    with Running("run", "--log-format", "json", target=["true"]) as running:
        assert running.wait() == 0
        lines = [json.loads(line) for line in running.stderr().splitlines()]
    assert lines[0]["msg"] == "oomguard started"
    assert lines[0]["level"] == "info"
    assert lines[-1]["msg"] == "oomguard stopped"


@pytest.mark.parametrize("variable", ["LOG_LEVEL", "OOMGUARD_LOG_LEVEL"])
def test_log_level_silences_what_lies_below(variable: str) -> None:
    with Running("run", target=["true"], env={variable: "warning"}) as running:
        assert running.wait() == 0
        assert running.stderr() == ""


# -- what others read


def accept(port: int, kind: str) -> tuple[str, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": kind})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def test_the_live_metrics_pass_promtool_and_come_as_openmetrics_on_request() -> None:
    promtool = "/usr/bin/promtool"
    require(None if Path(promtool).exists() else "promtool is missing (apt-get install prometheus)")
    with Running("run", "--limit", "192MiB", target=OBEDIENT) as running:
        running.answer()
        running.order("register")
        running.until_guarding(hooks=1)
        running.order("cache 165")
        running.until_journal("run_end")
        content_type, text = accept(running.port, "text/plain")
        open_type, open_text = accept(running.port, "application/openmetrics-text; version=1.0.0")
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout + checked.stderr == ""
    assert content_type.startswith("text/plain; version=0.0.4")
    assert open_type.startswith("application/openmetrics-text")
    assert open_text.endswith("# EOF\n")
    assert "# EOF" not in text
    assert 'oomguard_memory_limit_bytes{origin="configured"' in text


def test_health_readiness_and_status_are_answered() -> None:
    with Running("run", "--limit", "1GiB", "--target", "svc", target=OBEDIENT) as running:
        running.answer()
        running.until_guarding()
        port = running.port
        assert read(port, "/healthz") == "ok\n"
        assert read(port, "/readyz") == "ok\n"
        health = read_json(port, "/health")
        status = running.status()
    assert health["status"] == "healthy"
    assert health["memory_limit_mb"] == 1024
    assert health["memory_percent"] == pytest.approx(100 * health["memory_mb"] / 1024, abs=0.1)
    assert status["target"] == "svc"
    assert status["level"]["limit"] == 1 << 30
    assert all(source["status"] in ("ok", "absent", "unsupported") for source in status["sources"].values())


def test_while_the_target_is_gone_nothing_is_made_up() -> None:
    with Running("run", "--restart", "--limit", "1GiB", target=OBEDIENT) as running:
        running.answer()
        running.until_guarding(hooks=1)
        assert running.metric("oomguard_target_up") == 1
        running.tell("exit 5")
        running.until_status(
            lambda status: status["pid"] is None and not status["processes"], "an empty status"
        )
        text = running.metrics()
        assert running.metric("oomguard_target_up") == 0
        assert "oomguard_memory_used_bytes{" not in text
        assert "oomguard_process_resident_memory_bytes{" not in text
        assert read_json(running.port, "/health")["status"] == "unknown"
        assert read(running.port, "/healthz") == "ok\n"
        # And it comes back.
        running.until_guarding()
        assert running.metric("oomguard_target_up") == 1
        assert running.metric("oomguard_target_starts_total") == 2


def test_a_scrape_reads_no_file() -> None:
    """Each read(2) of the sidecar is counted by the kernel; sockets are read by recv(2), which is not."""
    with Running("run", "--limit", "1GiB", target=OBEDIENT) as running:
        running.answer()
        running.until_guarding(hooks=1)
        port, pid = running.port, running.sidecar

        def reads() -> int:
            text = Path(f"/proc/{pid}/io").read_text()
            return int(dict(line.split(": ") for line in text.splitlines())["syscr"])

        def slow_ticks() -> float:
            return running.metric("oomguard_sampler_ticks_total", lane="slow") or 0.0

        # What the sampler itself reads: the most that any slow tick takes.
        wait_for(lambda: slow_ticks() >= 3, "three slow ticks")
        before, ticks_before = reads(), slow_ticks()
        for _ in range(500):
            read(port, "/metrics")
            read(port, "/api/v1/status")
        grown, ticks = reads() - before, slow_ticks() - ticks_before
    assert grown < 200 * (ticks + 1)
    assert grown < 500
