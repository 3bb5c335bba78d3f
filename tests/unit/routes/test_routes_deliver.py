"""Delivery of webhooks to receivers that are slow, broken, moved or gone."""

import asyncio
import base64
import json
import ssl
import subprocess
import sys

import pytest
from receivers import Delivery, Receiver, in_turn, status

from oomguard import __version__
from oomguard.routes.deliver import MOST_AT_ONCE, MOST_WAITING, Outcome, pause_after

DELIVERED, RETRIED, REJECTED, DROPPED = Outcome.DELIVERED, Outcome.RETRIED, Outcome.REJECTED, Outcome.DROPPED


def run(scenario):
    """Run a scenario to its end, in less than a minute."""
    return asyncio.run(asyncio.wait_for(scenario, 60))


def hook(receiver, more="", path="/hook", user=""):
    return f"{{url: 'http://{user}127.0.0.1:{receiver.port}{path}'{more and ', ' + more}}}"


def header(request, name):
    for line in request[0].split("\r\n"):
        if line.lower().startswith(name.lower() + ":"):
            return line.split(":", 1)[1].strip()
    return None


def test_a_notification_is_posted_as_json():
    async def scenario():
        async with Receiver(lambda _: status(200)) as receiver, Delivery(hook(receiver)) as delivery:
            delivery.fire(n="1")
            assert await delivery.until(1) == [DELIVERED]
            await asyncio.sleep(0)
            assert len(delivery.deliverer) == 0
        ((head, body),) = receiver.requests
        assert head.startswith("POST /hook HTTP/1.1\r\n")
        assert header((head, body), "User-Agent") == f"oomguard/{__version__}"
        assert header((head, body), "Content-Type") == "application/json"
        assert header((head, body), "Authorization") is None
        assert json.loads(body)["groupKey"] == '{}:{n="1"}'

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (status(200), DELIVERED),
        (status(204), DELIVERED),
        (status(299), DELIVERED),
        (status(304), REJECTED),
        (status(400, b"no"), REJECTED),
        (status(401), REJECTED),
        (status(404), REJECTED),
        (status(408), REJECTED),
        (status(429), REJECTED),
        (status(500), RETRIED),
        (status(503, b"busy"), RETRIED),
        (status(599), RETRIED),
        (None, RETRIED),
        (b"SSH-2.0-OpenSSH_9.2\r\n", RETRIED),
    ],
)
def test_what_an_answer_means(answer, outcome):
    async def scenario():
        async with Receiver(lambda _: answer) as receiver, Delivery(hook(receiver)) as delivery:
            delivery.fire()
            assert (await delivery.until(1))[0] is outcome

    run(scenario())


def test_it_is_tried_again_until_it_is_taken():
    async def scenario():
        answers = in_turn(status(500), None, status(502), status(200))
        async with Receiver(answers) as receiver, Delivery(hook(receiver)) as delivery:
            delivery.fire()
            assert await delivery.until(4) == [RETRIED, RETRIED, RETRIED, DELIVERED]
        assert len({body for _, body in receiver.requests}) == 1

    run(scenario())


def test_a_receiver_that_is_not_there_yet_is_tried_again():
    async def scenario():
        async with Receiver(lambda _: status(200)) as gone:
            pass
        async with Delivery(hook(gone)) as delivery:
            delivery.fire()
            assert (await delivery.until(2))[:2] == [RETRIED, RETRIED]
            (told,) = delivery.deliverer.status()
            assert told["last_error"] == "can't be reached: connection refused"
            assert told["waiting"] == 1

    run(scenario())


def test_waits_grow_by_half_from_half_a_second_to_a_minute_with_jitter():
    assert [pause_after(attempts, 0.5) for attempts in (1, 2, 3, 4)] == [0.5, 0.75, 1.125, 1.6875]
    assert [pause_after(1000, spread) for spread in (0.0, 0.5, 1.0)] == [30, 60, 90]


def test_a_slow_receiver_has_its_timeout():
    async def scenario():
        async def slow(_):
            await asyncio.sleep(60)

        async with Receiver(slow) as receiver, Delivery(hook(receiver, "timeout: 50ms")) as delivery:
            delivery.fire()
            assert (await delivery.until(1)) == [RETRIED]
            assert delivery.deliverer.status()[0]["last_error"] == "no answer within 0.05 s"

    run(scenario())


