"""Labels and annotations of rules: the part of Go's templates that rules use, compiled once.

What is read: ``$labels``, ``$value``, ``.Labels``, ``.Value``, literals, pipelines, parentheses, comments, trim
markers, ``if``/``else if``/``else``/``end`` and the functions in functions.py with ``printf``. Everything else of
text/template and of Prometheus' functions is refused when a rule file is loaded; nothing renders otherwise than there.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from oomguard.rules.functions import FUNCTIONS, MAP, truth
from oomguard.rules.goformat import Value, parse_format, sprintf, text_of
from oomguard.rules.lexer import Action, TemplateError, Token, split

__all__ = ["Template", "TemplateError", "compile_template"]

_KNOWN = ", ".join(sorted((*FUNCTIONS, "printf")))
_CONTROL = frozenset(
    {"if", "else", "end", "range", "with", "define", "template", "block", "break", "continue"}
)
_LABELS, _VALUE = ("$labels", ".Labels"), ("$value", ".Value")
_DECIMAL = re.compile(r"[+-]?(?:0|[1-9]\d*)", re.ASCII)
_FLOAT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_INT64 = 1 << 63


@dataclass(frozen=True, slots=True)
class _Scope:
    labels: Mapping[str, str]
    value: float


_Getter = Callable[[_Scope], Value]
_Writer = Callable[[_Scope, list[str]], None]


@dataclass(frozen=True, slots=True)
class _Operand:
    """A value to be, and its type."""

    type: str
    get: _Getter
    literal: str | None = None
    """The text of a string literal: what ``printf`` may take as its format."""


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template."""

    text: str
    uses_value: bool
    """Whether it reads the sample's value; if not, the labels alone decide what it renders."""
    _body: tuple[_Writer, ...] = field(repr=False, compare=False)

    def render(self, labels: Mapping[str, str], value: float) -> str:
        """Its text for a sample; a failure is told in the text, as Prometheus does, and never raised."""
        out: list[str] = []
        scope = _Scope(labels, value)
        try:
            for write in self._body:
                write(scope, out)
        except (ValueError, ArithmeticError) as error:
            return f"<error expanding template: {error}>"
        return "".join(out)


def compile_template(text: str) -> Template:
    """The template of a text; raises `TemplateError`."""
    if "{{" not in text:
        return Template(text, uses_value=False, _body=(_literal(text),))
    parser = _Parser(split(text))
    body, end = parser.block()
    if end is not None:
        raise TemplateError(end.line, f"{{{{{end.tokens[0].text}}}}} without an {{{{if}}}}")
    return Template(text, uses_value=parser.uses_value, _body=tuple(body))


class _Parser:
    """Recursive descent over the parts of one template."""

    def __init__(self, parts: Iterator[str | Action]) -> None:
        self._parts = parts
        self.uses_value = False

    def block(self) -> tuple[list[_Writer], Action | None]:
        """Everything up to the next else or end of this level, and that action; None at the template's end."""
        body: list[_Writer] = []
        for part in self._parts:
            if isinstance(part, str):
                body.append(_literal(part))
                continue
            word = part.tokens[0].text if part.tokens and part.tokens[0].kind == "word" else ""
            if word in {"else", "end"}:
                return body, part
            if word == "if":
                body.append(self._condition(part, part.tokens[1:]))
            else:
                body.append(_print(self._whole(part, part.tokens)))
        return body, None

    def _condition(self, action: Action, tokens: Sequence[Token]) -> _Writer:
        asked = self._whole(action, tokens).get
        then, end = self.block()
        if end is None:
            raise TemplateError(action.line, "{{if}} without {{end}}")
        rest = end.tokens[1:]
        otherwise: list[_Writer] = []
        if end.tokens[0].text == "else":
            if rest and rest[0].text == "if":
                otherwise = [self._condition(end, rest[1:])]
                return _choose(asked, then, otherwise)
            _nothing_more(end, rest)
            otherwise, end = self.block()
            if end is None or end.tokens[0].text != "end":
                raise TemplateError(action.line, "{{else}} without {{end}}")
            rest = end.tokens[1:]
        _nothing_more(end, rest)
        return _choose(asked, then, otherwise)

    def _whole(self, action: Action, tokens: Sequence[Token]) -> _Operand:
        place, operand = self._pipeline(action, tokens, 0)
        if place < len(tokens):
            raise TemplateError(action.line, f"unexpected {tokens[place].text!r}")
        return operand

    def _pipeline(self, action: Action, tokens: Sequence[Token], place: int) -> tuple[int, _Operand]:
        """Commands joined by ``|``, up to the closing parenthesis or the end."""
        before: _Operand | None = None
        while True:
            place, before = self._command(action, tokens, place, before)
            if place >= len(tokens) or tokens[place].text != "|":
                return place, before
            place += 1

    def _command(
        self, action: Action, tokens: Sequence[Token], place: int, before: _Operand | None
    ) -> tuple[int, _Operand]:
        if place >= len(tokens) or tokens[place].text in {"|", ")"}:
            raise TemplateError(action.line, "a value is missing")
        name = tokens[place].text if tokens[place].kind == "word" else None
        if name is not None:
            self._known(action, name)
        called = name is not None and name not in {"true", "false"}
        place += called
        operands: list[_Operand] = []
        while place < len(tokens) and tokens[place].text not in {"|", ")"}:
            place, operand = self._operand(action, tokens, place)
            operands.append(operand)
        if called and name is not None:
            return place, _call(action, name, [*operands, before] if before is not None else operands)
        if before is not None:
            raise TemplateError(action.line, f"only a function may follow |, not {tokens[place - 1].text!r}")
        if len(operands) > 1:
            raise TemplateError(action.line, "only a function takes values; two stand side by side")
        return place, operands[0]

    def _operand(self, action: Action, tokens: Sequence[Token], place: int) -> tuple[int, _Operand]:
        token = tokens[place]
        if token.text == "(":
            place, operand = self._pipeline(action, tokens, place + 1)
            if place >= len(tokens):
                raise TemplateError(action.line, "( is not closed")
            after = tokens[place + 1] if place + 1 < len(tokens) else None
            if after is not None and after.kind == "path" and not after.spaced:
                raise TemplateError(action.line, f"{after.text!r} after ) is not supported")
            return place + 1, _Operand(operand.type, operand.get)
        if token.kind == "string":
            text = _unquote(action, token.text)
            return place + 1, _Operand("string", lambda _scope: text, text)
        if token.kind == "number":
            return place + 1, _number(action, token.text)
        if token.kind == "path":
            return place + 1, self._path(action, token.text)
        if token.text in {"true", "false"}:
            truth_value = token.text == "true"
            return place + 1, _Operand("bool", lambda _scope: truth_value)
        if token.kind == "word":
            self._known(action, token.text)
            raise TemplateError(action.line, f"{token.text} and its values must stand in parentheses here")
        raise TemplateError(action.line, f"{token.text!r} is not supported here")

    def _path(self, action: Action, text: str) -> _Operand:
        if text in _VALUE:
            self.uses_value = True
            return _Operand("float64", lambda scope: scope.value)
        if text in _LABELS:
            return _Operand(MAP, lambda scope: scope.labels)
        root, _, name = text.rpartition(".")
        if root in _LABELS:
            return _Operand("string", lambda scope: scope.labels.get(name, ""))
        raise TemplateError(
            action.line, f"{text} is not supported; known are $value, $labels and $labels.NAME"
        )

    def _known(self, action: Action, name: str) -> None:
        if name in _CONTROL:
            raise TemplateError(
                action.line, f"{{{{{name}}}}} is not supported; of Go's actions if, else and end are"
            )
        if name not in FUNCTIONS and name not in {"printf", "true", "false"}:
            raise TemplateError(action.line, f"function {name} is not supported; known are {_KNOWN}")


