"""Children: real processes that are shot, and started again."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from oomguard.hook.children import Child, ChildDied, Children, lives
from oomguard.hook.children.broken import is_broken
from oomguard.hook.chores import Chores
from oomguard.hook.parts import Core

ECHO = """
import sys
for line in sys.stdin:
    if line == "die\\n":
        break
    print(line.strip().upper(), flush=True)
"""


class Kills:
    """The kernel's counter, as the test has it."""

    def __init__(self) -> None:
        self.value: int | None = 0
        self.group: bool | None = False

    def count(self) -> int | None:
        return self.value

    def group_kill(self) -> bool | None:
        return self.group


class World:
    """Everything that a test needs; every child that was started is in `started`."""

    def __init__(self) -> None:
        self.kills = Kills()
        self.core = Core({}, Chores(int, int), threading.RLock(), int)  # type: ignore[arg-type]  # unused
        self.children = Children(self.core, self.kills, pause=0.05, patience=30)  # type: ignore[arg-type]
        self.started: list[subprocess.Popen[str]] = []
        self.resets: list[int] = []
        self.lock = threading.Lock()

    def start(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.started.append(process)
        return process

    def reset(self) -> None:
        self.resets.append(len(self.started))

    def tools(self) -> Child[subprocess.Popen[str]]:
        return self.children.register("tools", self.start, self.reset)

    def say(self, word: str) -> Callable[[subprocess.Popen[str]], str]:
        def speak(process: subprocess.Popen[str]) -> str:
            with self.lock:  # the protocol is one question at a time
                process.stdin.write(word + "\n")
                process.stdin.flush()
                answer = process.stdout.readline()
            if not answer:
                raise EOFError("no answer")
            return answer.strip()

        return speak

    def shoot(self) -> None:
        process = self.started[-1]
        process.kill()
        process.wait()

    def reading(self) -> dict[str, object]:
        (reading,) = self.children.reading()
        return reading


resets: list[object] = []


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    for process in world.started:
        process.kill()
        process.wait()
        with contextlib.suppress(OSError):
            process.stdin.close()
        process.stdout.close()


def test_a_child_is_started_by_its_first_call(world: World) -> None:
    tools = world.tools()
    exits = {"oom_kill": 0, "unknown": 0}
    assert world.reading() == {"name": "tools", "alive": False, "starts": 0, "exits": exits, "pid": None}
    assert tools.call(world.say("one")) == "ONE"
    assert tools.call(world.say("two")) == "TWO"
    assert len(world.started) == 1
    pid = world.started[0].pid
    assert world.reading() == {"name": "tools", "alive": True, "starts": 1, "exits": exits, "pid": pid}
    assert world.resets == []


def test_a_call_that_finds_it_dead_raises_once_it_was_started_again(world: World) -> None:
    tools = world.tools()
    tools.call(world.say("one"))
    world.shoot()
    with pytest.raises(ChildDied) as died:
        tools.call(world.say("two"))
    assert isinstance(died.value, OSError)
    assert (died.value.child, died.value.reason) == ("tools", "unknown")
    assert str(died.value).startswith("child 'tools' is gone, nobody knows why (BrokenPipeError:")
    assert str(died.value).endswith("pass idempotent=True")
    assert isinstance(died.value.__cause__, BrokenPipeError)
    assert (len(world.started), world.resets) == (2, [2])
    assert tools.call(world.say("three")) == "THREE"
    assert world.reading()["exits"] == {"oom_kill": 0, "unknown": 1}
    same = pickle.loads(pickle.dumps(died.value))
    assert (str(same), same.child, same.reason) == (str(died.value), "tools", "unknown")


def test_an_idempotent_call_is_tried_twice_a_pause_apart(world: World) -> None:
    tools = world.tools()
    tools.call(world.say("one"))
    world.shoot()
    begun = time.monotonic()
    assert tools.call(world.say("two"), idempotent=True) == "TWO"
    assert time.monotonic() - begun >= 0.05
    tries: list[int] = []

    def deadly(process: subprocess.Popen[str]) -> str:
        tries.append(process.pid)
        return world.say("die")(process)

    with pytest.raises(ChildDied) as died:
        tools.call(deadly, idempotent=True)
    assert len(set(tries)) == len(tries) == 2
    assert "idempotent" not in str(died.value).replace("pass idempotent=True", "")
    assert tools.call(world.say("three")) == "THREE"
    assert (len(world.started), world.resets) == (4, [2, 3, 4])


def test_the_reason_is_an_oom_kill_if_the_counter_rose_meanwhile(world: World) -> None:
    tools = world.tools()
    tools.call(world.say("one"))
    world.kills.value = 1
    world.shoot()
    with pytest.raises(ChildDied, match="was killed by the kernel's OOM killer") as died:
        tools.call(world.say("two"))
    assert died.value.reason == "oom_kill"
    assert world.reading()["exits"] == {"oom_kill": 1, "unknown": 0}
    # That one was before the next life began.
    world.shoot()
    with pytest.raises(ChildDied) as died:
        tools.call(world.say("three"))
    assert died.value.reason == "unknown"


def test_a_kill_that_the_child_outlived_was_anothers(world: World) -> None:
    tools = world.tools()
    tools.call(world.say("one"))
    world.kills.value = 1
    tools.call(world.say("two"))
    world.shoot()
    with pytest.raises(ChildDied) as died:
        tools.call(world.say("three"))
    assert died.value.reason == "unknown"


def test_a_kill_long_before_an_idle_child_vanished_was_anothers(world: World, monkeypatch) -> None:
    monkeypatch.setattr(lives, "_LAG", 0.0)
    tools = world.tools()
    tools.call(world.say("one"))
    world.kills.value = 1
    for _ in range(3):
        assert world.reading()["alive"]
    world.shoot()
    reading = world.reading()
    assert (reading["alive"], reading["pid"], reading["exits"]) == (
        False,
        None,
        {"oom_kill": 0, "unknown": 1},
    )
    # Known from then on, whatever comes later; and not counted twice.
    world.kills.value = 2
    with pytest.raises(ChildDied) as died:
        tools.call(world.say("two"))
    assert died.value.reason == "unknown"
    assert world.reading()["exits"] == {"oom_kill": 0, "unknown": 1}


def test_without_a_counter_nobody_knows(world: World) -> None:
    world.kills.value = None
    tools = world.tools()
    tools.call(world.say("one"))
    world.shoot()
    world.kills.value = 3
    with pytest.raises(ChildDied) as died:
        tools.call(world.say("two"))
    assert died.value.reason == "unknown"


def test_it_is_started_again_once_however_many_calls_fail(world: World) -> None:
    tools = world.tools()
    tools.call(world.say("one"))
    world.shoot()
    together = threading.Barrier(8)
    outcomes: list[str] = []

    def work(number: int) -> None:
        together.wait(30)
        try:
            outcomes.append(tools.call(world.say(f"w{number}"), idempotent=number % 2 == 0))
        except ChildDied as died:
            outcomes.append(died.reason)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    # A thread that was late found the new child and had its answer from it.
    assert {"W0", "W2", "W4", "W6"} <= set(outcomes) <= {"unknown", *(f"W{number}" for number in range(8))}
    assert (len(outcomes), len(world.started), world.resets) == (8, 2, [2])
    assert world.reading()["exits"] == {"oom_kill": 0, "unknown": 1}


def test_all_first_calls_share_one_start(world: World) -> None:
    def slow() -> subprocess.Popen[str]:
        time.sleep(0.1)
        return world.start()

    tools = world.children.register("tools", slow)
    outcomes: list[str] = []
    threads = [threading.Thread(target=lambda: outcomes.append(tools.call(world.say("x")))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (outcomes, len(world.started)) == (["X"] * 6, 1)


def test_errors_of_the_call_itself_pass_untouched(world: World) -> None:
    tools = world.tools()

    def raises(error: BaseException) -> Callable[[object], None]:
        def function(_: object) -> None:
            raise error

        return function

    for error in (ValueError("mine"), StopIteration(4), OSError(2, "no such file"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised:
            tools.call(raises(error))
        assert raised.value is error
    assert tools.call(world.say("one")) == "ONE"
    assert len(world.started) == 1


def test_a_start_that_raises_is_told_as_it_is_and_tried_again_by_the_next_call(world: World) -> None:
    fail = [True]

    def start() -> subprocess.Popen[str]:
        if fail[0]:
            raise FileNotFoundError("no such program")
        return world.start()

    tools = world.children.register("tools", start, world.reset)
    with pytest.raises(FileNotFoundError, match="no such program"):
        tools.call(world.say("one"))
    fail[0] = False
    assert tools.call(world.say("two")) == "TWO"
    assert world.resets == []
    fail[0] = True
    world.shoot()
    with pytest.raises(ChildDied, match="could not be started again: FileNotFoundError: no such program"):
        tools.call(world.say("three"))
    with pytest.raises(FileNotFoundError):
        tools.call(world.say("four"))
    assert world.reading()["alive"] is False
    fail[0] = False
    assert tools.call(world.say("five")) == "FIVE"
    assert world.resets == [2]


def test_an_idempotent_call_waits_out_a_start_that_fails_once(world: World) -> None:
    fails = [False, True, False]

    def start() -> subprocess.Popen[str]:
        if fails.pop(0):
            raise OSError("too many processes")
        return world.start()

    tools = world.children.register("tools", start)
    tools.call(world.say("one"))
    world.shoot()
    assert tools.call(world.say("two"), idempotent=True) == "TWO"


def test_a_start_that_hangs_holds_the_others_only_for_so_long(world: World) -> None:
    children = Children(world.core, world.kills, pause=0.01, patience=0.05)  # type: ignore[arg-type]
    entered, leave = threading.Event(), threading.Event()

    def hang() -> subprocess.Popen[str]:
        entered.set()
        leave.wait(60)
        return world.start()

    tools = children.register("tools", hang)
    first = threading.Thread(target=tools.call, args=(world.say("one"),))
    first.start()
    assert entered.wait(30)
    with pytest.raises(ChildDied, match=r"child 'tools' has been starting for 0\.05 s"):
        tools.call(world.say("two"))
    assert children.reading()[0]["alive"] is False
    leave.set()
    first.join(30)
    assert tools.call(world.say("three")) == "THREE"


def test_a_reset_that_raises_is_a_warning(world: World) -> None:
    tools = world.children.register("tools", world.start, lambda: 1 / 0)
    tools.call(world.say("one"))
    world.shoot()
    assert tools.call(world.say("two"), idempotent=True) == "TWO"
    assert world.core.warnings == ["child 'tools': reset failed: ZeroDivisionError: division by zero"]


def test_a_reset_may_call_the_child_and_the_others_wait_for_it(world: World) -> None:
    listed: list[str] = []

    def reset() -> None:
        listed.append(tools.call(world.say("list")))
        time.sleep(0.05)
        listed.append("done")

    tools = world.children.register("tools", world.start, reset)
    tools.call(world.say("one"))
    world.shoot()
    seen: list[list[str]] = []

    def work() -> None:
        tools.call(world.say("two"), idempotent=True)
        seen.append(list(listed))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == [["LIST", "done"]] * 3


def test_a_reset_with_a_parameter_gets_what_is_gone(world: World) -> None:
    closed: list[tuple[subprocess.Popen[str], int | None]] = []

    def reset(old: subprocess.Popen[str], cause: str = "") -> None:
        assert cause == ""
        closed.append((old, old.returncode))

    tools = world.children.register("tools", world.start, reset)
    for _ in range(3):
        assert tools.call(world.say("one"), idempotent=True) == "ONE"
        world.shoot()
    tools.call(world.say("two"), idempotent=True)
    assert closed == [(process, -signal.SIGKILL) for process in world.started[:3]]


def test_a_task_that_resets_gets_what_is_gone(world: World) -> None:
    closed: list[object] = []

    async def reset(old: object) -> None:
        await asyncio.sleep(0)
        closed.append(old)

    async def main() -> None:
        tools = world.children.register("tools", world.start, reset)
        await tools.call_async(world.say("one"))
        world.shoot()
        assert await tools.call_async(world.say("two"), idempotent=True) == "TWO"

    asyncio.run(main())
    assert closed == world.started[:1]


@pytest.mark.parametrize(
    "reset", [[].clear, {}.clear, lambda *old: resets.append(old), lambda old=5: resets.append(old)]
)
def test_a_reset_that_needs_nothing_gets_nothing(world: World, reset: Callable[[], object]) -> None:
    resets.clear()
    tools = world.children.register("tools", world.start, reset)
    tools.call(world.say("one"))
    world.shoot()
    tools.call(world.say("two"), idempotent=True)
    assert world.core.warnings == []
    assert resets in ([], [()], [5])


def test_what_a_dead_child_was_not_told_is_dropped_without_a_word(world: World, capfd) -> None:
    def speak(process: subprocess.Popen[str]) -> None:
        process.stdin.write("much\n")
        process.stdin.flush()
        raise EOFError

    tools = world.tools()
    tools.call(world.say("one"))
    gone = world.started.pop()
    gone.kill()
    gone.wait()
    gone.stdout.close()
    seen = weakref.ref(gone)
    gc.collect()
    gc.disable()
    try:
        try:
            tools.call(speak)
        except ChildDied as error:
            cause = type(error.__cause__)
        assert cause is BrokenPipeError
        assert gone.stdin.closed
        del gone
        assert seen() is None
    finally:
        gc.enable()
    assert capfd.readouterr().err == ""


def test_the_pipe_of_a_dead_child_holds_nobody_up(world: World) -> None:
    """A process that the child has left behind holds the other end, and reads nothing."""
    leaves = (
        "import os, time\nif os.fork() == 0: time.sleep(60)\nprint(os.getpid(), flush=True)\ntime.sleep(60)"
    )
    behind: list[int] = []

    def start() -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [sys.executable, "-S", "-c", leaves], stdin=pipe, stdout=pipe, start_new_session=True
        )

    def fill(process: subprocess.Popen[bytes]) -> None:
        process.stdout.readline()
        behind.append(process.pid)
        os.set_blocking(process.stdin.fileno(), False)
        with contextlib.suppress(BlockingIOError):
            while True:
                process.stdin.write(b"x" * 5000)
        os.set_blocking(process.stdin.fileno(), True)
        raise EOFError

    def call() -> None:
        with contextlib.suppress(ChildDied):
            tools.call(fill)

    tools = world.children.register("tools", start)
    try:
        called = threading.Thread(target=call, daemon=True)
        called.start()
        called.join(30)
        assert not called.is_alive()
    finally:
        for group in behind:
            os.killpg(group, signal.SIGKILL)
        process = tools._life.handle
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_child_that_dies_in_its_reset_is_started_by_the_next_call(world: World) -> None:
    def reset() -> None:
        if len(world.started) == 2:
            tools.call(world.say("die"))

    tools = world.children.register("tools", world.start, reset)
    tools.call(world.say("one"))
    world.shoot()
    with pytest.raises(ChildDied):
        tools.call(world.say("two"))
    assert tools.call(world.say("three")) == "THREE"
    assert len(world.started) == 3
    assert world.reading()["exits"] == {"oom_kill": 0, "unknown": 2}


def test_a_start_that_calls_the_child_is_told(world: World) -> None:
    tools = world.children.register("tools", lambda: tools.call(world.say("one")))
    with pytest.raises(RuntimeError, match="child 'tools': called by its own start"):
        tools.call(world.say("one"))


def test_a_process_whose_pipe_is_broken_but_that_still_runs_is_killed(world: World) -> None:
    tools = world.tools()

    def closed(process: subprocess.Popen[str]) -> None:
        raise BrokenPipeError

    with pytest.raises(ChildDied):
        tools.call(closed)
    assert world.started[0].wait(30) == -signal.SIGKILL
    assert tools.call(world.say("one")) == "ONE"


def test_one_that_was_gone_before_its_start_returned_is_not_alive(world: World) -> None:
    def start() -> subprocess.Popen[str]:
        process = world.start()
        world.shoot()
        return process

    tools = world.children.register("tools", start)
    with pytest.raises(ChildDied):
        tools.call(world.say("one"))
    reading = world.reading()
    assert (reading["alive"], reading["starts"], reading["pid"]) == (False, 2, None)
    assert reading["exits"] == {"oom_kill": 0, "unknown": 2}


def test_a_handle_without_a_pid_is_called_all_the_same(world: World) -> None:
    ends: list[tuple] = []

    def start() -> object:
        ends.append(multiprocessing.Pipe())
        return ends[-1][0]

    tools = world.children.register("tools", start)
    tools.call(lambda connection: connection.send("x"))
    assert world.reading()["alive"] is True
    ends[0][1].close()
    with pytest.raises(ChildDied):
        tools.call(lambda connection: connection.recv())
    assert (world.reading()["starts"], world.reading()["pid"]) == (2, None)
    for pair in ends:
        for end in pair:
            end.close()


# -- tasks


def test_tasks_call_a_child_that_coroutines_start(world: World) -> None:
    async def main() -> None:
        started: list[asyncio.subprocess.Process] = []
        resets: list[str] = []

        async def start() -> asyncio.subprocess.Process:
            await asyncio.sleep(0.01)
            pipe = asyncio.subprocess.PIPE
            command = (sys.executable, "-S", "-c", ECHO)
            started.append(await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe))
            return started[-1]

        async def reset() -> None:
            resets.append(await tools.call_async(say("list")))

        lock = asyncio.Lock()

        def say(word: str):
            async def speak(process: asyncio.subprocess.Process) -> str:
                async with lock:
                    process.stdin.write(f"{word}\n".encode())
                    await process.stdin.drain()
                    return (await process.stdout.readuntil()).decode().strip()

            return speak

        tools = world.children.register("tools", start, reset)
        assert await asyncio.gather(*(tools.call_async(say(f"t{n}")) for n in range(5))) == [
            "T0", "T1", "T2", "T3", "T4",
        ]  # fmt: skip
        assert (len(started), resets) == (1, [])
        started[0].kill()
        await started[0].wait()
        answers = await asyncio.gather(
            *(tools.call_async(say(f"t{n}"), idempotent=n < 5) for n in range(8)), return_exceptions=True
        )
        assert answers[:5] == ["T0", "T1", "T2", "T3", "T4"]
        assert [type(answer) for answer in answers[5:]] == [ChildDied] * 3
        assert (len(started), resets) == (2, ["LIST"])
        with pytest.raises(TypeError, match="asynchronous: use `await"):
            tools.call(say("x"))
        started[1].kill()
        await started[1].wait()

    asyncio.run(main())


def test_a_plain_start_leaves_the_loop_free(world: World) -> None:
    async def main() -> None:
        ticks = [0]

        def slow() -> subprocess.Popen[str]:
            before = ticks[0]
            deadline = time.monotonic() + 30
            while ticks[0] < before + 5:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            return world.start()

        async def tick() -> None:
            while True:
                ticks[0] += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.create_task(tick())
        tools = world.children.register("tools", slow)
        assert await tools.call_async(world.say("one")) == "ONE"
        assert tools.call(world.say("two")) == "TWO"
        ticking.cancel()

    asyncio.run(main())


def test_a_coroutine_start_needs_a_task(world: World) -> None:
    async def start() -> None:
        raise AssertionError("never run")

    tools = world.children.register("tools", start)
    with pytest.raises(TypeError, match="child 'tools': start is asynchronous: use `await"):
        tools.call(world.say("one"))


def test_a_cancelled_start_passes_to_the_next_and_leaves_no_process_behind(world: World) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow() -> subprocess.Popen[str]:
        if not entered.is_set():
            entered.set()
            leave.wait(60)
        return world.start()

    async def main() -> None:
        tools = world.children.register("tools", slow)
        first = asyncio.create_task(tools.call_async(world.say("one")))
        while not entered.is_set():
            await asyncio.sleep(0.001)
        second = asyncio.create_task(tools.call_async(world.say("two")))
        await asyncio.sleep(0.01)
        first.cancel()
        assert await asyncio.wait_for(second, 30) == "TWO"
        assert first.cancelled()
        leave.set()
        while len(world.started) < 2:
            await asyncio.sleep(0.001)
        # What the first start returned in the end belongs to nobody.
        assert await asyncio.to_thread(world.started[1].wait, 30) == -signal.SIGKILL
        assert await tools.call_async(world.say("three")) == "THREE"

    asyncio.run(main())


# -- the rest of the contract


def test_a_forked_child_starts_one_of_its_own(world: World) -> None:
    tools = world.tools()
    tools.call(world.say("one"))
    locked, go = threading.Event(), threading.Event()

    def hold() -> None:
        with tools._lock:
            locked.set()
            go.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert locked.wait(30)
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        world.children.forked()
        fresh = world.reading()["starts"] == 0 and world.reading()["pid"] is None
        fine = fresh and tools.call(world.say("two")) == "TWO" and len(world.started) == 2
        world.started[1].kill()
        world.started[1].wait()
        os._exit(0 if fine else 1)
    assert os.waitpid(pid, 0)[1] == 0
    go.set()
    thread.join()
    assert tools.call(world.say("three")) == "THREE"
    assert len(world.started) == 1


def test_a_fork_while_a_start_is_under_way_leaves_nobody_waiting(world: World) -> None:
    entered, leave = threading.Event(), threading.Event()

    def slow() -> subprocess.Popen[str]:
        if not entered.is_set():
            entered.set()
            leave.wait(60)
        return world.start()

    tools = world.children.register("tools", slow)
    first = threading.Thread(target=tools.call, args=(world.say("one"),))
    first.start()
    assert entered.wait(30)
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        world.children.forked()
        fine = tools.call(world.say("two")) == "TWO"
        world.started[-1].kill()
        os._exit(0 if fine else 1)
    assert os.waitpid(pid, 0)[1] == 0
    leave.set()
    first.join(30)
    assert len(world.started) == 1


def test_the_same_registration_is_the_same_child_and_another_replaces_it(world: World) -> None:
    def reset() -> None:
        return None

    first = world.children.register("tools", os.getpid, reset)
    assert world.children.register("tools", os.getpid, reset) is first
    assert world.core.warnings == []
    assert world.children.register("tools", os.getppid, reset) is not first
    assert world.core.warnings == ["child 'tools' was registered again: the later one counts"]
    assert len(world.children.reading()) == 1


def test_a_group_that_is_killed_as_a_whole_is_told_at_registration(world: World) -> None:
    world.kills.group = True
    world.tools()
    assert "memory.oom.group is set" in world.core.warnings[0]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (("tools", 3), TypeError, "start must be callable, not int"),
        (("tools", os.getpid, 3), TypeError, "reset must be callable, not int"),
        (("tools", os.getpid, os.replace), TypeError, "the old handle at most, and needs src, dst"),
        (("tools", os.getpid, lambda *, old: old), TypeError, "the old handle at most, and needs old"),
        (("", os.getpid), ValueError, "1 to 100 characters"),
    ],
)
def test_a_slip_of_the_pen_is_told_at_once(world: World, arguments, error, text) -> None:
    with pytest.raises(error, match=text):
        world.children.register(*arguments)


def named(name: str, module: str, **more: object) -> Exception:
    error = type(name, (Exception,), {"__module__": module})("x")
    for key, value in more.items():
        setattr(error, key, value)
    return error


class Data:
    def __init__(self, code: int) -> None:
        self.code = code


class SomeGroup(Exception):  # noqa: N818
    def __init__(self, *exceptions: BaseException) -> None:
        super().__init__("some")
        self.exceptions = exceptions


@pytest.mark.parametrize(
    ("error", "broken"),
    [
        (BrokenPipeError(), True),
        (OSError(32, "EPIPE"), True),
        (OSError(108, "ESHUTDOWN"), True),
        (ConnectionResetError(), True),
        (EOFError(), True),
        (asyncio.IncompleteReadError(b"", 3), True),
        (named("EndOfStream", "anyio"), True),
        (named("ClosedResourceError", "anyio._core._exceptions"), True),
        (named("BrokenResourceError", "anyio"), True),
        (named("WouldBlock", "anyio"), False),
        (named("EndOfStream", "mine"), False),
        (named("McpError", "mcp.shared.exceptions", error=Data(-32000)), True),
        (named("McpError", "mcp.shared.exceptions", error=Data(-32601)), False),
        (SomeGroup(EOFError(), SomeGroup(BrokenPipeError())), True),
        (SomeGroup(EOFError(), ValueError()), False),
        (OSError(2, "ENOENT"), False),
        (TimeoutError(), False),
        (ValueError(), False),
        (None, False),
    ],
    ids=repr,
)
def test_what_a_broken_pipe_is(error: BaseException | None, broken: bool) -> None:
    assert is_broken(error) is broken


@pytest.mark.real
def test_anyios_own_errors_are_broken_pipes() -> None:
    import anyio

    for error in (anyio.ClosedResourceError(), anyio.BrokenResourceError(), anyio.EndOfStream()):
        assert is_broken(error)
    assert not is_broken(anyio.WouldBlock())


GREENLETS = """
from gevent import monkey
monkey.patch_all()
import gevent, subprocess, sys, threading, time
from oomguard.hook.children import Children, ChildDied
from oomguard.hook.chores import Chores
from oomguard.hook.parts import Core

ECHO = sys.argv[1]
started, ticks = [], []

def start():
    time.sleep(0.05)
    started.append(
        subprocess.Popen([sys.executable, "-S", "-c", ECHO], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    )
    return started[-1]

lock = threading.Lock()

def say(process):
    with lock:
        process.stdin.write(b"x\\n")
        process.stdin.flush()
        answer = process.stdout.readline()
    if not answer:
        raise EOFError
    return answer

def tick():
    while True:
        ticks.append(1)
        time.sleep(0.001)

ticking = gevent.spawn(tick)
tools = Children(Core({}, Chores(int, int), threading.RLock(), int), pause=0.01).register("tools", start)
calls = [gevent.spawn(tools.call, say, idempotent=True) for _ in range(5)]
gevent.joinall(calls, timeout=30)
assert [call.value for call in calls] == [b"X\\n"] * 5, calls
assert len(started) == 1 and len(ticks) > 10, (started, ticks)
started[0].kill()
started[0].wait()
calls = [gevent.spawn(tools.call, say, idempotent=True) for _ in range(5)]
gevent.joinall(calls, timeout=30)
assert [call.value for call in calls] == [b"X\\n"] * 5, calls
assert len(started) == 2
started[1].kill()
started[1].wait()
print("fine")
"""


@pytest.mark.real
def test_greenlets_share_one_start_without_stopping_their_hub() -> None:
    done = subprocess.run([sys.executable, "-c", GREENLETS, ECHO], capture_output=True, text=True, timeout=90)
    assert done.stdout == "fine\n", done.stderr
