"""A compiled expression: what it reads, and its value at a time."""

from __future__ import annotations

from oomguard.errors import PromqlError
from oomguard.promql.node import MatrixNode, Query, ScalarNode, StringNode, Vector, VectorNode
from oomguard.promql.parse import parse
from oomguard.promql.series import Storage

_KINDS = {VectorNode: "vector", ScalarNode: "scalar", StringNode: "string", MatrixNode: "matrix"}


class Expression:
    """One PromQL expression, compiled once and evaluated often; not for use from several threads at once."""

    __slots__ = ("_node", "kind", "reach", "selectors", "text")

    def __init__(self, text: str) -> None:
        """PromqlError if the text can't be parsed or uses what is not supported."""
        self._node, self.selectors = parse(text)
        self.text = text
        self.kind: str = _KINDS[type(self._node)]
        """``vector``, ``scalar``, ``string`` or ``matrix``; the last two can't be evaluated."""
        self.reach = max((selector.reach for selector in self.selectors), default=0)
        """How much history it needs, in ms before the time of evaluation, without the lookback."""

    def evaluate(self, storage: Storage, time: int) -> Vector:
        """Its value at a time (Unix ms) as labels and values, in no order unless it sorts.

        A scalar is one sample without labels. PromqlError where the series at hand make it fail, as in Prometheus:
        many-to-many matching, or a label set that would stand in the result twice.
        """
        node, query = self._node, Query(storage, time)
        if isinstance(node, VectorNode):
            return node.evaluate(query, time)
        if isinstance(node, ScalarNode):
            return [((), node.evaluate(query, time))]
        raise PromqlError(f"{self.text!r} is a {self.kind}, which has no value at one time; make it a vector")

    def __repr__(self) -> str:
        return f"Expression({self.text!r})"


def compile_expression(text: str) -> Expression:
    """Compiles PromQL; PromqlError for a mistake in it and for every construct that is not supported."""
    return Expression(text)
