"""Silences in the form of Alertmanager's API v2 (silence/silence.go, api/v2): who is not to be bothered, until when.

Times are Unix seconds inside and RFC 3339 outside.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, Final

from oomguard.errors import UserError
from oomguard.routes.matchers import Matcher, Matchers, Op, matcher, matches
from oomguard.routes.payload import rfc3339
from oomguard.routes.reading import LABEL_NAME

RETENTION: Final = 120 * 3600.0
"""Seconds for which an expired silence is still listed, as in Alertmanager."""
MOST_EXPIRED: Final = 200
MOST_LIVE: Final = 1000
_LONGEST_TEXT = 4096


class SilenceState(enum.Enum):
    """Where a silence stands now."""

    PENDING = "pending"
    ACTIVE = "active"
    EXPIRED = "expired"


class SilenceError(UserError):
    """A silence that can't be set; the text says what to mend."""


class SilenceNotFoundError(SilenceError):
    """There is no silence with that id."""


@dataclass(frozen=True, slots=True)
class Silence:
    """One silence."""

    id: str
    matchers: Matchers
    starts_at: float
    ends_at: float
    updated_at: float
    created_by: str
    comment: str

    def state(self, now: float) -> SilenceState:
        """Where it stands at a time."""
        if now < self.starts_at:
            return SilenceState.PENDING
        return SilenceState.ACTIVE if now < self.ends_at else SilenceState.EXPIRED

    def to_json(self, now: float) -> dict[str, Any]:
        """As ``GET /api/v2/silences`` tells it."""
        return {
            "id": self.id,
            "status": {"state": self.state(now).value},
            "updatedAt": rfc3339(self.updated_at),
            "comment": self.comment,
            "createdBy": self.created_by,
            "endsAt": rfc3339(self.ends_at),
            "matchers": [
                {
                    "isEqual": each.op in (Op.EQUAL, Op.REGEX),
                    "isRegex": each.op in (Op.REGEX, Op.NOT_REGEX),
                    "name": each.name,
                    "value": each.value,
                }
                for each in self.matchers
            ],
            "startsAt": rfc3339(self.starts_at),
        }


