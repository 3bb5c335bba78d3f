"""The commands that ask and order: what they print for people, what for machines, and whom they ask."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest
from tests.support.client import read
from tests.support.command import OBEDIENT, OOMGUARD, Running, environment, oomguard
from tests.support.supervised import wait_for

from oomguard import __version__
from oomguard.cli import COMMANDS

MIB = 1 << 20


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """A target with a cache of 100 MB below a limit of 1 GiB: nothing happens unless it is ordered."""
    with Running("run", "--limit", "1GiB", "--target", "svc", target=OBEDIENT) as running:
        running.pid = running.answer()["pid"]
        running.order("register")
        running.order("cache 100")
        running.until_guarding(hooks=1)
        wait_for(lambda: running.status()["processes"][0]["rss"] > 100 << 20, "a look at the filled cache")
        yield running


# -- help and version


def test_version() -> None:
    done = oomguard("--version")
    assert (done.returncode, done.stdout) == (0, f"oomguard {__version__}\n")


def test_help_names_every_command() -> None:
    for arguments in ((), ("--help",)):
        done = oomguard(*arguments)
        assert done.returncode == 0
        assert all(f"    {name} " in done.stdout and text in done.stdout for name, text in COMMANDS)


@pytest.mark.parametrize("name", [name for name, _ in COMMANDS])
def test_help_of_a_command_names_each_option_with_a_text(name: str) -> None:
    done = oomguard(name, "--help", env={"COLUMNS": "200"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: oomguard {name} ")
    options = [line for line in done.stdout.splitlines() if line.startswith("  -")]
    assert all(re.search(r"\S {2,}\S", line[2:]) for line in options), options


def test_help_can_be_printed_where_the_locale_has_no_ellipsis() -> None:
    done = oomguard("run", "--help", env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")


# -- demo


def test_the_demo_shows_an_address_and_saves_its_service_and_ends_quietly() -> None:
    command = [*OOMGUARD, "demo", "--listen", "127.0.0.1:0", "--limit", "64MiB"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as demo:  # fmt: skip
        assert "64.0 MiB, guarded" in demo.stdout.readline()
        page = re.search(r"Live page: http://127\.0\.0\.1:(\d+)/ ", demo.stdout.readline())
        assert page
        wait_for(
            lambda: reached(
                int(page[1]), 'oomguard_cleanup_runs_total{outcome="goal_reached",target="demo"}'
            ),
            "a cleanup",
        )
        demo.send_signal(signal.SIGINT)
        errors = demo.stderr.read()
        assert demo.wait(20) == 0
    assert "Traceback" not in errors


def reached(port: int, series: str) -> bool:
    with contextlib.suppress(OSError):
        value = next(line for line in read(port, "/metrics").splitlines() if line.startswith(series))
        return float(value.rpartition(" ")[2]) > 0
    return False


# -- status


def test_status_for_people(running: Running) -> None:
    done = running.command("status")
    assert (done.returncode, done.stderr) == (0, "")
    first, memory, *_ = done.stdout.splitlines()
    assert first == f"svc  {running.url}"
    assert re.fullmatch(
        r"memory   \d+\.\d% of limit: 1\d\d\.\d MiB / 1\.00 GiB \(limit: configured, counted: pss\), healthy",
        memory,
    )
    assert re.search(rf"^main +{running.pid} +1\d\d\.\d MiB +\S+ MiB +\d+  \S+.*$", done.stdout, re.MULTILINE)
    assert re.search(r"^hook +ok$", done.stdout, re.MULTILINE)
    assert "in registered caches: caches returns it" in done.stdout


def test_status_as_json_is_the_apis(running: Running) -> None:
    done = running.command("status", "--json")
    told = json.loads(done.stdout)
    assert told.keys() == running.status().keys()
    assert told["target"] == "svc"
    assert told["processes"][0]["pid"] == running.pid


def test_status_of_a_hook(running: Running) -> None:
    told = json.loads(running.command("status", "--hook", str(running.pid)).stdout)
    assert told["pid"] == running.pid
    assert told["caches"][0]["name"] == "pieces"
    assert told["caches"][0]["bytes"] > 90 * MIB
    assert told["allocator"]["name"] == "glibc"
    missing = running.command("status", "--hook", "1")
    assert missing.returncode == 2
    assert missing.stderr == (
        f"oomguard: --hook 1: no hook of that process is connected (connected: {running.pid})\n"
    )


def test_a_command_line_can_not_play_with_the_terminal() -> None:
    target = ["/bin/sh", "-c", "echo '{}'; read line", "\x1b[2J", "two\nlines"]
    with Running("run", "--limit", "1GiB", target=target) as running:
        running.answer()
        running.until_guarding()
        out = running.command("status").stdout
    assert "\x1b" not in out
    assert re.search(r"^main .* two lines$", out, re.MULTILINE)


# -- cleanup and journal


def test_a_cleanup_is_waited_for_and_told_step_by_step(running: Running) -> None:
    running.order("cache 100")
    done = running.cleanup("--steps", "caches", "--goal", "64MiB")
    assert (done.returncode, done.stderr) == (0, "")
    first, step, end = done.stdout.splitlines()
    assert re.fullmatch(r"run \d+: \d+\.\d MiB used, goal 64\.0 MiB", first)
    assert re.fullmatch(
        r"  caches freed \d+\.\d MiB \(\S+ MiB -> \S+ MiB\) in \d+ ms: effective, cleared pieces", step
    )
    assert re.fullmatch(r"  goal reached: freed \d+\.\d MiB \(\S+ MiB -> \S+ MiB\)", end)

    lines = running.command("journal").stdout.splitlines()
    assert re.search(
        r"run start +manual: \d+\.\d MiB of 1\.00 GiB used, goal 64\.0 MiB, steps caches$", lines[-5]
    )
    assert lines[-4].endswith("request        by hand: started")
    assert re.search(r"step start +caches, \d+\.\d MiB used$", lines[-3])
    assert lines[-2].endswith(step.strip())
    assert lines[-1].endswith(end.strip())
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  run \d+ +run start ", lines[-5])


def test_a_cleanup_that_is_not_needed_says_so(running: Running) -> None:
    done = running.cleanup()
    assert done.returncode == 0
    assert "not needed" in done.stdout


def test_a_cleanup_that_misses_its_goal_ends_with_1(running: Running) -> None:
    done = running.cleanup("--goal", "1MiB")
    assert done.returncode == 1
    assert "goal not reached" in done.stdout


def test_steps_and_goals_that_there_are_not_are_refused(running: Running) -> None:
    for arguments, text in (
        (("--steps", "dance"), "unknown step 'dance'; the steps are caches, gc, trim"),
        (("--steps", ","), "--steps ',' names no step"),
        (("--goal", "lots"), "'lots' is not a threshold"),
    ):
        done = running.cleanup(*arguments)
        assert done.returncode == 2
        assert text in done.stderr


def test_a_wrong_token_and_how_to_mend_it(running: Running) -> None:
    env = {"OOMGUARD_RUNTIME_DIR": str(running.runtime_dir), "OOMGUARD_TOKEN": "wrong"}
    done = oomguard("cleanup", env=env)
    assert done.returncode == 2
    assert done.stderr == (
        f"oomguard: {running.url}: this is not its token; set OOMGUARD_TOKEN to what the file token in its "
        "runtime directory holds\n"
    )


def test_the_journal_as_json_and_from_a_file(running: Running) -> None:
    file = running.runtime_dir / "journal.jsonl"
    records = [
        json.loads(line) for line in running.command("journal", "--json", "-n", "3").stdout.splitlines()
    ]
    assert records == [json.loads(line) for line in file.read_text().splitlines()[-3:]]
    assert len(oomguard("journal", "--file", file, "-n", "2").stdout.splitlines()) == 2
    gone = oomguard("journal", "--file", file.with_name("none"))
    assert gone.returncode == 2
    assert gone.stderr.endswith("no such file or directory; give a journal that can be read\n")


def test_a_pager_that_has_had_enough_is_no_error(running: Running) -> None:
    with subprocess.Popen(
        [*OOMGUARD, "journal", "-n", "100"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(OOMGUARD_RUNTIME_DIR=str(running.runtime_dir)),
    ) as journal:  # fmt: skip
        journal.stdout.close()
        assert journal.stderr.read() == ""
        assert journal.wait() == 141


# -- whom


def test_the_sidecar_of_the_runtime_directory_comes_before_others(running: Running) -> None:
    with Running("run", "--target", "other", target=OBEDIENT) as other:
        other.answer()
        other.until_guarding()
        assert other.command("status").stdout.startswith(f"other  {other.url}")
        assert running.command("status").stdout.startswith(f"svc  {running.url}")
        by_url = oomguard("status", "--url", other.url.removeprefix("http://"))
        assert by_url.stdout.startswith(f"other  {other.url}")
        assert oomguard("status", env={"OOMGUARD_URL": running.url + "/"}).stdout.startswith("svc  ")


def test_several_sidecars_are_listed_and_one_must_be_named() -> None:
    with contextlib.ExitStack() as stack:
        # In the places where they are looked for, unlike those of the other tests.
        run = (*OOMGUARD, "run", "--listen", "127.0.0.1:0", "--", "cat")
        processes = []
        for _ in range(2):
            process = stack.enter_context(
                subprocess.Popen(
                    run, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
                )
            )
            processes.append(process)
        urls = [re.search(r"url=(\S+)", process.stderr.readline())[1] for process in processes]

        def told() -> subprocess.CompletedProcess[str] | None:
            done = oomguard("status")
            return done if all(url in done.stderr for url in urls) else None

        done = wait_for(told, "both addresses")
        assert done.returncode == 2
        assert done.stderr.startswith("oomguard: several sidecars are running here: http://")
        assert done.stderr.endswith("; name one with --url\n")
        # Its token is found too: a cleanup may be ordered.
        ordered = oomguard("cleanup", "--url", urls[1])
        assert ordered.stdout.startswith("run 1: ")
        for process in processes:
            process.stdin.close()
            assert process.wait(20) == 0


def test_addresses_that_are_none(running: Running) -> None:
    for url, text in (
        ("ftp://x", "is not an address; write for example http://127.0.0.1:10512"),
        ("http://[", "is not an address"),
        ("127.0.0.1:x", "is not an address"),
        ("127.0.0.1:99999", "is not an address"),
        ("127.0.0.1:1", "no sidecar answers: connection refused; check the address"),
    ):
        done = oomguard("status", "--url", url)
        assert done.returncode == 2
        assert text in done.stderr
        assert len(done.stderr.splitlines()) == 1
    page = oomguard("status", "--url", running.url + "/nowhere")
    assert page.stdout.startswith("svc  ")  # only host and port of an address count


def test_what_is_not_oomguard_is_told_apart() -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    done = oomguard("status", "--url", f"127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()
    assert done.returncode == 2
    assert "what answers there is not oomguard" in done.stderr


def test_a_status_while_there_is_no_target() -> None:
    with Running("watch", "--match", "no-such-process-anywhere") as watching:
        watching.until_status(lambda status: status.get("sources"), "a status")
        assert "memory   unknown: waiting for the target" in watching.command("status").stdout
        done = watching.cleanup()
        assert done.returncode == 2
        assert "waiting for the target" in done.stderr
        assert read(watching.port, "/healthz") == "ok\n"
