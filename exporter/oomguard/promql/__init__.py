"""PromQL, as Prometheus 3 has it, evaluated on a `Storage`; what it can't do rightly it refuses to compile.

Ranges, subqueries and the lookback of 5 minutes are open on the left: a sample exactly that old is out. Left out
are native histograms, experimental functions, aggregations and modifiers, and regular expressions that Python's
`re` would match otherwise than RE2.
"""

from __future__ import annotations

from oomguard.promql.expression import Expression, compile_expression
from oomguard.promql.memory import MemorySeries, MemoryStorage, make_labels
from oomguard.promql.node import Selector
from oomguard.promql.select import LOOKBACK

__all__ = [
    "LOOKBACK",
    "Expression",
    "MemorySeries",
    "MemoryStorage",
    "Selector",
    "compile_expression",
    "make_labels",
]
