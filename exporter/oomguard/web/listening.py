"""Where the sidecar listens: one address, said in full when it can't be had."""

from __future__ import annotations

import errno
import os
import socket

from aiohttp import web

from oomguard.config import DEFAULT_LISTEN
from oomguard.errors import UserError
from oomguard.log import LOGGER


def is_loopback(listen: str) -> bool:
    """Whether only this machine can reach ``HOST:PORT``."""
    host = _host(listen)
    return host in ("localhost", "::1") or host.startswith("127.")


async def serve(app: web.Application, listen: str) -> tuple[web.AppRunner, str]:
    """Serve at ``HOST:PORT``; returns the runner, to be cleaned up, and the URL. Raises UserError."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await _start(runner, listen)
    except OSError as error:
        await runner.cleanup()
        # asyncio puts a text of its own into strerror, with the address in it a second time; the numbers
        # of getaddrinfo(3) are not the kernel's.
        number = None if isinstance(error, socket.gaierror) else error.errno
        reason = (os.strerror(number) if number else error.strerror or str(error)).lower()
        raise UserError(
            f"--listen {listen}: {reason}; choose another address with --listen or "
            "OOMGUARD_LISTEN (port 0 takes any free one)"
        ) from None
    address = runner.addresses[0]
    shown = f"[{address[0]}]" if ":" in address[0] else address[0]
    return runner, f"http://{shown}:{address[1]}"


def _host(listen: str) -> str:
    return listen.rpartition(":")[0].strip("[]")


async def _start(runner: web.AppRunner, listen: str) -> None:
    host, port = _host(listen), int(listen.rpartition(":")[2])
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        if listen != DEFAULT_LISTEN or error.errno != errno.EADDRINUSE:
            raise
        # A second service on one machine: a port that nobody asked for must not cost it its guard.
        await web.TCPSite(runner, host, 0).start()
        LOGGER.warning(f"{DEFAULT_LISTEN} is taken: another port serves the page and /metrics; set --listen")
