"""The sidecar's side of the hook protocol, over real sockets, against hooks that behave and hooks that do not."""

import asyncio
import json
import os
import time

import pytest

from oomguard.errors import HookError
from oomguard.metrics import HookErrorReason
from oomguard.model import Status
from oomguard.sources import hooks as hooks_module
from oomguard.sources.hook_watch import HookWatch
from oomguard.sources.hooks import MAX_LINE, MAX_OPEN, STALLED, Hooks

HELLO = {"hello": 1, "pid": 41, "start_ticks": 1, "pidns": 1, "target": "", "runtime": "python",
         "runtime_version": "3.11.7", "hook_version": "0.1.0", "forked": False}  # fmt: skip
GC = {"status": "ok", "collections": [3, 2, 1], "collected": [9, 0, 4], "uncollectable": [0, 0, 0],
      "pause_bounds": [0.001, 0.1], "pause_counts": [4, 1, 1], "pause_sum": 0.3, "pause_last_full": 0.2,
      "frozen": False}  # fmt: skip
ALLOCATOR = {
    "status": "ok",
    "name": "glibc",
    "in_use": 1000,
    "free": 200,
    "mmapped": 0,
    "retained": 150,
    "seconds": 0.001,
}
READING = {"gc": GC, "allocator": ALLOCATOR, "caches": [{"name": "v", "bytes": 10, "entries": None}]}


