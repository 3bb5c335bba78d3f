"""The file in which alerts outlive their sidecar, on a real disk and a real worker thread."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from oomguard.alerting import persisted
from oomguard.alerting.keeper import SOON, Keeper


@pytest.fixture
def worker():
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool


def run(test):
    asyncio.run(asyncio.wait_for(test, 20))


async def until(look):
    while not look():
        await asyncio.sleep(0.01)


def test_what_was_written_is_read_again(tmp_path):
    path = tmp_path / "alerts.json"
    persisted.write(path, {"rules": {"a": [1, None]}})
    persisted.write(path, {"rules": {"b": "ü"}})
    assert persisted.read(path) == {"version": 1, "rules": {"b": "ü"}}
    assert [file.name for file in tmp_path.iterdir()] == ["alerts.json"]
    assert path.stat().st_mode & 0o077 == 0, "routes may hold secrets"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"version": 99}', b"\xff", b"[" * 100_000, b'{"version": 1, "r']
)
def test_what_cant_be_read_is_nothing(tmp_path, content):
    (tmp_path / "alerts.json").write_bytes(content)
    assert persisted.read(tmp_path / "alerts.json") == {}


def test_no_file_and_no_path_are_nothing(tmp_path):
    assert persisted.read(tmp_path / "alerts.json") == persisted.read(None) == {}


def test_what_a_killed_sidecar_left_half_written_is_written_over(tmp_path):
    path = tmp_path / "alerts.json"
    persisted.write(path, {"a": 1})
    (tmp_path / ".alerts.json.new").write_text("x" * 10_000)
    assert persisted.read(path)["a"] == 1
    persisted.write(path, {"a": 2})
    assert persisted.read(path)["a"] == 2
    assert [file.name for file in tmp_path.iterdir()] == ["alerts.json"]


def test_changes_are_gathered_and_written_soon(tmp_path, worker):
    path, told = tmp_path / "alerts.json", []

    async def body():
        keeper = Keeper(path, worker)
        keeper.soon()
        keeper.start(lambda: told.append(1) or {"count": len(told)})
        for _ in range(100):
            keeper.soon()
        assert not path.exists(), "nothing is written at once"
        await until(path.exists)
        await asyncio.sleep(2 * SOON)
        assert len(told) == 1
        keeper.soon()
        await until(lambda: persisted.read(path)["count"] == 2)

    run(body())


def test_the_last_state_is_written_even_while_the_worker_writes(tmp_path, worker):
    path, state = tmp_path / "alerts.json", {"count": 1}
    gate = threading.Event()

    async def body():
        keeper = Keeper(path, worker)
        worker.submit(gate.wait, 20)
        keeper.start(lambda: dict(state))
        await until(lambda: keeper._writing is not None)
        state["count"] = 2
        keeper.soon()
        keeper.close()
        gate.set()

    run(body())
    worker.shutdown(wait=True)
    assert persisted.read(path)["count"] == 2


def test_a_new_keeper_begins_with_what_the_old_one_left(tmp_path, worker):
    persisted.write(tmp_path / "alerts.json", {"texts": {}})
    assert Keeper(tmp_path / "alerts.json", worker).saved == {"version": 1, "texts": {}}


def test_a_place_that_cant_be_written_is_said_once_and_nothing_else(tmp_path, worker, caplog):
    path = tmp_path / "gone" / "alerts.json"

    async def body():
        keeper = Keeper(path, worker)
        keeper.start(dict)
        for _ in range(3):
            await until(lambda: keeper._handle is None)
            keeper.soon()
        keeper.close()

    run(body())
    worker.shutdown(wait=True)
    assert [record.message for record in caplog.records] == [
        "the state of alerts can't be kept: a new sidecar will begin anew"
    ]
    assert not path.exists()


def test_without_a_path_nothing_is_kept(worker):
    async def body():
        keeper = Keeper(None, worker)
        keeper.start(lambda: pytest.fail("nobody wants it"))
        keeper.soon()
        await asyncio.sleep(2 * SOON)
        keeper.close()

    run(body())


def test_the_file_is_one_line_of_json(tmp_path):
    persisted.write(tmp_path / "a", {"x": [1.5]})
    assert json.loads((tmp_path / "a").read_text()) == {"version": 1, "x": [1.5]}


def test_what_somebody_is_told_of_is_on_the_disk_before(tmp_path):
    async def body():
        with ThreadPoolExecutor(max_workers=1) as worker:
            keeper = Keeper(tmp_path / "alerts.json", worker)
            state = {"n": 1}
            keeper.start(lambda: dict(state))
            state["n"] = 2
            await keeper.now()
            assert persisted.read(tmp_path / "alerts.json")["n"] == 2

    asyncio.run(body())
