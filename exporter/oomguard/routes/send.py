"""One attempt to deliver a payload to a webhook: credentials, TLS, redirects, and what the answer means.

As Alertmanager's (notify/webhook, notify/util.go Retrier): 2xx is success, 5xx and a failed connection are tried again,
any other status is not. Beyond it: every attempt has a deadline, answers are read up to 1 KiB, credentials never
follow a redirect to another origin, and no error, log line or reason holds a secret.
"""

from __future__ import annotations

import asyncio
import base64
import enum
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

from oomguard import __version__
from oomguard.routes.secrets import redact
from oomguard.routes.webhook import Credentials, Tls, Webhook, url_mistake

if TYPE_CHECKING:
    import aiohttp

USER_AGENT: Final = f"oomguard/{__version__}"
MOST_READ: Final = 1024
"""Bytes of an answer that are kept for the log."""
_MOST_REDIRECTS: Final = 10
_LONGEST_SECRET: Final = 65_536
_TLS = {
    "TLS10": ssl.TLSVersion.TLSv1,
    "TLS11": ssl.TLSVersion.TLSv1_1,
    "TLS12": ssl.TLSVersion.TLSv1_2,
    "TLS13": ssl.TLSVersion.TLSv1_3,
}


class Verdict(enum.Enum):
    """What is to be done after an attempt."""

    DELIVERED = "delivered"
    RETRY = "retry"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of an attempt; `reason` can be shown to anybody."""

    verdict: Verdict
    reason: str = ""


class _NotSentError(Exception):
    """Nothing could be sent; the text is our own and holds no secret."""


class Sender:
    """Attempts, over one aiohttp session that is made for the first of them."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[Tls, tuple[tuple[int, ...], ssl.SSLContext]] = {}

    async def attempt(self, webhook: Webhook, body: bytes) -> Attempt:
        """Post a body once, within the webhook's timeout."""
        secrets: list[str] = []
        try:
            return await asyncio.wait_for(self._post(webhook, body, secrets), webhook.timeout)
        except (asyncio.TimeoutError, TimeoutError):
            return Attempt(Verdict.RETRY, f"no answer within {webhook.timeout:g} s")
        except _NotSentError as error:
            return Attempt(Verdict.RETRY, redact(str(error), secrets))
        except Exception as error:  # noqa: BLE001 - whatever the client raises, the notification must not be lost
            return Attempt(Verdict.RETRY, redact(describe(error), secrets))

    async def close(self) -> None:
        """End the session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _post(self, webhook: Webhook, body: bytes, secrets: list[str]) -> Attempt:
        url = _url(webhook)
        secrets.append(url)
        address, authorization = _authorization(url, webhook.http.credentials, secrets)
        origin = _origin(address)
        method, data = "POST", body
        session = self._open()
        for _ in range(_MOST_REDIRECTS + 1):
            headers = {"User-Agent": USER_AGENT}
            if data:
                headers["Content-Type"] = "application/json"
            if authorization and _origin(address) == origin:
                headers["Authorization"] = authorization
            async with session.request(
                method,
                address,
                data=data or None,
                headers=headers,
                allow_redirects=False,
                ssl=await self._context(webhook.http.tls) if address.startswith("https:") else True,
                server_hostname=webhook.http.tls.server_name or None,
            ) as answer:
                location = answer.headers.get("Location")
                redirected = answer.status in (301, 302, 303, 307, 308) and webhook.http.follow_redirects
                if not redirected or not location:
                    return await _judge(answer, secrets)
                if answer.status not in (307, 308):
                    method, data = "GET", b""  # as Go's client and every browser
                address = _redirect(address, location)
                secrets.append(address)
        raise _NotSentError(f"more than {_MOST_REDIRECTS} redirects")

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp  # noqa: PLC0415 - a client costs memory that only webhooks need

            # A connection that the receiver closed meanwhile would cost a retry's wait: none is kept.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(force_close=True, limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("Accept", "Accept-Encoding"),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None),  # the attempt as a whole has its deadline
            )
        return self._session

    async def _context(self, tls: Tls) -> ssl.SSLContext:
        """The TLS settings, read again where a file changed; in a thread, for reading the system's roots takes long."""
        files = [file for file in (tls.ca_file, tls.cert_file, tls.key_file) if file is not None]
        try:
            changed = tuple(file.stat().st_mtime_ns for file in files)
            known = self._contexts.get(tls)
            if known is not None and known[0] == changed:
                return known[1]
            context = await asyncio.to_thread(_make_context, tls)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            why = getattr(error, "strerror", None) or type(error).__name__
            named = ", ".join(map(str, files)) or "the system's certificates"
            raise _NotSentError(f"tls_config: can't use {named}: {why}") from None
        self._contexts[tls] = (changed, context)
        return context


