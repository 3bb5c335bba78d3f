"""Makes the reference pages from the code: ``python docs/build.py`` writes them, ``--check`` says which are old."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from oomguard import cli
from oomguard.actions import LADDER
from oomguard.config import DEFAULT_FILE, FAMILIAR, SETTINGS
from oomguard.metrics import TABLE, Metric

DOCS = Path(__file__).parent
RULES = DOCS.parent / "alerts" / "oomguard.rules.yml"


def metrics() -> Iterator[str]:
    """The metrics reference."""
    yield "# Metrics"
    yield ""
    yield "Made by `docs/build.py` from the table in `exporter/oomguard/metrics.py`; do not edit."
    yield ""
    yield (
        "`/metrics` answers in Prometheus text or OpenMetrics, whichever the scraper asks for, from what was sampled: "
        "a scrape reads nothing. What can't be known is left out, never 0. Every metric of the target carries the "
        "label `target`; no label ever holds a PID: processes have the stable names `main`, `worker-1`, `child-1`, …, "
        "and beyond 16 of them `other`, which is a sum."
    )
    for title, own in (("The target", False), ("The sidecar itself", True)):
        yield from (
            "",
            f"## {title}",
            "",
            "| metric | kind | labels | meaning | OpenTelemetry |",
            "|---|---|---|---|---|",
        )
        for metric in TABLE:
            if metric.own is own:
                yield _row(metric)


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} | `{metric.otel}` ({metric.unit}) |"


def configuration() -> Iterator[str]:
    """The settings reference."""
    yield "# Configuration"
    yield ""
    yield "Made by `docs/build.py` from the table in `exporter/oomguard/config.py`; do not edit."
    yield ""
    yield (
        "oomguard needs none. A setting is taken from its flag, else from its environment variable, else from "
        f"`{DEFAULT_FILE}` in the working directory (or the file of `--config`), else the default holds. "
        "`oomguard check FILE` tells every mistake at once, with file and line."
    )
    yield from ("", f"| {DEFAULT_FILE} | flag | environment | meaning |", "|---|---|---|---|")
    for setting in SETTINGS:
        flag = f"`{setting.flag}`" if setting.flag else ""
        yield f"| `{setting.key}` | {flag} | `{setting.env}` | {setting.help} |"
    yield from (
        "",
        "Names that people already use are read too; an `OOMGUARD_*` variable beside them wins:",
        "",
    )
    yield from ("| environment | setting |", "|---|---|")
    for setting in FAMILIAR:
        yield f"| `{setting.env}` | `{next(s.key for s in SETTINGS if s.field == setting.field)}` |"
    yield from ("", "A whole file:", "", "```yaml")
    yield from EXAMPLE.strip().splitlines()
    yield "```"


EXAMPLE = """
target: embedding-api       # value of the label target; the host's name otherwise
limit: 900MiB               # the cgroup's limit otherwise, else the machine's memory
used: auto                  # what the kernel would kill for
thresholds:
  high: 80%                 # caches, gc and trim begin here
  critical: 90%             # every step there is
  goal: 70%                 # a cleanup stops here
listen: 127.0.0.1:10512
journal: /var/lib/oomguard/journal.jsonl
log:
  level: info
  format: json
