"""Templates render what Go's text/template renders in Prometheus, or are refused."""

import json
import math
import random
import struct

import promtool
import pytest

from oomguard.rules.template import TemplateError, compile_template

LABELS = {"target": "api", "process": "worker-1", "empty": ""}


def render(text, value=1.0, labels=LABELS):
    return compile_template(text).render(labels, value)


@pytest.mark.parametrize(
    ("text", "value", "rendered"),
    [
        ("plain", 1.0, "plain"),
        ("{{ $labels.target }} is at {{ $value | humanizePercentage }}", 0.915, "api is at 91.5%"),
        ("{{ .Labels.target }} {{ .Value }}", 0.5, "api 0.5"),
        ("[{{ $labels.missing }}]", 1.0, "[]"),
        ("{{ $value }}", 1234567.0, "1.234567e+06"),
        ("{{ $value | humanize1024 }}B", 456 * 1024.0**2, "456MiB"),
        ("{{ $value | humanizeDuration }}", 3723.5, "1h 2m 3s"),
        ("{{ $value | humanizeTimestamp }}", 1.5e9 + 0.5, "2017-07-14 02:40:00.5 +0000 UTC"),
        ('{{ printf "%.1f of %s" $value $labels.target }}', 2.25, "2.2 of api"),
        ("a {{- /* a comment */ -}} b", 1.0, "ab"),
        ("{{ if gt $value 1.0 }}much{{ else if eq $value 1.0 }}one{{ else }}little{{ end }}", 1.0, "one"),
        ("{{ if and $labels.target (not $labels.empty) }}yes{{ end }}", 1.0, "yes"),
    ],
)
def test_what_rules_use_is_rendered(text, value, rendered):
    assert render(text, value) == rendered


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{{ range $i := .Labels }}{{ end }}", "{{range}} is not supported"),
        ("{{ with $value }}{{ end }}", "{{with}} is not supported"),
        ('{{ define "x" }}{{ end }}', "{{define}} is not supported"),
        ("{{ template `x` }}", "{{template}} is not supported"),
        ('{{ query "up" | first | value }}', "function query is not supported"),
        ("{{ $labels.job | title }}", "function title is not supported"),
        ("{{ $x := 1 }}", "$x is not supported"),
        ("{{ $externalLabels.job }}", "$externalLabels.job is not supported"),
        ("{{ $labels.a.b }}", "$labels.a.b is not supported"),
        ("{{ . }}", ". is not supported"),
        ("{{ gt $value 1 }}", "write the number with a point, as 1.0"),
        ("{{ eq $value $labels.target }}", "incompatible types for comparison, float64 and string"),
        ("{{ $value | toUpper }}", "toUpper: expected string; got float64"),
        ("{{ humanize }}", "humanize takes 1, not 0 values"),
        ("{{ $value | 5 }}", "only a function may follow |"),
        ("{{ $value 5 }}", "only a function takes values"),
        ("{{ printf $labels.target }}", "printf's format must be a text in quotes"),
        ('{{ printf "%f" }}', "takes 1 values, not 0"),
        ('{{ printf "%y" 1 }}', "'%y' is not supported"),
        ('{{ printf "%05s" $labels.target }}', "flag 0 suits numbers"),
        ("{{ 0x10 }}", "the number 0x10 is not supported"),
        ("{{ $value", "{{ is not closed by }}"),
        ("{{ /* spaced */ }}", "unexpected '/'"),
        ("{{/* open", "a comment must end with */}}"),
        ("{{ if $value }}x", "{{if}} without {{end}}"),
        ("x{{ end }}", "{{end}} without an {{if}}"),
        ("{{ if }}x{{ end }}", "a value is missing"),
        ("{{}}", "a value is missing"),
        ("{{ ($value }}", "( is not closed"),
        ("one\ntwo {{ nosuch }}", "line 2 of the template: function nosuch"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(text, told):
    with pytest.raises(TemplateError) as error:
        compile_template(text)
    assert told in str(error.value)


def test_a_failure_at_run_time_is_told_in_the_text():
    rendered = render("{{ $labels.target | humanize }}")
    assert rendered.startswith("<error expanding template: error calling humanize: ")
    assert 'parsing "api"' in rendered


def test_only_templates_that_read_the_value_depend_on_it():
    assert compile_template("{{ $labels.target }}").uses_value is False
    assert compile_template("{{ if $labels.target }}{{ .Value }}{{ end }}").uses_value is True


def _templates(dice):
    """Everything that is supported, and printf with flags, widths and precisions by chance."""
    names = ("humanize", "humanize1024", "humanizeDuration", "humanizePercentage", "humanizeTimestamp")
    yield from (f"{{{{ {name} $value }}}}" for name in names)
    yield from (f"{{{{ $labels.s | {name} }}}}" for name in names)
    yield from (
        "{{ $value }}", "{{ .Value }}", "{{ $labels }}", "{{ $labels.s }}", "{{ .Labels.s }}",
        "[{{ $labels.missing }}]",
        "{{ if gt $value 1.0 }}a{{ else if lt $value 0.0 }}b{{ else }}c{{ end }}",
        "{{ if $value }}t{{ end }}",
        "{{ if $labels.s }}t{{else}}f{{ end }}", "a  {{- $value -}}  b", "a {{- /* c */ -}} b",
        "{{/* c */}}x",
        "{{ $labels.s | toUpper }}{{ toLower $labels.s }}",
        '{{ eq $labels.s "abc" "x" }}{{ ne $labels.s "abc" }}{{ lt $labels.s "b" }}',
        "{{ ge $value 0.0 }}{{ le $value 5e3 }}",
        "{{ and $value $labels.s }}|{{ or $labels.s $value }}|{{ not $value }}|{{ not (and $value true) }}",
        '{{ 1 }} {{ 1.0 }} {{ 1e6 }} {{ -5 }} {{ 1e-7 }} {{ "q\\t\\"" }} {{ `raw\\n` }} {{ true }}',
        '{{ printf "%s" $labels.s | printf "%q" }}', '{{ (printf "%.1f" $value) | printf "%8s|" }}',
        '{{ printf "%d %x %X %5d|%-5d|%05d|%+d|% d|%.3d|%8.3d" 42 42 42 42 42 42 42 42 42 -42 }}',
        '{{ printf "%d %5d|%.0d|%5.0d|" 0 -7 0 0 }}', '{{ printf "%t %v %5t" true false true }}',
        '{{ printf "%v" $labels }}', '{{ printf "%x|%X|% x|%.2x" $labels.s $labels.s $labels.s $labels.s }}',
        '{{ printf "%d %s %q %t" $value $value $value $value }}{{ printf "%f %t" $labels.s $labels.s }}',
        '{{ printf "%s %f" 1 2 }}{{ printf "%d" true }}',
        '{{ printf "%5.1d|%-8s|%08.1d|%e" $value $value $value $labels.s }}',
        '{{ humanize 5 }}{{ humanize "7e3" }}{{ humanizeTimestamp 1700000000.123 }}',
        '{{ if eq 1 1 }}{{if eq "a" "b"}}x{{else}}y{{end}}{{end}}', "x\n{{- if true }}\n  y\n{{- end }}\nz",
        '}} {{ "}}" }}', '{{ $value | printf "%.2f" | printf "%10s" }}', '{{ printf "%6.2f%%" $value }}',
        '{{ printf "%5s|%-5s|%.2s|%5.1s" $labels.s $labels.s $labels.s $labels.s }}',
        '{{ printf "%5q|%.3q" $labels.s $labels.s }}',
    )  # fmt: skip
    for _ in range(300):
        flags = "".join(dice.sample("+- 0", dice.randint(0, 2)))
        verb = dice.choice("eEfFgGv")
        width = dice.choice(["", "5", "12", "25"])
        precision = dice.choice(["", "", ".", ".0", ".1", ".3", ".10", ".17", ".20"])
        flags = flags.replace("+", "") if verb == "v" else flags
        yield f'{{{{ printf "[%{flags}{width}{precision}{verb}]" $value }}}}'


def _values(dice):
    """Where rounding, prefixes, units and exponents change, and numbers by chance."""
    inf, nan = float("inf"), float("nan")
    yield from (
        0.0, -0.0, 1.0, -1.0, 0.5, 99.5, 100.0, 999.95, 999.9999, 1000.0, 1023.9, 1024.0, 1e5, 123456.0,
        999999.0, 1e6, 1234567.0,
        123456789.0, 1e15, 1e16, 1e20, 1e21, 1e22, 1e23, 1e-4, 1e-5, 5e-324, 1.7976931348623157e308,
        2.0**53, 2.0**63, -(2.0**63),
        9223372036.854775, 9223372036.9, -9223372036.8, nan, inf, -inf, 0.1 + 0.2, 1 / 3, 2 / 3, 59.99,
        60.0, 3600.0, 86400.0,
        86399.999, 90061.5, -90061.5, 1.6e9, 1700000000.999, 0.0005, -0.0005, 1e-24, 1e-27, 0.99999,
        0.999999, 2.5, 3.5, 0.125, 1e24,
    )  # fmt: skip
    for _ in range(40):
        yield dice.uniform(-1, 1) * 10 ** dice.randint(-12, 22)
        number = struct.unpack("<d", dice.randbytes(8))[0]
        if not math.isnan(number):
            yield number


TEXTS = (
    "12.5", "abc", "", 'é"\n', "1e400", " 5", "-Inf", "nan", "1_000", "0x1p4", "ß", "日本", "0", "1e3", "+5", ".5",
    "5.", "infinity", "a\u200bb", "\u00a0", "0x1p99999", "\x7f\x01",
)  # fmt: skip


@pytest.mark.real
def test_prometheus_renders_every_template_the_same(tmp_path):
    dice = random.Random(1)
    templates = list(_templates(dice))
    values = list(_values(dice))
    rule = {"alert": "A", "expr": "x", "annotations": {f"n{n}": text for n, text in enumerate(templates)}}
    names = {float("inf"): "Inf", float("-inf"): "-Inf"}
    texts = [TEXTS[i % len(TEXTS)] for i in range(len(values))]
    labels = [{"__name__": "x", "i": str(i), **({"s": s} if s else {})} for i, s in enumerate(texts)]
    series = [
        (
            f'x{{i="{i}",s={json.dumps(texts[i], ensure_ascii=False)}}}',
            "NaN" if math.isnan(value) else names.get(value, repr(value)),
        )
        for i, value in enumerate(values)
    ]
    found = promtool.ask(tmp_path, {"groups": [{"name": "g", "rules": [rule]}]}, series, [("A", "0s")])
    alerts = found["A", "0s"]
    compiled = [compile_template(text) for text in templates]
    assert len(alerts) == len(values)
    failed = 0
    for theirs, notes in alerts:
        i = int(theirs["i"])
        for n, template in enumerate(compiled):
            ours = template.render(labels[i], values[i])
            if notes[f"n{n}"].startswith("<error expanding template: "):
                failed += 1
                assert ours.startswith("<error expanding template: "), (template.text, values[i], labels[i])
            else:
                assert ours == notes[f"n{n}"], (template.text, values[i], labels[i])
    cases = len(values) * len(templates)
    print(f"{cases} renderings agree, {failed} of them failures")
    assert failed < cases / 20
