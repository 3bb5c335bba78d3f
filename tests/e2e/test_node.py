"""The Node hook in a real Node: it comes by itself, answers, is not noticed, and keeps a service alive."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.boxes import require
from tests.support.command import Running
from tests.support.fake_sidecar import TIMEOUT, FakeSidecar
from tests.support.guarded import WORKLOADS
from tests.support.supervised import wait_for
from tests.support.targets import ROOT, Target, build_wheel, clean_environment

from oomguard import inject

pytestmark = pytest.mark.real

HOOK = ROOT / "exporter" / "node"
GROWS = WORKLOADS / "node_grows.js"
SOON = 1.0
"""Seconds in which a hook that must not come would have come (it takes 0.1 s)."""
WAITING = "process.stdout.write('ready\\n'); process.stdin.resume();"
"""A program that lives until its standard input is closed."""


@pytest.fixture(scope="session")
def node() -> str:
    found = shutil.which("node")
    require(None if found else "no node here")
    assert found is not None
    return found


@pytest.fixture
def sidecar(tmp_path: Path) -> Iterator[FakeSidecar]:
    with FakeSidecar(tmp_path) as running:
        yield running


def injected(sidecar: FakeSidecar, **variables: str) -> dict[str, str]:
    outside = {name: value for name, value in clean_environment().items() if name != "NODE_OPTIONS"}
    return inject.environment({**outside, **variables}, sidecar.runtime_dir, target="here")


def script(folder: Path, text: str = WAITING, name: str = "app.js") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def version(node: str) -> int:
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    return int(told[1:].split(".")[0])


# -- its own tests


def test_its_own_tests_pass(node: str) -> None:
    files = sorted((ROOT / "tests" / "node").glob("*.test.js"))
    assert files
    ran = subprocess.run([node, "--test", *files], capture_output=True, text=True, env=clean_environment())
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]
    counted = {name: int(value) for name, value in re.findall(r"^\S (\w+) (\d+)$", ran.stdout, re.MULTILINE)}
    assert counted["pass"] >= 60
    assert counted["fail"] == counted["cancelled"] == 0


# -- it comes by itself


def test_it_comes_into_an_application_and_tells_how_v8_is(
    node: str, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    with Target([node, script(tmp_path)], injected(sidecar)) as target:
        hook = sidecar.accept_pid(target.pid)
        assert (hook.hello["hello"], hook.hello["runtime"], hook.hello["target"]) == (1, "node", "here")
        assert hook.hello["pid"] == target.pid
        assert hook.hello["pidns"] == Path(f"/proc/{target.pid}/ns/pid").stat().st_ino
        stat = Path(f"/proc/{target.pid}/stat").read_text()
        assert hook.hello["start_ticks"] == int(stat.rpartition(")")[2].split()[19])
        reading = hook.reading()
        heap = reading["heap"]
        assert 0 < heap["used"] <= heap["size"] < heap["limit"]
        assert heap["external"] >= heap["array_buffers"] >= 0
        assert {"old_space", "new_space"} <= {space["name"] for space in heap["spaces"]}
        assert reading["gc"]["status"] == "ok"
        assert set(reading["gc"]["kinds"]) == {"minor", "major", "incremental", "weakcb"}
        assert reading["loop"]["lag"] >= 0
        assert reading["caches"] == reading["models"] == reading["budgets"] == reading["limits"] == []
        assert reading["streams"]["open"] == 0
        assert reading["requests"]["in_flight"] == 0
        assert reading["shed"] == {"on": False, "refused": 0}
        assert target.finish() == (0, "", "")


def test_steps_are_taken_and_measured(node: str, sidecar: FakeSidecar, tmp_path: Path) -> None:
    program = f"""
        const guard = require({json.dumps(str(HOOK))}).start();
        let bulk = Array.from({{length: 500000}}, (_, index) => ({{index}}));
        guard.cache('bulk', {{clear: () => {{ bulk = []; }}, entries: () => bulk.length}});
        {WAITING}"""
    with Target([node, script(tmp_path, program)], injected(sidecar)) as target:
        hook = sidecar.accept_pid(target.pid)
        before = hook.reading()
        assert before["caches"] == [{"name": "bulk", "bytes": None, "entries": 500_000}]
        assert hook.step("caches")["details"] == {"cleared": ["bulk"]}
        collected = hook.step("gc")
        assert collected["status"] == "done"
        assert collected["details"]["heap"] > 10_000_000
        assert 0 < collected["seconds"] == collected["stall"] < 5
        after = hook.reading()
        assert before["heap"]["used"] - after["heap"]["used"] > 10_000_000
        assert sum(after["gc"]["kinds"]["major"]["counts"]) >= 1
        assert len(after["gc"]["kinds"]["major"]["counts"]) == len(after["gc"]["pause_bounds"]) + 1
        assert hook.step("gc", within=0.0)["reason"] == "no_time"
        assert hook.step("trim")["status"] == hook.step("dance")["status"] == "unsupported"
        assert hook.step("streams")["reason"] == hook.step("models")["reason"] == "nothing_registered"
        assert hook.step("shed")["details"]["on"] is True
        assert hook.reading()["shed"]["on"] is True
        assert hook.step("shed", name="off")["details"]["on"] is False
        assert hook.ask("dance")["error"] == "unknown ask 'dance'"
        assert target.finish()[0] == 0


def test_gc_becomes_no_global_of_the_application(node: str, sidecar: FakeSidecar, tmp_path: Path) -> None:
    program = """
        process.stdout.write('ready\\n');
        process.stdin.resume().on('end', () => {
          const seen = [typeof gc, require('vm').runInNewContext('typeof gc')];
          process.stdout.write(JSON.stringify(seen));
        });"""
    with Target([node, script(tmp_path, program)], injected(sidecar)) as target:
        assert sidecar.accept_pid(target.pid).step("gc")["status"] == "done"
        assert target.finish() == (0, '["undefined","undefined"]', "")


@pytest.mark.parametrize("folder", ["plain", "with a space", 'with "quotes" and \\backslash'])
def test_a_path_with_spaces_is_borne(node: str, sidecar: FakeSidecar, tmp_path: Path, folder: str) -> None:
    place = tmp_path / folder / "node"
    shutil.copytree(HOOK, place)
    options = inject.node_options("--max-old-space-size=99", str(place / "autostart.js"))
    with Target([node, script(tmp_path)], {**injected(sidecar), "NODE_OPTIONS": options}) as target:
        hook = sidecar.accept_pid(target.pid)
        assert 99 << 20 <= hook.reading()["heap"]["limit"] < 400 << 20


def test_it_comes_into_an_es_module_too_and_is_the_guard_that_this_imports(
    node: str, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    copy = tmp_path / "node_modules" / "oomguard-hook"
    shutil.copytree(HOOK, copy)
    program = f"""
        import {{ start, BudgetExceeded }} from 'oomguard-hook';
        start().cache('mine', {{ clear() {{}} }});
        if (!(new BudgetExceeded('x', 1, 2) instanceof RangeError)) throw new Error();
        {WAITING}"""
    with Target([node, script(tmp_path, program, "app.mjs")], injected(sidecar)) as target:
        hook = sidecar.accept_pid(target.pid)
        assert [cache["name"] for cache in hook.reading()["caches"]] == ["mine"]
        assert sidecar.nobody(SOON), "two copies of the package made two connections"


def test_the_wheel_brings_it(node: str, sidecar: FakeSidecar, tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path / "build")
    shutil.unpack_archive(wheel, tmp_path / "unpacked", "zip")
    start = tmp_path / "unpacked" / "oomguard" / "node" / "autostart.js"
    assert not (start.parent / "node_modules").exists()
    env = {**injected(sidecar), "NODE_OPTIONS": inject.node_options("", str(start))}
    with Target([node, script(tmp_path)], env) as target:
        sidecar.accept_pid(target.pid)


def test_npm_start_gets_none_and_the_node_that_it_starts_gets_one(
    node: str, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    npm = shutil.which("npm")
    require(None if npm else "no npm here")
    script(tmp_path)
    (tmp_path / "package.json").write_text('{"scripts": {"start": "node app.js"}}')
    home = {"npm_config_update_notifier": "false", "npm_config_cache": str(tmp_path / "cache")}
    with Target([str(npm), "--silent", "start"], injected(sidecar, **home), cwd=tmp_path) as target:
        hook = sidecar.accept()
        assert hook.pid != target.pid
        assert b"app.js" in Path(f"/proc/{hook.pid}/cmdline").read_bytes()
        assert sidecar.nobody(SOON)
        assert "npm gets no hook" in inject.no_hook_cause("/proc", target.pid)


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["-e", WAITING], "without a script"),
        (["-p", WAITING], "without a script"),
        (["/yarn.js"], "yarn gets no hook"),
        (["/pnpm.cjs"], "pnpm gets no hook"),
        (["/node-gyp.js"], "node-gyp gets no hook"),
    ],
)
def test_one_liners_and_package_managers_get_none(
    node: str, sidecar: FakeSidecar, tmp_path: Path, arguments: list[str], cause: str
) -> None:
    if arguments[0].startswith("/"):
        arguments = [str(script(tmp_path, name=arguments[0][1:]))]
    with Target([node, *arguments], injected(sidecar)) as target:
        assert sidecar.nobody(SOON)
        assert cause in inject.no_hook_cause("/proc", target.pid)


@pytest.mark.parametrize("variable", ["OOMGUARD_HOOK", "OOMGUARD_INJECT"])
def test_it_can_be_turned_off(node: str, sidecar: FakeSidecar, tmp_path: Path, variable: str) -> None:
    with Target([node, script(tmp_path)], {**injected(sidecar), variable: "0"}) as target:
        assert sidecar.nobody(SOON)
        assert f"{variable}=0" in inject.no_hook_cause("/proc", target.pid) or variable == "OOMGUARD_INJECT"


def test_a_worker_thread_makes_no_connection_of_its_own(
    node: str, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    program = f"""
        const {{ Worker }} = require('worker_threads');
        const code = "const g = require({str(HOOK)!r}).start(); g.cache('in a worker', {{clear() {{}}}});" +
                     "require('worker_threads').parentPort.postMessage(g.status().reason);" +
                     "setInterval(() => {{}}, 1000)";
        const worker = new Worker(code, {{ eval: true }});
        worker.on('message', (text) => process.stdout.write(text + '\\n'));
        process.stdin.resume().on('end', () => process.exit(3));"""
    with Target([node, script(tmp_path, program)], injected(sidecar)) as target:
        assert "worker thread" in target.first_line
        sidecar.accept_pid(target.pid)
        assert sidecar.nobody(SOON)
        assert target.finish()[0] == 3


def test_each_process_of_a_cluster_and_each_fork_has_a_connection(
    node: str, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    program = """
        const cluster = require('cluster');
        const { fork } = require('child_process');
        if (cluster.isPrimary && process.argv[2] !== 'child') {
          cluster.fork(); cluster.fork(); fork(__filename, ['child']);
          process.stdout.write('ready\\n');
          process.stdin.resume().on('end', () => process.exit());
        } else process.on('disconnect', () => process.exit()), setInterval(() => {}, 1000);"""
    with Target([node, script(tmp_path, program)], injected(sidecar)) as target:
        hooks = [sidecar.accept() for _ in range(4)]
        assert len({hook.pid for hook in hooks}) == 4
        assert target.pid in {hook.pid for hook in hooks}
        assert all(hook.reading()["heap"]["used"] for hook in hooks)
        target.finish()


def test_an_abstract_socket_is_reached_where_node_can(node: str, tmp_path: Path) -> None:
    name = f"@oomguard-test-{os.getpid()}"
    program = f"""
        const guard = require({json.dumps(str(HOOK))}).start();
        process.stdout.write('ready\\n');
        process.stdin.resume().on('end', () => process.stdout.write(guard.status().reason));"""
    with (
        FakeSidecar(name) as sidecar,
        Target([node, script(tmp_path, program)], injected(sidecar)) as target,
    ):
        if version(node) >= 22:
            assert sidecar.accept_pid(target.pid).reading()["heap"]["used"]
        else:
            assert sidecar.nobody(SOON)
            assert "can't connect to abstract sockets" in target.finish()[1]


def test_after_the_sidecar_has_gone_and_come_it_is_there_again(node: str, tmp_path: Path) -> None:
    with FakeSidecar(tmp_path) as first, Target([node, script(tmp_path)], injected(first)) as target:
        first.accept_pid(target.pid)
        first.close()
        with FakeSidecar(tmp_path) as second:
            assert second.accept_pid(target.pid).reading()["heap"]["used"]


# -- it is not noticed


NOTICED = """
    const names = ['exit', 'uncaughtException', 'unhandledRejection', 'SIGTERM', 'SIGINT', 'warning', 'beforeExit'];
    console.log(JSON.stringify([names.map((name) => process.listenerCount(name)), Object.keys(globalThis),
                                process._getActiveHandles().length, typeof gc]));
