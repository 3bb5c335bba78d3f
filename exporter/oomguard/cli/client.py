"""Talking to a running sidecar: which one, with which token."""

from __future__ import annotations

import argparse
import http.client
import json
import os
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from oomguard import runtime
from oomguard.errors import UserError

TIMEOUT = 10.0
MAX_ANSWER = 16 << 20


def add_where(parser: argparse.ArgumentParser) -> None:
    """Options that say which sidecar is meant."""
    parser.add_argument(
        "--url",
        default=os.environ.get("OOMGUARD_URL"),
        help="address of the sidecar, where several run here (or OOMGUARD_URL)",
    )


def running(options: argparse.Namespace) -> tuple[str, str]:
    """URL and token of the sidecar that is meant; raises UserError when none or several run.

    The one of OOMGUARD_RUNTIME_DIR comes before any other: it is that of the service around us.
    """
    given = os.environ.get("OOMGUARD_TOKEN", "")
    live = [
        (record.url, place) for place in runtime.RuntimeDir.find() if (record := place.record()) is not None
    ]
    if options.url:
        url = (options.url if "://" in options.url else f"http://{options.url}").rstrip("/")
        return url, given or next((_token(place) for known, place in live if known == url), "")
    named = os.environ.get(runtime.VARIABLE)
    mine = [(url, place) for url, place in live if named and place == runtime.RuntimeDir.named(named)]
    live = mine or live
    if not live:
        raise UserError(
            "no sidecar is running here; start one with oomguard run -- COMMAND, or name it with --url"
        )
    if len(live) > 1:
        known = ", ".join(sorted(url for url, _ in live))
        raise UserError(f"several sidecars are running here: {known}; name one with --url")
    url, place = live[0]
    return url, given or _token(place)


def _token(place: runtime.RuntimeDir) -> str:
    """Its token; empty where we may not read it: reading needs none, and ordering will say so."""
    try:
        return place.token() or ""
    except UserError:
        return ""


def call(url: str, path: str, *, token: str = "", body: object = None, method: str = "") -> Any:
    """GET, POST with a body, or another method; the answer's JSON, None where it has none. Raises UserError."""
    connection = http.client.HTTPConnection(*_address(url), timeout=TIMEOUT)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request(
            method or ("GET" if body is None else "POST"),
            path,
            None if body is None else json.dumps(body),
            headers,
        )
        answer = connection.getresponse()
        data = answer.read(MAX_ANSWER)
        told = json.loads(data) if data else None
    except OSError as error:
        raise UserError(
            f"{url}: no sidecar answers: {(error.strerror or str(error)).lower()}; check the address, "
            "or start one with oomguard run -- COMMAND"
        ) from None
    except (http.client.HTTPException, ValueError):
        raise UserError(
            f"{url}: what answers there is not oomguard; give the address that its log names"
        ) from None
    finally:
        connection.close()
    if answer.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        which = "this is not its token" if token else "it wants its token"
        raise UserError(
            f"{url}: {which}; set OOMGUARD_TOKEN to what the file token in its runtime directory holds"
        )
    if answer.status >= HTTPStatus.BAD_REQUEST:
        raise UserError(
            f"{url}: {told if isinstance(told, str) else (told or {}).get('error', answer.reason)}"
        )
    return told


def _address(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        if parts.scheme == "http" and parts.hostname:
            return parts.hostname, 80 if parts.port is None else parts.port
    except ValueError:  # a port, or an address in brackets, that is none
        pass
    raise UserError(f"--url {url!r} is not an address; write for example http://127.0.0.1:10512")
