"""The example's embedding server, a real model in a real box of 768 MB, driven by a real client.

Unguarded, its cache grows until the kernel kills it. Under ``oomguard run`` every request is answered with
the right vectors, and memory ends below the goal.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field

import aiohttp
import pytest
from tests.support.boxes import MIB, BoxV1
from tests.support.client import wait_for
from tests.support.guarded import ROOT, WORKLOADS, Guarded, Program, free_port

pytestmark = pytest.mark.real

LIMIT = 768 * MIB
GOAL = 0.7
DOCUMENTS = 900  # about 600 kB each in the cache; the box has room for some 700 beside torch and the model
BATCH = 8
CLIENTS = 4
WORDS = (  # noqa: SIM905 - thirty quoted words read worse
    "memory limit kernel page cache vector model service request answer stream heap object collector thread "
    "process container signal exporter alert rule metric journal cleanup budget reading host pod worker"
).split()


@dataclass
class Corpus:
    """Documents and the vectors that the model gives them."""

    texts: list[str]
    vectors: list[list[float]]


@dataclass
class Account:
    """What a client saw."""

    answered: int = 0
    wrong: list[str] = field(default_factory=list)
    events: int = 0
    stream_ended: str = ""


@pytest.fixture(scope="module")
def corpus():
    """The vectors are computed outside any box, by a program of its own.

    Its side effect matters too: torch's libraries are then in the page cache, charged to nobody's box. A box
    that has to hold them as well does not die when it is full: the kernel drops code and reads it again
    without end (seen: six minutes without an answer, and no kill).
    """
    words = random.Random(1)
    texts = [f"document {n}: {' '.join(words.choices(WORDS, k=40))}" for n in range(DOCUMENTS)]
    reference = [sys.executable, str(WORKLOADS / "reference_vectors.py")]
    found = subprocess.run(reference, input=json.dumps(texts), capture_output=True, text=True, timeout=600)
    assert found.returncode == 0, found.stderr
    return Corpus(texts, json.loads(found.stdout))


def server(port: int) -> list[str]:
    """The example's command line."""
    return [sys.executable, str(ROOT / "examples/embedding_server/server.py"), "--port", str(port)]


def wait_until_up(port: int) -> None:
    began = time.monotonic()
    wait_for(port, "/healthz", timeout=120)
    print(f"\nthe server answers after {time.monotonic() - began:.1f} s")


class Client:
    """Embeds documents in batches, one connection among several, and checks every number."""

    def __init__(self, port: int, corpus: Corpus) -> None:
        self.account = Account()
        self._url = f"http://127.0.0.1:{port}"
        self._corpus = corpus

    async def drive(self, documents: int, until=lambda: True) -> None:
        """Send so many documents, cycling through the corpus, and then more until `until` says so."""
        timeout = aiohttp.ClientTimeout(total=None, sock_read=60)
        async with aiohttp.ClientSession(self._url, timeout=timeout) as session:
            listening = asyncio.create_task(self._listen(session))
            numbers = iter(range(10 * documents))
            clients = [self._embed(session, numbers, documents, until) for _ in range(CLIENTS)]
            try:
                await asyncio.gather(*clients)
            finally:
                listening.cancel()
                await asyncio.wait([listening])

    async def _embed(self, session, numbers, documents, until) -> None:
        while True:
            first = next(numbers) * BATCH
            if first >= documents and until():
                return
            chosen = [(first + n) % len(self._corpus.texts) for n in range(BATCH)]
            async with session.post(
                "/embed", json={"texts": [self._corpus.texts[n] for n in chosen]}
            ) as answer:
                if answer.status != 200:
                    self.account.wrong.append(f"status {answer.status}")
                    continue
                vectors = (await answer.json())["vectors"]
            self.account.answered += 1
            if len(vectors) != BATCH:
                self.account.wrong.append(f"{len(vectors)} vectors for {BATCH} texts")
            for number, vector in zip(chosen, vectors, strict=False):
                # Batches are padded differently than in the reference: equal to five digits, no more.
                if math.dist(vector, self._corpus.vectors[number]) > 1e-3:
                    self.account.wrong.append(f"another vector for document {number}")

    async def _listen(self, session) -> None:
        try:
            async with session.get("/events") as stream:
                async for line in stream.content:
                    self.account.events += line.startswith(b"data:")
            self.account.stream_ended = "the server ended it"
        except aiohttp.ClientError as error:
            self.account.stream_ended = str(error)


def test_unguarded_the_kernel_kills_it(corpus):
    port = free_port()
    with BoxV1(LIMIT) as box, Program(box, server(port)) as program:
        wait_until_up(port)
        client = Client(port, corpus)
        with pytest.raises(aiohttp.ClientError):
            asyncio.run(client.drive(DOCUMENTS))
        print(f"{client.account.answered * BATCH} documents answered before it died")
        assert program.wait(30) == -signal.SIGKILL
        assert box.oom_kills() == 1


def test_guarded_it_answers_everything_and_ends_below_the_goal(corpus):
    port = free_port()
    with BoxV1(LIMIT) as box, Guarded(box, server(port)) as program:
        wait_until_up(port)
        program.wait_until_guarding(hooks=1)
        client = Client(port, corpus)
        pid = program.status()["pid"]

        def a_run_just_ended() -> bool:
            runs = program.journal("run_start", "run_end")
            return bool(runs) and runs[-1]["event"] == "run_end" and time.time() - runs[-1]["time"] < 1

        asyncio.run(client.drive(2 * DOCUMENTS, a_run_just_ended))
        status = program.status()
        account, steps, runs = client.account, program.journal("step_end"), program.journal("run_end")
        print(
            f"{account.answered * BATCH} documents answered, {account.events} events; {len(runs)} cleanups:"
        )
        for step in steps:
            freed = f"{step['freed'] / 1e6:.0f} MB in {step['seconds']:.2f} s"
            print(f"  {step['step']}: {step['outcome']}, freed {freed}")

        assert status["pid"] == pid, "it was started again"
        assert program.process.poll() is None
        assert box.oom_kills() == 0
        assert account.wrong == []
        assert account.answered * BATCH >= 2 * DOCUMENTS
        assert account.events > 0
        assert account.stream_ended == ""
        cleared = [step["hooks"]["main"] for step in steps if step["step"] == "caches"]
        assert len(cleared) >= 2
        assert all(step["cleared"] == ["embeddings"] and step["bytes"] > 50 * MIB for step in cleared)
        assert all(run["outcome"] == "goal_reached" for run in runs)
        assert status["level"]["used"] < GOAL * LIMIT
