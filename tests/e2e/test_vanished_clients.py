"""A client that vanishes without a word: its packets are dropped, no FIN comes, and its handler ends all the same."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.boxes import require
from tests.support.guarded import WORKLOADS

pytestmark = pytest.mark.real

PATIENCE = 60.0
LONGEST = 60.0
"""Seconds within which the contract has such a client noticed."""
SERVER, CLIENT = "10.93.0.1", "10.93.0.2"
SERVERS = {
    "uvicorn": (["-m", "uvicorn", "streaming:asgi", "--host", SERVER, "--port", "8001"], 8001),
    "aiohttp": ([str(WORKLOADS / "streaming.py"), "aiohttp", "8002"], 8002),
    "gunicorn": (
        ["-m", "gunicorn", "-k", "gthread", "--threads", "4", "streaming:wsgi", "-b", f"{SERVER}:8003"],
        8003,
    ),
}
STREAMS = {
    "uvicorn": ("/events", "/silent", "/bare", "/ws"),
    "aiohttp": ("/events", "/silent", "/ws"),
    "gunicorn": ("/events",),
}
"""Streams that send all the time, and such that wait: for the kernel, these are two different ways to notice."""
READER = """
import socket, sys, time
held = []
for target in sys.argv[2:]:
    port, path = target.split(":")
    until = time.monotonic() + 60
    while True:
        try:
            connection = socket.create_connection((sys.argv[1], int(port)), 5)
            break
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.1)
    head = f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\n"
    if path == "/ws":
        head += "Upgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
        head += "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\\r\\nSec-WebSocket-Version: 13\\r\\n"
    connection.sendall(f"{head}\\r\\n".encode())
    seen = b""
    while (b" 101 " not in seen) if path == "/ws" else (b"data: first" not in seen):
        seen += connection.recv(4096)
    held.append(connection)
print("reading", flush=True)
time.sleep(600)
"""


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def network() -> Iterator[tuple[str, str]]:
    """Two network namespaces with one wire between them: the server's and the client's."""
    mark = secrets.token_hex(3)
    names = (f"oomguard-s{mark}", f"oomguard-c{mark}")
    for name in names:
        ip("netns", "add", name)
    try:
        ip(
            "link",
            "add",
            f"os{mark}",
            "netns",
            names[0],
            "type",
            "veth",
            "peer",
            "name",
            "wire",
            "netns",
            names[1],
        )
        ip("-n", names[0], "link", "set", f"os{mark}", "name", "wire")
        for name, address in zip(names, (SERVER, CLIENT), strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "wire")
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "link", "set", "wire", "up")
        hardware = ip("-n", names[1], "-o", "link", "show", "wire").split("link/ether ")[1].split()[0]
        # Else the server's kernel would learn from unanswered ARP that nobody is there.
        ip("-n", names[0], "neigh", "replace", CLIENT, "lladdr", hardware, "dev", "wire", "nud", "permanent")
        yield names
    finally:
        for name in names:
            ip("netns", "del", name)


@contextlib.contextmanager
def inside(namespace: str, command: list[str], output: Path) -> Iterator[None]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(WORKLOADS), *sys.path]), "HOST": SERVER}
    argv = ["ip", "netns", "exec", namespace, sys.executable, *command]
    with output.open("w") as file, subprocess.Popen(argv, env=env, cwd=WORKLOADS, stdout=file) as process:
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def until(condition: object, limit: float, what: object) -> float:
    """Seconds until the condition held."""
    begun = time.monotonic()
    while not condition():  # type: ignore[operator]
        assert time.monotonic() - begun < limit, what() if callable(what) else what
        time.sleep(0.1)
    return time.monotonic() - begun


def test_a_vanished_client_is_noticed_and_the_handler_ends(tmp_path: Path) -> None:
    missing = (
        None if os.geteuid() == 0 and shutil.which("ip") else "network namespaces need root and iproute2"
    )
    require(missing)
    with contextlib.ExitStack() as stack:
        theirs, its = stack.enter_context(network())
        for name, (command, _) in SERVERS.items():
            stack.enter_context(inside(theirs, command, tmp_path / name))
        targets = [f"{SERVERS[name][1]}:{path}" for name, paths in STREAMS.items() for path in paths]
        stack.enter_context(inside(its, ["-c", READER, SERVER, *targets], tmp_path / "reader"))
        until(lambda: "reading" in (tmp_path / "reader").read_text(), PATIENCE, "no stream was begun")

        ip("-n", its, "addr", "del", f"{CLIENT}/24", "dev", "wire")

        def ended(name: str) -> bool:
            said = (tmp_path / name).read_text()
            return all(said.count(text) >= len(STREAMS[name]) for text in ("finally", " closed: "))

        def told() -> str:
            return "\n".join((tmp_path / name).read_text() for name in SERVERS)

        assert not any(ended(name) for name in SERVERS), told()
        seconds = until(lambda: all(map(ended, SERVERS)), LONGEST, told)
        print(f"noticed within {seconds:.1f} s")
        for name in SERVERS:
            said = (tmp_path / name).read_text()
            assert said.count("(client)") == len(STREAMS[name]), said
