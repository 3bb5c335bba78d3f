"""The routes, over real HTTP on loopback, in front of a view that says what the test wants."""

import asyncio
import json
import threading

import aiohttp
import pytest
from aiohttp import web

from oomguard.broker.inbox import Outcome
from oomguard.broker.requests import parse
from oomguard.broker.wishes import Action
from oomguard.errors import ConfigError, Problem, TargetError, UserError
from oomguard.web import server

TOKEN = "right"


class View:
    def __init__(self):
        self.ordered = []
        self.looked_up_in = []
        self.counted = []
        self.set = {}
        self.not_ready = ""
        self.refusal = None

    def metrics(self, accept):
        return (
            b"a 1\n" * 500,
            "application/openmetrics-text" if "openmetrics" in accept else "text/plain; version=0.0.4",
        )

    def health(self):
        return {"status": "critical"}

    def ready(self):
        return self.not_ready

    def status(self, *, command_lines):
        return {"command_lines": command_lines}

    def history(self, since):
        return {"since": round(since)}

    def journal(self, limit):
        return [{"event": "run_end"}] * limit

    def entry(self, number):
        self.looked_up_in.append(threading.current_thread())
        if number != 7:
            raise LookupError(f"the journal has no entry {number}")
        return {"id": number}

    def order(self, body, default):
        request = parse(body, default)
        if self.refusal is not None:
            raise self.refusal
        self.ordered.append((request, default))
        return {"id": len(self.ordered)}

    def refused(self, outcome):
        self.counted.append(outcome)

    def alerts(self):
        return [{"labels": {}}]

    def rules(self):
        return [{"name": "group"}]

    def silences(self, filters):
        if "=" in filters:
            raise UserError("filter: '=' is no matcher")
        return list(self.set.values())

    def silence(self, silence):
        return self.set[silence]

    async def set_silence(self, told):
        if not isinstance(told, dict):
            raise UserError("a silence is an object")
        self.set["s1"] = told
        return "s1"

    async def expire(self, silence):
        if self.set.pop(silence, None) is None:
            raise LookupError(f"no silence {silence}")

    async def reload(self):
        if self.refusal is not None:
            raise self.refusal
        return ["a.rules.yml"]


def http(test=None, *, loopback=True, token=TOKEN):
    """Run an async test with (view, session) in front of a served application."""

    def decorate(test):
        def run():
            async def body():
                view = View()
                runner = web.AppRunner(server.build(view, token, loopback=loopback), access_log=None)
                await runner.setup()
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                url = f"http://127.0.0.1:{runner.addresses[0][1]}"
                async with aiohttp.ClientSession(url) as session:
                    await test(view, session)
                await runner.cleanup()

            asyncio.run(asyncio.wait_for(body(), 30))

        run.__name__ = test.__name__
        return run

    return decorate(test) if test is not None else decorate


def bearer(token=TOKEN):
    return {"Authorization": f"Bearer {token}"}


@http
async def test_metrics_are_negotiated_and_compressed(view, session):
    async with session.get("/metrics", headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4"
        assert await answer.text() == "a 1\n" * 500
    async with session.get("/metrics", headers={"Accept": "application/openmetrics-text"}) as answer:
        assert answer.content_type == "application/openmetrics-text"


@http
async def test_health_is_200_even_when_critical(view, session):
    async with session.get("/health") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "critical"})


@http
async def test_the_sidecar_is_alive_before_it_is_ready(view, session):
    view.not_ready = "waiting for the target"
    async with session.get("/healthz") as answer:
        assert answer.status == 200
    async with session.get("/readyz") as answer:
        assert (answer.status, await answer.text()) == (503, "waiting for the target\n")
    view.not_ready = ""
    async with session.get("/readyz") as answer:
        assert answer.status == 200


@http
async def test_the_page_loads_nothing_from_elsewhere(view, session):
    async with session.get("/") as answer:
        text = await answer.text()
        assert answer.content_type == "text/html"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert 'src="' not in text
    assert "innerHTML" not in text, "names and command lines are the target's: they go in as text"