def test_an_endless_answer_is_read_up_to_a_kilobyte():
    async def scenario():
        answer = b"HTTP/1.1 400 X\r\n\r\n" + b"x " * 500_000
        async with Receiver(lambda _: answer) as receiver, Delivery(hook(receiver)) as delivery:
            delivery.fire()
            assert await delivery.until(1) == [REJECTED]
            assert len(delivery.deliverer.status()[0]["last_error"]) < 1100

    run(scenario())


def test_a_secret_that_is_cut_at_the_end_of_the_kilobyte_is_left_out():
    async def scenario():
        answer = status(400, b"x " * 509 + b"s3cr3t-token and more")
        more = "http_config: {authorization: {credentials: s3cr3t-token}}"
        async with Receiver(lambda _: answer) as receiver, Delivery(hook(receiver, more)) as delivery:
            delivery.fire()
            await delivery.until(1)
            assert "s3c" not in delivery.deliverer.status()[0]["last_error"]

    run(scenario())


def test_a_newer_notification_takes_the_place_of_one_that_waits():
    async def scenario():
        ready = False
        async with (
            Receiver(lambda _: status(200) if ready else status(500)) as receiver,
            Delivery(hook(receiver), spread=lambda: 1.0) as delivery,
        ):
            delivery.fire(a="1")
            await delivery.until(1)
            ready = True
            delivery.fire(now=301.0, a="2")
            assert len(delivery.deliverer) == 1
            assert (await delivery.until(2))[1] is DELIVERED
        assert len(json.loads(receiver.requests[-1][1])["alerts"]) == 2

    run(scenario())


def test_a_newer_notification_follows_one_that_is_on_its_way():
    async def scenario():
        arrived, go = asyncio.Event(), asyncio.Event()

        async def answer(_):
            arrived.set()
            await go.wait()
            return status(200)

        async with Receiver(answer) as receiver, Delivery(hook(receiver)) as delivery:
            delivery.fire(a="1")
            await arrived.wait()
            delivery.fire(now=301.0, a="2")
            go.set()
            assert await delivery.until(2) == [DELIVERED, DELIVERED]
        assert [len(json.loads(body)["alerts"]) for _, body in receiver.requests] == [1, 2]

    run(scenario())


def test_a_newer_notification_does_not_wait_out_the_older_ones_backoff():
    async def scenario():
        ready = False
        answers = lambda _: status(200) if ready else status(500)  # noqa: E731
        async with Receiver(answers) as receiver, Delivery(hook(receiver), spread=lambda: 1e6) as delivery:
            delivery.fire(a="1")
            await delivery.until(1)
            ready = True
            delivery.fire(now=301.0, a="2")
            assert (await delivery.until(2))[1] is DELIVERED

    run(scenario())


def test_nothing_is_lost_or_told_twice_when_it_is_stopped_and_started_again():
    async def scenario():
        ready = False
        answers = lambda _: status(200) if ready else status(500)  # noqa: E731
        async with Receiver(answers) as receiver:
            saved = None
            for start in (1.0, 2.0, 3.0):
                async with Delivery(hook(receiver)) as delivery:
                    if saved is not None:
                        delivery.dispatcher.restore(json.loads(saved), start)
                    else:
                        delivery.fire()
                    for notification in delivery.dispatcher.due(start):
                        delivery.deliverer.submit(notification)
                    if start < 3:
                        await delivery.until(1)
                    await delivery.deliverer.stop()
                    saved = json.dumps(delivery.dispatcher.dump())
                    ready = True
                    if start == 3:
                        assert delivery.outcomes == []
        first = [body for _, body in receiver.requests]
        assert len(first) == 2  # refused once, taken once after the restart, and never again
        assert first[0] == first[1]

    run(scenario())


def test_what_comes_after_the_end_is_dropped():
    async def scenario():
        delivery = Delivery("{url: 'http://127.0.0.1:1/'}")
        await delivery.deliverer.stop()
        delivery.fire()
        assert delivery.outcomes == [DROPPED]
        assert len(delivery.deliverer) == 0

    run(scenario())


def test_what_is_not_wanted_any_more_is_not_sent():
    async def scenario():
        async with Receiver(lambda _: status(200)) as receiver, Delivery(hook(receiver)) as delivery:
            (notification,) = delivery.fire()
            delivery.dispatcher.failed(notification)
            await asyncio.sleep(0.05)
            assert len(delivery.deliverer) == 0
        assert receiver.requests == []

    run(scenario())


