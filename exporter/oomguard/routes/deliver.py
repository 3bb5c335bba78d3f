"""Delivers notifications to webhooks: bounded queue, retries with backoff, nothing sent that is not wanted any more.

Runs on the event loop of its caller. A notification that is made while an older one for the same webhook and group
still waits takes its place. What fails for good is reported, and the dispatcher makes it anew at the group's next
flush; so the state that survives a restart is the dispatcher's.
"""

from __future__ import annotations

import asyncio
import enum
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from oomguard.log import LOGGER, fields
from oomguard.routes.groups import Notification
from oomguard.routes.nflog import Key
from oomguard.routes.send import Attempt, Sender, Verdict
from oomguard.routes.webhook import Webhook

MOST_WAITING: Final = 1000
MOST_AT_ONCE: Final = 8
"""Attempts under way at a time to one webhook: a slow receiver is not flooded, and holds up no other."""
FIRST_WAIT: Final = 0.5
"""Seconds; grows by half with each attempt up to `LONGEST_WAIT`, and varies by half of itself to both sides: the
figures of cenkalti/backoff, which Alertmanager uses."""
LONGEST_WAIT: Final = 60.0
_GROWTH = 1.5
_SPREAD = 0.5


class Outcome(enum.Enum):
    """What became of a notification, or of an attempt (`RETRIED`); label values of NOTIFICATIONS."""

    DELIVERED = "delivered"
    RETRIED = "retried"
    """An attempt failed, another follows."""
    REJECTED = "rejected"
    """The receiver's answer says that trying again is of no use."""
    DROPPED = "dropped"
    """The queue was full."""


@dataclass(slots=True, eq=False)
class _Job:
    """The newest notification of one group for one webhook."""

    notification: Notification
    task: asyncio.Task[None] | None = None
    attempts: int = 0
    reason: str = ""
    newer: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Last:
    outcome: Outcome
    reason: str


def pause_after(attempts: int, spread: float) -> float:
    """Seconds to wait after so many failed attempts; `spread` in 0..1 gives the jitter."""
    wait = min(LONGEST_WAIT, FIRST_WAIT * _GROWTH ** min(attempts - 1, 32))
    return wait * (1 - _SPREAD + 2 * _SPREAD * spread)


class Deliverer:
    """Sends what it is given, and reports what became of it."""

    def __init__(
        self,
        *,
        external_url: str,
        wanted: Callable[[Notification], bool],
        report: Callable[[Notification, Outcome], None],
        spread: Callable[[], float] = random.random,
    ) -> None:
        """Start with nothing; needs no running loop yet.

        `wanted` is asked before every attempt (Dispatcher.wanted). `report` hears of every attempt that is tried again
        and of every end. `spread` gives numbers in 0..1 for the jitter.
        """
        self._external_url = external_url
        self._wanted = wanted
        self._report = report
        self._spread = spread
        self._sender = Sender()
        self._jobs: dict[Key, _Job] = {}
        self._gates: dict[Webhook, asyncio.Semaphore] = {}
        self._last: dict[tuple[str, int], tuple[Webhook, _Last]] = {}
        self._stopped = False

    def __len__(self) -> int:
        """Notifications that wait or are on their way."""
        return len(self._jobs)

    def submit(self, notification: Notification) -> None:
        """Take a notification; to be called on the event loop."""
        job = self._jobs.get(notification.key)
        if job is not None:
            job.notification = notification
            job.newer.set()
        elif self._stopped or len(self._jobs) >= MOST_WAITING:
            self._note(notification, Outcome.DROPPED, f"{len(self._jobs)} notifications wait already")
        else:
            job = self._jobs[notification.key] = _Job(notification)
            job.task = asyncio.get_running_loop().create_task(self._run(job))

    async def stop(self) -> None:
        """End at once; what was not delivered stays owed in the dispatcher's dump."""
        self._stopped = True
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._sender.close()

    def status(self) -> list[dict[str, Any]]:
        """For each webhook what it was told last and how many notifications wait; holds no secret."""
        waiting: dict[tuple[str, int], int] = {}
        for job in self._jobs.values():
            place = (job.notification.receiver, job.notification.index)
            waiting[place] = waiting.get(place, 0) + 1
        return [
            {
                "receiver": receiver,
                "url": webhook.shown,
                "last_outcome": last.outcome.value,
                "last_error": last.reason,
                "waiting": waiting.get((receiver, index), 0),
            }
            for (receiver, index), (webhook, last) in sorted(self._last.items(), key=lambda item: item[0])
        ]

    async def _run(self, job: _Job) -> None:
        """Deliver a job's notification, and the newer ones that come meanwhile."""
        key = job.notification.key
        try:
            while self._wanted(job.notification):
                notification = job.notification
                job.newer.clear()
                attempt = await self._attempt(notification)
                if attempt is None:
                    continue
                self._judge(job, notification, attempt)
                if attempt.verdict is Verdict.RETRY:
                    await self._pause(job)
                elif job.notification is notification:
                    break
        finally:
            del self._jobs[key]

    async def _attempt(self, notification: Notification) -> Attempt | None:
        """None: by the time it was its turn, it was not wanted any more."""
        gate = self._gates.setdefault(notification.webhook, asyncio.Semaphore(MOST_AT_ONCE))
        async with gate:
            if not self._wanted(notification):
                return None
            return await self._sender.attempt(notification.webhook, notification.payload(self._external_url))

    def _judge(self, job: _Job, notification: Notification, attempt: Attempt) -> None:
        job.attempts += 1
        if attempt.verdict is Verdict.RETRY:
            self._note(notification, Outcome.RETRIED, attempt.reason, job)
            return
        delivered = attempt.verdict is Verdict.DELIVERED
        self._note(notification, Outcome.DELIVERED if delivered else Outcome.REJECTED, attempt.reason, job)
        job.attempts = 0
        job.reason = ""

    async def _pause(self, job: _Job) -> None:
        """Wait before the next attempt, or until there is something newer to tell."""
        try:
            await asyncio.wait_for(job.newer.wait(), pause_after(job.attempts, self._spread()))
        except (asyncio.TimeoutError, TimeoutError):
            return

    def _note(
        self, notification: Notification, outcome: Outcome, reason: str, job: _Job | None = None
    ) -> None:
        """Report and log; a reason that was logged already is not logged again."""
        webhook = notification.webhook
        self._last[notification.receiver, notification.index] = (webhook, _Last(outcome, reason))
        told = fields(
            receiver=notification.receiver,
            url=webhook.shown,
            group=notification.group_key,
            attempts=job.attempts if job is not None else None,
            error=reason or None,
        )
        if outcome is Outcome.DELIVERED:
            if job is not None and job.reason:
                LOGGER.info("notification delivered after retries", extra=told)
        elif outcome is not Outcome.RETRIED:
            LOGGER.warning(f"notification {outcome.value}", extra=told)
        elif job is None or job.reason != reason:
            LOGGER.warning("notification not delivered, will be tried again", extra=told)
        if job is not None:
            job.reason = reason
        self._report(notification, outcome)
