"""Tables for the terminal and for RESULTS.md: the same Markdown serves both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table whose columns line up; the first column is text, the others are figures."""
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(
        1, "|" + "|".join("-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths)) + "|"
    )
    return "\n".join(lines)


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which `part` of them lie (nearest rank); with few values p99 is the largest."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def milliseconds(seconds: float) -> str:
    """Three digits are more than any of these repeats to."""
    return f"{seconds * 1e3:.1f} ms"


def megabytes(size: float) -> str:
    """Of 2^20 bytes, as limits are written."""
    return f"{size / (1 << 20):.1f} MB"
