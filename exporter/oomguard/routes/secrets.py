"""What must not be told, and the one place where it is taken out of whatever leaves."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, unquote, urlsplit

HIDDEN: Final = "<secret>"
_SHORTEST: Final = 3
"""What is shorter is found in any text by chance, and hiding it would tell where it stands."""


class Secret:
    """A text that shows itself only when asked to."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the wire."""
        return self._text

    def __repr__(self) -> str:
        return HIDDEN

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)


NO_SECRET: Final = Secret("")


def shown_url(url: str) -> str:
    """Scheme, host and port of a URL; user, path and query may hold tokens, and are not shown."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return HIDDEN
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}/{HIDDEN}" if host else HIDDEN


def redact(text: str, secrets: Iterable[str]) -> str:
    """A text of foreign origin (an answer's body, an exception) without the secrets and their parts and spellings.

    A secret that is a URL is also taken out by its user, password, path, query and the values in it.
    """
    forms = {form for secret in secrets for form in _forms(secret) if len(form) >= _SHORTEST}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    return text


def _forms(secret: str) -> set[str]:
    parts = {secret}
    if "://" in secret:
        try:
            url = urlsplit(secret)
        except ValueError:
            url = None
        if url is not None:
            parts |= {url.username or "", url.password or "", url.query, url.fragment, url.path.strip("/")}
            parts |= set(url.path.split("/"))
            parts |= {pair.partition("=")[2] for pair in url.query.split("&")}
            parts.add(url._replace(fragment="").geturl())
    return parts | {unquote(part) for part in parts} | {quote(part, safe="") for part in parts}
