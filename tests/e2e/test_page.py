"""The live page in a real browser: headless Chromium loads it from a live sidecar and runs its script."""

from __future__ import annotations

import html
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.boxes import require
from tests.support.client import read
from tests.support.command import OBEDIENT, Running
from tests.support.guarded import workload

pytestmark = pytest.mark.real

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    require(None if found else "chromium is missing (apt-get install chromium)")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    """A target whose name and command line are markup, after one cleanup."""
    with Running(
        "run", "--limit", "192MiB", "--target", "<b>svc</b>", target=[*OBEDIENT, "<img src=x>"]
    ) as running:
        running.pid = running.answer()["pid"]
        running.order("register")
        running.until_guarding(hooks=1)
        running.order("cache 165")
        running.until_journal("run_end")
        # The page shows the last slow tick. What was put in after the cleanup, which is quicker, is still there.
        running.until_status(
            lambda status: any(
                cache["bytes"] < 40_000_000 for hook in status["hooks"] for cache in hook["caches"]
            ),
            "the emptied cache",
        )
        yield running


def load(browser: str, url: str, folder: Path, *, milliseconds: int = 3000) -> tuple[str, str]:
    """The page's DOM after its script has run for a while, and what the browser asked of the network."""
    log = folder / "net.json"
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run",
            f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", "--enable-logging=stderr", "--v=0",
            f"--virtual-time-budget={milliseconds}", "--dump-dom", url,
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "CONSOLE" not in done.stderr, done.stderr  # an error or a warning of the page's
    return done.stdout, log.read_text()


def cells(dom: str, body: str) -> list[list[str]]:
    """The texts of a table's body, row by row."""
    found = re.search(rf'<tbody id="{body}">(.*?)</tbody>', dom, re.DOTALL)
    assert found
    rows = re.findall(r"<tr>(.*?)</tr>", found[1], re.DOTALL)
    return [
        [html.unescape(cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)] for row in rows
    ]


def text(dom: str, identity: str) -> str:
    found = re.search(rf'id="{identity}"[^>]*>(.*?)</', dom, re.DOTALL)
    assert found
    return html.unescape(found[1])


@pytest.fixture(scope="module")
def loaded(browser: str, running: Running, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return load(browser, running.url + "/", tmp_path_factory.mktemp("page"))


def test_it_shows_the_target_its_memory_and_its_state(loaded: tuple[str, str], running: Running) -> None:
    dom, _ = loaded
    assert text(dom, "target") == "<b>svc</b>"
    assert "<title>&lt;b&gt;svc&lt;/b&gt; " in dom
    assert re.fullmatch(r"\d+\.\d %", text(dom, "used"))
    assert re.fullmatch(r"\d+\.\d MiB of 192\.0 MiB \(limit: configured, counted: pss\)", text(dom, "of"))
    assert text(dom, "state") == "healthy"
    assert text(dom, "trouble") == ""


def test_it_shows_each_process(loaded: tuple[str, str], running: Running) -> None:
    (main,) = cells(loaded[0], "processes")
    assert main[:2] == ["main", str(running.pid)]
    assert re.fullmatch(r"\d+\.\d MiB", main[2])
    assert main[-1].endswith("obedient.py <img src=x>")  # as text: the target's words are not ours
    assert "<img" not in loaded[0]


def test_it_shows_what_each_hook_tells(loaded: tuple[str, str]) -> None:
    ((process, runtime, state, models, streams),) = cells(loaded[0], "hooks")
    assert (process, state, models, streams) == ("main", "answering", "", "")
    assert runtime.startswith("python 3.")


def test_a_stall_and_the_parts_are_shown(browser: str, tmp_path: Path) -> None:
    """The whole of it: two workers with a model and a stream, one of them stopped, the others shedding."""
    with Running("run", "--limit", "4GiB", target=workload("parts")) as running:
        workers = running.answer()["workers"]
        running.order("use 0")
        running.cleanup("--steps", "shed")
        running.until_status(
            lambda status: any(
                hook["pid"] == workers[0] and hook.get("models") and hook["models"][0]["state"] == "loaded"
                and hook.get("shed", {}).get("on")
                for hook in status.get("hooks", ())
            ),
            "the loaded model",
        )  # fmt: skip
        os.kill(workers[1], signal.SIGSTOP)
        try:
            running.until_status(lambda status: status["stalled"], "the stall")
            rows = {row[0]: row for row in cells(load(browser, running.url + "/", tmp_path)[0], "hooks")}
        finally:
            os.kill(workers[1], signal.SIGCONT)
    assert rows["worker-1"][2] == "answering, shedding"
    assert re.fullmatch(r"jina loaded \d+\.\d MiB", rows["worker-1"][3])
    assert rows["worker-1"][4] == "1 open"
    assert rows["worker-2"][2].startswith("stalled for ")
    assert rows["main"][2] == "answering"


def test_it_shows_what_was_cleaned_up(loaded: tuple[str, str]) -> None:
    journal = cells(loaded[0], "journal")
    (step,) = [row for row in journal if row[2] == "step end"]
    assert re.fullmatch(r"caches: freed 1\d\d\.\d MiB \(1\d\d\.\d MiB → \d+\.\d MiB\) in \d+ ms", step[3])
    assert step[1:3] + step[4:] == ["run 1", "step end", "effective"]
    (end,) = [row for row in journal if row[2] == "run end"]
    assert end[4] == "goal reached"


def test_it_draws_memory_against_the_limit(loaded: tuple[str, str]) -> None:
    chart = re.search(r'<svg id="chart".*?</svg>', loaded[0], re.DOTALL)
    assert chart
    assert len(re.findall(r"<path ", chart[0])) == 2
    assert {label.split()[0] for label in re.findall(r"<text[^>]*>(.*?)</text>", chart[0])} == {
        "limit", "critical", "high", "goal",
    }  # fmt: skip
    assert "NaN" not in chart[0]


def test_it_shows_the_sources(loaded: tuple[str, str]) -> None:
    sources = {row[0]: row[1] for row in cells(loaded[0], "sources")}
    assert sources["processes"] == "ok"
    assert sources["hook"] == "ok"


def test_nothing_is_asked_of_any_other_host(loaded: tuple[str, str], running: Running) -> None:
    """By the browser's own log of its network (it asks its maker for updates, too), and by the page's text."""
    events = [event.get("params", {}) for event in json.loads(loaded[1])["events"]]
    asked = {event["url"] for event in events if event.get("initiator") == running.url and "url" in event}
    assert {url.partition("?")[0].removeprefix(running.url) for url in asked} == {
        "/api/v1/status", "/api/v1/history", "/api/v1/journal",
    }  # fmt: skip
    page = read(running.port, "/")
    assert not re.findall(r"(?:src|href)=[\"']?(?:https?:)?//", page)


def test_without_a_sidecar_it_says_so(browser: str, running: Running, tmp_path: Path) -> None:
    """The page that was loaded, served by something that answers nothing else."""
    page = read(running.port, "/").encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/" else 503)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.end_headers()
            self.wfile.write(page if self.path == "/" else b"")

        def log_message(self, *args: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--disable-background-networking", f"--user-data-dir={tmp_path}", "--virtual-time-budget=1000",
            "--dump-dom", f"http://127.0.0.1:{server.server_port}/",
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    server.shutdown()
    server.server_close()
    assert re.fullmatch(r"the sidecar does not answer \(api/v1/\S+: 503\)", text(done.stdout, "trouble"))
