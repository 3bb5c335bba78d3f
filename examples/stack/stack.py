"""Prometheus, Alertmanager and a guarded service on loopback, with the very files of ``alerts/``: ``make stack``.

By itself the sidecar does nothing here (others_act.yml): Prometheus evaluates, Alertmanager posts, and then it cleans
up. ``--both`` turns its own engine on too, as it is wherever nothing is configured.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ALERTS = HERE.parents[1] / "alerts"
RULES = ALERTS / "oomguard.rules.yml"
ROUTES = ALERTS / "alertmanager.yml"

SIDECAR_PORT = 10512
CLEANUP_URL = f"http://127.0.0.1:{SIDECAR_PORT}/admin/cleanup"
RUNTIME_DIR = Path("/run/oomguard")
TOKEN_FILE = RUNTIME_DIR / "token"
"""What alerts/alertmanager.yml says; the two values that are replaced where they can't be used."""
PATIENCE = 60.0
"""Seconds within which a server is there, on a machine however busy."""
END_PATIENCE = 20.0

PROMETHEUS = """\
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: [{rules}]
scrape_configs:
  - job_name: oomguard
    static_configs: [{{targets: ["127.0.0.1:{sidecar}"]}}]
alerting:
  alertmanagers:
    - static_configs: [{{targets: ["127.0.0.1:{alertmanager}"]}}]
"""


class StackError(Exception):
    """What keeps the stack from starting, and how to mend it."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs on loopback."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> str:
        """Body of a GET; raises OSError for a refused connection and for any status but 200."""
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            body: bytes = answer.read()
        return body.decode()

    def get_json(self, path: str) -> Any:
        """Body of a GET, decoded."""
        return json.loads(self.get(path))


def find_programs() -> tuple[str, str]:
    """Paths of Prometheus and Alertmanager, by Debian's names or upstream's; raises StackError."""
    found: list[str] = []
    for names in (("prometheus",), ("prometheus-alertmanager", "alertmanager")):
        path = next(filter(None, map(shutil.which, names)), None)
        if path is None:
            raise StackError(
                f"{names[0]} is not installed; apt-get install prometheus prometheus-alertmanager "
                "(or put upstream's prometheus and alertmanager on PATH)"
            )
        found.append(path)
    return found[0], found[1]


def alertmanager_config(text: str, *, url: str = CLEANUP_URL, token_file: Path = TOKEN_FILE) -> str:
    """alerts/alertmanager.yml for another address and token file: those two values are replaced, nothing else."""
    for old, new in ((CLEANUP_URL, url), (str(TOKEN_FILE), str(token_file))):
        if text.count(f": {old}\n") != 1:
            raise StackError(
                f"{ROUTES}: {old} is not there exactly once as a value; mend the file or this program"
            )
        text = text.replace(f": {old}\n", f": {new}\n")
    return text


@contextmanager
def alertmanager(config: Path, folder: Path, port: int) -> Iterator[Server]:
    """A running Alertmanager, alone (no cluster), whose data and log lie in `folder`."""
    command = [
        find_programs()[1],
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    ]
    with _server(command, port, folder / "alertmanager.log") as server:
        yield server


@contextmanager
def prometheus(
    rules: Sequence[Path], folder: Path, port: int, *, sidecar: int, alertmanager_port: int
) -> Iterator[Server]:
    """A running Prometheus at its fastest settings that has scraped the sidecar and knows Alertmanager."""
    config = folder / "prometheus.yml"
    listed = ", ".join(json.dumps(str(path)) for path in rules)
    config.write_text(PROMETHEUS.format(rules=listed, sidecar=sidecar, alertmanager=alertmanager_port))
    command = [
        find_programs()[0],
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
        # What fired before it had found Alertmanager is told again now, and not after a minute.
        "--rules.alert.resend-delay=5s",
    ]
    with _server(command, port, folder / "prometheus.log") as server:
        _wait_until_connected(server)
        yield server


def free_port(wanted: int = 0) -> int:
    """The port that is wanted if it is free on loopback, else any free one."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            return free_port()
        return int(probe.getsockname()[1])


