"""What of the measurements can be wrong without anybody seeing it: how a ratio is made of rounds, what is told of."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from bench.web import Turn, ratio

ROOT = Path(__file__).parents[2]


def _round(without: float, with_hook: float) -> list[Turn]:
    return [Turn(throughput, 1.0, 1.0, 1.0) for throughput in (without, with_hook)]


def test_turns_are_compared_within_their_round_so_that_a_slow_minute_hurts_nobody() -> None:
    rounds = [_round(10_000, 9_900), _round(5_000, 4_950), _round(20_000, 19_800)]
    assert ratio(rounds, 1, "throughput").median == pytest.approx(0.99)


def test_the_interval_holds_the_median_and_widens_with_the_spread() -> None:
    steady = ratio([_round(1000, 990 + number % 3) for number in range(50)], 1, "throughput")
    restless = ratio([_round(1000, 800 + 8 * number) for number in range(50)], 1, "throughput")
    for one in (steady, restless):
        assert one.low <= one.median <= one.high
        assert one.lower_quartile <= one.low <= one.high <= one.upper_quartile
    assert restless.high - restless.low > 10 * (steady.high - steady.low)


def test_every_part_of_the_bench_is_in_its_readme() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "bench", "nonsense"], cwd=ROOT, capture_output=True, text=True
    ).stderr
    parts = said.rpartition("the parts are ")[2].strip().split(", ")
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "bench" / "README.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(parts)
