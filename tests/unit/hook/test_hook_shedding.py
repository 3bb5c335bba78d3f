"""Refusing requests while memory is short: when it begins, when it ends by itself, and what it costs."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.web_parts import make_core, make_endpoint, make_web

from oomguard.hook.admin.level import Level, Origin
from oomguard.hook.web.gate import NEVER, Gate
from oomguard.hook.web.shedding import LASTS, Shedding

MIB = 1 << 20


class World:
    """A clock and memory that the test sets; `looks` counts how often memory was looked at."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.used: int | None = 0
        self.limit: int | None = 100 * MIB
        self.looks = 0

    def clock(self) -> float:
        return self.now

    def look(self, own: int | None) -> Level:
        self.looks += 1
        return Level(self.used, self.used, own or self.limit, Origin.CGROUP)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def shedding(world: World) -> Shedding:
    return Shedding(make_core({}), look=world.look, clock=world.clock)


def test_nothing_is_shed_unless_somebody_asks(shedding: Shedding) -> None:
    assert not shedding.armed
    assert not shedding.on()
    assert shedding.reading() == {"on": False, "refused": 0}


def test_an_order_lasts_for_a_while_and_ends_by_itself(shedding: Shedding, world: World) -> None:
    assert shedding.take(None, 1.0)["status"] == "done"
    assert shedding.armed
    world.now += LASTS - 0.1
    assert shedding.on()
    world.now += 0.2
    assert not shedding.on()
    assert not shedding.armed, "requests cost one look at an attribute again"


def test_an_order_is_renewed_and_revoked(shedding: Shedding, world: World) -> None:
    shedding.take(None, 1.0)
    world.now += LASTS - 1
    shedding.take(None, 1.0)
    world.now += LASTS - 1
    assert shedding.on()
    assert shedding.take("off", 1.0)["details"] == {"on": False}
    assert not shedding.on()


def test_above_the_level_it_is_on_until_memory_is_well_below(shedding: Shedding, world: World) -> None:
    shedding.above("90%")
    for used, expected in (
        (89, False),
        (91, True),
        (89, True),
        (86, True),
        (85, False),
        (89, False),
        (91, True),
    ):
        world.used, world.now = used * MIB, world.now + 1
        assert shedding.on() is expected, used


def test_memory_is_looked_at_ten_times_a_second_however_many_ask(shedding: Shedding, world: World) -> None:
    shedding.above(0.9)
    for _ in range(1000):
        shedding.on()
        world.now += 0.001
    assert 10 <= world.looks <= 11


def test_a_part_of_an_unknown_limit_sheds_nothing_and_is_warned_about(world: World) -> None:
    core = make_core({})
    shedding = Shedding(core, look=world.look, clock=world.clock)
    shedding.above(0.9)
    world.limit, world.used = None, 99 * MIB
    assert not shedding.on()
    assert "OOMGUARD_LIMIT" in core.warnings[0]
    shedding.above("90MiB")
    world.now += 1
    assert shedding.on()


def test_memory_that_cannot_be_read_sheds_nothing(shedding: Shedding, world: World) -> None:
    shedding.above(0.9)
    world.used = None
    assert not shedding.on()


def test_the_limit_of_the_environment_counts(world: World) -> None:
    shedding = Shedding(make_core({"MEMORY_LIMIT_MB": "50"}), look=world.look, clock=world.clock)
    shedding.above(0.9)
    world.used = 46 * MIB
    assert shedding.on()


def test_the_gate_is_up_under_an_order_and_below_the_level_only_at_the_next_look(world: World) -> None:
    gate = Gate()
    shedding = Shedding(make_core({}), gate, look=world.look, clock=world.clock)
    assert not gate.up
    shedding.take(None, 1.0)
    assert (gate.up, gate.due) == (True, 0.0)
    shedding.take("off", 1.0)
    assert (gate.up, gate.due) == (False, NEVER)
    shedding.above(0.9)
    assert gate.due == 0.0
    assert not shedding.on()
    assert world.now < gate.due <= world.now + 0.1
    shedding.take(None, 1.0)
    assert gate.due == 0.0, "an order does not wait for the next look"
    shedding.take("off", 1.0)
    world.used, world.now = 95 * MIB, world.now + 1
    assert shedding.on()
    assert gate.due == 0.0, "all are refused, not one in a tenth of a second"
    shedding.forked()
    assert gate.due == 0.0, "the child looks for itself"


def test_the_gate_is_up_while_anybody_wants_to_see_requests() -> None:
    gate = Gate()
    gate.want("one", 5.0)
    gate.want("other", 3.0)
    gate.want("other", NEVER)
    assert (gate.up, gate.due) == (True, 5.0)
    gate.want("one", NEVER)
    assert not gate.up


@pytest.mark.parametrize("given", ["lots", 0, -1, "0%"])
def test_a_level_that_is_none_is_refused(shedding: Shedding, given: Any) -> None:
    with pytest.raises(ValueError, match="shed_above"):
        shedding.above(given)


def test_a_forked_child_has_the_level_but_not_the_order(shedding: Shedding, world: World) -> None:
    shedding.take(None, 1.0)
    shedding.refuse()
    shedding.forked()
    assert (shedding.on(), shedding.reading()["refused"]) == (False, 0)
    shedding.above(0.5)
    shedding.forked()
    world.used = 60 * MIB
    assert shedding.armed
    assert shedding.on()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"retry_after": -1}, ValueError),
        ({"retry_after": 1.5}, TypeError),
        ({"gc_every": 0}, ValueError),
        ({"shed_body": b"no"}, TypeError),
        ({"exempt": "/ready"}, TypeError),
        ({"exempt": ["ready"]}, ValueError),
        ({"health": "health"}, ValueError),
        ({"max_streams": 0}, ValueError),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    (name,) = options
    with pytest.raises(error, match=name):
        make_web({}).parts(make_endpoint({}), **options)


def test_body_and_seconds_can_be_set() -> None:
    parts = make_web({}).parts(make_endpoint({}), retry_after=3, shed_body="später", exempt=["/ready"])
    assert parts.shed.body == "später".encode()
    assert dict(parts.shed.headers)["retry-after"] == "3"
    assert dict(parts.shed.headers)["content-length"] == "7"
    parts.shedding.take(None, 1.0)
    assert [parts.sheds("/ready"), parts.sheds("/other")] == [False, True]
    assert parts.shedding.reading()["refused"] == 1


@pytest.mark.parametrize("path", ["/health", "/healthz", "/health/live", "/readyz/", "/livez"])
def test_the_applications_own_health_routes_are_not_shed(path: str) -> None:
    parts = make_web({}).parts(make_endpoint({}))
    parts.shedding.take(None, 1.0)
    assert not parts.sheds(path)
    assert parts.sheds("/healthcheck-of-something-else")
