"""``oomguard journal``: what was done to the target, and what it gave back."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from oomguard.cli.client import add_where, call, running
from oomguard.errors import UserError
from oomguard.journal import read_tail
from oomguard.log import quoted
from oomguard.sizes import format_size

_SIZES = frozenset({"used", "limit", "goal", "used_before", "used_after", "freed", "floor", "retained"})


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of ``journal``."""
    add_where(parser)
    parser.add_argument("--file", metavar="FILE", help="read this file, instead of asking a running sidecar")
    parser.add_argument("--json", action="store_true", help="print the records as they are")
    parser.add_argument("-n", type=int, default=50, metavar="N", help="the last N records (default 50)")


def run(options: argparse.Namespace) -> int:
    """Print the last records."""
    if options.n < 1:
        raise UserError(f"-n {options.n} is below 1")
    if options.file:
        if not Path(options.file).is_file():
            raise UserError(f"--file {options.file}: there is no such file")
        records: list[dict[str, Any]] = list(read_tail(Path(options.file), options.n))
    else:
        url, token = running(options)
        records = call(url, f"/api/v1/journal?limit={options.n}", token=token)["records"]
    for record in records:
        print(json.dumps(record) if options.json else _line(record))
    return 0


def _line(record: dict[str, Any]) -> str:
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.get("time", 0)))
    pairs = [
        f"{key}={format_size(value).replace(' ', '') if key in _SIZES and isinstance(value, int | float) else quoted(value)}"
        for key, value in record.items()
        if key not in ("time", "event", "hooks") and value not in (None, "")
    ]
    return f"{stamp}  {record['event']:<14}{' '.join(pairs)}"
