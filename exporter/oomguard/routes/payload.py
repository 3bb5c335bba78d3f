"""The webhook payload, version 4, byte for byte as Alertmanager's encoder writes it.

Sources: Alertmanager, notify/webhook/webhook.go (Message) and template/template.go (Data); Go, encoding/json (HTML
escaping is on), time (RFC3339Nano), strconv (Quote, in group keys).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Final

from oomguard.model import Alert, fingerprint

VERSION: Final = "4"
NEVER: Final = "0001-01-01T00:00:00Z"
"""Go's zero time: when an alert that still fires was resolved."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_ESCAPED = re.compile(r'[\x00-\x1f"\\<>&\u2028\u2029\ud800-\udfff]')
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_HALVES = re.compile("[\ud800-\udfff]")
_META = re.compile(r"[\\.+*?()|\[\]{}^$]")


def build(
    *,
    receiver: str,
    group_key: str,
    group_labels: Mapping[str, str],
    alerts: Sequence[Alert],
    external_url: str,
    max_alerts: int = 0,
) -> bytes:
    """The body of a notification. An alert with `ends_at` is resolved; more than `max_alerts` (0: any) are cut off.

    Common labels and the status are those of the alerts that are left, as there.
    """
    sent = alerts[:max_alerts] if max_alerts else alerts
    firing = any(alert.ends_at is None for alert in sent)
    fields = (
        (
            "receiver",
            _text(_META.sub(r"\\\g<0>", receiver)),
        ),  # Alertmanager quotes it as for a regular expression
        ("status", _text("firing" if firing else "resolved")),
        ("alerts", "[" + ",".join(map(_alert, sent)) + "]"),
        ("groupLabels", _pairs(group_labels)),
        ("commonLabels", _pairs(_common([alert.labels for alert in sent]))),
        ("commonAnnotations", _pairs(_common([alert.annotations for alert in sent]))),
        ("externalURL", _text(external_url)),
        ("version", _text(VERSION)),
        ("groupKey", _text(group_key)),
        ("truncatedAlerts", str(len(alerts) - len(sent))),
    )
    return (_object(fields) + "\n").encode()


def _alert(alert: Alert) -> str:
    return _object((
        ("status", _text("firing" if alert.ends_at is None else "resolved")),
        ("labels", _pairs(alert.labels)),
        ("annotations", _pairs(alert.annotations)),
        ("startsAt", _text(rfc3339(alert.starts_at))),
        ("endsAt", _text(NEVER if alert.ends_at is None else rfc3339(alert.ends_at))),
        ("generatorURL", _text(alert.generator_url)),
        ("fingerprint", _text(fingerprint_of(alert.labels))),
    ))  # fmt: skip


def fingerprint_of(labels: Mapping[str, str]) -> str:
    """An alert's identity (`Alert.fingerprint`); remembered, for computing it takes 40 µs."""
    return _fingerprint(tuple(labels.items()))


@lru_cache(maxsize=4096)
def _fingerprint(items: tuple[tuple[str, str], ...]) -> str:
    return fingerprint({name: _HALVES.sub("\ufffd", value) for name, value in items})


def _common(sets: Sequence[Mapping[str, str]]) -> dict[str, str]:
    if not sets:
        return {}
    return {
        name: value
        for name, value in sets[0].items()
        if all(other.get(name, "") == value for other in sets[1:])
    }


def _pairs(values: Mapping[str, str]) -> str:
    return _object((name, _text(values[name])) for name in sorted(values))


def _object(fields: Iterable[tuple[str, str]]) -> str:
    return "{" + ",".join(f"{_text(name)}:{value}" for name, value in fields) + "}"


def _text(value: str) -> str:
    return '"' + _ESCAPED.sub(_escape, value) + '"'


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    if "\ud800" <= char <= "\udfff":
        return "\\ufffd"  # half a character: what Go makes of bytes that are not UTF-8
    return _SHORT.get(char) or f"\\u{ord(char):04x}"


def rfc3339(seconds: float) -> str:
    """Unix seconds as UTC with as many digits as are needed, six at most (a float holds no more of today)."""
    at = _EPOCH + timedelta(microseconds=round(seconds * 1e6))
    fraction = f".{at.microsecond:06d}".rstrip("0") if at.microsecond else ""
    return f"{at:%Y-%m-%dT%H:%M:%S}{fraction}Z"


def group_key(route_key: str, group_labels: Mapping[str, str]) -> str:
    """``{}:{alertname="MemoryHigh", instance="a:1"}`` (dispatch.go, GroupKey; common/model, LabelSet.String)."""
    pairs = sorted(f"{name}={go_quote(value)}" for name, value in group_labels.items())
    return f"{route_key}:{{{', '.join(pairs)}}}"


_GO_ESCAPES = {
    "\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\", '"': '\\"',
}  # fmt: skip


def go_quote(text: str) -> str:
    """A text as Go's %q writes it."""
    return '"' + "".join(_GO_ESCAPES.get(char) or _go_char(char) for char in text) + '"'


def _go_char(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:  # noqa: PLR2004 - one byte of UTF-8
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"  # noqa: PLR2004