"""


def commands() -> Iterator[str]:
    """The commands and the steps."""
    yield "# Commands"
    yield ""
    yield "Made by `docs/build.py` from the command line itself; do not edit."
    yield ""
    yield (
        "Exit codes: 0; 2 for a mistake of the user's, told in one line; of `run` the target's own, 128+n where signal "
        "n ended it; of `cleanup` 1 where the goal was not reached, or no process has what was named."
    )
    for name, text in cli.COMMANDS:
        yield from ("", f"## oomguard {name}", "", text[0].upper() + text[1:] + ".", "")
        yield from ("| option | meaning |", "|---|---|")
        for action in cli.arguments_of(name):
            if action.dest not in {"help", *(setting.field for setting in SETTINGS)}:
                names = ", ".join(action.option_strings) or str(action.dest)
                value = f" {action.metavar}" if action.metavar else ""
                yield f"| `{names}{value if action.option_strings else ''}` | {action.help} |"
        if any(action.dest == "limit" for action in cli.arguments_of(name)):
            yield "| every flag of [configuration.md](configuration.md) | |"
    yield from (
        "",
        "## The steps",
        "",
        "Cheapest first; a cleanup takes them one by one until memory is below the goal.",
        "",
    )
    yield from ("| step | what it does |", "|---|---|")
    for step in LADDER:
        module = sys.modules[type(step).__module__]
        first = (module.__doc__ or "").split("\n\n")[0].replace("\n", " ")
        yield f"| `{step.name}` | {first.partition(': ')[2]} |"


def alerts() -> Iterator[str]:
    """The alerts: what they mean, at which threshold and why."""
    text = RULES.read_text(encoding="utf-8")
    rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
    yield "# Alerts"
    yield ""
    yield "Made by `docs/build.py` from the rules in `alerts/oomguard.rules.yml` and their comments; do not edit."
    yield ""
    yield (
        "The rules are ordinary Prometheus rules, and `alerts/alertmanager.yml` is an ordinary Alertmanager "
        "configuration: the sidecar evaluates these very files itself, and Prometheus and Alertmanager load them as "
        "they are. Rules that act page nobody; rules that page do not act. Every alert of a target carries "
        "`target`, and `job` and `instance` where a Prometheus adds them."
    )
    for title, wanted in ALERT_KINDS:
        yield from ("", f"## {title}", "", "| alert | threshold, and why | for | does |", "|---|---|---|---|")
        for rule in rules:
            if wanted(rule["labels"]):
                yield _alert(rule, _reason(text, rule["alert"]))
    yield from ("", "## Expressions", "")
    for rule in rules:
        yield from (f"`{rule['alert']}`:", "", "```promql", *rule["expr"].splitlines(), "```", "")
    yield (
        "The sidecar looks every 5 ms to 1 s, a Prometheus at each scrape: a peak of 100 ms fires in the sidecar only."
    )


def _acts(labels: dict[str, str]) -> bool:
    return "action" in labels


def _pages(labels: dict[str, str]) -> bool:
    return labels["severity"] != "none"


def _neither(labels: dict[str, str]) -> bool:
    return not _acts(labels) and not _pages(labels)


ALERT_KINDS = (("What acts", _acts), ("What pages people", _pages), ("The heartbeat", _neither))


def _alert(rule: dict[str, Any], reason: str) -> str:
    labels = rule["labels"]
    does = "fires always"
    if _acts(labels):
        does = " ".join([labels["action"], *([f"`{labels['steps']}`"] if "steps" in labels else [])])
        does += f", to {labels['goal']}" if "goal" in labels else ""
    elif _pages(labels):
        does = f"pages, {labels['severity']}"
    summary = re.sub(
        r"\{\{ \$labels\.(\w+) \}\}",
        r"\1",
        re.sub(r"\{\{ if .*?\{\{ end \}\}", "", rule["annotations"]["summary"]),
    )
    link = f"[{rule['alert']}](../alerts/runbooks/{rule['alert']}.md)"
    return f"| {link}<br>{summary} | {reason} | {rule['for']} | {does} |"


def _reason(text: str, alert: str) -> str:
    """The comment above a rule."""
    above = text[: text.index(f"      - alert: {alert}\n")].splitlines()
    lines: list[str] = []
    while above and above[-1].strip().startswith("# "):
        lines.insert(0, above.pop().strip().removeprefix("# "))
    return " ".join(lines)


PAGES = {
    "metrics.md": metrics,
    "configuration.md": configuration,
    "commands.md": commands,
    "alerts.md": alerts,
}


def main() -> int:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit 1 when a page is old")
    check = parser.parse_args().check
    old = []
    for name, page in PAGES.items():
        text = "\n".join(page()) + "\n"
        file = DOCS / name
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            old.append(name)
            if not check:
                file.write_text(text, encoding="utf-8")
    for name in old:
        print(f"docs/{name} {'is old: run python docs/build.py' if check else 'written'}")  # noqa: T201
    return 1 if check and old else 0


if __name__ == "__main__":
    raise SystemExit(main())
