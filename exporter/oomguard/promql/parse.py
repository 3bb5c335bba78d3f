"""From PromQL text to nodes: promql-parser gives the tree, and what it lets pass that is not supported is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

import promql_parser as grammar

from oomguard.errors import PromqlError
from oomguard.promql import aggregate, binary, select
from oomguard.promql.calls import call
from oomguard.promql.labels import check_label_name
from oomguard.promql.node import (
    MatrixNode,
    Node,
    ScalarNode,
    Scope,
    Selector,
    StringNode,
    VectorNode,
)
from oomguard.promql.patterns import compile_pattern
from oomguard.promql.series import METRIC_NAME, Matcher

DEFAULT_STEP: Final = 60_000
"""A subquery's step in ms where none is given: Prometheus' default evaluation interval."""

_LONGEST: Final = timedelta(days=290 * 365)
"""Prometheus counts durations in int64 nanoseconds."""

_DEEPEST: Final = 100
"""Of a tree: enough for any rule, and far from Python's own limit."""

_LONGEST_TEXT: Final = 4000
"""Characters outside of strings: promql-parser takes quadratic time, and overflows the stack at some 10000 levels."""

# Strings and comments, in which nothing means what it looks like.
_ASIDE: Final = re.compile(
    r"""`[^`]*` | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*') | \#[^\n]*""", re.VERBOSE | re.DOTALL
)
_NEGATIVE_AT: Final = re.compile(r"@\s*-")
_PLUS: Final = re.compile(r"(?:\w\s*\(|,)[\s(]*\+(?!\s*(?:[\d.]|inf\b|nan\b))", re.IGNORECASE)
"""A sign before an argument, which promql-parser drops: timestamp(+x) is not timestamp(x), rate(+x[5m]) a mistake."""
_BYTE_ESCAPE: Final = re.compile(r"(?<!\\)(?:\\\\)*\\(?:x[89a-fA-F]|[23][0-7][0-7])")


def parse(text: str) -> tuple[Node, tuple[Selector, ...]]:
    """The node and all selectors of an expression; PromqlError for what can't be parsed or is not supported."""
    _refuse_misread(text)
    try:
        tree = grammar.parse(text)
    except ValueError as error:
        raise PromqlError(f"{error} in {text!r}") from None
    scope = Scope()
    node = _node(tree, scope, 0)
    return node, tuple(scope.selectors)


def _refuse_misread(text: str) -> None:
    """What promql-parser can't bear, or takes for something else than Prometheus does."""
    for found in _ASIDE.finditer(text):
        if found["text"] and _BYTE_ESCAPE.search(found["text"]):
            raise PromqlError(
                f"byte escapes above \\x7f are not supported: {found['text']}; write the character"
            )
    bare = _ASIDE.sub(" ", text)
    if len(bare) > _LONGEST_TEXT:
        raise PromqlError(
            f"expression of {len(bare)} characters is longer than {_LONGEST_TEXT}; split it with recording rules"
        )
    if _NEGATIVE_AT.search(bare):
        raise PromqlError("@ before 1970 is not supported; give a time that is not negative")
    if _PLUS.search(bare):
        raise PromqlError("a plus sign before an argument is not supported; remove it")


def _node(tree: Any, scope: Scope, depth: int) -> Node:
    if depth > _DEEPEST:
        raise PromqlError(
            f"expression is nested deeper than {_DEEPEST} levels; split it with recording rules"
        )
    make = _KINDS.get(type(tree))
    if make is None:
        raise PromqlError(f"{type(tree).__name__} is not supported")
    return make(tree, scope, depth)


def _number(tree: Any, _scope: Scope, _depth: int) -> ScalarNode:
    value = float(tree.val)
    return ScalarNode(lambda _query, _time: value, sure=True)


def _instant(tree: Any, scope: Scope, _depth: int) -> VectorNode:
    offset, at = _ms(tree, "offset"), _at(tree)
    return select.instant(_selector(tree, scope, None, offset, at), offset, at)