def _make_context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(tls.ca_file) if tls.ca_file is not None else None)
    if tls.insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.min_version:
        context.minimum_version = _TLS[tls.min_version]
    if tls.max_version:
        context.maximum_version = _TLS[tls.max_version]
    if tls.cert_file is not None and tls.key_file is not None:
        context.load_cert_chain(tls.cert_file, tls.key_file, password=_no_password)
    return context


def _no_password() -> str:
    """For a key that is encrypted: OpenSSL would ask at the terminal otherwise."""
    return ""


async def _judge(answer: aiohttp.ClientResponse, secrets: list[str]) -> Attempt:
    if 200 <= answer.status < 300:  # noqa: PLR2004
        return Attempt(Verdict.DELIVERED)
    verdict = Verdict.RETRY if 500 <= answer.status < 600 else Verdict.REJECTED  # noqa: PLR2004
    kept = b""
    while len(kept) < MOST_READ and (piece := await answer.content.read(MOST_READ - len(kept))):
        kept += piece
    # Cut first and redacted then, a secret across the cut could show its beginning: so the last word goes too.
    text = kept.decode(errors="replace")
    text = redact(text, secrets)
    if len(kept) == MOST_READ:
        text = text.rpartition(" ")[0]
    text = " ".join(text.split())
    return Attempt(verdict, f"status {answer.status}" + (f": {text}" if text else ""))


def describe(error: BaseException) -> str:
    """An exception of the client in our words; its own text may hold the URL."""
    known: tuple[tuple[str, Callable[[BaseException], str]], ...] = (
        (
            "ClientConnectorCertificateError",
            lambda e: f"its certificate is not trusted: {_verify_message(e)}",
        ),
        ("ClientConnectorDNSError", lambda _: "its host name can't be resolved"),
        ("ClientConnectorSSLError", lambda _: "no TLS connection can be made"),
        ("ServerDisconnectedError", lambda _: "it closed the connection without an answer"),
        ("ClientPayloadError", lambda _: "its answer broke off"),
        ("ClientResponseError", lambda _: "its answer is not HTTP"),
        ("InvalidURL", lambda _: "the URL is not valid"),
    )
    names = {cls.__name__ for cls in type(error).__mro__}
    for name, text in known:
        if name in names:
            return text(error)
    if isinstance(error, OSError) and error.errno:
        if error.errno < 0:  # an EAI_… of getaddrinfo(3), from an older aiohttp
            return "its host name can't be resolved"
        return f"can't be reached: {os.strerror(error.errno).lower()}"
    return f"can't be reached ({type(error).__name__})"


def _verify_message(error: BaseException) -> str:
    return str(getattr(getattr(error, "certificate_error", None), "verify_message", "") or "no reason given")


def _url(webhook: Webhook) -> str:
    if webhook.url_file is None:
        return webhook.url.reveal()
    url = _read_secret(webhook.url_file, "url_file")
    if wrong := url_mistake(url):
        raise _NotSentError(f"url_file {webhook.url_file}: the URL {wrong}")
    return url


def _read_secret(file: Path, what: str) -> str:
    """The one line of a file, without waiting for a pipe's other end."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            raw = os.read(descriptor, _LONGEST_SECRET + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _NotSentError(f"{what} {file} can't be read: {(error.strerror or '').lower()}") from None
    text = raw.decode(errors="replace").strip()
    if len(raw) > _LONGEST_SECRET or not text.isprintable():
        raise _NotSentError(f"{what} {file} does not hold one line of text")
    return text


def _authorization(url: str, credentials: Credentials | None, secrets: list[str]) -> tuple[str, str]:
    """A URL without its user, and the header's value; a user in the URL comes first, as in Go's client."""
    parts = urlsplit(url)
    if parts.username or parts.password:
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
        return bare, _basic(unquote(parts.username or ""), unquote(parts.password or ""), secrets)
    if credentials is None:
        return url, ""
    secret = (
        credentials.secret.reveal().strip() if credentials.scheme == "Basic" else credentials.secret.reveal()
    )
    if credentials.file is not None:
        what = "password_file" if credentials.scheme == "Basic" else "credentials_file"
        secret = _read_secret(credentials.file, what)
    secrets.append(secret)
    if credentials.scheme == "Basic":
        return url, _basic(credentials.username, secret, secrets)
    if not secret.isprintable():
        raise _NotSentError("the credentials hold a character that a header can't have")
    return url, f"{credentials.scheme} {secret}"


def _basic(username: str, password: str, secrets: list[str]) -> str:
    coded = base64.b64encode(f"{username}:{password}".encode()).decode()
    secrets += [password, coded]
    return f"Basic {coded}"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts: SplitResult = urlsplit(url)
    return (parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme))


def _redirect(address: str, location: str) -> str:
    """Where a redirect leads; raises for what no webhook can mean."""
    target = urljoin(address, location)
    if url_mistake(target):
        raise _NotSentError("it redirects to something that is no http or https URL")
    parts = urlsplit(target)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