@http(loopback=False)
async def test_command_lines_are_hidden_from_the_network_unless_authenticated(view, session):
    async with session.get("/api/v1/status") as answer:
        assert await answer.json() == {"command_lines": False}
    async with session.get("/api/v1/status", headers=bearer()) as answer:
        assert await answer.json() == {"command_lines": True}
    async with session.get("/api/v1/status", headers=bearer("wrong")) as answer:
        assert await answer.json() == {"command_lines": False}


ORDERS = (
    ("POST", "/admin/cleanup"),
    ("POST", "/admin/unload"),
    ("POST", "/-/reload"),
    ("POST", "/api/v2/silences"),
    ("DELETE", "/api/v2/silence/s1"),
)


@pytest.mark.parametrize(("method", "path"), ORDERS)
def test_an_order_needs_the_token(method, path):
    @http
    async def test(view, session):
        view.set["s1"] = {}
        async with session.request(method, path, json={}) as answer:
            assert answer.status == 401
            assert "OOMGUARD_TOKEN" in await answer.text()
        for wrong in (
            bearer("wrong"),
            bearer(""),
            bearer("rigth\u00e9"),
            {"Authorization": "Basic cmlnaHQ="},
        ):
            async with session.request(method, path, json={}, headers=wrong) as answer:
                assert answer.status == 403
                assert "wrong token" in json.dumps(await answer.json())
        assert (view.ordered, view.set) == ([], {"s1": {}})
        assert set(view.counted) == ({Outcome.UNAUTHORIZED} if "/admin/" in path else set())

    test()


@http
async def test_a_token_of_bytes_that_are_no_text_is_a_wrong_one(view, session):
    reader, writer = await asyncio.open_connection(session._base_url.host, session._base_url.port)
    writer.write(b"POST /admin/cleanup HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer \xe9\xff\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"403"
    writer.close()


@http(token=None)
async def test_without_a_token_nothing_can_be_ordered(view, session):
    for given in ("", "None", "right"):
        async with session.post("/admin/cleanup", json={}, headers=bearer(given)) as answer:
            assert answer.status == 403
    assert view.ordered == []


@http
async def test_an_order_is_taken(view, session):
    body = {"steps": ["gc"], "goal": 0.7, "new": 1}
    async with session.post("/admin/cleanup", json=body, headers=bearer()) as answer:
        assert (answer.status, await answer.json()) == (202, {"id": 1})
    async with session.post("/admin/cleanup", headers=bearer()) as answer:
        assert answer.status == 202
    async with session.post("/admin/unload", headers=bearer()) as answer:
        assert answer.status == 202
    assert [(order.steps, default) for order, default in view.ordered] == [
        (("gc",), Action.CLEANUP),
        (("caches", "gc", "trim"), Action.CLEANUP),
        (("models",), Action.UNLOAD),
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"3",
        b"[" * 100_000,
        b'{"steps": "gc"}',
        b'{"steps": [1]}',
        b'{"goal": []}',
        b'{"goal": true}',
        b"\xff",
        b'{"version": "3", "alerts": []}',
        b'{"version": "4", "alerts": {}}',
    ],
)
def test_a_body_that_is_no_order_is_400_with_the_reason(body):
    @http
    async def test(view, session):
        async with session.post("/admin/cleanup", data=body, headers=bearer()) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]
        assert (view.ordered, view.counted) == ([], [Outcome.MALFORMED])

    test()


@http
async def test_a_body_of_more_than_a_megabyte_is_413(view, session):
    async with session.post("/admin/cleanup", data=b" " * (server.MAX_BODY + 1), headers=bearer()) as answer:
        assert answer.status == 413
        assert "error" in await answer.json()
    assert (view.ordered, view.counted) == ([], [Outcome.MALFORMED])


@http
async def test_what_the_view_refuses_is_told_and_counted(view, session):
    for refusal, status, outcome in (
        (UserError("unknown step 'dance'; the steps are caches, gc, trim"), 422, Outcome.MALFORMED),
        (LookupError("waiting for the target"), 503, Outcome.NO_TARGET),
        (TargetError("the target has ended for good"), 409, Outcome.NO_TARGET),
    ):
        view.refusal = refusal
        async with session.post("/admin/cleanup", json={}, headers=bearer()) as answer:
            assert (answer.status, (await answer.json())["error"]) == (status, str(refusal))
        assert view.counted.pop() is outcome