class Silences:
    """All silences. `changed` is called after each change, for what depends on them or keeps them."""

    def __init__(
        self,
        changed: Callable[[], None] = lambda: None,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._all: dict[str, Silence] = {}
        self._changed = changed
        self._new_id = new_id
        self.version = 0
        """Grows with each change."""

    def set(self, body: object, now: float) -> Silence:
        """Create a silence from ``POST /api/v2/silences``, or update the one with its id.

        As in Alertmanager, a change that would rewrite the past (other matchers, another start of an active one)
        ends the old silence and makes a new one. Raises SilenceError.
        """
        given = _parse(body, now)
        before = self._all.get(given.id)
        if given.id and before is None:
            raise SilenceNotFoundError(
                f"there is no silence {given.id!r}; leave the id out to make a new one"
            )
        if before is not None and _may_become(before, given, now):
            return self._put(replace(given, updated_at=now))
        live = sum(silence.state(now) is not SilenceState.EXPIRED for silence in self._all.values())
        if live >= MOST_LIVE:
            raise SilenceError(f"there are {live} silences already; expire some first")
        if before is not None:
            self.expire(before.id, now)
        return self._put(
            replace(given, id=self._new_id(), starts_at=max(given.starts_at, now), updated_at=now)
        )

    def expire(self, silence_id: str, now: float) -> Silence:
        """End a silence now; one that has ended stays as it is. Raises SilenceNotFoundError."""
        silence = self._all.get(silence_id)
        if silence is None:
            raise SilenceNotFoundError(f"there is no silence {silence_id!r}")
        state = silence.state(now)
        if state is SilenceState.EXPIRED:
            return silence
        start = now if state is SilenceState.PENDING else silence.starts_at
        return self._put(replace(silence, starts_at=start, ends_at=now, updated_at=now))

    def get(self, silence_id: str) -> Silence:
        """One of them; raises SilenceNotFoundError."""
        silence = self._all.get(silence_id)
        if silence is None:
            raise SilenceNotFoundError(f"there is no silence {silence_id!r}")
        return silence

    def listed(self, now: float) -> list[Silence]:
        """All of them: active ones by their end, then pending ones by their start, then the latest expired ones."""
        self._forget(now)
        order = {SilenceState.ACTIVE: 0, SilenceState.PENDING: 1, SilenceState.EXPIRED: 2}
        keyed = []
        for silence in self._all.values():
            rank = order[silence.state(now)]
            keyed.append(
                ((rank, (silence.ends_at, silence.starts_at, -silence.ends_at)[rank], silence.id), silence)
            )
        return [silence for _, silence in sorted(keyed, key=lambda pair: pair[0])]

    def count(self, now: float) -> dict[SilenceState, int]:
        """How many there are in each state."""
        counts = dict.fromkeys(SilenceState, 0)
        for silence in self._all.values():
            counts[silence.state(now)] += 1
        return counts

    def silenced(self, labels: Mapping[str, str], now: float) -> list[str]:
        """The ids of the active silences that hold an alert back; empty: none does."""
        return [
            silence.id
            for silence in self._all.values()
            if silence.starts_at <= now < silence.ends_at and matches(silence.matchers, labels)
        ]

    def next_change(self, now: float) -> float | None:
        """When the next silence begins or ends by itself; None: never."""
        times = [
            time
            for silence in self._all.values()
            for time in (silence.starts_at, silence.ends_at)
            if time > now
        ]
        return min(times, default=None)

    def dump(self) -> list[dict[str, Any]]:
        """All of them as JSON-able data for `restore`."""
        return [silence.to_json(silence.updated_at) for silence in self._all.values()]

    def restore(self, data: Iterable[object], now: float) -> None:
        """Take over what `dump` gave; what can't be read any more is left out."""
        for entry in data:
            try:
                silence = _record(entry)
            except SilenceError:
                continue
            if silence.id:
                self._all[silence.id] = silence
        self._forget(now)
        self._bump()

    def _put(self, silence: Silence) -> Silence:
        self._all[silence.id] = silence
        self._forget(silence.updated_at)
        self._bump()
        return silence

    def _bump(self) -> None:
        self.version += 1
        self._changed()

    def _forget(self, now: float) -> None:
        """Drop expired ones that are old, or too many."""
        expired = sorted(
            (silence for silence in self._all.values() if silence.ends_at <= now),
            key=lambda silence: -silence.ends_at,
        )
        for position, silence in enumerate(expired):
            if position >= MOST_EXPIRED or silence.ends_at <= now - RETENTION:
                del self._all[silence.id]


def _may_become(before: Silence, after: Silence, now: float) -> bool:
    if before.matchers != after.matchers:
        return False
    state = before.state(now)
    if state is SilenceState.ACTIVE:
        return int(before.starts_at) == int(after.starts_at) and after.ends_at >= now
    return state is SilenceState.PENDING and after.starts_at >= now


def _parse(body: object, now: float) -> Silence:
    """A silence from the API; raises SilenceError for what Alertmanager refuses."""
    silence = _record(body)
    if silence.starts_at >= silence.ends_at:
        raise SilenceError("startsAt must be before endsAt")
    if silence.ends_at < now:
        raise SilenceError("endsAt lies in the past")
    return silence


def _record(body: object) -> Silence:
    if not isinstance(body, dict):
        raise SilenceError(
            "a silence must be a JSON object with matchers, startsAt, endsAt, createdBy and comment"
        )
    listed = body.get("matchers")
    if not isinstance(listed, list) or not listed:
        raise SilenceError(
            'a silence needs at least one matcher: {"name": "alertname", "value": "…", "isRegex": false}'
        )
    matchers = tuple(_matcher(entry) for entry in listed)
    # As in Alertmanager, a matcher that excludes something counts as one that chooses.
    if all(each.op in (Op.EQUAL, Op.REGEX) and each.accepts("") for each in matchers):
        raise SilenceError(
            "at least one matcher must not match the empty text, else every alert would be silenced"
        )
    return Silence(
        id=_text(body, "id", required=False),
        matchers=matchers,
        starts_at=_time(body, "startsAt"),
        ends_at=_time(body, "endsAt"),
        updated_at=_time(body, "updatedAt") if "updatedAt" in body else 0.0,
        created_by=_text(body, "createdBy"),
        comment=_text(body, "comment"),
    )


def _text(body: Mapping[str, Any], key: str, *, required: bool = True) -> str:
    value = body.get(key)
    if value is None and not required:
        return ""
    if not isinstance(value, str):
        raise SilenceError(f"{key} must be a text")
    if len(value) > _LONGEST_TEXT:
        raise SilenceError(f"{key} is longer than {_LONGEST_TEXT} characters")
    return value


def _time(body: Mapping[str, Any], key: str) -> float:
    value = body.get(key)
    try:
        return parse_time(value if isinstance(value, str) else "")
    except ValueError:
        raise SilenceError(
            f"{key} must be a time such as 2026-01-31T08:00:00Z, not {str(value)[:64]!r}"
        ) from None


def parse_time(text: str) -> float:
    """Unix seconds of an RFC 3339 time; ValueError for anything else."""
    if "T" not in text.upper():
        raise ValueError(text)
    head, dot, rest = text.upper().replace("Z", "+00:00").partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    if dot:  # Python 3.10 reads 3 or 6 digits only
        head = f"{head}.{rest[:digits][:6]:0<6}{rest[digits:]}"
    at = datetime.fromisoformat(head)
    if at.tzinfo is None:
        raise ValueError(text)
    try:
        return at.astimezone(timezone.utc).timestamp()
    except OverflowError:  # an offset that leads beyond the years 1 to 9999
        raise ValueError(text) from None


def _matcher(entry: object) -> Matcher:
    if not isinstance(entry, dict):
        raise SilenceError("a matcher must be an object with name, value and isRegex")
    name = _text(entry, "name")
    value = _text(entry, "value")
    regex, equal = entry.get("isRegex"), entry.get("isEqual", True)
    if not isinstance(regex, bool) or not isinstance(equal, bool):
        raise SilenceError(
            f"matcher of {name!r}: isRegex must be true or false, and so must isEqual where it is given"
        )
    if not LABEL_NAME.fullmatch(name):
        raise SilenceError(f"{name!r} is not a label name (letters, digits and _)")
    op = {(True, False): Op.EQUAL, (False, False): Op.NOT_EQUAL, (True, True): Op.REGEX}.get(
        (equal, regex), Op.NOT_REGEX
    )
    try:
        return matcher(name, op, value)
    except ValueError as error:
        raise SilenceError(f"matcher of {name!r}: {error}") from None
