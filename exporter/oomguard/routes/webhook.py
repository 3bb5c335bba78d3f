"""Webhook receivers and how they are reached: ``webhook_configs`` and ``http_config`` of Alertmanager's file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from oomguard.documents import Node
from oomguard.errors import Problem
from oomguard.routes.reading import count, duration, file_path, optional_text, switch
from oomguard.routes.secrets import NO_SECRET, Secret, shown_url

DEFAULT_TIMEOUT: Final = 10.0
"""Seconds for one attempt; also what ``timeout: 0s`` stands for, since nothing here may take for ever."""


@dataclass(frozen=True, slots=True)
class Tls:
    """``tls_config``; the files are read when a connection is made, so that they can be rotated."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str = ""
    insecure_skip_verify: bool = False
    min_version: str = ""
    """``TLS10`` to ``TLS13``; empty: what the library holds safe."""
    max_version: str = ""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What goes into the header Authorization: a scheme with credentials, or a user with a password."""

    scheme: str
    """``Bearer`` or another; ``Basic`` for `username` and a password."""
    username: str = ""
    secret: Secret = NO_SECRET
    file: Path | None = None
    """Read at each delivery, instead of `secret`."""


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """``http_config``."""

    credentials: Credentials | None = None
    tls: Tls = Tls()
    follow_redirects: bool = True


@dataclass(frozen=True, slots=True)
class Webhook:
    """One entry of ``webhook_configs``."""

    url: Secret
    """Empty where `url_file` is given."""
    url_file: Path | None = None
    send_resolved: bool = True
    max_alerts: int = 0
    """0: all."""
    timeout: float = DEFAULT_TIMEOUT
    """Seconds."""
    http: HttpConfig = HttpConfig()

    @property
    def shown(self) -> str:
        """Where it goes, without what must not be told."""
        return shown_url(self.url.reveal()) if self.url else f"url_file {self.url_file}"


_WEBHOOK_KEYS = ("send_resolved", "http_config", "url", "url_file", "max_alerts", "timeout")
_HTTP_KEYS = (
    "authorization", "basic_auth", "bearer_token", "bearer_token_file", "tls_config", "follow_redirects",
    "enable_http2", "proxy_url", "oauth2",
)  # fmt: skip
_TLS_KEYS = (
    "ca_file",
    "cert_file",
    "key_file",
    "server_name",
    "insecure_skip_verify",
    "min_version",
    "max_version",
)
TLS_VERSIONS: Final = ("TLS10", "TLS11", "TLS12", "TLS13")
_REFUSED = {
    "proxy_url": "proxies are not supported; reach the receiver directly, or run Alertmanager",
    "oauth2": "OAuth 2.0 is not supported; use authorization with credentials_file, or run Alertmanager",
}


def read_webhook(node: Node, problems: list[Problem], directory: Path, default_http: HttpConfig) -> Webhook:
    """An entry of ``webhook_configs``."""
    parts = node.mapping(problems, "webhook_configs", _WEBHOOK_KEYS)
    url = optional_text(parts.get("url"), problems, "url")
    url_file = file_path(parts.get("url_file"), problems, "url_file", directory)
    if bool(url) == bool(url_file):
        problems.append(Problem(node.where, "a webhook needs either url or url_file"))
    elif url and (wrong := url_mistake(url)):
        problems.append(Problem(parts["url"].where, f"url: {wrong}"))
    timeout = duration(parts["timeout"], problems, "timeout") if "timeout" in parts else None
    http = parts.get("http_config")
    return Webhook(
        url=Secret(url),
        url_file=url_file,
        send_resolved=switch(parts.get("send_resolved"), problems, "send_resolved", default=True),
        max_alerts=count(parts.get("max_alerts"), problems, "max_alerts"),
        timeout=timeout or DEFAULT_TIMEOUT,
        http=read_http(http, problems, directory)
        if http is not None and http.value is not None
        else default_http,
    )


def url_mistake(url: str) -> str:
    """What is wrong with a webhook's URL, without showing it; empty: nothing."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL; write for example http://127.0.0.1:8080/hook"
    if parts.scheme not in ("http", "https"):
        return "has a scheme that is not http or https"
    if not parts.hostname:
        return "lacks its host; write for example http://127.0.0.1:8080/hook"
    if port == 0 or any(char.isspace() or not char.isprintable() for char in url):
        return "holds a space or a character that a URL can't have, or port 0"
    return ""


