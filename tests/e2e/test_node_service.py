"""The example's Node service, driven by a real client: V8 ends it, and under ``oomguard run`` it lives."""

from __future__ import annotations

import http.client
import json
import random
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.support.boxes import require
from tests.support.command import Running
from tests.support.targets import ROOT, Target, clean_environment

pytestmark = pytest.mark.real

EXAMPLE = ROOT / "examples" / "node_service"
BATCH = 5
WORDS = [
    f"{first}{second}"
    for first in ("mem", "ker", "pag", "str", "hea", "lim")
    for second in ("ory", "nel", "es", "eam", "p", "it")
]


@pytest.fixture
def service(tmp_path: Path) -> Path:
    """The example as `npm install` leaves it."""
    require(None if shutil.which("node") else "no node here")
    folder = tmp_path / "service"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "oomguard-hook").symlink_to(ROOT / "exporter" / "node")
    return folder


class Client:
    """Searches for one of several new documents, again and again, and checks which one is found."""

    def __init__(self, port: int) -> None:
        self._random = random.Random(4)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.answered = 0

    def drive(self, requests: int) -> None:
        for _ in range(requests):
            wanted = self._random.randrange(BATCH)
            documents = [self._document() for _ in range(BATCH)]
            order = json.dumps({"query": documents[wanted][:3000], "documents": documents})
            self._connection.request("POST", "/search", order)
            answer = self._connection.getresponse()
            found: dict[str, Any] = json.loads(answer.read())
            assert answer.status == 200
            assert found["best"] == wanted
            self.answered += 1

    def _document(self) -> str:
        return " ".join(f"{self._random.choice(WORDS)}{self._random.randrange(10**6)}" for _ in range(500))


class Listener:
    """Reads the event stream until it ends."""

    def __init__(self, port: int) -> None:
        self.events = 0
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._connection.request("GET", "/events")
        self._answer = self._connection.getresponse()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for line in self._answer:
            self.events += line.startswith(b"data:")

    def join(self) -> None:
        self._thread.join()
        self._connection.close()


def command(service: Path) -> list[str]:
    return ["node", "--max-old-space-size=128", str(service / "server.js")]


def test_unguarded_v8_ends_it(service: Path) -> None:
    (service / "node_modules" / "oomguard-hook").unlink()
    with Target(command(service), {**clean_environment(), "PORT": "0"}) as target:
        client = Client(json.loads(target.first_line)["port"])
        with pytest.raises((OSError, http.client.HTTPException)):
            client.drive(10_000)
        code, _, said = target.finish()
    print(f"{client.answered * BATCH} documents answered before it died")
    assert code < 0
    assert "heap limit" in said
    assert client.answered > 50


def test_guarded_it_answers_everything(service: Path) -> None:
    with Running("run", "--limit", "2GiB", target=command(service), env={"PORT": "0"}) as running:
        port = running.answer()["port"]
        listener = Listener(port)
        client = Client(port)
        client.drive(500)
        print(f"{client.answered * BATCH} documents answered, {listener.events} events")
        assert running.process.poll() is None
        assert "heap out of memory" not in running.stderr()
        running.process.terminate()
        assert running.wait() in (0, 143)
        listener.join()
        assert listener.events > 0
