"""A small sidecar for tests: a real unix socket that speaks the hook protocol's other side.

::

    with FakeSidecar(directory) as sidecar:
        ... start a process with OOMGUARD_RUNTIME_DIR=directory ...
        hook = sidecar.accept()
        hook.hello["pid"]
        hook.ask("reading")["reading"]
"""

from __future__ import annotations

import json
import socket
import struct
import time
from pathlib import Path
from types import TracebackType
from typing import Any

TIMEOUT = 20.0
"""Seconds after which a test fails instead of hanging."""


class Hook:
    """One connected hook, after its hello."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(TIMEOUT)
        self.socket = connection
        peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        self.pid = struct.unpack("3i", peer)[0]
        """As the kernel says (SO_PEERCRED)."""
        self._buffer = b""
        self._id = 0
        self.hello = self.receive()

    def receive(self) -> dict[str, Any]:
        """Return the next line as an object; raises EOFError where the hook has closed the connection."""
        while b"\n" not in self._buffer:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(f"hook {self.pid} closed the connection")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        assert len(line) < 65536, "a line longer than the protocol allows"
        message = json.loads(line)
        assert isinstance(message, dict)
        return message

    def send(self, data: bytes) -> None:
        """Send bytes as they are: garbage, halves of lines."""
        self.socket.sendall(data)

    def question(self, ask: str, **fields: object) -> int:
        """Send a question and return its id without waiting for the answer."""
        self._id += 1
        self.send(json.dumps({"id": self._id, "ask": ask, **fields}).encode() + b"\n")
        return self._id

    def ask(self, ask: str, **fields: object) -> dict[str, Any]:
        """Ask and return the answer, which must carry the question's id."""
        identity = self.question(ask, **fields)
        answer = self.receive()
        assert answer["id"] == identity
        return answer

    def reading(self) -> dict[str, Any]:
        """Ask for a reading."""
        return self.ask("reading")["reading"]  # type: ignore[no-any-return]

    def step(self, step: str, name: str | None = None, within: float | None = 5.0) -> dict[str, Any]:
        """Order a step."""
        return self.ask("step", step=step, name=name, within=within)["step"]  # type: ignore[no-any-return]

    def wait_closed(self) -> None:
        """Return when the hook has closed the connection."""
        try:
            while self.socket.recv(65536):
                pass
        except ConnectionResetError:
            return

    def close(self) -> None:
        self.socket.close()


class FakeSidecar:
    """Listens in `runtime_dir`, or on an abstract socket where that begins with ``@``."""

    def __init__(self, runtime_dir: Path | str) -> None:
        self.runtime_dir = str(runtime_dir)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if self.runtime_dir.startswith("@"):
            self._listener.bind("\0" + self.runtime_dir[1:])
        else:
            self._path = Path(self.runtime_dir) / "sidecar.sock"
            self._path.unlink(missing_ok=True)
            self._listener.bind(str(self._path))
        self._listener.listen(64)
        self._hooks: list[Hook] = []

    def accept(self, timeout: float = TIMEOUT) -> Hook:
        """Return the next hook that says hello; raises TimeoutError."""
        self._listener.settimeout(timeout)
        hook = Hook(self._listener.accept()[0])
        self._hooks.append(hook)
        return hook

    def accept_pid(self, pid: int, timeout: float = TIMEOUT) -> Hook:
        """Return the next hook of one process; those of others stay connected."""
        until = time.monotonic() + timeout
        while True:
            hook = self.accept(max(0.01, until - time.monotonic()))
            if hook.pid == pid:
                return hook

    def nobody(self, seconds: float) -> bool:
        """Whether no hook connects for so long."""
        try:
            self.accept(seconds)
        except TimeoutError:
            return True
        except EOFError:
            return False  # it came and was gone before its hello
        return False

    @property
    def environment(self) -> dict[str, str]:
        """What a target needs to find this sidecar."""
        return {"OOMGUARD_RUNTIME_DIR": self.runtime_dir}

    def close(self) -> None:
        for hook in self._hooks:
            hook.close()
        self._listener.close()

    def __enter__(self) -> FakeSidecar:  # noqa: PYI034 (Self is typing's from 3.11 on)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