def _ranged(tree: Any, scope: Scope, _depth: int) -> MatrixNode:
    inner = tree.vector_selector
    length, offset, at = _ms(tree, "range"), _ms(inner, "offset"), _at(inner)
    return select.ranged(_selector(inner, scope, length, offset, at), length, offset, at)


def _call(tree: Any, scope: Scope, depth: int) -> Node:
    return call(tree.func.name, [_node(argument, scope, depth + 1) for argument in tree.args])


def _negated(tree: Any, scope: Scope, depth: int) -> Node:
    node = _node(tree.expr, scope, depth + 1)
    if isinstance(node, VectorNode):
        return binary.negate(node)
    if not isinstance(node, ScalarNode):
        raise PromqlError("unary minus takes a scalar or an instant vector")
    number = node.evaluate
    return ScalarNode(lambda query, time: -number(query, time))


def _selector(tree: Any, scope: Scope, length: int | None, offset: int, at: int | str | None) -> Selector:
    if tree.matchers.or_matchers:
        raise PromqlError(
            "`or` between matchers is not supported; write two selectors with `or` between them"
        )
    name: str | None = tree.name
    matchers = []
    for found in tree.matchers.matchers:
        matcher = _matcher(found)
        if name is None and matcher.name == METRIC_NAME and matcher.op == "=" and matcher.value:
            name = matcher.value
        else:
            matchers.append(matcher)
    plain = length is None and offset == 0 and at is None and scope.depth == 0
    fixed = at if isinstance(at, int) else scope.at
    # With an @, no subquery around it moves the time.
    around = 0 if at is not None else scope.reach
    reach = max(0, around + (length or 0) + offset)
    selector = Selector(name, tuple(matchers), reach, plain, fixed)
    scope.selectors.append(selector)
    return selector


def _matcher(found: Any) -> Matcher:
    value: str = found.value
    if found.op == grammar.MatchOp.Equal:
        return Matcher(found.name, "=", value, value.__eq__)
    if found.op == grammar.MatchOp.NotEqual:
        return Matcher(found.name, "!=", value, value.__ne__)
    full = compile_pattern(value).fullmatch
    if found.op == grammar.MatchOp.Re:
        return Matcher(found.name, "=~", value, lambda text: full(text) is not None)
    return Matcher(found.name, "!~", value, lambda text: full(text) is None)


def _subquery(tree: Any, scope: Scope, depth: int) -> MatrixNode:
    length, offset, at = _ms(tree, "range"), _ms(tree, "offset"), _at(tree)
    step = _ms(tree, "step") or DEFAULT_STEP
    inside = Scope(
        (0 if at is not None else scope.reach) + length + offset,
        scope.depth + 1,
        at if isinstance(at, int) else scope.at,
        scope.selectors,
    )
    inner = _node(tree.expr, inside, depth + 1)
    if not isinstance(inner, VectorNode):
        raise PromqlError("a subquery takes an instant vector")
    return select.subquery(inner, length, step, offset, at)


def _binary(tree: Any, scope: Scope, depth: int) -> Node:
    op = str(tree.op)
    modifier = tree.modifier
    as_bool = modifier is not None and modifier.return_bool
    if modifier is not None and (
        modifier.fill_values.lhs is not None or modifier.fill_values.rhs is not None
    ):
        raise PromqlError(
            "fill modifiers are not supported: they are experimental; write `or` with a default"
        )
    left, right = _node(tree.lhs, scope, depth + 1), _node(tree.rhs, scope, depth + 1)
    if op not in binary.SETS and op not in binary.ARITHMETIC and op not in binary.COMPARISON:
        raise PromqlError(f"operator {op} is not supported")
    if isinstance(left, ScalarNode) and isinstance(right, ScalarNode):
        return binary.scalars(op, left, right)
    if isinstance(left, VectorNode) and isinstance(right, ScalarNode):
        return binary.vector_and_scalar(op, left, right, swapped=False, as_bool=as_bool)
    if isinstance(left, ScalarNode) and isinstance(right, VectorNode):
        return binary.vector_and_scalar(op, right, left, swapped=True, as_bool=as_bool)
    if not isinstance(left, VectorNode) or not isinstance(right, VectorNode):
        raise PromqlError(f"operator {op} takes scalars and instant vectors")
    matching = _matching(modifier)
    if op in binary.SETS:
        return binary.set_operation(op, left, right, matching)
    return binary.vectors(op, left, right, matching, as_bool=as_bool)


