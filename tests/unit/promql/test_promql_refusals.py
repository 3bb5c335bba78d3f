"""What the evaluator does not do, or promql-parser misreads, is refused when it is compiled, and named."""

import pytest

from oomguard.errors import PromqlError
from oomguard.promql import MemoryStorage, compile_expression


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("m +", "m +"),
        ("", "no expression"),
        ("sum(m", "sum"),
        ("nonsense(m)", "nonsense"),
        ("rate(m)", "expected type matrix in call to function 'rate'"),
        ("abs(1)", "abs"),
        ("m[5m] > 1", "instant vector"),
        ("-(m[5m])", "unary"),
        ('-"x"', "unary"),
        ("rate(+m[5m])", "plus sign"),
        ("clamp_min(m, +time())", "plus sign"),
        ("1 > 2", "BOOL"),
        ("m and 1", "set operator"),
        ("m + bool n", "bool"),
        ("m and on (x) group_left n", "grouping"),
        ("{}", "non-empty matcher"),
        ('{job=~".*"}', "non-empty matcher"),
        ("m[0s]", "greater than 0"),
        ("time()[5m:1m]", "subquery"),
        ("m[5m][5m:1m]", ""),
        ("m @ -5", "@ before 1970"),
        ("m @ Inf", "out of bounds"),
        ("m @ 1700003182500", "@ after the year 9999"),
        ("m[5m] @ 170000110001134.5", "@ after the year 9999"),
        ("(m[5m:]) @ 5", ""),
        ("m @  # why\n -5", "@ before 1970"),
        ("m offset 99999y", "290 years"),
        ("m[99999999y]", "290 years"),
        ('m{a="1" or b="2"}', "`or` between matchers"),
        ("m + fill (0) n", "fill modifiers"),
        ("m + fill_left (0) n", "fill modifiers"),
        ('m{a="\\xff"}', "byte escapes"),
        ("timestamp(+m)", "plus sign"),
        ("absent((+m))", "plus sign"),
        ("timestamp(m @ 5 offset 1m)", "timestamp of a selector with @ and offset"),
        ("m smoothed", ""),
        ("limitk(1, m)", "limitk"),
        ("limit_ratio(0.5, m)", "limit_ratio"),
        ('count_values("a-b", m)', "a-b"),
        ('label_replace(m, "a-b", "", "", "")', "a-b"),
        ('label_join(m, "x", "", "a b")', "a b"),
        ('label_replace(m, "x", "", "y", "(")', "illegal regex|regular expression"),
        ('m{a=~"("}', "("),
        ('m{a=~"(a+)+"}', "could take for ever"),
        ('m{a=~"\\\\pL"}', "is not an escape"),
    ],
)
def test_a_mistake_or_a_construct_that_is_not_supported_is_named(text, named):
    with pytest.raises(PromqlError) as caught:
        compile_expression(text)
    assert any(part in str(caught.value) for part in named.split("|"))


@pytest.mark.parametrize(
    "call",
    [
        "double_exponential_smoothing(m[5m], 0.5, 0.5)",
        "end()",
        "first_over_time(m[5m])",
        "histogram_avg(m)",
        "histogram_count(m)",
        "histogram_fraction(0, 1, m)",
        "histogram_stddev(m)",
        "histogram_stdvar(m)",
        "histogram_sum(m)",
        "holt_winters(m[5m], 0.5, 0.5)",
        "info(m)",
        "mad_over_time(m[5m])",
        "range()",
        'sort_by_label(m, "x")',
        'sort_by_label_desc(m, "x")',
        "start()",
        "step()",
        "ts_of_first_over_time(m[5m])",
        "ts_of_last_over_time(m[5m])",
        "ts_of_max_over_time(m[5m])",
        "ts_of_min_over_time(m[5m])",
    ],
)
def test_functions_of_native_histograms_and_experimental_ones_are_refused_by_name(call):
    with pytest.raises(PromqlError, match=call.partition("(")[0]):
        compile_expression(call)


def test_what_only_looks_like_a_modifier_inside_a_string_or_comment_is_none():
    for text in ('m{a="@ -5"}', "m{a='timestamp(+x)'}", "m{a=`@ -1 \\xff`}", 'm{a="\\\\xff"}', "m # @ -5"):
        compile_expression(text)


def test_a_plus_sign_elsewhere_changes_nothing():
    storage = MemoryStorage()
    storage.add("m", {}, [(0, 1.0)])
    for text in ("+m", "+(m)", "2 * +m - 1", "clamp_min(m, +1)", "sum(m) + +m"):
        assert compile_expression(text).evaluate(storage, 0)[0][1] in {1.0, 2.0}


def test_a_deep_expression_is_refused_before_python_gives_up():
    with pytest.raises(PromqlError, match="nested deeper"):
        compile_expression("(" * 300 + "m" + ")" * 300)
    with pytest.raises(PromqlError, match="longer than 4000"):
        compile_expression("-" * 100_000 + "m")


def test_a_long_pattern_is_no_long_expression():
    compile_expression('m{a=~"' + "|".join(f"name-{number}" for number in range(2000)) + '"}')


@pytest.mark.parametrize("text", ['"text"', "m[5m]", "m[5m:1m]"])
def test_what_has_no_value_at_one_time_is_not_evaluated(text):
    with pytest.raises(PromqlError, match="no value at one time"):
        compile_expression(text).evaluate(MemoryStorage(), 0)
