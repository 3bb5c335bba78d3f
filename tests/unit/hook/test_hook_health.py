"""What `/health` says at which level, and in which form."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from tests.support.web_parts import make_endpoint, make_web

from oomguard.export import status
from oomguard.hook.admin.level import Level, Origin
from oomguard.hook.web.health import Health
from oomguard.model import Level as SidecarLevel
from oomguard.model import LimitOrigin, UsedKind

MIB = 1 << 20


def health(
    used: int | None,
    limit: int | None = 100 * MIB,
    environ: Mapping[str, str] | None = None,
    origin: Origin = Origin.CGROUP,
) -> dict[str, object]:
    return Health(
        environ or {}, look=lambda own: Level(used, used, own or limit, origin), machine=lambda: 1000 * MIB
    )()


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        (0, "healthy"),
        (79, "healthy"),
        (80, "degraded"),
        (89, "degraded"),
        (90, "critical"),
        (100, "critical"),
    ],
)
def test_the_status_follows_the_sidecars_defaults(used: int, expected: str) -> None:
    assert health(used * MIB)["status"] == expected


def test_the_thresholds_are_the_environments_and_one_that_is_none_is_the_default() -> None:
    environ = {"OOMGUARD_HIGH": "50MiB", "OOMGUARD_CRITICAL": "60%"}
    assert [health(used * MIB, environ=environ)["status"] for used in (49, 50, 60)] == [
        "healthy",
        "degraded",
        "critical",
    ]
    assert health(85 * MIB, environ={"OOMGUARD_HIGH": "lots"})["status"] == "degraded"


def test_it_has_the_form_of_the_sidecars() -> None:
    level = SidecarLevel(
        at=0.0, used=85 * MIB, limit=100 * MIB, rate=0.0, kind=UsedKind.CGROUP, origin=LimitOrigin.CGROUP
    )
    theirs = status.health(level, {"high": 80 * MIB, "critical": 90 * MIB}, "api")
    told = health(85 * MIB, environ={"OOMGUARD_TARGET": "api"})
    theirs.pop("shedding")  # the mounts add it
    assert {name: told[name] for name in theirs} == theirs


@pytest.mark.parametrize(
    ("limit", "environ", "expected"),
    [
        (100 * MIB, {}, (100.0, "cgroup")),
        (None, {"MEMORY_LIMIT_MB": "200"}, (200.0, "configured")),
        (None, {}, (1000.0, "machine")),
    ],
)
def test_it_says_whose_limit_it_is(
    limit: int | None, environ: dict[str, str], expected: tuple[float, str]
) -> None:
    told = health(MIB, limit, environ)
    assert (told["memory_limit_mb"], told["limit_origin"]) == expected


def test_memory_that_cannot_be_read_is_unknown_and_never_zero() -> None:
    told = health(None)
    assert told["status"] == "unknown"
    assert "memory_mb" not in told


def test_above_its_limit_nothing_is_available() -> None:
    assert health(120 * MIB)["memory_available_mb"] == 0


def test_other_parts_add_what_they_know_and_one_that_raises_harms_nothing() -> None:
    def broken() -> dict[str, object]:
        raise RuntimeError("no")

    assert Health({}, lambda: {"models_loaded": ["jina"]})()["models_loaded"] == ["jina"]
    told = Health({}, broken)()
    assert told["error"] == "RuntimeError: no"
    assert told["status"] != "unknown"


def test_the_mounted_answer_is_always_200_and_json() -> None:
    web = make_web({"OOMGUARD_LIMIT": "1MiB"})
    with web.streams.stream("mcp"):
        answer = web.parts(make_endpoint({}), health="/health").healthy()
    told = json.loads(answer.body)
    assert (answer.status, told["status"], told["streams_open"]) == (200, "critical", 1)
    assert dict(answer.headers)["content-length"] == str(len(answer.body))