@http
async def test_an_entry_of_the_journal_is_told_or_404(view, session):
    async with session.get("/api/v1/journal/7") as answer:
        assert (answer.status, await answer.json()) == (200, {"id": 7})
    for path in ("8", "x", "-1", "9" * 5000):
        async with session.get(f"/api/v1/journal/{path}") as answer:
            assert (answer.status, "error" in await answer.json()) == (404, True), path
    assert threading.main_thread() not in view.looked_up_in, "files are read, and the fast lane must not wait"


@http
async def test_alerts_and_rules_come_in_prometheus_form(view, session):
    for path, told in (("alerts", {"alerts": [{"labels": {}}]}), ("rules", {"groups": [{"name": "group"}]})):
        async with session.get(f"/api/v1/{path}") as answer:
            assert await answer.json() == {"status": "success", "data": told}


@http
async def test_silences_are_set_told_and_ended(view, session):
    async with session.post("/api/v2/silences", json={"comment": "x"}, headers=bearer()) as answer:
        assert (answer.status, await answer.json()) == (200, {"silenceID": "s1"})
    async with session.get("/api/v2/silences") as answer:
        assert await answer.json() == [{"comment": "x"}]
    for status in (200, 404):
        async with session.delete("/api/v2/silence/s1", headers=bearer()) as answer:
            assert answer.status == status
    for body in (b"{", b"[]", b"[" * 100_000, b"\xff"):
        async with session.post("/api/v2/silences", data=body, headers=bearer()) as answer:
            assert (answer.status, type(await answer.json())) == (400, str), (
                "as Alertmanager's clients read it"
            )
    async with session.post(
        "/api/v2/silences", data=b" " * (server.MAX_BODY + 1), headers=bearer()
    ) as answer:
        assert (answer.status, type(await answer.json())) == (413, str)


@http
async def test_a_body_that_is_not_encoded_as_it_says_is_the_senders_mistake(view, session):
    headers = {**bearer(), "Content-Encoding": "gzip"}
    async with session.post("/admin/cleanup", data=b"{}", headers=headers) as answer:
        assert (answer.status, list(await answer.json())) == (400, ["error"])


@http
async def test_links_of_notifications_lead_to_the_page(view, session):
    async with session.get("/graph?g0.expr=up&g0.tab=1", allow_redirects=False) as answer:
        assert (answer.status, answer.headers["Location"]) == (302, "/")


@http
async def test_a_reload_that_fails_tells_every_problem(view, session):
    async with session.post("/-/reload", headers=bearer()) as answer:
        assert await answer.json() == {"status": "success", "loaded": ["a.rules.yml"]}
    view.refusal = ConfigError([Problem("a.rules.yml:3", "x"), Problem("routes.yml:1", "y")])
    async with session.post("/-/reload", headers=bearer()) as answer:
        assert answer.status == 500
        assert (await answer.json())["problems"] == ["a.rules.yml:3: x", "routes.yml:1: y"]


@http
async def test_unknown_routes_and_methods_are_told_in_json(view, session):
    async with session.get("/nothing") as answer:
        assert (answer.status, "error" in await answer.json()) == (404, True)
    async with session.get("/admin/cleanup") as answer:
        assert (answer.status, "error" in await answer.json()) == (405, True)


@http
async def test_questions_that_make_no_sense_are_400(view, session):
    for path in (
        "/api/v1/history?since=yesterday",
        "/api/v1/history?since=nan",
        "/api/v1/history?since=inf",
        "/api/v1/journal?limit=0",
        "/api/v1/journal?limit=-1",
        "/api/v1/journal?limit=all",
        f"/api/v1/journal?limit={'9' * 5000}",
    ):
        async with session.get(path) as answer:
            assert answer.status == 400, path
    async with session.get("/api/v1/journal?limit=2") as answer:
        assert len((await answer.json())["records"]) == 2
