"""Functions of one number, as Go's math package computes them: out of range is NaN or infinite, never an exception."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

# As Go's constants are: rounded once, from the exact quotient.
_PER_LN2: Final = 1.4426950408889634
_LOG10_OF_2: Final = 0.30102999566398120

OfNumber = Callable[[float], float]


def _guarded(function: OfNumber, overflow: OfNumber | None = None) -> OfNumber:
    """A function of the math module that gives NaN outside its domain, and `overflow` of what is too large."""

    def call(value: float) -> float:
        try:
            return function(value)
        except ValueError:
            return math.nan
        except OverflowError:
            return overflow(value) if overflow is not None else math.inf

    return call


def floor(value: float) -> float:
    """The largest whole number that is not greater."""
    return math.copysign(float(math.floor(value)), value) if math.isfinite(value) else value


def ceil(value: float) -> float:
    """The smallest whole number that is not less; -0 for what lies between -1 and 0."""
    return math.copysign(float(math.ceil(value)), value) if math.isfinite(value) else value


def ln(value: float) -> float:
    """Natural logarithm: of 0 it is -Inf, below NaN."""
    if value == 0:
        return -math.inf
    return math.log(value) if value > 0 else math.nan


def log2(value: float) -> float:
    """Binary logarithm by Go's formula, exact for powers of two (math/log10.go)."""
    if value == 0 or not math.isfinite(value) or value < 0:
        return ln(value)
    fraction, exponent = math.frexp(value)
    if fraction == 0.5:  # noqa: PLR2004 - a power of two
        return float(exponent - 1)
    return math.log(fraction) * _PER_LN2 + exponent


def log10(value: float) -> float:
    """Decimal logarithm by Go's formula, which rounds otherwise than C's: of 1000 it is a little under 3."""
    return log2(value) * _LOG10_OF_2


def sgn(value: float) -> float:
    """-1, 0 or 1; zero and NaN stay as they are."""
    if value > 0:
        return 1.0
    return -1.0 if value < 0 else value


def atanh(value: float) -> float:
    """Inverse hyperbolic tangent: infinite at -1 and 1."""
    if value in {1.0, -1.0}:
        return math.copysign(math.inf, value)
    return _ATANH(value)


_ATANH: Final = _guarded(math.atanh)

FUNCTIONS: Final[dict[str, OfNumber]] = {
    "abs": abs,
    "acos": _guarded(math.acos),
    "acosh": _guarded(math.acosh),
    "asin": _guarded(math.asin),
    "asinh": math.asinh,
    "atan": math.atan,
    "atanh": atanh,
    "ceil": ceil,
    "cos": _guarded(math.cos),
    "cosh": _guarded(math.cosh),
    "deg": lambda value: value * 180 / math.pi,
    "exp": _guarded(math.exp),
    "floor": floor,
    "ln": ln,
    "log10": log10,
    "log2": log2,
    "rad": lambda value: value * math.pi / 180,
    "sgn": sgn,
    "sin": _guarded(math.sin),
    "sinh": _guarded(math.sinh, lambda value: math.copysign(math.inf, value)),
    "sqrt": _guarded(math.sqrt),
    "tan": _guarded(math.tan),
    "tanh": math.tanh,
}
