"""Numbers and texts as Go's ``fmt`` prints them, which is how Prometheus' templates do (pkg.go.dev/fmt).

Python's own formatting differs where people look: Go prints 1234567.0 as ``1.234567e+06``, infinity as ``+Inf``
and a wrong verb as ``%!d(float64=5)``. The digits agree: both round correctly, and both find the shortest decimal
that reads back as the same number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

Value = float | int | str | bool | Mapping[str, str]
"""What a template can hold: Go's float64, int, string, bool and map[string]string."""

_VERB = re.compile(r"%([-+ 0#]*)(\d*)(?:(\.)(\d*))?(.?)", re.DOTALL)
_VERBS: Final = "vsqxXdeEfFgGt"
# Outside of these exponents Go writes its shortest form with an exponent (strconv/ftoa.go, formatDigits).
_SMALLEST, _LARGEST = -4, 6


def text_of(value: Value) -> str:
    """What ``{{ value }}`` and ``%v`` print."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return general(value)
    return "map[" + " ".join(f"{name}:{value[name]}" for name in sorted(value)) + "]"


def general(value: float, precision: int | None = None) -> str:
    """``%g``: shortest without a precision, else at most so many significant digits."""
    if not math.isfinite(value):
        return _not_finite(value)
    if precision is not None:
        return f"{value:.{precision}g}"
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    digits, exponent = _digits(value)
    sign = "-" if value < 0 else ""
    if _SMALLEST <= exponent < _LARGEST:
        return sign + _plain(digits, exponent)
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{exponent:+03d}"


def type_name(value: Value) -> str:
    """Go's name of a value's type."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float64"
    return "string" if isinstance(value, str) else "map[string]string"


def quote(text: str) -> str:
    """``%q``: a Go string literal (strconv.Quote)."""
    return '"' + "".join(_quoted(character) for character in text) + '"'


@dataclass(frozen=True, slots=True)
class Directive:
    """One ``%`` of a format."""

    verb: str
    plus: bool
    minus: bool
    space: bool
    zero: bool
    width: int
    precision: int | None

    def check(self, type_: str) -> None:
        """Raise ValueError for flags whose effect on this type differs between versions of Go, or that nobody needs."""
        if self.zero and type_ not in {"int", "float64"}:
            raise ValueError(f"printf's flag 0 suits numbers, not {type_}")
        if self.verb in "xX" and type_ in {"float64", "any"}:
            raise ValueError(f"printf's %{self.verb} is not supported for {type_}")
        if type_ == "map[string]string" and (self.verb not in "vs" or self.width):
            raise ValueError("printf shows labels with %v only")
        if type_ in {"int", "any"} and self.verb == "q":
            raise ValueError(f"printf's %q suits a text, not {type_}")

    def format(self, value: Value) -> str:
        """The value under this verb; a verb that does not suit it is shown as Go shows it."""
        if isinstance(value, bool):
            suits = self.verb in "vt"
        elif isinstance(value, int):
            suits = self.verb in "vdxX"
        elif isinstance(value, float):
            suits = self.verb in "veEfFgG"
        else:
            suits = self.verb in ("vsqxX" if isinstance(value, str) else "v")
        shown = self._shown(value, self.verb if suits else "v")
        return shown if suits else f"%!{self.verb}({type_name(value)}={shown})"

    def _shown(self, value: Value, verb: str) -> str:
        if isinstance(value, bool):
            return self._pad("true" if value else "false")
        if isinstance(value, int):
            return self._integer(value, verb)
        if isinstance(value, float):
            return self._float(value, verb)
        if isinstance(value, str):
            return self._pad(self._string(value, verb))
        return text_of(value)

    def _string(self, value: str, verb: str) -> str:
        if verb in "xX":
            data = value.encode()[: self.precision]
            shown = data.hex(" ") if self.space else data.hex()
            return shown.upper() if verb == "X" else shown
        value = value[: self.precision]
        return quote(value) if verb == "q" else value

    def _integer(self, value: int, verb: str) -> str:
        digits = format(abs(value), verb if verb in "xX" else "d")
        sign = "-" if value < 0 else "+" if self.plus else " " if self.space else ""
        if self.precision is not None:
            if self.precision == 0 and value == 0:
                return " " * self.width
            digits = digits.zfill(self.precision)
        elif self.zero:
            digits = digits.zfill(self.width - len(sign))
        shown = sign + digits
        return shown.ljust(self.width) if self.minus else shown.rjust(self.width)

    def _float(self, value: float, verb: str) -> str:
        if verb in "vgG":
            shown = general(value, self.precision)
        elif math.isfinite(value):
            shown = f"{value:.{6 if self.precision is None else self.precision}{verb.lower()}}"
        else:
            shown = _not_finite(value)
        if math.isfinite(value) and verb in "EG":
            shown = shown.upper()
        sign, number = (shown[0], shown[1:]) if shown[0] in "+-" else ("+", shown)
        if sign == "+" and self.space and not self.plus:
            sign = " "
        # Go shows the sign of a positive infinity always, and that of NaN only where a sign was asked for.
        if sign == "+" and not self.plus and number != "Inf":
            sign = ""
        if self.zero and math.isfinite(value):
            return sign + number.zfill(self.width - len(sign))
        return self._pad(sign + number)

    def _pad(self, text: str) -> str:
        return text.ljust(self.width) if self.minus else text.rjust(self.width)


