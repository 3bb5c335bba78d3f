"""Sets of characters in regular expressions, as ranges of code points."""

from __future__ import annotations

from typing import Final

Ranges = tuple[tuple[int, int], ...]

_LAST: Final = 0x10FFFF
ANY: Final[Ranges] = ((0, _LAST),)
NOT_NEWLINE: Final[Ranges] = ((0, 9), (11, _LAST))
DIGITS: Final[Ranges] = ((0x30, 0x39),)
SPACES: Final[Ranges] = ((0x09, 0x0A), (0x0C, 0x0D), (0x20, 0x20))
"""Without the vertical tab, which Go leaves out."""
WORD: Final[Ranges] = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))

ESCAPES: Final[dict[str, Ranges]] = {"d": DIGITS, "s": SPACES, "w": WORD}
POSIX: Final[dict[str, Ranges]] = {
    "alnum": ((0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A)),
    "alpha": ((0x41, 0x5A), (0x61, 0x7A)),
    "ascii": ((0, 0x7F),),
    "blank": ((0x09, 0x09), (0x20, 0x20)),
    "cntrl": ((0, 0x1F), (0x7F, 0x7F)),
    "digit": DIGITS,
    "graph": ((0x21, 0x7E),),
    "lower": ((0x61, 0x7A),),
    "print": ((0x20, 0x7E),),
    "punct": ((0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)),
    "space": ((0x09, 0x0D), (0x20, 0x20)),
    "upper": ((0x41, 0x5A),),
    "word": WORD,
    "xdigit": ((0x30, 0x39), (0x41, 0x46), (0x61, 0x66)),
}

# What else folds to an ASCII letter (Unicode's CaseFolding.txt): the Kelvin sign and the long s.
_FOLDED: Final = {"k": 0x212A, "s": 0x017F}


def negated(ranges: Ranges) -> Ranges:
    """Every other character."""
    result = []
    start = 0
    for low, high in sorted(ranges):
        if low > start:
            result.append((start, low - 1))
        start = max(start, high + 1)
    if start <= _LAST:
        result.append((start, _LAST))
    return tuple(result)


def folded(ranges: Ranges) -> Ranges:
    """The same in both cases; ValueError for letters beyond ASCII, of which the engines know different pairs."""
    result = list(ranges)
    for low, high in ranges:
        if high > 0x7F and (low, high) not in ((0, _LAST), (11, _LAST)):  # noqa: PLR2004 - the end of ASCII
            raise ValueError("(?i) is supported for ASCII letters only")
        for code in range(low, min(high, 0x7F) + 1):
            letter = chr(code).lower()
            if letter.isalpha():
                result += [(ord(letter), ord(letter)), (ord(letter.upper()), ord(letter.upper()))]
                if letter in _FOLDED:
                    result.append((_FOLDED[letter], _FOLDED[letter]))
    return tuple(sorted(set(result)))


def disjoint(one: Ranges, other: Ranges) -> bool:
    """Whether no character is in both."""
    return all(high < start or end < low for low, high in one for start, end in other)


def python_class(ranges: Ranges) -> str:
    """A class of Python's `re` that matches just these."""
    if not ranges:
        return "(?!)"
    return "[" + "".join(f"{_escape(low)}-{_escape(high)}" for low, high in ranges) + "]"


def _escape(code: int) -> str:
    return f"\\U{code:08x}"
