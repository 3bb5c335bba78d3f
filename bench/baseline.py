"""Runs a workload guarded by the bare loop instead of oomguard, in the same box, as oomguard's sidecar is."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.support.boxes import BoxV1
from tests.support.guarded import Program


@contextlib.contextmanager
def bare_loop(box: BoxV1, argv: Sequence[str], threshold: int) -> Iterator[Program]:
    """The running workload; `threshold` is in bytes. The loop is ended with it."""
    with tempfile.TemporaryDirectory() as folder:
        orders = str(Path(folder, "orders"))
        script = str(Path(__file__).with_name("bare_loop.py"))
        loop: subprocess.Popen[str] = box.run([sys.executable, script, str(box.path), str(threshold), orders])
        try:
            with Program(box, argv, env={"WORKLOAD_ORDERS": orders}) as program:
                yield program
        finally:
            loop.kill()
            loop.wait()