def parse_format(text: str, types: Sequence[str]) -> tuple[str | Directive, ...]:
    """A printf format for values of these types, as literal parts and directives.

    Raises ValueError naming what is not supported, and where values and directives are not as many.
    """
    parts: list[str | Directive] = []
    end = 0
    for match in _VERB.finditer(text):
        if match.start() > end:
            parts.append(text[end : match.start()])
        end = match.end()
        flags, width, dot, precision, verb = match.groups()
        if verb == "%" and match[0] == "%%":
            parts.append("%")
            continue
        if not verb or verb not in _VERBS or "#" in flags or ("+" in flags and verb in "qv"):
            raise ValueError(
                f"printf's {match[0]!r} is not supported; verbs are {', '.join(_VERBS)}, flags + - 0 and space"
            )
        if len(width) > 3 or len(precision or "") > 3:  # noqa: PLR2004 - digits: nobody prints wider than 999
            raise ValueError(f"printf's {match[0]!r} is too wide; the most is 999")
        parts.append(
            Directive(
                verb=verb,
                plus="+" in flags,
                minus="-" in flags,
                space=" " in flags,
                zero="0" in flags and "-" not in flags,
                width=int(width or 0),
                precision=int(precision or 0) if dot else None,
            )
        )
    if end < len(text):
        parts.append(text[end:])
    directives = [part for part in parts if isinstance(part, Directive)]
    if len(directives) != len(types):
        raise ValueError(f"printf's format {text!r} takes {len(directives)} values, not {len(types)}")
    for directive, type_ in zip(directives, types, strict=True):
        directive.check(type_)
    return tuple(parts)


def sprintf(parts: Sequence[str | Directive], values: Sequence[Value]) -> str:
    """A parsed format with its values; there must be one for each directive."""
    given = iter(values)
    return "".join(part if isinstance(part, str) else part.format(next(given)) for part in parts)


def _digits(value: float) -> tuple[str, int]:
    """The shortest digits of a finite number other than 0, and the decimal exponent of the first."""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    zeros = len(whole + fraction) - len(digits)
    return digits.rstrip("0"), len(whole) - zeros - 1 + int(exponent or 0)


def _plain(digits: str, exponent: int) -> str:
    """Digits whose first has this decimal exponent, written out."""
    if exponent < 0:
        return "0." + "0" * (-exponent - 1) + digits
    whole, fraction = digits[: exponent + 1].ljust(exponent + 1, "0"), digits[exponent + 1 :]
    return f"{whole}.{fraction}" if fraction else whole


def _not_finite(value: float) -> str:
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


_ESCAPES = {
    "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\", '"': '\\"',
}  # fmt: skip


def _quoted(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    code = ord(character)
    if code < 0x20 or code == 0x7F:  # noqa: PLR2004 - ASCII's control characters
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004