"""


@pytest.mark.parametrize(
    "text",
    [
        NOTICED,
        "setTimeout(() => console.log('later'), 300)",
        "setTimeout(() => { throw new Error('mine') }, 200)",
        "setTimeout(() => Promise.reject(new Error('mine')), 200)",
        "setTimeout(() => process.exit(7), 200)",
        "process.exitCode = 9",
        "process.on('beforeExit', () => console.log('before')); setTimeout(() => {}, 200)",
        "setTimeout(() => process.kill(process.pid, 'SIGTERM'), 200); setInterval(() => {}, 1000)",
        "globalThis.setTimeout = globalThis.setImmediate = () => { throw 1 }; require('timers').setTimeout = null",
    ],
)
def test_a_program_ends_and_prints_as_without_it(
    node: str, sidecar: FakeSidecar, tmp_path: Path, text: str
) -> None:
    def run(env: dict[str, str]) -> tuple[int, str, str]:
        ran = subprocess.run(
            [node, script(tmp_path, text)], env=env, capture_output=True, text=True, timeout=TIMEOUT
        )
        return ran.returncode, ran.stdout, ran.stderr

    plain = {name: value for name, value in clean_environment().items() if name != "NODE_OPTIONS"}
    assert run(injected(sidecar)) == run(plain)


def test_it_keeps_no_process_alive_even_while_it_is_connected_or_searches(node: str, tmp_path: Path) -> None:
    program = "setTimeout(() => console.log('done'), 400)"
    with FakeSidecar(tmp_path) as sidecar:
        target = Target([node, script(tmp_path, program)], injected(sidecar), ready=False)
        with target:
            sidecar.accept_pid(target.pid).reading()
            assert target.finish() == (0, "done\n", "")
    env = injected(sidecar)
    env["OOMGUARD_RUNTIME_DIR"] = str(tmp_path / "nowhere")
    ran = subprocess.run(
        [node, tmp_path / "app.js"], env=env, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "done\n", "")


def test_a_very_short_program_leaves_no_trace(node: str, sidecar: FakeSidecar, tmp_path: Path) -> None:
    subprocess.run([node, script(tmp_path, "1")], env=injected(sidecar), check=True, timeout=TIMEOUT)
    assert sidecar.nobody(0.3)


def test_garbage_from_the_sidecar_harms_nobody(node: str, sidecar: FakeSidecar, tmp_path: Path) -> None:
    with Target([node, script(tmp_path)], injected(sidecar)) as target:
        for garbage in (b"\xff\xfe\n", b"{}\n", b"[" * 70_000, b'{"id": null, "ask": "reading"}\n'):
            hook = sidecar.accept_pid(target.pid)
            hook.send(garbage)
            hook.wait_closed()
        hook = sidecar.accept_pid(target.pid)
        for within in ("soon", -1, [], {"a": 1}):
            assert hook.ask("step", step="caches", name=["x"], within=within)["step"]["status"] == "skipped"
        assert target.finish() == (0, "", "")


def test_callbacks_that_throw_or_never_end_hold_up_the_hook_alone(
    node: str, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    program = f"""
        const guard = require({json.dumps(str(HOOK))}).start();
        const never = () => new Promise(() => {{}});
        guard.cache('throws', {{ clear() {{ throw undefined; }}, size() {{ throw 1; }} }});
        guard.cache('calls', {{ clear: () => guard.cache('calls', {{ clear() {{}} }}) }});
        guard.model('endless', {{ load: never }}).use(() => {{}});
        guard.stream('odd', {{ evict: never }});
        let count = 0;
        setInterval(() => count++, 10);
        process.stdout.write('ready\\n');
        process.stdin.resume().on('end', () => setInterval(() => count > 10 && process.exit(5), 10));"""
    with Target([node, script(tmp_path, program)], injected(sidecar)) as target:
        hook = sidecar.accept_pid(target.pid)
        assert hook.step("caches")["details"]["failed"] == {"throws": "undefined"}
        assert hook.step("models")["reason"] == "nothing_registered"
        assert hook.step("streams")["details"]["closed"] == 1
        reading = hook.reading()
        assert reading["warnings"] == ["cache 'calls' was registered again: the later one counts"]
        assert reading["models"][0]["state"] == "loading"
        assert target.finish() == (5, "", "")


def test_a_blocked_loop_answers_when_it_turns_and_tells_how_long_it_was(
    node: str, sidecar: FakeSidecar, tmp_path: Path
) -> None:
    program = """
        process.stdout.write('ready\\n');
        process.stdin.on('data', () => { const until = Date.now() + 1500; while (Date.now() < until); });"""
    with Target([node, script(tmp_path, program)], injected(sidecar)) as target:
        hook = sidecar.accept_pid(target.pid)
        hook.reading()
        assert target.process.stdin is not None
        target.process.stdin.write("block\n")
        target.process.stdin.flush()
        deadline = time.monotonic() + TIMEOUT
        while (lag := hook.reading()["loop"]["lag"]) < 1.0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert lag >= 1.4
        assert hook.reading()["loop"]["lag"] < 1.0, "it is the longest since the last reading"


# -- a service lives that would have died


class Load:
    """Clients that send requests for more memory, side by side, until so many were answered or one failed."""

    def __init__(self, port: int, requests: int, clients: int) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._left = requests
        self._lock = threading.Lock()
        threads = [threading.Thread(target=self._run, args=(port,)) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _take(self) -> bool:
        with self._lock:
            self._left -= 1
            return self._left >= 0 and not self.failures

    def _run(self, port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while self._take():
            try:
                connection.request("GET", "/work")
                answer = connection.getresponse()
                assert (answer.status, answer.read()) == (200, b"pong\n")
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.failures.append(repr(error))
                return
            with self._lock:
                self.answered += 1
        connection.close()


@pytest.mark.parametrize("clients", [1, 16])
def test_without_the_hook_the_heap_limit_ends_it_and_with_it_every_request_is_answered(
    node: str, tmp_path: Path, clients: int
) -> None:
    limited = [node, "--max-old-space-size=128", GROWS]
    env = {name: value for name, value in clean_environment().items() if name != "NODE_OPTIONS"}
    with Target(limited, env) as target:
        load = Load(json.loads(target.first_line)["port"], 5000, clients)
        assert load.failures
        code, _, said = target.finish()
        assert code < 0
        assert "heap" in said
    with Target([*limited, HOOK], env) as target:
        load = Load(json.loads(target.first_line)["port"], 3 * load.answered, clients)
        assert load.failures == []
        assert target.process.poll() is None


def test_a_heap_full_of_garbage_costs_no_cache(node: str, sidecar: FakeSidecar, tmp_path: Path) -> None:
    """80 MB that live, of 128: what comes and goes on top of them takes the heap near its limit all the time."""
    program = f"""
        const guard = require({json.dumps(str(HOOK))}).start();
        const kept = Array.from({{length: 800000}}, (_, index) => ({{index, text: 'x' + index}}));
        let cleared = 0;
        guard.cache('kept', {{ clear: () => {{ cleared++; }} }});
        let turns = 0;
        (function churn() {{
          const garbage = Array.from({{length: 20000}}, (_, index) => [index, {{index}}]);
          const told = {{cleared, kept: kept.length, garbage: garbage.length}};
          if (++turns === 600) process.stdout.write(JSON.stringify(told) + '\\n');
          else setImmediate(churn);
        }})();
        process.stdin.resume();"""
    with Target([node, "--max-old-space-size=128", script(tmp_path, program)], injected(sidecar)) as target:
        assert json.loads(target.first_line) == {"cleared": 0, "kept": 800_000, "garbage": 20_000}
        assert sidecar.accept_pid(target.pid).reading()["alone"]["runs"] == 0


def test_oomguard_run_brings_the_hook_and_a_cleanup_reaches_it(node: str, tmp_path: Path) -> None:
    env = {"NODE_PATH": str(tmp_path / "node_modules")}
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "oomguard-hook").symlink_to(HOOK)
    with Running(
        "run", "--limit", "2GiB", target=[node, "--max-old-space-size=128", GROWS, "oomguard-hook"], env=env
    ) as running:
        port = running.answer()["port"]
        assert Load(port, 200, 1).failures == []

        def left() -> str:
            running.cleanup("--steps", "caches,gc")
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/count")
            told = connection.getresponse().read().decode()
            connection.close()
            return told

        wait_for(lambda: left() == "0 of 200\n", "a cleanup that the hook took part in", 30)


# -- the guide


PRELUDE = """
    const assert = require('assert');
    const http = require('http');
    const answers = new Map([[1, 2]]);
    const loadJina = async () => ({ embed: () => [1], dispose() {} });
    const handleUpload = () => {}, runAgent = () => {}, handle = () => {};
    const session = { close() {} };
    const told = { json: (health) => assert(health.status) };
    const app = { use: (one) => assert(one.length === 3), get: (_, route) => route({}, told) };
"""


def test_the_examples_of_the_guide_run(node: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```js\n(.*?)```", (ROOT / "docs" / "node.md").read_text(), re.DOTALL)
    assert len(blocks) >= 7
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "oomguard-hook").symlink_to(HOOK)
    program = f"{PRELUDE}\n(async () => {{\n{''.join(blocks)}\nassert(vector); assert(server); }})();"
    ran = subprocess.run(
        [node, script(tmp_path, program)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env=clean_environment(),
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "state: 'off'" in ran.stdout
