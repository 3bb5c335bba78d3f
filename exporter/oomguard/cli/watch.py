"""``oomguard watch``: guard a process that already runs, or will; the sidecar alone, without a supervisor."""

from __future__ import annotations

import argparse
import os

from oomguard import log, runtime
from oomguard.attach import Follower, Selector
from oomguard.cli.options import add_settings, check_alerting, needs_sidecar, number, settings_from
from oomguard.errors import UserError


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``watch``."""
    parser.usage = "oomguard watch (--pid N | --pid-file FILE | --match REGEX | --port PORT) [OPTION …]"
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--pid", type=number, metavar="N", help="the process with this PID")
    which.add_argument(
        "--pid-file", metavar="FILE", help="the process whose PID stands in this file, again after a restart"
    )
    which.add_argument(
        "--match", metavar="REGEX", help="the process whose command line matches, again after a restart"
    )
    which.add_argument(
        "--port",
        type=number,
        metavar="PORT",
        help="the process that listens on this TCP port, again after a restart",
    )
    add_settings(parser)


def run(options: argparse.Namespace) -> int:
    """Guard until interrupted."""
    settings = settings_from(options)
    if options.port is not None and options.port >= 1 << 16:
        raise UserError(f"--port {options.port} is not a TCP port; they end at 65535")
    follower = Follower(
        Selector(
            pid=options.pid,
            pid_file=options.pid_file,
            match=options.match,
            port=options.port,
        )
    )
    needs_sidecar()
    check_alerting(settings)
    from oomguard.app import guard  # noqa: PLC0415 - brings aiohttp, which needs_sidecar has looked for

    log.setup(settings.log_level, settings.log_format)
    follower.find()  # what the user can mend is said before anything is started
    place = runtime.prepare(settings.runtime_dir, "watch")
    os.environ[runtime.VARIABLE] = place.variable
    return guard(settings, place, follower=follower)