def test_the_queue_is_bounded_and_nothing_is_lost():
    async def scenario():
        async def slow(_):
            await asyncio.sleep(60)

        async with Receiver(slow) as receiver, Delivery(hook(receiver)) as delivery:
            for number in range(MOST_WAITING + 1):
                delivery.fire(n=str(number))
            assert len(delivery.deliverer) == MOST_WAITING
            assert delivery.outcomes == [DROPPED]
            await asyncio.sleep(0.2)
            assert len(receiver.requests) <= MOST_AT_ONCE
            assert len(delivery.dispatcher.due(300.0)) == 1  # what was dropped is made again

    run(scenario())


def test_a_slow_receiver_does_not_hold_up_another_and_stop_ends_at_once():
    async def scenario():
        async def slow(_):
            await asyncio.sleep(60)

        async with Receiver(slow) as one, Receiver(lambda _: status(200)) as two:
            delivery = Delivery(f"{hook(one)}, {hook(two)}")
            for number in range(3 * MOST_AT_ONCE):
                delivery.fire(n=str(number))
            await delivery.until(3 * MOST_AT_ONCE)
            assert set(delivery.outcomes) == {DELIVERED}
            await asyncio.wait_for(delivery.deliverer.stop(), 5)
            assert len(delivery.deliverer) == 0
            owed = [group["owed"] for group in delivery.dispatcher.dump()["groups"]]
            assert owed == [True] * 3 * MOST_AT_ONCE

    run(scenario())


def test_credentials_are_read_again_for_every_delivery(tmp_path):
    async def scenario():
        token = tmp_path / "token"
        token.write_text("one\n")
        more = "http_config: {authorization: {type: Token, credentials_file: token}}"
        async with (
            Receiver(lambda _: status(200)) as receiver,
            Delivery(hook(receiver, more), tmp_path) as delivery,
        ):
            delivery.fire(n="1")
            await delivery.until(1)
            token.write_text("two")
            delivery.fire(n="2")
            await delivery.until(2)
            token.unlink()
            delivery.fire(n="3")
            assert (await delivery.until(3))[2] is RETRIED
        assert [header(each, "Authorization") for each in receiver.requests] == ["Token one", "Token two"]

    run(scenario())


def test_a_pipe_in_place_of_a_file_does_not_block(tmp_path):
    import os

    async def scenario():
        os.mkfifo(tmp_path / "token")
        more = "http_config: {authorization: {credentials_file: token}}"
        async with (
            Receiver(lambda _: status(200)) as receiver,
            Delivery(hook(receiver, more), tmp_path) as delivery,
        ):
            delivery.fire()
            await delivery.until(1)

    run(scenario())


@pytest.mark.parametrize(
    ("more", "path", "value"),
    [
        ("http_config: {basic_auth: {username: u, password: p}}", "/", "u:p"),
        ("http_config: {basic_auth: {username: u, password: ' ü '}}", "/", "u:ü"),
        ("http_config: {basic_auth: {username: u}}", "/", "u:"),
    ],
)
def test_basic_auth_is_sent_as_utf8(more, path, value):
    async def scenario():
        async with (
            Receiver(lambda _: status(200)) as receiver,
            Delivery(hook(receiver, more, path)) as delivery,
        ):
            delivery.fire()
            await delivery.until(1)
        sent = header(receiver.requests[0], "Authorization")
        assert sent == "Basic " + base64.b64encode(value.encode()).decode()

    run(scenario())


def test_a_user_in_the_url_is_sent_as_basic_auth():
    async def scenario():
        async with (
            Receiver(lambda _: status(200)) as receiver,
            Delivery(hook(receiver, user="me:p%40ss@")) as one,
        ):
            one.fire()
            await one.until(1)
        assert (
            header(receiver.requests[0], "Authorization") == "Basic " + base64.b64encode(b"me:p@ss").decode()
        )
        assert header(receiver.requests[0], "Host") == f"127.0.0.1:{receiver.port}"

    run(scenario())


def test_the_url_can_come_from_a_file(tmp_path):
    async def scenario():
        async with (
            Receiver(lambda _: status(200)) as receiver,
            Delivery("{url_file: url}", tmp_path) as delivery,
        ):
            (tmp_path / "url").write_text(f"http://127.0.0.1:{receiver.port}/from-file\n")
            delivery.fire()
            assert await delivery.until(1) == [DELIVERED]
        assert receiver.requests[0][0].startswith("POST /from-file ")

    run(scenario())


