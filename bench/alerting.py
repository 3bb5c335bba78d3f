"""Alerting: how soon a webhook hears of a crossing, and what rules cost, both beside the real Prometheus."""

from __future__ import annotations

from bench import crossing, evaluation


def measure(rounds: int) -> str:
    """The section for RESULTS.md."""
    return "\n".join(["## Alerting", "", crossing.measure(rounds), evaluation.measure()])
