"""Receivers of webhooks that behave and misbehave, in the test's own event loop."""

import asyncio
from pathlib import Path

from oomguard.model import Alert
from oomguard.routes.config import load
from oomguard.routes.deliver import Deliverer, Outcome
from oomguard.routes.dispatch import Dispatcher
from oomguard.routes.silences import Silences


class Receiver:
    """Answers every request with `answer(request text)`: raw bytes, or None to close without an answer."""

    def __init__(self, answer, tls=None):
        self._answer = answer
        self._tls = tls
        self.requests = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _serve(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = [line for line in head.split("\r\n") if line.lower().startswith("content-length:")]
            body = await reader.readexactly(int(length[0].split(":")[1])) if length else b""
            self.requests.append((head, body))
            answer = self._answer(head)
            if asyncio.iscoroutine(answer):
                answer = await answer
            if answer is not None:
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def status(code, body=b"", **headers):
    """A whole answer."""
    lines = [f"HTTP/1.1 {code} X", f"Content-Length: {len(body)}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def in_turn(*answers):
    """One answer after the other, the last for ever."""
    left = list(answers)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


class Delivery:
    """A dispatcher with one webhook, and its deliverer; time stands still for the dispatcher."""

    def __init__(self, webhook, directory=Path("/"), **options):
        problems = []
        text = (
            "route: {receiver: hook, group_by: [n], group_wait: 0s}\n"
            f"receivers: [{{name: hook, webhook_configs: [{webhook}]}}]"
        )
        config = load(directory / "am.yml", problems, text)
        assert config is not None, problems
        self.dispatcher = Dispatcher(config, Silences())
        self.outcomes = []
        self.changed = asyncio.Event()
        options.setdefault("spread", lambda: 0.0)
        self.deliverer = Deliverer(
            external_url="http://x", wanted=self.dispatcher.wanted, report=self._report, **options
        )

    def _report(self, notification, outcome):
        self.outcomes.append(outcome)
        self.changed.set()
        if outcome is Outcome.DELIVERED:
            self.dispatcher.delivered(notification, 0.0)
        elif outcome is not Outcome.RETRIED:
            self.dispatcher.failed(notification)

    def fire(self, now=0.0, **labels):
        """An alert that fires goes out."""
        self.dispatcher.update([Alert({"alertname": "A", **labels}, {}, now)], now)
        notifications = self.dispatcher.due(now)
        for notification in notifications:
            self.deliverer.submit(notification)
        return notifications

    async def until(self, count):
        """Wait for so many outcomes."""
        while len(self.outcomes) < count:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 30)
        return self.outcomes

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.deliverer.stop()