class FakeHook:
    """A hook's end of the connection."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, path, hello=HELLO):
        fake = cls(*await asyncio.open_unix_connection(path))
        if hello is not None:
            fake.send(hello)
        return fake

    def send(self, message):
        self.writer.write(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")

    async def receive(self):
        return json.loads(await self.reader.readline())

    async def answer(self, **fields):
        question = await self.receive()
        self.send({"id": question["id"], **fields})
        return question

    async def closed(self):
        try:
            return await asyncio.wait_for(self.reader.read(), 10) == b""
        except ConnectionResetError:  # it was closed with our hello unread
            return True


async def eventually(condition):
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that within 5 s")


def served(test):
    """Run an async test with a listening `Hooks` and its path; everything belongs to the tree."""

    def run(tmp_path):
        async def body():
            path = str(tmp_path / "sidecar.sock")
            hooks = Hooks(path, lambda pid: True)
            await hooks.start()
            try:
                await test(hooks, path)
            finally:
                await hooks.close()

        asyncio.run(asyncio.wait_for(body(), 30))

    run.__name__ = test.__name__
    return run


async def connected(hooks, path, hello=HELLO):
    fake = await FakeHook.connect(path, hello)
    await eventually(lambda: os.getpid() in hooks.connected)
    return fake, hooks.connected[os.getpid()]


@served
async def test_a_reading_becomes_a_record(hooks, path):
    fake, _ = await connected(hooks, path)
    reading, _ = await asyncio.gather(hooks.read_all({os.getpid(): "main"}, 5), fake.answer(reading=READING))
    assert reading.ok
    (hook,) = reading.value
    assert (hook.slot, hook.pid, hook.forked) == ("main", os.getpid(), False), (
        "the kernel's PID, not the hook's word"
    )
    assert hook.gc.value.pauses.counts == (4, 1, 1)
    assert hook.allocator.value.retained == 150
    assert (hook.caches[0].bytes, hook.caches[0].entries) == (10, None)


@served
async def test_what_a_process_does_not_have_is_not_zero(hooks, path):
    fake, _ = await connected(hooks, path)
    told = {
        "gc": GC,
        "allocator": {"status": "unsupported", "reason": "musl has no mallinfo2"},
        "new_thing": 1,
    }
    reading, _ = await asyncio.gather(hooks.read_all({}, 5), fake.answer(reading=told))
    (hook,) = reading.value
    assert hook.allocator.status is Status.UNSUPPORTED
    assert hook.allocator.value is None
    assert hook.caches == ()


@served
async def test_without_a_hook_the_source_is_absent(hooks, path):
    reading = await hooks.read_all({}, 1)
    assert (reading.status, reading.reason) == (Status.ABSENT, "no hook is connected")


@served
async def test_a_hook_that_hangs_is_failed_and_the_others_are_read(hooks, path):
    hanging, silent = await connected(hooks, path)
    del hooks.connected[os.getpid()]
    hooks.connected[1] = silent  # both connections are this process's: give the first another PID
    fake, _ = await connected(hooks, path)
    reading, _ = await asyncio.gather(hooks.read_all({}, 0.3), fake.answer(reading=READING))
    assert reading.status is Status.FAILED
    assert "no answer within 0.3 s" in reading.reason
    assert len(reading.value) == 1
    assert not hanging.writer.is_closing()
    assert hooks.errors[HookErrorReason.TIMEOUT] == 1


@served
async def test_a_hook_that_owes_too_much_is_not_asked_until_it_has_answered(hooks, path):
    fake, hook = await connected(hooks, path)
    for _ in range(MAX_OPEN):
        with pytest.raises(HookError, match="no answer"):
            await hook.ask("reading", 0.05)
    with pytest.raises(HookError, match="stalled"):
        await hook.ask("reading", 0.05)
    await fake.answer(reading=READING)  # late, but it is back
    await eventually(lambda: not hook.stalled and len(hook._open) < MAX_OPEN)
    answer, _ = await asyncio.gather(hook.ask("reading", 5), drain_and_answer(fake))
    assert answer == READING


async def drain_and_answer(fake):
    for _ in range(MAX_OPEN):
        await fake.answer(reading=READING)


@served
async def test_an_order_does_not_wait_for_a_reading(hooks, path):
    fake, hook = await connected(hooks, path)
    reading = asyncio.create_task(hook.ask("reading", 5))
    first = await fake.receive()
    step = asyncio.create_task(hook.ask("step", 5, step="caches"))
    second = await fake.receive()
    assert (first["ask"], second["ask"], second["step"]) == ("reading", "step", "caches")
    fake.send({"id": second["id"], "step": {"status": "done"}})
    fake.send({"id": first["id"], "reading": READING})
    assert await step == {"status": "done"}
    assert await reading == READING


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"not json\n", HookErrorReason.GARBAGE),
        (b'{"id": 1, "reading": NaN}\n', HookErrorReason.GARBAGE),
        (b"[1, 2]\n", HookErrorReason.GARBAGE),
        (b"\xff\xfe\n", HookErrorReason.GARBAGE),
        (b"[" * 50_000 + b"\n", HookErrorReason.GARBAGE),
        (b'{"id": 99, "reading": {}}\n', HookErrorReason.GARBAGE),
        (b'{"reading": {}}\n', HookErrorReason.GARBAGE),
        (b"x" * (1 << 20) + b"\n", HookErrorReason.TOO_LONG),
        (b"x" * (MAX_LINE + 1), HookErrorReason.TOO_LONG),
    ],
)
def test_a_line_against_the_protocol_ends_its_connection_and_nothing_else(tmp_path, line, reason):
    @served
    async def test(hooks, path):
        fake, _ = await connected(hooks, path)
        fake.send(line)
        await eventually(lambda: not hooks.connected)
        assert hooks.errors[reason] == 1
        reading = await hooks.read_all({}, 1)
        assert reading.status is Status.FAILED
        assert str(os.getpid()) in reading.reason
        again, _ = await connected(hooks, path)
        good, _ = await asyncio.gather(hooks.read_all({}, 5), again.answer(reading=READING))
        assert good.ok

    test(tmp_path)


@pytest.mark.parametrize(
    "reading",
    [
        {"gc": {**GC, "pause_counts": [1]}},
        {"gc": {**GC, "collections": "many"}},
        {"gc": {"status": "ok"}},
        {"gc": {**GC, "status": "perfect"}},
        {"allocator": {**ALLOCATOR, "in_use": -1}},
        {"allocator": {**ALLOCATOR, "free": "a lot"}},
        {"allocator": {**ALLOCATOR, "free": 1e300}},
        {"gc": {**GC, "pause_sum": 10**400}},
        {"gc": {**GC, "collections": [10**400, 0, 0]}},
        {"gc": {**GC, "pause_last_full": "long"}},
        {"caches": {}},
        {"caches": ["v"]},
        {"caches": [{"name": "v", "bytes": True}]},
    ],
)
def test_a_reading_that_cant_be_true_is_failed(tmp_path, reading):
    @served
    async def test(hooks, path):
        fake, _ = await connected(hooks, path)
        told, _ = await asyncio.gather(hooks.read_all({}, 5), fake.answer(reading=reading))
        assert told.status is Status.FAILED
        assert "can't be used" in told.reason
        assert hooks.connected, "its connection is as good as before"

    test(tmp_path)


@served
async def test_a_hook_of_another_version_is_told_so(hooks, path):
    fake = await FakeHook.connect(path, {**HELLO, "hello": 2})
    assert "version 1" in (await fake.receive())["error"]
    assert await fake.closed()
    assert hooks.errors[HookErrorReason.VERSION] == 1


def test_a_stranger_is_disconnected_without_a_word(tmp_path, monkeypatch):
    monkeypatch.setattr(Hooks, "_peer", staticmethod(lambda writer: (4242, 12345, 12345)))

    async def body():
        hooks = Hooks(str(tmp_path / "s"), lambda pid: False)
        await hooks.start()
        fake = await FakeHook.connect(str(tmp_path / "s"))
        assert await fake.closed()
        assert hooks.errors[HookErrorReason.REJECTED] == 1
        hooks._belongs = lambda pid: pid == 4242  # of the tree, whatever its uid
        member = await FakeHook.connect(str(tmp_path / "s"))
        await eventually(lambda: 4242 in hooks.connected)
        assert not member.writer.is_closing()
        await hooks.close()

    asyncio.run(asyncio.wait_for(body(), 30))


@served
async def test_a_process_that_connects_again_replaces_its_old_connection(hooks, path):
    old, _ = await connected(hooks, path)
    new = await FakeHook.connect(path)
    assert await old.closed()
    told, _ = await asyncio.gather(hooks.read_all({}, 5), new.answer(reading=READING))
    assert told.ok


@served
async def test_a_hook_that_goes_away_fails_what_was_asked_at_once(hooks, path):
    fake, hook = await connected(hooks, path)
    asking = asyncio.create_task(hook.ask("step", 60, step="gc"))
    await fake.receive()
    fake.writer.close()
    with pytest.raises(HookError, match="went away"):
        await asking
    await eventually(lambda: not hooks.connected)
    with pytest.raises(HookError, match="went away"):
        await asyncio.wait_for(hook.ask("step", 60, step="trim"), 5)


def test_more_hooks_than_the_bound_are_turned_away(tmp_path, monkeypatch):
    monkeypatch.setattr(hooks_module, "MAX_HOOKS", 1)

    @served
    async def test(hooks, path):
        hooks.connected[1] = None
        fake = await FakeHook.connect(path)
        assert await fake.closed()
        del hooks.connected[1]

    test(tmp_path)


def test_a_hook_that_says_no_hello_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(hooks_module, "HELLO_SECONDS", 0.1)

    @served
    async def test(hooks, path):
        fake = await FakeHook.connect(path, hello=None)
        assert await fake.closed()

    test(tmp_path)


def test_an_abstract_socket_serves_where_nothing_can_be_written(tmp_path):
    async def body():
        name = f"\0oomguard-test-{os.getpid()}"
        hooks = Hooks(name.encode(), lambda pid: True)
        await hooks.start()
        fake, _ = await connected(hooks, name)
        told, _ = await asyncio.gather(hooks.read_all({}, 5), fake.answer(reading=READING))
        assert told.ok
        await hooks.close()

    asyncio.run(asyncio.wait_for(body(), 30))


def test_a_dead_sidecars_socket_is_taken_over(tmp_path):
    import socket

    path = str(tmp_path / "sidecar.sock")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(path)

    @served
    async def test(hooks, path):
        await connected(hooks, path)

    test(tmp_path)


# -- who does not answer


class Watched:
    """A `HookWatch` over these hooks, and what it said."""

    def __init__(self, hooks):
        self.said = []
        self.watch = HookWatch(
            hooks.members,
            lambda hook: self.said.append(("stalled", hook)),
            lambda hook, seconds: self.said.append(("answered", seconds)),
        )
        self.watch.start()


@served
async def test_a_hook_that_owes_nothing_is_pinged_again_and_again(hooks, path):
    fake, _ = await connected(hooks, path)
    watched = Watched(hooks)
    for _ in range(3):
        question = await asyncio.wait_for(fake.answer(ping={}), 10)
        assert question["ask"] == "ping"
    assert watched.said == []
    watched.watch.stop()


@served
async def test_an_earlier_hook_that_knows_no_ping_answers_too(hooks, path):
    fake, hook = await connected(hooks, path)
    watched = Watched(hooks)
    for _ in range(3):
        await asyncio.wait_for(fake.answer(error="unknown ask 'ping'"), 10)
    assert (watched.said, hook.stalled, hooks.connected) == ([], 0.0, {os.getpid(): hook})
    watched.watch.stop()


@served
async def test_a_hook_that_does_not_answer_is_stalled_until_it_does(hooks, path):
    fake, hook = await connected(hooks, path)
    watched = Watched(hooks)
    await eventually(lambda: watched.said)
    assert watched.said == [("stalled", hook)]
    assert hook.stalled >= STALLED
    began = time.perf_counter()
    reading = await hooks.read_all({os.getpid(): "worker-2"}, 5)
    assert time.perf_counter() - began < 2, "a hook that is known to hang is not waited for"
    assert f"hook of process {os.getpid()} (worker-2) has not answered for 1 s" in reading.reason
    await fake.answer(ping={})
    await eventually(lambda: len(watched.said) == 2)
    assert watched.said[1][0] == "answered"
    assert watched.said[1][1] >= STALLED
    assert hook.stalled == 0
    told, _ = await asyncio.gather(hooks.read_all({}, 5), answer_all(fake))
    assert told.ok
    watched.watch.stop()


async def answer_all(fake):
    while (await fake.answer(ping={}, reading=READING))["ask"] != "reading":
        pass


@served
async def test_a_hook_that_goes_while_it_is_stalled_is_so_no_longer(hooks, path):
    fake, _ = await connected(hooks, path)
    watched = Watched(hooks)
    await eventually(lambda: watched.said)
    fake.writer.close()
    await eventually(lambda: len(watched.said) == 2)
    assert watched.said[1][0] == "answered"
    watched.watch.stop()


@served
async def test_a_step_may_take_as_long_as_it_was_told_and_what_waits_behind_it_too(hooks, path):
    fake, hook = await connected(hooks, path)
    watched = Watched(hooks)
    step = asyncio.create_task(hook.ask("step", 30, step="trim"))
    reading = asyncio.create_task(hook.ask("reading", 30))
    await asyncio.sleep(2 * STALLED)
    assert (hook.stalled, watched.said) == (0.0, [])
    while not (step.done() and reading.done()):
        await fake.answer(ping={}, step={"status": "done"}, reading=READING)
    assert watched.said == []
    watched.watch.stop()


@served
async def test_a_sidecar_that_slept_blames_no_hook(hooks, path):
    fake, hook = await connected(hooks, path)
    watched = Watched(hooks)
    await fake.answer(ping={})
    await eventually(lambda: hook.idle)
    hook.ping()
    await fake.answer(ping={})  # it lies there, unread
    time.sleep(1.3 * STALLED)  # noqa: ASYNC251 - as a machine that is too busy does to the loop
    answering = asyncio.create_task(keep_answering(fake))
    await asyncio.sleep(0.1)
    assert watched.said == []
    answering.cancel()
    watched.watch.stop()


async def keep_answering(fake):
    while True:
        await fake.answer(ping={})
