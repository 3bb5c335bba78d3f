"""Templates by chance: what is taken here, promtool takes and renders the same."""

import json
import math
import random
import re

import promtool
import pytest

from oomguard.rules.template import TemplateError, compile_template

_VALUES = (
    "$value", "$labels.s", ".Value", ".Labels.s", "1", "1.5", "0.0", '"a"', '"12"', "`b`", "true",
    "false", '""', "$labels.n",
)  # fmt: skip
_FUNCTIONS = (
    "humanize", "humanize1024", "humanizeDuration", "humanizePercentage", "toUpper", "toLower", "printf",
    "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not",
)  # fmt: skip
_FORMATS = ("%v", "%s", "%.2f", "%d", "%5v|", "%q", "%t", "%x", "%X", "%-6s", "%e", "%g")
_ATOMS = (
    *_VALUES, *_FUNCTIONS, "$labels", ".Labels", '"%v"', "if", "else", "end", "(", ")", "|", "|", "- ", " -",
    '"}}"', ".", "$", "x", "1e3", "+1", ".5", "5.", "01", "0x1F", "1_0", "'a'", "nil", "len", "$labels.s.t", "..",
    "-", "$value.x", '"\\n"', '"\\/"', '"\\x41"', '"\\101"', '"\\u00e9"', '"\\\'"', '"\\""',
)  # fmt: skip
SAMPLES = (("12", 0.0), ("abc", 1.5), ("", -3.0), ("b", math.nan), ('é"', 1e9))


def _expression(dice, depth=0):
    if depth > 3 or dice.random() < 0.35:
        return dice.choice(_VALUES)
    name = dice.choice(_FUNCTIONS)
    least, most = {"eq": (2, 3), "and": (1, 3), "or": (1, 3)}.get(name, (2, 2) if len(name) == 2 else (1, 1))
    values = [_expression(dice, depth + 1) for _ in range(dice.randint(least, most))]
    values = [f"({value})" if " " in value else value for value in values]
    if name == "printf":
        name = f'printf "{dice.choice(_FORMATS)}"'
    if len(values) == 1 and dice.random() < 0.5:
        return f"{values[0]} | {name}"
    return " ".join((name, *values))


def _sensible(dice, depth=0):
    text = ""
    for _ in range(dice.randint(1, 3)):
        opening, closing = dice.choice(["{{", "{{ ", "{{- "]), dice.choice(["}}", " }}", " -}}"])
        kind = dice.random()
        if kind < 0.25 and depth < 2:
            text += f"{opening}if {_expression(dice)}{closing}{_sensible(dice, depth + 1)}"
            if dice.random() < 0.4:
                text += f"{opening}else if {_expression(dice)}{closing}{_sensible(dice, depth + 1)}"
            if dice.random() < 0.5:
                text += f"{opening}else{closing}{_sensible(dice, depth + 1)}"
            text += f"{opening}end{closing}"
        elif kind < 0.35:
            text += dice.choice(["{{/* c */}}", "{{- /* c }} */ -}}", "{{/**/ -}}"])
        else:
            text += f"{opening}{_expression(dice)}{closing}"
        text += dice.choice(["", " ", "\n x ", "t"])
    return text


def _soup(dice):
    text = dice.choice(["", "t ", " ", "\n"])
    gaps = (" ", " ", " ", "  ", "", "\n", "\t")
    for _ in range(dice.randint(1, 3)):
        words = "".join(dice.choice(_ATOMS) + dice.choice(gaps) for _ in range(dice.randint(1, 6)))
        opening, closing = dice.choice(["{{", "{{", "{{- ", "{{-"]), dice.choice(["}}", "}}", " -}}", "-}}"])
        text += opening + dice.choice(gaps) + words + closing + dice.choice(["", " x ", "\n", " "])
    return text


def _compiled(text):
    try:
        return compile_template(text)
    except TemplateError:
        return None


def _rules(templates):
    notes = {f"n{n}": text for n, text in templates}
    return {"groups": [{"name": "g", "rules": [{"alert": "A", "expr": "x", "annotations": notes}]}]}


@pytest.mark.real
@pytest.mark.parametrize("seed", range(4))
def test_what_is_taken_here_promtool_takes_and_renders_the_same(tmp_path, seed):
    dice = random.Random(seed)
    texts = [(_soup if n % 2 else _sensible)(dice) for n in range(2000)]
    compiled = {n: _compiled(text) for n, text in enumerate(texts)}
    taken = {n: template for n, template in compiled.items() if template is not None}
    _, told = promtool.check(tmp_path, json.dumps(_rules(enumerate(texts))))
    refused = {int(n) for n in re.findall(r'annotation "n(\d+)"', told)}
    assert refused, "promtool refuses some of the soup"
    assert [texts[n] for n in taken if n in refused] == []
    series = [
        (f'x{{i="{i}",s={json.dumps(s, ensure_ascii=False)}}}', "NaN" if math.isnan(value) else repr(value))
        for i, (s, value) in enumerate(SAMPLES)
    ]
    found = promtool.ask(tmp_path, _rules([(n, texts[n]) for n in taken]), series, [("A", "0s")])["A", "0s"]
    assert len(found) == len(SAMPLES)
    failed = 0
    for theirs, notes in found:
        s, value = SAMPLES[int(theirs["i"])]
        labels = {"__name__": "x", "i": theirs["i"], **({"s": s} if s else {})}
        for n, template in taken.items():
            rendered = notes[f"n{n}"]
            ours = template.render(labels, value)
            if rendered.startswith("<error expanding template: "):
                failed += 1
                assert ours.startswith("<error expanding template: "), (texts[n], labels, value)
            else:
                assert ours == rendered, (texts[n], labels, value)
    print(
        f"{len(taken)} of {len(texts)} templates taken, {len(taken) * len(SAMPLES)} renderings, {failed} failures"
    )
    assert len(taken) > 150
