"""Regular expressions of RE2 for Python: equal where they are taken, refused where they are not."""

import time

import pytest

from oomguard.errors import PromqlError
from oomguard.promql.patterns import compile_pattern


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("a|b", ("a", "b"), ("ab", "", "c")),
        ("", ("",), ("a",)),
        ("a.c", ("abc", "a\nc"), ("ac", "abcd")),
        ("(?-s)a.c", ("abc",), ("a\nc",)),
        ("(?-s:a.c).", ("abc\n",), ("a\ncx",)),
        ("\\d+", ("42",), ("٤٢", "")),
        ("\\w+", ("a_1",), ("é",)),
        ("\\W", ("é", "-"), ("a",)),
        ("\\s", ("\t", " "), ("\v", "\u00a0")),
        ("[^a]", ("b", "\n"), ("a",)),
        ("[]a]+", ("]a",), ("b",)),
        ("[^]]", ("a",), ("]",)),
        ("[a-c-e]+", ("a-e",), ("d",)),
        ("[\\d.-]+", ("1.2-3",), ("x",)),
        ("[[:alpha:]_]+", ("ab_",), ("1",)),
        ("[[:^digit:]]", ("a",), ("1",)),
        ("[\\]\\\\]+", ("]\\",), ("[",)),
        ("(?i)ks", ("KS", "ks", "\u212a\u017f"), ("k",)),
        ("(?i)[a-c]x(?-i)y", ("BXy",), ("BXY",)),
        ("(?i:a)b", ("Ab",), ("AB",)),
        ("a{2}", ("aa",), ("a", "aaa")),
        ("a{2,}", ("aaa",), ("a",)),
        ("a{1,2}?", ("a", "aa"), ("aaa",)),
        ("a{,2}", ("a{,2}",), ("aa",)),
        ("a{", ("a{",), ("a",)),
        ("x{a}", ("x{a}",), ("xa",)),
        ("^a$", ("a",), ("a\n",)),
        ("\\Aa\\z", ("a",), ("b",)),
        ("a\\b-b", ("a-b",), ("ab",)),
        ("\\x41\\x{1F600}\\101", ("A\U0001f600A",), ("A",)),
        ("\\.\\-\\/", (".-/",), ("x-/",)),
        ("\\t\\n\\a", ("\t\n\x07",), ("t",)),
        ("(?P<name>a)(?:b)?", ("a", "ab"), ("b",)),
        ("([a-z0-9-]+\\.)*example\\.com", ("example.com", "a.b-c.example.com"), ("..example.com",)),
        ("(/[^/]+)+", ("/a/b",), ("/a//b",)),
        ("(foo|bar)+", ("foobar",), ("foob",)),
        ("a*?b+?", ("aab", "b"), ("a",)),
    ],
)
def test_a_pattern_matches_what_re2_matches(pattern, matching, other):
    compiled = compile_pattern(pattern)
    assert [text for text in matching if not compiled.fullmatch(text)] == []
    assert [text for text in other if compiled.fullmatch(text)] == []


@pytest.mark.parametrize(
    "pattern",
    [
        "(", ")", "a)", "[a", "[b-a]", "*a", "a**", "a++", "a{2}{3}", "a{1001}", "a{3,2}", "{2}", "(?i){2}",
        "(?=a)", "(?!a)", "(?<=a)b",
        "(?>a)", "(?#x)", "(a)\\1", "\\Z", "\\B", "\\pL", "\\PN", "\\C", "\\Qa\\E", "\\é", "\\8", "(?m)^a", "(?U)a*",
        "(?x)a", "(?i)é", "[[:nope:]]", "^*", "\\b+", "(?P<1a>x)", "(?P<n>a)(?P<n>b)", "a\\", "(" * 80 + ")" * 80,
    ],
)  # fmt: skip
def test_what_differs_between_re2_and_python_is_refused(pattern):
    with pytest.raises(PromqlError, match="regular expression"):
        compile_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+", "(a*)*", "(a|a)*", "(a|ab|b)*", "(.*)*", "(.*,)*", "(a?a)*", "(\\w+\\s?)+", "((a|b)*c)*", "(x+x+)+y",
        "(a?){30}", "(\\w+\\w+,)*", "(a*[ab]b*,)*", ".*.*.*.*.*x", "(.{1,40}a){1,40}", "(a*b*)*",
    ],
)  # fmt: skip
def test_what_could_take_python_for_ever_is_refused(pattern):
    with pytest.raises(PromqlError, match=r"for ever|too long"):
        compile_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [".*a.*b.*c.*", "([a-z0-9-]+\\.)*example", "(/[^/]+)+", "(a|b)*c", "\\d+-\\d+-\\d+", "(\\d{1,3}\\.){3}x"],
)
def test_what_is_taken_fails_fast_on_a_long_value(pattern):
    compiled = compile_pattern(pattern)
    value = "ab/a.b-1.2.c" * 10 + "!"
    started = time.process_time()
    compiled.fullmatch(value)
    assert time.process_time() - started < 2