def _matching(modifier: Any) -> binary.Matching:
    if modifier is None:
        return binary.Matching()
    many = {
        str(grammar.VectorMatchCardinality.ManyToOne): "left",
        str(grammar.VectorMatchCardinality.OneToMany): "right",
    }.get(str(modifier.card), "")
    labels = modifier.matching
    return binary.Matching(
        on=labels is not None and labels.type == grammar.LabelModifierType.Include,
        labels=tuple(labels.labels) if labels is not None else (),
        many=many,
        include=tuple(modifier.group_labels or ()),
    )


def _aggregate(tree: Any, scope: Scope, depth: int) -> VectorNode:
    op = str(tree.op)
    parameter = _node(tree.param, scope, depth + 1) if tree.param is not None else None
    vector = _node(tree.expr, scope, depth + 1)
    if not isinstance(vector, VectorNode):
        raise PromqlError(f"{op} takes an instant vector")
    modifier = tree.modifier
    without = modifier is not None and modifier.type == grammar.AggModifierType.Without
    names: Sequence[str] = modifier.labels if modifier is not None else ()
    groups = aggregate.grouping(names, without=without)
    if op in aggregate.SIMPLE and parameter is None:
        return aggregate.simple(op, vector, groups)
    if op in {"topk", "bottomk"} and isinstance(parameter, ScalarNode):
        return aggregate.extremes(op, parameter, vector, groups)
    if op == "quantile" and isinstance(parameter, ScalarNode):
        return aggregate.quantile(parameter, vector, groups)
    if op == "count_values" and isinstance(parameter, StringNode):
        label = check_label_name(parameter.value, op)
        return aggregate.count_values(label, vector, names, without=without)
    raise PromqlError(
        f"aggregation {op} is not supported: it is experimental, or its parameter is of another type"
    )


def _ms(tree: Any, attribute: str) -> int:
    """A duration of the tree in ms; 0 if it is not there."""
    try:
        value: timedelta | None = getattr(tree, attribute)
    except (OverflowError, ValueError):
        raise PromqlError(f"{attribute} is too long; Prometheus takes at most 290 years") from None
    if value is None:
        return 0
    if abs(value) > _LONGEST:
        raise PromqlError(f"{attribute} of {value.days} days is too long; Prometheus takes at most 290 years")
    return value // timedelta(milliseconds=1)


def _at(tree: Any) -> int | str | None:
    """The ``@`` of a selector or subquery: Unix ms, ``start`` or ``end``."""
    if tree.at is None:
        return None
    if tree.at.type != grammar.AtModifierType.At:
        return "start" if tree.at.type == grammar.AtModifierType.Start else "end"
    try:
        return round(float(tree.at.at.timestamp()) * 1000)
    except (OverflowError, ValueError):
        raise PromqlError("@ after the year 9999 is not supported; give Unix seconds") from None


_KINDS: Final[dict[type, Callable[[Any, Scope, int], Node]]] = {
    grammar.AggregateExpr: _aggregate,
    grammar.BinaryExpr: _binary,
    grammar.Call: _call,
    grammar.MatrixSelector: _ranged,
    grammar.NumberLiteral: _number,
    grammar.ParenExpr: lambda tree, scope, depth: _node(tree.expr, scope, depth + 1),
    grammar.StringLiteral: lambda tree, _scope, _depth: StringNode(tree.val),
    grammar.SubqueryExpr: _subquery,
    grammar.UnaryExpr: _negated,
    grammar.VectorSelector: _instant,
}
