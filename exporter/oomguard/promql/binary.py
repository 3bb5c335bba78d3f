"""Binary operators between vectors and numbers: arithmetic, comparisons, set operators, and how series are matched."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from oomguard.errors import PromqlError
from oomguard.promql import labels as label_sets
from oomguard.promql.node import Query, ScalarNode, Vector, VectorNode, check_unique, show
from oomguard.promql.series import METRIC_NAME, Labels
from oomguard.promql.sums import divide, modulo, power

ARITHMETIC: Final[dict[str, Callable[[float, float], float]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": divide,
    "%": modulo,
    "^": power,
    "atan2": math.atan2,
}
COMPARISON: Final[dict[str, Callable[[float, float], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
NAMELESS: Final = frozenset(ARITHMETIC)
"""Operators that make another metric of a series (engine.go, changesMetricSchema); 2.42 forgot atan2."""
SETS: Final = ("and", "or", "unless")


@dataclass(frozen=True, slots=True)
class Matching:
    """Which series of two vectors belong together."""

    on: bool = False
    """`labels` are the ones to match on, else the ones to ignore."""
    labels: tuple[str, ...] = ()
    many: str = ""
    """``left`` or ``right``: the side of which several series may match one of the other."""
    include: tuple[str, ...] = ()
    """Labels to take from the one side."""

    def signatures(self) -> label_sets.LabelCache:
        """What series must have in common to match."""
        return label_sets.keep(self.labels) if self.on else label_sets.drop((*self.labels, METRIC_NAME))


def scalars(op: str, left: ScalarNode, right: ScalarNode) -> ScalarNode:
    """An operation on two numbers; a comparison gives 1 or 0."""
    one, other = left.evaluate, right.evaluate
    if op in COMPARISON:
        holds = COMPARISON[op]
        return ScalarNode(lambda query, time: 1.0 if holds(one(query, time), other(query, time)) else 0.0)
    compute = ARITHMETIC[op]
    return ScalarNode(lambda query, time: compute(one(query, time), other(query, time)))


def vector_and_scalar(
    op: str, vector: VectorNode, scalar: ScalarNode, *, swapped: bool, as_bool: bool
) -> VectorNode:
    """An operation on every sample of a vector; `swapped`: the number stands on the left."""
    evaluate, number = vector.evaluate, scalar.evaluate
    names = label_sets.without_name() if as_bool or op in NAMELESS else label_sets.same()
    sure, light = vector.sure and scalar.sure, vector.light and scalar.sure
    if op in ARITHMETIC:
        compute = ARITHMETIC[op]

        def arithmetic(query: Query, time: int) -> Vector:
            value = number(query, time)
            if swapped:
                return check_unique([(names[ls], compute(value, v)) for ls, v in evaluate(query, time)])
            return check_unique([(names[ls], compute(v, value)) for ls, v in evaluate(query, time)])

        return VectorNode(arithmetic, sure=sure, light=light)
    holds = COMPARISON[op]
    if swapped:
        straight = holds

        def holds(left: float, right: float) -> bool:
            return straight(right, left)

    def compare(query: Query, time: int) -> Vector:
        value = number(query, time)
        return [sample for sample in evaluate(query, time) if holds(sample[1], value)]

    def compare_bool(query: Query, time: int) -> Vector:
        value = number(query, time)
        found = evaluate(query, time)
        return check_unique([(names[ls], 1.0 if holds(v, value) else 0.0) for ls, v in found])

    return VectorNode(compare_bool if as_bool else compare, sure=sure, light=light)


def set_operation(op: str, left: VectorNode, right: VectorNode, matching: Matching) -> VectorNode:
    """``and``, ``or``, ``unless``: series of one vector by whether the other has a match.

    A side that is `sure` is not evaluated where nothing can come of it: most rules ask for a window's worth of
    reckoning only of a target that a look at the present does not acquit. Not in a subquery (`Query.claim`).
    """
    one, other, signatures = left.evaluate, right.evaluate, matching.signatures()
    right_first = left.sure and right.light

    def both(query: Query, time: int) -> Vector:
        if right_first:
            others = other(query, time)
            found = one(query, time) if others or query.origins is not None else []
        else:
            found = one(query, time)
            others = other(query, time) if found or not right.sure or query.origins is not None else []
        present = {signatures[labels] for labels, _ in others}
        return [sample for sample in found if signatures[sample[0]] in present]

    def either(query: Query, time: int) -> Vector:
        found, others = one(query, time), other(query, time)
        present = {signatures[labels] for labels, _ in found}
        return found + [sample for sample in others if signatures[sample[0]] not in present]

    def unmatched(query: Query, time: int) -> Vector:
        found = one(query, time)
        if not found and right.sure and query.origins is None:
            return []
        others = other(query, time)
        present = {signatures[labels] for labels, _ in others}
        return [sample for sample in found if signatures[sample[0]] not in present]

    sure = left.sure and right.sure and op != "or"
    return VectorNode(
        {"and": both, "or": either, "unless": unmatched}[op], sure=sure, light=left.light and right.light
    )


def vectors(op: str, left: VectorNode, right: VectorNode, matching: Matching, *, as_bool: bool) -> VectorNode:
    """Arithmetic or a comparison of the series of two vectors that match (engine.go, VectorBinop).

    Several matches for one series are an error only if they pass the comparison, as in Prometheus up to 3.8; later
    ones also fail for matches that are filtered out.
    """
    swapped = matching.many == "right"
    first, second = left.evaluate, right.evaluate
    side = "left" if swapped else "right"
    signatures = matching.signatures()
    results = _result_labels(op, matching, as_bool=as_bool)
    combine = _combination(op, swapped=swapped, as_bool=as_bool)
    grouped = bool(matching.many)

    def run(query: Query, time: int) -> Vector:
        samples, singles = first(query, time), second(query, time)
        if swapped:
            samples, singles = singles, samples
        if not singles or not samples:
            return []
        by_signature: dict[Labels, tuple[Labels, float]] = {}
        for sample in singles:
            signature = signatures[sample[0]]
            if signature in by_signature:
                raise _many_to_many(signature, side, sample[0], by_signature[signature][0])
            by_signature[signature] = sample
        vector: Vector = []
        matched = set()
        for labels, value in samples:
            signature = signatures[labels]
            partner = by_signature.get(signature)
            if partner is None:
                continue
            result = combine(value, partner[1])
            if result is None:
                continue
            named = results[labels, partner[0]]
            mark = (signature, named) if grouped else signature
            if mark in matched:
                raise _multiple(grouped=grouped)
            matched.add(mark)
            vector.append((named, result))
        return check_unique(vector)

    # Matched by all their labels, series that differ in more than their names have one partner at most.
    whole = not (matching.on or matching.labels or matching.many)
    sure = left.sure and right.sure and whole
    return VectorNode(run, sure=sure, light=left.light and right.light)


def _combination(op: str, *, swapped: bool, as_bool: bool) -> Callable[[float, float], float | None]:
    """What becomes of a value of the many side and one of the one side; None: it is filtered out."""
    if op in ARITHMETIC:
        compute = ARITHMETIC[op]
        return (lambda many, one: compute(one, many)) if swapped else compute
    holds = COMPARISON[op]
    if as_bool:
        if swapped:
            return lambda many, one: 1.0 if holds(one, many) else 0.0
        return lambda many, one: 1.0 if holds(many, one) else 0.0
    if swapped:
        return lambda many, one: one if holds(one, many) else None
    return lambda many, one: many if holds(many, one) else None


def _result_labels(op: str, matching: Matching, *, as_bool: bool) -> label_sets.PairCache:
    """The labels of a result, by those of the many side and the one side (engine.go, resultMetric)."""
    dropped = {METRIC_NAME} if as_bool or op in NAMELESS else set()
    if not matching.many and not matching.on:
        dropped |= set(matching.labels)
    kept = set(matching.labels) if matching.on and not matching.many else None

    def make(many: Labels, one: Labels) -> Labels:
        pairs = {k: v for k, v in many if k not in dropped and (kept is None or k in kept)}
        for name in matching.include:
            value = label_sets.get(one, name)
            if value:
                pairs[name] = value
            else:
                pairs.pop(name, None)
        return tuple(sorted(pairs.items()))

    return label_sets.PairCache(make)


def _many_to_many(signature: Labels, side: str, one: Labels, other: Labels) -> PromqlError:
    first, second = sorted((show(one), show(other)))
    return PromqlError(
        f"found duplicate series for the match group {show(signature)} on the {side} hand-side of the operation: "
        f"[{first}, {second}]; many-to-many matching not allowed: matching labels must be unique on one side"
    )


def _multiple(*, grouped: bool) -> PromqlError:
    if grouped:
        return PromqlError("multiple matches for labels: grouping labels must ensure unique matches")
    return PromqlError(
        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
    )


def negate(vector: VectorNode) -> VectorNode:
    """Unary minus: without the metric's name."""
    evaluate, names = vector.evaluate, label_sets.without_name()

    def run(query: Query, time: int) -> Vector:
        result = []
        for labels, value in evaluate(query, time):
            named = names[labels]
            query.claim(identity, named, labels)
            result.append((named, -value))
        return check_unique(result)

    identity = id(run)
    return VectorNode(run)
