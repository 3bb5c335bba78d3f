"""``oomguard demo``: a leaking service, guarded, with the live page."""

from __future__ import annotations

import argparse
import dataclasses
import socket
import sys
from pathlib import Path

from oomguard import demo
from oomguard.cli.options import add_settings, settings_from
from oomguard.cli.run import start
from oomguard.config import Settings
from oomguard.sizes import format_size

LIMIT = 192 << 20


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``demo``."""
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Never returns when it works: the supervisor takes this process over, until Ctrl-C."""
    settings = settings_from(options)
    settings = dataclasses.replace(settings, limit=settings.limit or LIMIT, target=settings.target or "demo")
    host, _, port = settings.listen.rpartition(":")
    if int(port) == 0 or (options.listen is None and _taken(settings)):
        # Chosen here, since the address is printed before there is a sidecar.
        settings = dataclasses.replace(settings, listen=f"{host}:{_free_port()}")
    print(f"A service that caches every answer runs under {format_size(settings.limit or LIMIT)}, guarded.")
    print(f"Live page: http://{settings.listen}/   metrics: http://{settings.listen}/metrics   end: Ctrl-C")
    service = Path(demo.__file__).with_name("service.py")
    return start(settings, [sys.executable, str(service)])


def _taken(settings: Settings) -> bool:
    host, _, port = settings.listen.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return True
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