def _call(action: Action, name: str, operands: Sequence[_Operand]) -> _Operand:
    if name == "printf":
        return _printf(action, operands)
    function = FUNCTIONS[name]
    if len(operands) < function.least or (function.most is not None and len(operands) > function.most):
        wanted = f"{function.least}" if function.most is not None else f"at least {function.least}"
        raise TemplateError(action.line, f"{name} takes {wanted}, not {len(operands)} values")
    try:
        result = function.result([operand.type for operand in operands])
    except ValueError as error:
        raise TemplateError(action.line, f"{name}: {error}") from None
    getters = [operand.get for operand in operands]

    def get(scope: _Scope) -> Value:
        if name in {"and", "or"}:  # what follows the deciding value is not looked at, as since Go 1.18
            value: Value = False
            for getter in getters:
                value = getter(scope)
                if truth(value) is (name == "or"):
                    break
            return value
        values = [getter(scope) for getter in getters]
        try:
            return function.call(*values)
        except ValueError as error:
            raise ValueError(f"error calling {name}: {error}") from None

    return _Operand(result, get)


def _printf(action: Action, operands: Sequence[_Operand]) -> _Operand:
    if not operands or operands[0].literal is None:
        raise TemplateError(action.line, "printf's format must be a text in quotes")
    try:
        parts = parse_format(operands[0].literal, [operand.type for operand in operands[1:]])
    except ValueError as error:
        raise TemplateError(action.line, str(error)) from None
    getters = [operand.get for operand in operands[1:]]
    return _Operand("string", lambda scope: sprintf(parts, [getter(scope) for getter in getters]))


def _literal(text: str) -> _Writer:
    return lambda _scope, out: out.append(text)


def _print(operand: _Operand) -> _Writer:
    get = operand.get
    return lambda scope, out: out.append(text_of(get(scope)))


def _choose(asked: _Getter, then: Sequence[_Writer], otherwise: Sequence[_Writer]) -> _Writer:
    def write(scope: _Scope, out: list[str]) -> None:
        for each in then if truth(asked(scope)) else otherwise:
            each(scope, out)

    return write


def _nothing_more(action: Action, rest: Sequence[Token]) -> None:
    if rest:
        raise TemplateError(action.line, f"unexpected {rest[0].text!r} after {action.tokens[0].text}")


def _unquote(action: Action, text: str) -> str:
    if text[0] == "`":
        return text[1:-1].replace("\r", "")
    try:
        # Go's escapes are those of JSON, and a few that nobody writes into an annotation.
        decoded = json.loads(text.replace("\t", "\\t"))
    except ValueError:
        raise TemplateError(
            action.line, f'{text} has an escape that is not supported; known are \\" \\\\ \\n \\t \\u0000'
        ) from None
    if "\\/" in text.replace("\\\\", ""):
        raise TemplateError(action.line, f"{text} has the escape \\/, which Go does not know")
    assert isinstance(decoded, str)
    return decoded


def _number(action: Action, text: str) -> _Operand:
    if _DECIMAL.fullmatch(text) and -_INT64 <= (whole := int(text)) < _INT64:
        return _Operand("int", lambda _scope: whole)
    # A leading zero would make it octal.
    if _FLOAT.fullmatch(text) and not text.lstrip("+-").isdigit() and math.isfinite(number := float(text)):
        return _Operand("float64", lambda _scope: number)
    raise TemplateError(action.line, f"the number {text} is not supported; write it in decimal digits")
