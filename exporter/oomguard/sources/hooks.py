"""The hooks: one unix socket to which every process of the target connects (docs/hook-protocol.md).

A hook that hangs, answers garbage or vanishes costs its own connection and nothing else. Questions
are pipelined, so that an order never waits for a reading's answer; one that leaves a question unanswered for
`STALLED` seconds is `stalled`: it is not asked for readings until it has answered, and the others go on.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from oomguard.errors import HookError
from oomguard.log import LOGGER, fields
from oomguard.metrics import HookErrorReason
from oomguard.model import HookReading, Reading, Status
from oomguard.sources import hook_reading

PROTOCOL: Final = 1
MAX_LINE: Final = 65536
MAX_OPEN: Final = 4
"""Unanswered questions above which a hook is asked nothing more: they would only pile up."""
STALLED: Final = 0.55
"""Seconds. Beside 8 spinning Python threads a hook answers after half a second at worst."""
MAX_HOOKS: Final = 256
"""A pre-fork server has tens of processes; this bounds what a fork bomb can take."""
HELLO_SECONDS: Final = 5.0
_PEER = struct.Struct("iII")
"""struct ucred of SO_PEERCRED: pid, uid, gid (unix(7))."""


@dataclass(frozen=True, slots=True)
class Question:
    """One that was not answered yet."""

    ask: str
    asked: float
    """Monotonic seconds."""
    allowed: float
    """Seconds that the answer may take, once it is this question's turn."""


class Hook:
    """One process's connection."""

    def __init__(self, pid: int, hello: Mapping[str, Any], writer: asyncio.StreamWriter) -> None:
        self.pid = pid
        self.forked = hello.get("forked") is True
        self.runtime = str(hello.get("runtime", "unknown"))[:32]
        self.runtime_version = str(hello.get("runtime_version", ""))[:32]
        self.hook_version = str(hello.get("hook_version", ""))[:32]
        self.identity = _identity(pid, hello)
        self.last: Reading[HookReading] = Reading(Status.ABSENT, reason="not asked yet")
        self._writer = writer
        self._questions: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._open: dict[int, Question] = {}
        """What was asked and not answered yet, oldest first."""
        self._answered_at = 0.0
        """Monotonic seconds of the last answer."""
        self._id = 0
        self._gone = False

    @property
    def due(self) -> float | None:
        """When it is stalled unless it answers before (monotonic seconds); None while it owes nothing."""
        # It serves one question after the other: only the oldest can be under way.
        for question in self._open.values():
            return max(question.asked, self._answered_at) + question.allowed
        return None

    @property
    def stalled(self) -> float:
        """Seconds for which it has answered nothing, though it should have; 0 where it answers in time."""
        now, due = time.monotonic(), self.due
        if due is None or now < due:
            return 0.0
        oldest = next(iter(self._open.values()))
        return now - max(oldest.asked, self._answered_at)

    @property
    def idle(self) -> bool:
        """Whether it owes nothing."""
        return not self._open

    @property
    def busy(self) -> bool:
        """Whether it owes the answer to a step: what memory does now would be credited to the wrong one."""
        return any(question.ask == "step" for question in self._open.values())

    def ping(self) -> None:
        """Ask whether it answers at all, and wait for nothing; the error of an older hook is an answer too."""
        if not self._gone and not self._writer.is_closing():
            self._send("ping", STALLED)

    async def ask(self, question: str, timeout: float, **details: object) -> dict[str, Any]:
        """Send a question and return the answer's object; raises HookError when none comes in time."""
        if self._gone:
            raise HookError(f"hook of process {self.pid} went away")
        if len(self._open) >= MAX_OPEN:
            raise HookError(f"hook of process {self.pid} is stalled: {len(self._open)} questions unanswered")
        # A step may take as long as it was told that it may; all else is answered at once.
        number = self._send(question, timeout if question == "step" else STALLED, **details)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._questions[number] = future
        try:
            answer = await asyncio.wait_for(future, timeout)
        except asyncio.TimeoutError:
            raise HookError(f"hook of process {self.pid} gave no answer within {timeout:.2g} s") from None
        finally:
            self._questions.pop(number, None)
        if "error" in answer:
            raise HookError(f"hook of process {self.pid} refused: {str(answer['error'])[:200]}")
        if not isinstance(answer.get(question), dict):
            raise HookError(f"hook of process {self.pid} answered without {question!r}")
        return dict(answer[question])

    def _send(self, ask: str, allowed: float, **details: object) -> int:
        self._id += 1
        self._open[self._id] = Question(ask, time.monotonic(), allowed)
        self._writer.write(json.dumps({"id": self._id, "ask": ask, **details}).encode() + b"\n")
        return self._id

    def answered(self, answer: dict[str, Any]) -> bool:
        """Take an answer; False when it answers nothing that was asked."""
        number = answer.get("id")
        if not isinstance(number, int) or number not in self._open:
            return False
        del self._open[number]
        self._answered_at = time.monotonic()
        future = self._questions.get(number)
        if future is not None and not future.done():
            future.set_result(answer)
        return True

    def gone(self) -> None:
        """Fail whatever is still waiting, and whatever may come."""
        self._gone = True
        for future in self._questions.values():
            if not future.done():
                future.set_exception(HookError(f"hook of process {self.pid} went away"))

    def close(self) -> None:
        """End the connection."""
        self._writer.close()


