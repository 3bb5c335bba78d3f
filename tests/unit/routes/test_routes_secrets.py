"""Secrets of webhooks come out nowhere but on the wire: one test for every way out."""

import asyncio
import io
import json
import logging
from pathlib import Path

import pytest
from receivers import Delivery, Receiver, status

from oomguard import log
from oomguard.routes.config import load
from oomguard.routes.secrets import HIDDEN, Secret, redact, shown_url

SECRETS = ("s3cr3t-user", "s3cr3t-pass", "s3cr3t/path", "s3cr3t-query", "s3cr3t-token")


@pytest.fixture
def written():
    """What goes to the log."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    before = list(log.LOGGER.handlers), log.LOGGER.level
    formatter = log._Logfmt()
    handler.setFormatter(formatter)
    log.LOGGER.handlers[:], log.LOGGER.level = [handler], logging.DEBUG
    root = logging.getLogger()
    root.addHandler(handler)
    yield stream
    root.removeHandler(handler)
    log.LOGGER.handlers[:], log.LOGGER.level = before


def echo(code):
    """An answer that tells everything that it was told."""
    return lambda head: status(code, head.encode() + b" " + head.encode().replace(b"%2F", b"/"))


REDIRECT = {"Location": "/s3cr3t/path?again=s3cr3t-query"}
ANSWERS = {
    "taken": lambda _: status(200),
    "echoed and retried": echo(500),
    "echoed and rejected": echo(400),
    "closed": lambda _: None,
    "garbage": lambda head: head.encode(),
    "endless header": lambda head: b"HTTP/1.1 200 OK\r\nX: " + b"s3cr3t-token" * 10_000,
    "redirected for ever": lambda _: status(307, **REDIRECT),
    "redirected to nonsense": lambda _: status(307, Location="http://[s3cr3t-token/"),
    "slow": lambda _: asyncio.sleep(60),
}
PLACES = {
    "as it is": "http://127.0.0.1:PORT",
    "refused": "http://127.0.0.1:1",
    "not TLS": "https://127.0.0.1:PORT",
    "unknown host": "http://nowhere.invalid",
}


def webhook(place, port, credentials):
    url = place.replace("PORT", str(port)).replace(
        "://", "://s3cr3t-user:s3cr3t-pass@" if not credentials else "://"
    )
    return (
        f"{{url: '{url}/s3cr3t/path?key=s3cr3t-query', timeout: 300ms, http_config: "
        f"{{authorization: {{credentials: {credentials or 's3cr3t-token'}}}}}}}"
    )


@pytest.mark.parametrize("credentials", ["", "s3cr3t-token", '"s3cr3t-token\\n"'])
@pytest.mark.parametrize(
    ("answer", "place"),
    [
        *((answer, PLACES["as it is"]) for answer in ANSWERS.values()),
        *((ANSWERS["taken"], p) for p in PLACES.values()),
    ],
    ids=[*ANSWERS, *PLACES],
)
def test_no_way_out_tells_a_secret(answer, place, credentials, written, capfd):
    out = []

    async def scenario():
        asyncio.get_running_loop().set_debug(True)
        async with (
            Receiver(answer) as receiver,
            Delivery(webhook(place, receiver.port, credentials)) as delivery,
        ):
            notifications = delivery.fire()
            await delivery.until(1)
            out.append(json.dumps(delivery.dispatcher.dump()))
            out.append(json.dumps(delivery.deliverer.status()))
            out.append(repr(delivery.dispatcher.config))
            out.append(repr(notifications))

    asyncio.run(asyncio.wait_for(scenario(), 60))
    out.append(written.getvalue())
    out.extend(capfd.readouterr())
    for secret in (*SECRETS, "czNjcjN0"):  # the last as base64
        for text in out:
            assert secret not in text, text


@pytest.mark.parametrize(
    "webhook_text",
    [
        "{url: 'ftp://s3cr3t-user:s3cr3t-pass@h/s3cr3t/path?s3cr3t-query'}",
        "{url: 'http://s3cr3t-user:s3cr3t-pass@h:port/s3cr3t/path'}",
        "{url: 's3cr3t-token'}",
        "{url: 'http://h/s3cr3t/path s3cr3t-token'}",
        "{url: 'http://h/', http_config: {authorization: {credentials: s3cr3t-token, credentials_file: f}}}",
        "{url: 'http://h/', http_config: {authorization: {type: basic, credentials: s3cr3t-token}}}",
        "{url: 'http://h/', http_config: {basic_auth: {username: u, password: s3cr3t-pass, password_file: f}}}",
        "{url: 'http://h/', http_config: {proxy_url: 'http://s3cr3t-user:s3cr3t-pass@h/'}}",
    ],
)
def test_mistakes_in_the_file_are_told_without_its_secrets(webhook_text):
    problems = []
    text = f"route: {{receiver: a}}\nreceivers: [{{name: a, webhook_configs: [{webhook_text}]}}]"
    assert load(Path("am.yml"), problems, text) is None
    assert problems
    for secret in SECRETS:
        assert secret not in " ".join(map(str, problems))


def test_a_bad_url_in_a_file_is_not_told(tmp_path, written):
    async def scenario():
        (tmp_path / "url").write_text("s3cr3t-token://s3cr3t-user@h/s3cr3t/path")
        async with Delivery("{url_file: url}", tmp_path) as delivery:
            delivery.fire()
            await delivery.until(1)
            return json.dumps(delivery.deliverer.status())

    told = asyncio.run(scenario()) + written.getvalue()
    for secret in SECRETS:
        assert secret not in told


def test_a_secret_shows_itself_only_when_asked():
    secret = Secret("abc")
    assert [str(secret), repr(secret), f"{secret}"] == [HIDDEN] * 3
    assert secret.reveal() == "abc"


def test_a_url_is_shown_by_scheme_host_and_port():
    assert shown_url("https://u:p@[::1]:8443/a?b#c") == f"https://[::1]:8443/{HIDDEN}"
    assert shown_url("not a url") == HIDDEN


def test_parts_and_spellings_of_a_secret_url_are_taken_out():
    text = "u%40ser us p@ss /hook/T0KEN key=val%20ue val ue val%20ue"
    gone = redact(text, ["http://u%40ser:p%40ss@h/hook/T0KEN?key=val%20ue"])
    for part in ("u%40ser", "p@ss", "T0KEN", "val ue", "val%20ue"):
        assert part not in gone


@pytest.mark.parametrize("written_as", ["*s3cr3t-token", "!s3cr3t!token x", "[&s3cr3t a, *s3cr3t-token]"])
def test_a_password_that_yaml_takes_for_something_else_is_not_quoted(tmp_path, written_as):
    path = tmp_path / "routes.yml"
    path.write_text(f"route: {{receiver: a}}\npassword: {written_as}\n")
    problems = []
    assert load(path, problems) is None
    assert [problem.where for problem in problems] == [f"{path}:2"]
    assert "put quotes around" in problems[0].text
    assert "s3cr3t" not in problems[0].text
