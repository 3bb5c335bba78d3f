"""The recorded trees that these tests read."""

from pathlib import Path

TREES = Path(__file__).parents[2] / "fixtures" / "proc"
MIB = 1 << 20
