"""What an expression does not evaluate because nothing can come of it, and what it evaluates all the same."""

import pytest

from oomguard.errors import PromqlError
from oomguard.promql import MemoryStorage, compile_expression

NOW = 1_700_000_000_000


class Watched(MemoryStorage):
    """Notes which metrics were asked for."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def select(self, name, matchers):
        self.asked.append(name)
        return super().select(name, matchers)


def stored(**values):
    storage = Watched()
    for name, value in values.items():
        storage.add(name, {"target": "web"}, [(NOW - 60_000, value), (NOW, value)])
    return storage


@pytest.mark.parametrize(
    ("expression", "asked"),
    [
        ("deriv(used[5m]) > 0 and ratio > 0.5", ["ratio"]),
        ("max without (kind) (predict_linear(used[5m], 60)) >= used and ratio > 0.5", ["ratio"]),
        ("deriv(used[5m]) > 0 and ignoring (a) (ratio >= ignoring (b) limit)", ["ratio", "limit"]),
        ("ratio > 0.5 and deriv(used[5m]) > 0", ["ratio"]),
        ("ratio > 0.5 unless deriv(used[5m]) > 0", ["ratio"]),
        ("clamp_max(deriv(used[5m]), 1) > 0 and time() - ratio < 0", ["ratio"]),
    ],
)
def test_a_window_is_not_read_where_the_present_acquits(expression, asked):
    storage = stored(used=1.0, ratio=0.4, limit=1.0)
    assert compile_expression(expression).evaluate(storage, NOW + 1) == []
    assert set(storage.asked) == set(asked)


@pytest.mark.parametrize(
    "expression",
    [
        "deriv(used[5m]) and ratio > 0.3",
        "ratio > 0.3 and deriv(used[5m])",
        "ratio > 0.3 unless deriv(used[5m]) > 0",
        "ratio > 0.5 or deriv(used[5m])",
    ],
)
def test_a_window_is_read_where_the_present_does_not_acquit(expression):
    storage = stored(used=1.0, ratio=0.4)
    assert len(compile_expression(expression).evaluate(storage, NOW + 1)) == 1
    assert set(storage.asked) == {"used", "ratio"}


@pytest.mark.parametrize(
    "failing",
    [
        "ratio * on (target) two",
        "ratio * ignoring (side) two",
        'rate({__name__=~"two|three"}[5m])',
        '-{__name__=~"two|three"}',
    ],
)
@pytest.mark.parametrize("whole", ["({}) and used > 5", "used > 5 and ({})", "used > 5 unless ({})"])
def test_what_can_fail_fails_even_where_nothing_would_come_of_it(failing, whole):
    storage = stored(used=1.0, ratio=0.4)
    for name in ("two", "three"):
        for side in "ab":
            points = [(NOW - 60_000, 1.0), (NOW, 2.0)]
            storage.add(name, {"target": "web", "side": side}, points)
    with pytest.raises(PromqlError):
        compile_expression(whole.format(failing)).evaluate(storage, NOW + 1)
