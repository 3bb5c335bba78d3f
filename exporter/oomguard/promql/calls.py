"""Function calls: the table of all functions, and those that fit in no file of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

from oomguard.errors import PromqlError
from oomguard.promql import elementary, labels, over_time, ranges, relabel, times
from oomguard.promql.histogram import histogram_quantile
from oomguard.promql.node import (
    MatrixNode,
    Node,
    Query,
    ScalarNode,
    Selector,
    StringNode,
    Vector,
    VectorNode,
    check_unique,
)
from oomguard.promql.series import METRIC_NAME, Labels
from oomguard.promql.sums import divide, largest, smallest

Arguments = Sequence[Node]
_WRONG: Final = "is of the wrong type"


def call(name: str, arguments: Arguments) -> Node:
    """The node of a call; PromqlError for a function that is not supported."""
    if name in elementary.FUNCTIONS:
        return _mapped(_vector(name, arguments, 0), elementary.FUNCTIONS[name])
    if name in times.FUNCTIONS:
        return _date(name, arguments)
    if name in over_time.OF_VALUES:
        return over_time.of_values(name, _matrix(name, arguments, 0))
    if name in _OVER_RANGE:
        return ranges.over_range(matrix := _matrix(name, arguments, 0), _OVER_RANGE[name](matrix.range))
    if name in _OTHERS:
        return _OTHERS[name](name, arguments)
    raise PromqlError(
        f"function {name} is not supported: it is experimental, or for native histograms; "
        "a Prometheus server can evaluate it in a recording rule"
    )


def _mapped(vector: VectorNode, function: Callable[[float], float]) -> VectorNode:
    evaluate, names = vector.evaluate, labels.without_name()

    def run(query: Query, time: int) -> Vector:
        return check_unique([(names[found], function(value)) for found, value in evaluate(query, time)])

    return VectorNode(run)


def _date(name: str, arguments: Arguments) -> VectorNode:
    if arguments:
        return _mapped(_vector(name, arguments, 0), times.of_sample(name))
    function = times.FUNCTIONS[name]
    return VectorNode(lambda _query, time: [((), float(function(time // 1000)))])


def _absent(name: str, arguments: Arguments) -> VectorNode:
    vector = _vector(name, arguments, 0)
    evaluate, result = vector.evaluate, _absent_labels(vector.selector)
    return VectorNode(lambda query, time: [] if evaluate(query, time) else [(result, 1.0)])


def _absent_over_time(name: str, arguments: Arguments) -> VectorNode:
    matrix = _matrix(name, arguments, 0)
    evaluate, result = matrix.evaluate, _absent_labels(matrix.selector)
    return VectorNode(lambda query, time: [] if evaluate(query, time) else [(result, 1.0)])


def _absent_labels(selector: Selector | None) -> Labels:
    """What a selector says of the series it misses (functions.go, createLabelsForAbsentFunction).

    A label with two matchers, or with any but an equality, is left out.
    """
    if selector is None:
        return ()
    pairs: dict[str, str] = {}
    seen: set[str] = set()
    for matcher in selector.matchers:
        if matcher.name == METRIC_NAME:
            continue
        if matcher.op == "=" and matcher.name not in seen:
            pairs[matcher.name] = matcher.value
            seen.add(matcher.name)
        else:
            pairs.pop(matcher.name, None)
    return tuple(sorted((name, value) for name, value in pairs.items() if value))


def _clamp(name: str, arguments: Arguments) -> VectorNode:
    low = ScalarNode(lambda _query, _time: -math.inf, sure=True)
    high = ScalarNode(lambda _query, _time: math.inf, sure=True)
    if name != "clamp_max":
        low = _scalar(name, arguments, 1)
    if name != "clamp_min":
        high = _scalar(name, arguments, 2 if name == "clamp" else 1)
    vector, bounded = _vector(name, arguments, 0), low.sure and high.sure
    evaluate, least, most = vector.evaluate, low.evaluate, high.evaluate
    names = labels.without_name()

    def run(query: Query, time: int) -> Vector:
        bottom, top = least(query, time), most(query, time)
        found = evaluate(query, time)
        if top < bottom:
            return []
        return check_unique([(names[ls], largest(bottom, smallest(top, value))) for ls, value in found])

    return VectorNode(run, sure=vector.sure and bounded, light=vector.light and bounded)


def _round(name: str, arguments: Arguments) -> VectorNode:
    vector = _vector(name, arguments, 0)
    nearest = _scalar(name, arguments, 1) if len(arguments) > 1 else ScalarNode(lambda _query, _time: 1.0)
    evaluate, unit, names = vector.evaluate, nearest.evaluate, labels.without_name()

    def run(query: Query, time: int) -> Vector:
        # Ties go up; the inverse costs less accuracy than dividing twice (functions.go, funcRound).
        inverse = divide(1.0, unit(query, time))
        found = evaluate(query, time)
        return check_unique(
            [(names[ls], divide(elementary.floor(value * inverse + 0.5), inverse)) for ls, value in found]
        )

    return VectorNode(run)


def _sorted(name: str, arguments: Arguments) -> VectorNode:
    evaluate = _vector(name, arguments, 0).evaluate
    sign = -1.0 if name == "sort_desc" else 1.0

    def order(sample: tuple[Labels, float]) -> tuple[bool, float]:
        value = sample[1]
        return (True, 0.0) if value != value else (False, sign * value)  # noqa: PLR0124 - the test for NaN

    return VectorNode(lambda query, time: sorted(evaluate(query, time), key=order))


def _timestamp(name: str, arguments: Arguments) -> VectorNode:
    """When each sample was taken, of a selector; of anything else, when it is evaluated."""
    vector = _vector(name, arguments, 0)
    names = labels.without_name()
    if (taken := vector.timestamps) is not None:
        return VectorNode(
            lambda query, time: check_unique([(names[ls], at) for ls, at in taken(query, time)])
        )
    if vector.selector is not None:
        raise PromqlError(
            "timestamp of a selector with @ and offset is not supported; put the offset into the @"
        )
    evaluate = vector.evaluate
    return VectorNode(
        lambda query, time: check_unique([(names[ls], time / 1000) for ls, _ in evaluate(query, time)])
    )


def _to_scalar(name: str, arguments: Arguments) -> ScalarNode:
    """The value of a vector of one sample, else NaN."""
    evaluate = _vector(name, arguments, 0).evaluate

    def run(query: Query, time: int) -> float:
        found = evaluate(query, time)
        return found[0][1] if len(found) == 1 else math.nan

    return ScalarNode(run)


def _to_vector(name: str, arguments: Arguments) -> VectorNode:
    number = _scalar(name, arguments, 0).evaluate
    return VectorNode(lambda query, time: [((), number(query, time))])


def _vector(name: str, arguments: Arguments, index: int) -> VectorNode:
    node = arguments[index]
    if not isinstance(node, VectorNode):
        raise PromqlError(f"argument {index + 1} of {name} {_WRONG}; it takes an instant vector")
    return node


def _scalar(name: str, arguments: Arguments, index: int) -> ScalarNode:
    node = arguments[index]
    if not isinstance(node, ScalarNode):
        raise PromqlError(f"argument {index + 1} of {name} {_WRONG}; it takes a scalar")
    return node


def _string(name: str, arguments: Arguments, index: int) -> str:
    node = arguments[index]
    if not isinstance(node, StringNode):
        raise PromqlError(f"argument {index + 1} of {name} {_WRONG}; it takes a string")
    return node.value


def _matrix(name: str, arguments: Arguments, index: int) -> MatrixNode:
    node = arguments[index]
    if not isinstance(node, MatrixNode):
        raise PromqlError(f"argument {index + 1} of {name} {_WRONG}; it takes a range vector")
    return node


_OVER_RANGE: Final[dict[str, Callable[[int], ranges.Over]]] = {
    "rate": lambda length: ranges.extrapolated(length, counter=True, per_second=True),
    "increase": lambda length: ranges.extrapolated(length, counter=True, per_second=False),
    "delta": lambda length: ranges.extrapolated(length, counter=False, per_second=False),
    "irate": lambda _length: ranges.irate,
    "idelta": lambda _length: ranges.idelta,
    "resets": lambda _length: ranges.resets,
    "changes": lambda _length: ranges.changes,
    "deriv": lambda _length: ranges.deriv,
}

_OTHERS: Final[dict[str, Callable[[str, Arguments], Node]]] = {
    "absent": _absent,
    "absent_over_time": _absent_over_time,
    "clamp": _clamp,
    "clamp_max": _clamp,
    "clamp_min": _clamp,
    "histogram_quantile": lambda n, a: histogram_quantile(_scalar(n, a, 0), _vector(n, a, 1)),
    "label_join": lambda n, a: relabel.label_join(
        _vector(n, a, 0), _string(n, a, 1), _string(n, a, 2), [_string(n, a, i) for i in range(3, len(a))]
    ),
    "label_replace": lambda n, a: relabel.label_replace(
        _vector(n, a, 0), _string(n, a, 1), _string(n, a, 2), _string(n, a, 3), _string(n, a, 4)
    ),
    "pi": lambda _n, _a: ScalarNode(lambda _query, _time: math.pi),
    "predict_linear": lambda n, a: ranges.predict_linear(_matrix(n, a, 0), _scalar(n, a, 1)),
    "quantile_over_time": lambda n, a: over_time.quantile_over_time(_scalar(n, a, 0), _matrix(n, a, 1)),
    "round": _round,
    "scalar": _to_scalar,
    "sort": _sorted,
    "sort_desc": _sorted,
    "time": lambda _n, _a: ScalarNode(lambda _query, time: time / 1000, sure=True),
    "timestamp": _timestamp,
    "vector": _to_vector,
}