AUTHORIZED = "http_config: {authorization: {credentials: abc}}"


def test_a_redirect_on_the_same_host_keeps_the_credentials():
    async def scenario():
        answers = in_turn(status(307, Location="/new"), status(200))
        async with Receiver(answers) as receiver, Delivery(hook(receiver, AUTHORIZED)) as delivery:
            delivery.fire()
            assert await delivery.until(1) == [DELIVERED]
        assert [each[0].split(" HTTP")[0] for each in receiver.requests] == ["POST /hook", "POST /new"]
        assert header(receiver.requests[1], "Authorization") == "Bearer abc"
        assert receiver.requests[0][1] == receiver.requests[1][1]

    run(scenario())


def test_a_redirect_that_says_see_there_is_followed_with_get_and_without_the_body():
    async def scenario():
        answers = in_turn(status(302, Location="/seen"), status(200))
        async with Receiver(answers) as receiver, Delivery(hook(receiver)) as delivery:
            delivery.fire()
            assert await delivery.until(1) == [DELIVERED]
        assert receiver.requests[1][0].startswith("GET /seen ")
        assert receiver.requests[1][1] == b""

    run(scenario())


def test_a_redirect_to_another_host_gets_no_credentials():
    async def scenario():
        async with Receiver(lambda _: status(200)) as other:
            moved = status(308, Location=f"http://u:p@127.0.0.1:{other.port}/there")
            async with (
                Receiver(lambda _: moved) as receiver,
                Delivery(hook(receiver, AUTHORIZED)) as delivery,
            ):
                delivery.fire()
                assert await delivery.until(1) == [DELIVERED]
        assert header(receiver.requests[0], "Authorization") == "Bearer abc"
        assert header(other.requests[0], "Authorization") is None

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "more", "outcome", "requests"),
    [
        (status(302, Location="/hook"), "", RETRIED, 11),
        (status(307, Location="/hook"), "http_config: {follow_redirects: false}", REJECTED, 1),
        (status(307), "", REJECTED, 1),
        (status(307, Location="ftp://h/"), "", RETRIED, 1),
    ],
)
def test_redirects_that_lead_nowhere(answer, more, outcome, requests):
    async def scenario():
        async with Receiver(lambda _: answer) as receiver, Delivery(hook(receiver, more)) as delivery:
            delivery.fire()
            assert (await delivery.until(1))[0] is outcome
            assert len(receiver.requests) == requests

    run(scenario())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=hook.example", "-addext", "subjectAltName=DNS:hook.example",
         "-keyout", directory / "key.pem", "-out", directory / "cert.pem"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return directory


@pytest.mark.real
@pytest.mark.parametrize(
    ("tls", "outcome", "error"),
    [
        ("{ca_file: cert.pem, server_name: hook.example}", DELIVERED, ""),
        ("{insecure_skip_verify: true}", DELIVERED, ""),
        (
            "{ca_file: cert.pem, server_name: hook.example, cert_file: cert.pem, key_file: key.pem}",
            DELIVERED,
            "",
        ),
        ("{ca_file: cert.pem, server_name: hook.example, max_version: TLS12}", DELIVERED, ""),
        ("{}", RETRIED, "its certificate is not trusted: self-signed certificate"),
        ("{ca_file: cert.pem}", RETRIED, "its certificate is not trusted: IP address mismatch"),
        ("{ca_file: missing.pem}", RETRIED, "No such file"),
        ("{ca_file: key.pem}", RETRIED, "can't use"),
    ],
)
def test_tls_is_checked_as_configured(certificate, tls, outcome, error):
    async def scenario():
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        async with Receiver(lambda _: status(200), tls=context) as receiver:
            webhook = f"{{url: 'https://127.0.0.1:{receiver.port}/', http_config: {{tls_config: {tls}}}}}"
            async with Delivery(webhook, certificate) as delivery:
                delivery.fire()
                assert (await delivery.until(1))[0] is outcome
                assert error in delivery.deliverer.status()[0]["last_error"].replace(
                    "self signed", "self-signed"
                )

    run(scenario())


def test_the_client_is_imported_only_when_something_leaves_the_process():
    program = "import sys; import oomguard.routes.deliver; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
