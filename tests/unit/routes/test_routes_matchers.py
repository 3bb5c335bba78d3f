"""Matchers and regular expressions, and what Alertmanager makes of the same."""

import json
import subprocess

import pytest
from routes_patterns import NEWER, PATTERNS, REFUSED_HERE, VALUES

from oomguard.routes.matchers import Op, matcher, parse_matchers, written


def compile_regex(pattern):
    return matcher("v", Op.REGEX, pattern).accepts


def parsed(text):
    return [(each.name, each.op.value, each.value) for each in parse_matchers(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a=b", [("a", "=", "b")]),
        ("{a=b}", [("a", "=", "b")]),
        (' a  !=  "b c" ', [("a", "!=", "b c")]),
        ('{a=~"x|y", b!~z,}', [("a", "=~", "x|y"), ("b", "!~", "z")]),
        ("a=", [("a", "=", "")]),
        ('a=""', [("a", "=", "")]),
        ('a="b,c"', [("a", "=", "b,c")]),
        (r'a="say \"hi, you\""', [("a", "=", 'say "hi, you"')]),
        (r"a=\n\d\\", [("a", "=", "\n\\d\\")]),
        ("a=b\\", [("a", "=", "b\\")]),
        ("a:b=c", [("a:b", "=", "c")]),
        ("", []),
        ("{}", []),
    ],
)
def test_matchers_are_parsed_as_by_alertmanager(text, found):
    assert parsed(text) == found


@pytest.mark.parametrize(
    "text", ["a", "=b", "a-b=c", 'a="b', 'a=b"', 'a="b"c"', "a=b,,c=d", ",", 'a=~"("', "a=~*"]
)
def test_broken_matchers_are_refused_with_a_reason(text):
    with pytest.raises(ValueError, match=r"\S"):
        parse_matchers(text)


def test_a_missing_label_counts_as_empty():
    (absent,) = parse_matchers('a=""')
    (present,) = parse_matchers('a!=""')
    assert absent.accepts("")
    assert not present.accepts("")


def test_matchers_are_written_with_openmetrics_escapes():
    assert written(tuple(parse_matchers(r'a="x\"y\\z\n"'))) == r'{a="x\"y\\z\n"}'


@pytest.mark.parametrize("pattern", REFUSED_HERE)
def test_what_python_would_read_otherwise_is_refused(pattern):
    with pytest.raises(ValueError, match="regular expression"):
        compile_regex(pattern)


def test_expressions_are_anchored_and_know_no_trailing_newline():
    assert not compile_regex("a")("ba")
    assert not compile_regex("a$")("a\n")
    assert not compile_regex(".*")("a\nb")
    assert compile_regex("(?s).*")("a\nb")


def taken(pattern):
    try:
        return compile_regex(pattern)
    except ValueError:
        return None


def tree_of(patterns):
    """A configuration with a route and receiver for each pattern."""
    names = [f"r{index}" for index in range(len(patterns))]
    return json.dumps({
        "route": {
            "receiver": "none",
            "routes": [
                {"receiver": name, "match_re": {"v": pattern}, "continue": True}
                for name, pattern in zip(names, patterns, strict=True)
            ],
        },
        "receivers": [{"name": name} for name in ("none", *names)],
    })  # fmt: skip


@pytest.mark.real
def test_go_takes_the_same_expressions_or_more(tmp_path):
    file = tmp_path / "am.yml"
    for pattern in PATTERNS:
        file.write_text(tree_of([pattern]))
        theirs = (
            subprocess.run(["amtool", "check-config", file], capture_output=True, timeout=60).returncode == 0
        )
        ours = taken(pattern) is not None
        assert ours == theirs or pattern in REFUSED_HERE or pattern in NEWER, (pattern, theirs)


@pytest.mark.real
def test_go_matches_the_same_texts(tmp_path):
    patterns = [pattern for pattern in PATTERNS if taken(pattern) is not None and pattern not in NEWER]
    file = tmp_path / "am.yml"
    file.write_text(tree_of(patterns))
    for value in VALUES:
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        command = ["amtool", "config", "routes", "test", "--config.file", file, f'v="{escaped}"']
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        theirs = set(done.stdout.strip().split(",")) - {"none"}
        ours = {f"r{index}" for index, pattern in enumerate(patterns) if compile_regex(pattern)(value)}
        assert {patterns[int(name[1:])] for name in ours ^ theirs} == set(), value
