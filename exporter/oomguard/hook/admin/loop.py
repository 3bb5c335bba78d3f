"""Serving one request from an asyncio loop, which stays free: the work is done in a thread of its own.

Not in the loop's executor: its threads may all be waiting for the very memory that a cleanup is to free.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

from oomguard.hook import unpatched
from oomguard.hook.admin.endpoint import MAX_BODY, WAIT, Answer, Endpoint, failed, too_large


async def serve(
    endpoint: Endpoint, method: str, path: str, headers: Mapping[str, str], chunks: AsyncIterator[bytes]
) -> Answer:
    """Answer one request; `chunks` (its body) are read only when the head is accepted, and no further than needed.

    Raises what `chunks` raises, and CancelledError.
    """
    refusal = endpoint.refusal(method, path, headers)
    if refusal is not None:
        return refusal
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_BODY:
            return too_large()
    try:
        answer = await _threaded(endpoint, method, path, headers, bytes(body))
    except RuntimeError as error:  # no thread can be had
        return failed(error)
    return answer or endpoint.late(path)


async def _threaded(
    endpoint: Endpoint, method: str, path: str, headers: Mapping[str, str], body: bytes
) -> Answer | None:
    """Run it in a thread of its own; None when it has not ended in time (it goes on)."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[Answer] = loop.create_future()

    def settle(answer: Answer) -> None:
        if not answered.done():  # the server cancels a request whose client has gone
            answered.set_result(answer)

    def work() -> None:
        answer = endpoint.answer(method, path, headers, body)
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, answer)

    unpatched.start_thread(work)
    await asyncio.wait([answered], timeout=WAIT)
    return answered.result() if answered.done() else None
