"""Debian's promtool, asked what alerts it sees."""

import json
import re
import subprocess

_ALERT = re.compile(r"Labels:(\{.*?\})\n\s+Annotations:(\{.*\})[,\n]")
_PAIR = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_CASE = re.compile(r"alertname: (\w+), time: (\S+), \n\s+exp:\[.*?\], \n\s+got:\[(.*?)\n\s{12}\]", re.DOTALL)


def ask(folder, rules, series, moments, interval="1m"):
    """{(alert, moment): [(labels, annotations), …]} of firing alerts, as `promtool test rules` finds them.

    It tells only what differs from what is expected, so nothing that could be is expected.
    """
    (folder / "rules.yml").write_text(json.dumps(rules), encoding="utf-8")
    case = {
        "interval": interval,
        "input_series": [{"series": name, "values": values} for name, values in series],
        "alert_rule_test": [
            {"eval_time": moment, "alertname": alert, "exp_alerts": [{"exp_labels": {"never": "there"}}]}
            for alert, moment in moments
        ],
    }
    test = {"rule_files": ["rules.yml"], "evaluation_interval": interval, "tests": [case]}
    (folder / "test.yml").write_text(json.dumps(test), encoding="utf-8")
    run = subprocess.run(
        ["promtool", "test", "rules", "test.yml"], cwd=folder, capture_output=True, text=True, timeout=240
    )
    told = run.stdout + run.stderr
    found = {}
    for alert, moment, got in _CASE.findall(told.replace("\n\n", "\n\n")):
        found[alert, moment] = [
            (_pairs(labels), _pairs(notes)) for labels, notes in _ALERT.findall(got + "\n")
        ]
    assert len(found) == len(moments), told[:3000]
    return found


def query(folder, rules, series, asked, interval):
    """{(expression, Unix ms): {labels: value}} with the rules evaluated at every interval from 0 on."""
    told = _evaluate(folder, rules, series, asked, interval)
    got = re.findall(r"got: (.*)", told)
    assert len(got) == len(asked), told[:3000]
    return {
        place: {
            tuple(sorted(_pairs(labels).items())): float(value)
            for labels, value in re.findall(r"(\{.*?\}) ([^\s,]+)", line)
        }
        for place, line in zip(asked, got, strict=True)
    }


def failure(folder, rules, series, until, interval):
    """(moment, text) of the first evaluation that fails in Unix ms 0 to `until`; it ends promtool's run."""
    told = _evaluate(folder, rules, series, [("vector(0)", until)], interval)
    match = re.search(r"rule: \w+, time: (\S+), err: (.*)", told)
    return (match[1], match[2]) if match is not None else None


def _evaluate(folder, rules, series, asked, interval):
    (folder / "rules.yml").write_text(json.dumps(rules), encoding="utf-8")
    case = {
        "interval": interval,
        "input_series": [{"series": name, "values": values} for name, values in series],
        "promql_expr_test": [
            {"eval_time": f"{time}ms", "expr": text, "exp_samples": [{"labels": "never", "value": 0}]}
            for text, time in asked
        ],
    }
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": interval,
        "group_eval_order": [group["name"] for group in rules["groups"]],
        "tests": [case],
    }
    (folder / "test.yml").write_text(json.dumps(test), encoding="utf-8")
    run = subprocess.run(
        ["promtool", "test", "rules", "test.yml"], cwd=folder, capture_output=True, text=True, timeout=240
    )
    return run.stdout + run.stderr


def check(folder, text):
    """Whether `promtool check rules` takes a rule file, and what it says."""
    (folder / "checked.yml").write_text(text, encoding="utf-8")
    run = subprocess.run(
        ["promtool", "check", "rules", "checked.yml"], cwd=folder, capture_output=True, text=True, timeout=60
    )
    return run.returncode == 0, run.stdout + run.stderr


def _pairs(text):
    return {name: unquote(value) for name, value in _PAIR.findall(text)}


def unquote(text):
    """What Go's strconv.Quote made of a text, undone."""
    plain = {
        "a": "\a",
        "b": "\b",
        "f": "\f",
        "n": "\n",
        "r": "\r",
        "t": "\t",
        "v": "\v",
        "\\": "\\",
        '"': '"',
    }

    def one(match):
        code = match[1]
        return plain[code] if code in plain else chr(int(code[1:], 16))

    return re.sub(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|.)", one, text)
