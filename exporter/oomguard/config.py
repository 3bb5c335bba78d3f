"""Settings: from flags, the environment and ``oomguard.yml``, in this order, and defaults that do without.

Every mistake in any of them is collected and reported at once, with file and line. What was read is
one frozen record that travels to the sidecar as JSON, so that a sidecar that is started again never
meets a file that was broken meanwhile.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from oomguard.documents import Node, read_yaml
from oomguard.errors import ConfigError, Problem
from oomguard.sizes import MIN_BARE, Threshold, parse_size, parse_threshold

DEFAULT_LISTEN: Final = "127.0.0.1:10512"
DEFAULT_FILE: Final = "oomguard.yml"
DEFAULT_HIGH: Final = Threshold(ratio=0.8)
DEFAULT_CRITICAL: Final = Threshold(ratio=0.9)
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the sidecar needs to know."""

    target: str = ""
    """Value of the label ``target``; empty: the pod's or host's name."""
    limit: int | None = None
    """Bytes; None: the cgroup's limit, else the machine's memory."""
    limit_ratio: float | None = None
    """A limit written as a percentage: of the cgroup's limit, else of the machine's memory."""
    used: str = "auto"
    """``auto`` (what the kernel would kill for), ``working_set`` or ``rss``."""
    high: Threshold = DEFAULT_HIGH
    critical: Threshold = DEFAULT_CRITICAL
    goal: Threshold | None = None
    """None: 70 %, or seven eighths of `high` where that is less."""
    act: bool = True
    """False: watch and warn, but order nothing (``MEMORY_CLEANUP=0``)."""
    dry_run: bool = False
    """True: decide and journal everything, but take no step."""
    rules: str | None = None
    """Rule files: paths or patterns, separated by commas; None: those that ship."""
    routes: str | None = None
    """Routes in Alertmanager's format; None: those that ship."""
    record: str | None = None
    """File that every sample is recorded to, for ``oomguard replay``."""
    listen: str = DEFAULT_LISTEN
    journal: str | None = None
    """None: ``journal.jsonl`` in the runtime directory."""
    log_level: str = "info"
    log_format: str = "logfmt"
    runtime_dir: str | None = None
    file: str | None = None
    """The configuration file that was read, for a reload."""
    flags: tuple[tuple[str, str], ...] = ()
    """Fields that flags have set, as they were written: a reload must not lose them."""

    def thresholds(self, limit: int) -> dict[str, int]:
        """Bytes at this limit: ``high``, ``critical``, ``goal``."""
        high = self.high.of(limit)
        goal = self.goal.of(limit) if self.goal is not None else min(limit * 7 // 10, high * 7 // 8)
        return {"high": high, "critical": self.critical.of(limit), "goal": goal}

    def to_json(self) -> str:
        """One line, for `from_json`."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """What `to_json` wrote."""
        fields: dict[str, Any] = json.loads(text)
        for name in ("high", "critical", "goal"):
            if fields[name] is not None:
                fields[name] = Threshold(**fields[name])
        fields["flags"] = tuple((name, text) for name, text in fields["flags"])
        return cls(**fields)

    def reloaded(self) -> Settings:
        """These settings with what can change while the sidecar runs (`RELOADED`) read again; raises ConfigError."""
        file = Path(self.file) if self.file is not None else None
        fresh = load(dict(self.flags), os.environ, file)
        return self.taking_over(fresh)

    def taking_over(self, other: Settings) -> Settings:
        """These settings with what can change while the sidecar runs (`RELOADED`) as others have it."""
        return dataclasses.replace(self, **{name: getattr(other, name) for name in RELOADED})


def _text(value: str) -> str:
    return value


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.lower() not in choices:
            raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
        return value.lower()

    return parse


def parse_listen(value: str) -> str:
    """``HOST:PORT``, ``:PORT`` (all addresses) or ``PORT`` (loopback); returns HOST:PORT."""
    host, colon, port = value.rpartition(":")
    if not colon:
        host = "127.0.0.1"
    host = host.removeprefix("[").removesuffix("]") or "0.0.0.0"  # noqa: S104 - asked for by the user
    if not port.isdecimal() or not 0 <= int(port) < 1 << 16:
        raise ValueError(f"{value!r} is not an address; write for example {DEFAULT_LISTEN}")
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_switch(setting: Setting) -> bool:
    """Whether a setting is on or off: its flag takes no value."""
    return setting.parse is _switch


def _switch(value: str) -> bool:
    choices = {
        "1": True,
        "true": True,
        "on": True,
        "yes": True,
        "0": False,
        "false": False,
        "off": False,
        "no": False,
    }
    if value.lower() not in choices:
        raise ValueError(f"{value!r} is not on or off; write true or false")
    return choices[value.lower()]


def _limit(value: str) -> int | float:
    if value.strip().endswith("%"):
        try:
            ratio = parse_threshold(value).ratio
        except ValueError:
            raise ValueError(
                f"{value!r} is not a part of the box between 0% and 100%; write for example 80%"
            ) from None
        assert ratio is not None
        return ratio
    size = parse_size(value)
    if size < MIN_BARE and value.strip().replace(".", "", 1).isdecimal():
        raise ValueError(f"{value!r} alone would be bytes; write {value}MiB, or a part of the box: 80%")
    return size


def _megabytes(value: str) -> str:
    if not value.strip().replace(".", "", 1).isdecimal():
        raise ValueError(f"{value!r} is not a number of megabytes; write for example 512")
    return value.strip() + "MiB"


def _megabytes_limit(value: str) -> int | float:
    return _limit(_megabytes(value))


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: where it can be written and how it is read."""

    field: str
    key: str
    """Dotted path in oomguard.yml."""
    parse: Callable[[str], object]
    flag: str | None = None
    env: str | None = None
    help: str = ""


_LEVEL = _one_of(*LOG_LEVELS)


def _borrowed_level(value: str) -> str:
    """The application's own LOG_LEVEL: whatever it means by it must not keep it from starting."""
    names = {"warn": "warning", "critical": "error", "fatal": "error", "trace": "debug", "notset": "debug"}
    level = names.get(value.lower(), value.lower())
    return level if level in LOG_LEVELS else "info"


SETTINGS: Final = (
    Setting("target", "target", _text, "--target", "OOMGUARD_TARGET", "value of the label target (default: host name)"),
    Setting("limit", "limit", _limit, "--limit", "OOMGUARD_LIMIT",
            "memory limit: 512MiB, 512MB, 0.5GiB or 80% (default: the cgroup's, else the machine's memory)"),
    Setting("used", "used", _one_of("auto", "working_set", "rss"), "--used", "OOMGUARD_USED",
            "what counts as used: auto (what the kernel kills for), working_set or rss"),
    Setting("high", "thresholds.high", parse_threshold, "--high", "OOMGUARD_HIGH",
            "where caches, gc and trim begin (default 80%)"),
    Setting("critical", "thresholds.critical", parse_threshold, "--critical", "OOMGUARD_CRITICAL",
            "where every step there is begins (default 90%)"),
    Setting("goal", "thresholds.goal", parse_threshold, "--goal", "OOMGUARD_GOAL",
            "where a cleanup stops (default 70%, or seven eighths of --high where that is less)"),
    Setting("act", "act", _switch, None, "OOMGUARD_ACT", "false: watch and warn, order nothing"),
    Setting("dry_run", "dry_run", _switch, "--dry-run", "OOMGUARD_DRY_RUN",
            "decide and journal everything, but take no step"),
    Setting("rules", "rules", _text, "--rules", "OOMGUARD_RULES",
            "Prometheus rule files, separated by commas: paths, patterns, or shipped, which is the default"),
    Setting("routes", "routes", _text, "--routes", "OOMGUARD_ROUTES",
            "routes and receivers in Alertmanager's format (default: those that ship)"),
    Setting("record", "record", _text, "--record", "OOMGUARD_RECORD",
            "record every sample to this file, for oomguard replay"),
    Setting("listen", "listen", parse_listen, "--listen", "OOMGUARD_LISTEN",
            f"address of /metrics and the live page (default {DEFAULT_LISTEN}; port 0: any free one)"),
    Setting("journal", "journal", _text, "--journal", "OOMGUARD_JOURNAL",
            "the journal's file (default: journal.jsonl in the runtime directory)"),
    Setting("log_level", "log.level", _LEVEL, "--log-level", "OOMGUARD_LOG_LEVEL",
            f"one of {', '.join(LOG_LEVELS)}"),
    Setting("log_format", "log.format", _one_of("logfmt", "json"), "--log-format", "OOMGUARD_LOG_FORMAT",
            "logfmt (key=value) or json"),
    Setting("runtime_dir", "runtime_dir", _text, "--runtime-dir", "OOMGUARD_RUNTIME_DIR",
            "directory of socket, token and journal (default: one below /run, /tmp or /dev/shm)"),
)  # fmt: skip

RELOADED: Final = ("high", "critical", "goal", "act", "rules", "routes", "log_level")
"""Settings that a reload takes over; the others hold until the sidecar starts again."""

# Names that people already use; an OOMGUARD_* variable beside them wins.
FAMILIAR: Final = (
    Setting("limit", "", _megabytes_limit, None, "MEMORY_LIMIT_MB"),
    Setting("act", "", _switch, None, "MEMORY_CLEANUP"),
    Setting("log_level", "", _borrowed_level, None, "LOG_LEVEL"),
)


def load(
    flags: Mapping[str, str | None],
    env: Mapping[str, str],
    file: Path | None = None,
    *,
    base: Settings | None = None,
) -> Settings:
    """Settings from flags (by field name), the environment and a file, over `base` or the defaults.

    Raises ConfigError with every mistake found.
    """
    problems: list[Problem] = []
    values: dict[str, object] = {}
    places: dict[str, str] = {}

    def take(setting: Setting, text: str, where: str) -> None:
        try:
            values[setting.field] = setting.parse(text)
            places[setting.field] = where
        except ValueError as error:
            problems.append(Problem(where, str(error)))

    if file is not None:
        _take_file(file, take, problems)
    for setting in (*FAMILIAR, *SETTINGS):
        if setting.env and (text := env.get(setting.env, "")):
            take(setting, text, setting.env)
    for setting in SETTINGS:
        if (text := flags.get(setting.field) or "") and setting.flag:
            take(setting, text, setting.flag)

    limit = values.get("limit")
    if isinstance(limit, float):
        del values["limit"]
        values["limit_ratio"] = limit
    values["file"] = str(file) if file is not None else None
    values["flags"] = tuple((name, text) for name, text in flags.items() if text)
    settings = dataclasses.replace(base or Settings(), **values)  # type: ignore[arg-type]
    problems += _disorder(settings, places)
    if problems:
        raise ConfigError(problems)
    return settings


def _disorder(settings: Settings, places: Mapping[str, str]) -> list[Problem]:
    """Thresholds that stand in the wrong order; ratios and sizes compare only when the limit is known."""
    limit = settings.limit or math.inf
    problems = []
    for low, high in (("goal", "high"), ("high", "critical")):
        below, above = getattr(settings, low), getattr(settings, high)
        if below is None:
            continue
        if settings.limit is None and (below.size is None) != (above.size is None):
            continue
        ceiling = int(limit) if settings.limit else 1 << 62
        if below.of(ceiling) >= above.of(ceiling):
            where = places.get(low) or places.get(high) or "thresholds"
            problems.append(Problem(where, f"{low} ({below}) must lie below {high} ({above})"))
    return problems


def _take_file(file: Path, take: Callable[[Setting, str, str], None], problems: list[Problem]) -> None:
    node = read_yaml(file, problems)
    if node is not None:
        _take_mapping(node, "", take, problems)


def _take_mapping(
    mapping: Node, prefix: str, take: Callable[[Setting, str, str], None], problems: list[Problem]
) -> None:
    """Settings below one key of the file; `prefix` is that key with a dot."""
    known = {setting.key: setting for setting in SETTINGS}
    sections = {key.partition(".")[0] for key in known if "." in key}
    name = f"{prefix.rstrip('.')!r}" if prefix else "the file"
    for key_name, value in mapping.mapping(problems, name).items():
        key = f"{prefix}{key_name}"
        if key in sections:
            _take_mapping(value, key + ".", take, problems)
        elif key not in known:
            names = ", ".join(sorted(name for name in known if name.startswith(prefix)))
            problems.append(Problem(value.where, f"unknown setting {key!r}; the settings are {names}"))
        elif not isinstance(value.value, str):
            problems.append(Problem(value.where, f"{key!r} takes a single value"))
        else:
            take(known[key], value.value, value.where)