def read_http(node: Node, problems: list[Problem], directory: Path) -> HttpConfig:
    """An ``http_config`` (prometheus/common, config/http_config.go)."""
    parts = node.mapping(problems, "http_config", _HTTP_KEYS)
    problems.extend(
        Problem(parts[key].where, f"{key}: {why}")
        for key, why in _REFUSED.items()
        if key in parts and parts[key].value is not None
    )
    given = [key for key in ("authorization", "basic_auth", "bearer_token", "bearer_token_file")
             if key in parts and parts[key].value not in (None, "")]  # fmt: skip
    if len(given) > 1:
        problems.append(Problem(parts[given[1]].where, f"{' and '.join(given)} exclude each other; keep one"))
    switch(parts.get("enable_http2"), problems, "enable_http2", default=True)  # webhooks are sent by HTTP/1.1
    return HttpConfig(
        credentials=_credentials(given[0], parts[given[0]], problems, directory) if given else None,
        tls=_tls(parts["tls_config"], problems, directory) if "tls_config" in parts else Tls(),
        follow_redirects=switch(parts.get("follow_redirects"), problems, "follow_redirects", default=True),
    )


def _credentials(kind: str, node: Node, problems: list[Problem], directory: Path) -> Credentials | None:
    if kind == "bearer_token":
        return Credentials("Bearer", secret=Secret(node.text(problems, kind)))
    if kind == "bearer_token_file":
        return Credentials("Bearer", file=file_path(node, problems, kind, directory))
    keys = ("type", "credentials", "credentials_file")
    if kind == "basic_auth":
        keys = ("username", "password", "password_file")
    parts = node.mapping(problems, kind, keys)
    named = optional_text(parts.get(keys[0]), problems, keys[0])
    secret = optional_text(parts.get(keys[1]), problems, keys[1])
    file = file_path(parts.get(keys[2]), problems, keys[2], directory)
    if secret and file is not None:
        problems.append(Problem(node.where, f"{kind}: {keys[1]} and {keys[2]} exclude each other; keep one"))
    if kind == "basic_auth":
        return Credentials("Basic", username=named, secret=Secret(secret), file=file)
    scheme = named.strip() or "Bearer"
    if scheme.lower() == "basic":
        problems.append(Problem(node.where, "authorization: type Basic is written as basic_auth"))
    # Without credentials Alertmanager sends no header.
    return Credentials(scheme, secret=Secret(secret), file=file) if secret or file is not None else None


def _tls(node: Node, problems: list[Problem], directory: Path) -> Tls:
    parts = node.mapping(problems, "tls_config", _TLS_KEYS)
    versions = {key: optional_text(parts.get(key), problems, key) for key in ("min_version", "max_version")}
    for key, version in versions.items():
        if version and version not in TLS_VERSIONS:
            problems.append(
                Problem(parts[key].where, f"{key}: {version!r} is none of {', '.join(TLS_VERSIONS)}")
            )
    made = Tls(
        ca_file=file_path(parts.get("ca_file"), problems, "ca_file", directory),
        cert_file=file_path(parts.get("cert_file"), problems, "cert_file", directory),
        key_file=file_path(parts.get("key_file"), problems, "key_file", directory),
        server_name=optional_text(parts.get("server_name"), problems, "server_name"),
        insecure_skip_verify=switch(
            parts.get("insecure_skip_verify"), problems, "insecure_skip_verify", default=False
        ),
        **versions,
    )
    if (made.cert_file is None) != (made.key_file is None):
        problems.append(Problem(node.where, "tls_config: cert_file and key_file need each other"))
    return made
