"""The hook's own cost: private dirty memory of a process that imports aiohttp, with and without the hook.

Three processes of each kind, all else equal, read once the hook has been connected and asked for readings
for a few seconds; the least of each is taken (what is above it is chance: hash seeds, the allocator's
arenas).
"""

from __future__ import annotations

from tests.support.boxes import MIB, BoxV1
from tests.support.guarded import Guarded, Program, workload

from bench.table import megabytes, table

REPEATS = 3
ARGV = workload("imports_aiohttp", "--seconds", 8)


def _without() -> int:
    with BoxV1(512 * MIB) as box, Program(box, ARGV) as program:
        program.port()
        return int(program.next_line()["private_dirty"])


def _with() -> int:
    with BoxV1(512 * MIB) as box, Guarded(box, ARGV) as program:
        program.port()
        program.wait_until_guarding(hooks=1)
        return int(program.next_line()["private_dirty"])


def measure() -> str:
    """The section for RESULTS.md."""
    without = min(_without() for _ in range(REPEATS))
    with_hook = min(_with() for _ in range(REPEATS))
    rows = [
        ["aiohttp.web imported", megabytes(without)],
        ["and the hook, connected", megabytes(with_hook)],
        ["the hook", megabytes(with_hook - without)],
    ]
    return "\n".join(
        ["## The hook", "", (__doc__ or "").strip(), "", table(["process", "private dirty"], rows), ""]
    )