class Hooks:
    """The socket and the hooks that are connected to it.

    `address` is a path, or as bytes an abstract name that begins with a NUL byte. `belongs` says whether a
    PID is in the target's tree: such a peer is served whatever its uid.
    """

    def __init__(
        self, address: str | bytes, belongs: Callable[[int], bool], *, gid: int | None = None
    ) -> None:
        self.connected: dict[int, Hook] = {}
        self.errors: Counter[HookErrorReason] = Counter()
        self.thresholds: Callable[[], Mapping[str, object] | None] = lambda: None
        """What hooks are told with each question, for the time when they are alone (docs/hook-protocol.md)."""
        self._address = address
        self._belongs = belongs
        self._gid = gid
        self._server: asyncio.Server | None = None
        self._anonymous = 0
        self._trouble = ""
        """Why the last connection was ended by us; empty once hooks answer well."""
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen; raises OSError when the socket can't be made."""
        # Only one sidecar serves a runtime directory; what lies there is a dead one's.
        self._remove()
        address: Any = self._address  # typeshed does not know that bytes name an abstract socket
        self._server = await asyncio.start_unix_server(
            self._serve, address, limit=MAX_LINE, backlog=MAX_HOOKS
        )
        if isinstance(address, str):
            # Anyone may knock, SO_PEERCRED decides: a worker that dropped its privileges is let in too.
            os.chmod(address, 0o666)  # noqa: S103, PTH101 - as said; one file

    async def close(self) -> None:
        """Stop listening and hang up on every hook."""
        for writer in list(self._writers):
            writer.close()
        if self._server is not None:
            self._server.close()
            self._remove()

    def _remove(self) -> None:
        if isinstance(self._address, str):
            Path(self._address).unlink(missing_ok=True)

    def members(self) -> list[Hook]:
        """The hooks of the target's own tree (all of them where PIDs can't be compared)."""
        return [hook for hook in self.connected.values() if hook.pid <= 0 or self._belongs(hook.pid)]

    async def read_all(self, slots: Mapping[int, str], timeout: float) -> Reading[tuple[HookReading, ...]]:
        """Ask every hook of the tree for a reading, side by side; `slots` maps PIDs to stable names."""
        began = time.perf_counter()
        hooks = self.members()
        if not hooks and self._trouble:
            return Reading(Status.FAILED, reason=self._trouble)
        if not hooks:
            return Reading(Status.ABSENT, reason="no hook is connected")
        await asyncio.gather(*(self._read(hook, slots.get(hook.pid, "other"), timeout) for hook in hooks))
        values = tuple(hook.last.value for hook in hooks if hook.last.value is not None)
        took = time.perf_counter() - began
        # What hangs is told before what is wrong otherwise.
        failed = sorted((hook for hook in hooks if not hook.last.ok), key=lambda hook: -hook.stalled)
        if failed:
            return Reading(Status.FAILED, values, failed[0].last.reason, took)
        self._trouble = ""
        return Reading(Status.OK, values, seconds=took)

    async def _read(self, hook: Hook, slot: str, timeout: float) -> None:
        began = time.perf_counter()
        if (seconds := hook.stalled) > 0:
            # Not asked once more: it would only cost every tick its patience.
            reason = f"hook of process {hook.pid} ({slot}) has not answered for {seconds:.0f} s"
            hook.last = Reading(Status.FAILED, reason=reason)
            return
        try:
            answer = await hook.ask("reading", timeout, thresholds=self.thresholds())
            took = time.perf_counter() - began
            hook.last = Reading(Status.OK, parse_reading(hook, slot, answer, took), seconds=took)
        except HookError as error:
            if "no answer" in str(error) and not hook.stalled:  # else it was counted as such
                self.errors[HookErrorReason.TIMEOUT] += 1
            hook.last = Reading(Status.FAILED, reason=str(error), seconds=time.perf_counter() - began)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            self.errors[HookErrorReason.GARBAGE] += 1
            hook.last = Reading(
                Status.FAILED, reason=f"hook of process {hook.pid} sent a reading that can't be used: {error}"
            )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        hook: Hook | None = None
        try:
            hook = await self._greet(reader, writer)
            if hook is not None:
                await self._listen(hook, reader)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.TimeoutError):
            pass  # gone, or never said hello
        finally:
            self._writers.discard(writer)
            if hook is not None:
                hook.gone()
                if self.connected.get(hook.pid) is hook:
                    del self.connected[hook.pid]
            writer.close()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Hook | None:
        pid, uid, gid = self._peer(writer)
        if not (uid in (0, os.getuid()) or gid == self._gid or (pid > 0 and self._belongs(pid))):
            self.errors[HookErrorReason.REJECTED] += 1
            return None
        hello = await asyncio.wait_for(self._line(reader, pid), HELLO_SECONDS)
        if hello is None:
            return None
        if hello.get("hello") != PROTOCOL:
            self._drop(
                pid,
                HookErrorReason.VERSION,
                f"speaks version {hello.get('hello')!r}, not {PROTOCOL}; update oomguard in the target's environment",
            )
            writer.write(json.dumps({"error": f"this sidecar speaks version {PROTOCOL}"}).encode() + b"\n")
            return None
        if len(self.connected) >= MAX_HOOKS:
            self._drop(pid, HookErrorReason.REJECTED, f"is one more than {MAX_HOOKS}")
            return None
        if pid <= 0:  # the peer lives in a PID namespace that is not ours to see
            self._anonymous -= 1
            pid = self._anonymous
        hook = Hook(pid, hello, writer)
        if (older := self.connected.pop(pid, None)) is not None:
            older.close()
        self.connected[pid] = hook
        LOGGER.debug(
            "hook connected",
            extra=fields(pid=pid, runtime=hook.runtime, version=hook.hook_version, forked=hook.forked),
        )
        return hook

    async def _listen(self, hook: Hook, reader: asyncio.StreamReader) -> None:
        while (answer := await self._line(reader, hook.pid)) is not None:
            if not hook.answered(answer):
                self._drop(hook.pid, HookErrorReason.GARBAGE, "answered a question that was not asked")
                return

    async def _line(self, reader: asyncio.StreamReader, pid: int) -> dict[str, Any] | None:
        """The next object; None at the end of the file or of our patience."""
        try:
            line = await reader.readline()
        except ValueError:
            self._drop(pid, HookErrorReason.TOO_LONG, f"sent a line of more than {MAX_LINE} bytes")
            return None
        if not line:
            return None
        try:
            answer = _DECODER.decode(line.decode())
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            self._drop(pid, HookErrorReason.GARBAGE, "sent a line that is not a JSON object")
            return None
        return answer

    def _drop(self, pid: int, reason: HookErrorReason, text: str) -> None:
        self.errors[reason] += 1
        self._trouble = f"hook of process {pid} {text}"
        if self.errors[reason] <= 3:  # noqa: PLR2004 - the metric goes on counting
            LOGGER.warning(self._trouble, extra=fields(reason=reason.value))

    @staticmethod
    def _peer(writer: asyncio.StreamWriter) -> tuple[int, int, int]:
        peer: socket.socket = writer.get_extra_info("socket")
        if not hasattr(socket, "SO_PEERCRED"):  # macOS: the directory's mode is the only guard there
            return 0, os.getuid(), os.getgid()
        return _PEER.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))


def _identity(pid: int, hello: Mapping[str, Any]) -> tuple[object, ...]:
    """What tells a process from all others: with its start time a PID is unique, in one PID namespace."""
    own = [
        value if isinstance(value, int) else None for value in map(hello.get, ("start_ticks", "pidns", "pid"))
    ]
    return (pid, own[0]) if pid > 0 else tuple(own)


def parse_reading(hook: Hook, slot: str, answer: Mapping[str, Any], round_trip: float) -> HookReading:
    """A reading as the protocol gives it; raises ArithmeticError, LookupError, TypeError or ValueError for another."""
    return HookReading(
        slot=slot,
        pid=hook.pid,
        runtime=hook.runtime,
        runtime_version=hook.runtime_version,
        hook_version=hook.hook_version,
        forked=hook.forked,
        gc=hook_reading.gc_reading(answer),
        allocator=hook_reading.allocator_reading(answer),
        caches=hook_reading.caches(answer),
        round_trip=round_trip,
        identity=hook.identity,
        app=hook_reading.app_stats(answer),
    )


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse)
"""Made once: json.loads would make one for each answer."""