@contextmanager
def _server(command: Sequence[str], port: int, log: Path) -> Iterator[Server]:
    # A core is plenty, and the guarded service needs the others.
    with _process(command, log, env={**os.environ, "GOMAXPROCS": "1"}) as process:
        server = Server(process, port, log)
        _wait(server, "/-/ready")
        yield server


@contextmanager
def _process(
    command: Sequence[str], log: Path | None, *, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a session of its own: Ctrl-C is for us alone, and we end it, by its PID."""
    with ExitStack() as files:
        output = files.enter_context(log.open("wb")) if log is not None else None
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=env,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(END_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(server: Server, path: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with suppress(OSError):
            server.get(path)
            return
        if server.process.poll() is not None:
            raise StackError(f"{server.log.stem} has ended: {_last_lines(server.log)}")
        time.sleep(0.05)
    raise StackError(f"{server.url}{path} gave no answer within {PATIENCE:g} s; see {server.log}")


def _wait_until_connected(server: Server) -> None:
    """Prometheus' discovery takes 5 s: until then it neither scrapes nor knows whom to tell."""
    deadline = time.monotonic() + PATIENCE
    while True:
        targets = server.get_json("/api/v1/targets?state=active")["data"]["activeTargets"]
        told = server.get_json("/api/v1/alertmanagers")["data"]["activeAlertmanagers"]
        if told and any(target["health"] == "up" for target in targets):
            return
        if time.monotonic() > deadline:
            errors = "; ".join(target["lastError"] for target in targets)
            raise StackError(
                f"Prometheus has scraped nothing within {PATIENCE:g} s: {errors}; see {server.log}"
            )
        time.sleep(0.1)


def _last_lines(log: Path) -> str:
    return " | ".join(log.read_text(errors="replace").splitlines()[-3:])


@contextmanager
def _runtime_dir(folder: Path) -> Iterator[Path]:
    """The directory that alerts/alertmanager.yml names, if we may make it and nobody has it; else one in `folder`."""
    try:
        RUNTIME_DIR.mkdir(mode=0o711)
    except OSError:
        yield folder / "sidecar"
        return
    try:
        yield RUNTIME_DIR
    finally:
        shutil.rmtree(RUNTIME_DIR, ignore_errors=True)


def run(*, both: bool) -> int:
    """Start everything, say where it is, and wait for Ctrl-C or the service's end."""
    find_programs()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oomguard-stack-")))
        runtime_dir = stack.enter_context(_runtime_dir(folder))
        sidecar, told, asked = free_port(SIDECAR_PORT), free_port(9093), free_port(9090)
        routes = ROUTES
        if (sidecar, runtime_dir) != (SIDECAR_PORT, RUNTIME_DIR):
            url = f"http://127.0.0.1:{sidecar}/admin/cleanup"
            token_file = runtime_dir / "token"
            routes = folder / "alertmanager.yml"
            routes.write_text(alertmanager_config(ROUTES.read_text(), url=url, token_file=token_file))
            print(f"{ROUTES}: for this run url is {url} and credentials_file {token_file}", flush=True)
        command = [
            sys.executable, "-m", "oomguard", "demo",
            f"--listen=127.0.0.1:{sidecar}", f"--runtime-dir={runtime_dir}", f"--rules={RULES}",
            f"--routes={ROUTES if both else HERE / 'others_act.yml'}",
        ]  # fmt: skip
        service = stack.enter_context(_process(command, None))
        stack.enter_context(alertmanager(routes, folder, told))
        stack.enter_context(prometheus([RULES], folder, asked, sidecar=sidecar, alertmanager_port=told))
        print(
            f"Prometheus: http://127.0.0.1:{asked}/alerts   Alertmanager: http://127.0.0.1:{told}   "
            f"sidecar: http://127.0.0.1:{sidecar}/   logs: {folder}\n"
            f"Who acts: {'both engines' if both else 'Prometheus and Alertmanager alone'}.   End: Ctrl-C",
            flush=True,
        )
        return service.wait()


def main() -> int:
    """Exit code: 0 after Ctrl-C, 2 where something is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--both", action="store_true", help="have the sidecar's own engine act as well")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A shell's background jobs ignore it, and so would we.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return run(both=options.both)
    except KeyboardInterrupt:
        return 0
    except StackError as error:
        print(f"stack: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
