"""Streaming a file in pieces, of which a budget knows."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from oomguard.hook.limits.budgets import Budget


def read_chunks(
    path: str | os.PathLike[str], size: int = 65536, *, budget: Budget | None = None
) -> Iterator[bytes]:
    """Read a file in chunks of at most `size` bytes, with no more than one of them in memory.

    Of the `budget`, `size` bytes are reserved while a chunk is being read and held by the caller: until it asks for
    the next. The file is opened when the first chunk is asked for and closed with the last, and also when the
    iteration is given up (`close()`, or nobody holds it any more).

    Raises ValueError for a size below 1, at once; the iteration raises OSError, and BudgetExceeded.
    """
    if type(size) is not int or size < 1:
        raise ValueError(f"read_chunks: size must be a number of bytes above 0, not {size!r}")
    return _read(path, size, budget)


def _read(path: str | os.PathLike[str], size: int, budget: Budget | None) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (pathlib costs 3 ms)
        while True:
            taken = None if budget is None else budget.reserve(size)
            try:
                chunk = file.read(size)
                if not chunk:
                    return
                yield chunk
                del chunk  # not beside the next one
            finally:
                if taken is not None:
                    taken.release()
