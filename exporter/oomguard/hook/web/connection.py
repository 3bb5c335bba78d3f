"""The connection of a stream: the kernel is asked to notice a client that vanishes without a word.

No FIN comes from a client whose packets are dropped. Two options of tcp(7) make the kernel end such a connection:
keepalive probes where nothing is being sent, TCP_USER_TIMEOUT where something is and is never acknowledged (a
client whose window stays shut for that long is ended by it, too).
"""

from __future__ import annotations

import _socket
import contextlib
import os

_IDLE, _INTERVAL = 15, 5
"""Seconds of silence until the first probe, and between two."""
_TIMEOUT = 35
"""Seconds without an acknowledgement after which the kernel gives up. Where both are set, this one decides about
probes as well (tcp(7)); with the two looks of `tasks.Lookout` that follow, a handler ends within a minute."""
_OPTIONS = tuple(
    (level, number, value)
    for level, number, value in (
        (_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1),
        (_socket.IPPROTO_TCP, getattr(_socket, "TCP_KEEPIDLE", None), _IDLE),
        (_socket.IPPROTO_TCP, getattr(_socket, "TCP_KEEPINTVL", None), _INTERVAL),
        (_socket.IPPROTO_TCP, getattr(_socket, "TCP_KEEPCNT", None), (_TIMEOUT - _IDLE) // _INTERVAL),
        (_socket.IPPROTO_TCP, getattr(_socket, "TCP_USER_TIMEOUT", None), _TIMEOUT * 1000),
    )
    if number is not None
)

_listeners_of = 0
"""The process whose listening sockets were set."""


def watch(transport: object) -> None:
    """Let the kernel watch an asyncio transport's connection; without one, those still to be accepted here."""
    found = None
    with contextlib.suppress(Exception):  # what hides behind the server's objects is not ours to rely on
        found = transport.get_extra_info("socket").fileno()  # type: ignore[attr-defined]
    watch_number(found)


def watch_number(number: int | None) -> None:
    """The same for a socket's number; None: it is not known."""
    if number is None:
        _watch_listeners()
        return
    with contextlib.suppress(OSError):  # closed by now, or of a unix socket
        _set(number)


def gone(connection: object) -> bool:
    """Whether the client of this request has left; `connection` has a `transport`, as uvicorn's and aiohttp's."""
    try:
        transport = connection.transport  # type: ignore[attr-defined]
        return transport is None or bool(transport.is_closing())
    except Exception:  # noqa: BLE001 (as above)
        return False


def _watch_listeners() -> None:
    """Accepted sockets inherit these options from the one that listens (Linux, inet_csk_clone_lock)."""
    global _listeners_of  # noqa: PLW0603 (sockets are the process's)
    if _listeners_of == os.getpid():
        return
    _listeners_of = os.getpid()
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208 (numbers, not paths)
    except OSError:
        return
    for number in numbers:
        with contextlib.suppress(OSError):  # no socket, or none of TCP
            _set(number, listening=True)


def _set(number: int, *, listening: bool = False) -> None:
    """Set the options of a socket; with `listening`, only of one that listens. Raises OSError."""
    copy = _copy(number)
    try:
        if not listening or copy.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN):
            for level, option, value in _OPTIONS:
                copy.setsockopt(level, option, value)
    finally:
        copy.close()


def _copy(number: int) -> _socket.socket:
    """A socket object of the number's file, which may be closed (uvloop's own sets no options)."""
    copy = os.dup(number)
    try:
        return _socket.socket(fileno=copy)
    except BaseException:
        os.close(copy)
        raise
