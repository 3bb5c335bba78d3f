"""The mapping that is bounded in bytes, and the estimate of what a value holds."""

from __future__ import annotations

import array
import gc
import os
import random
import signal
import sys
import threading
import tracemalloc
from collections import OrderedDict

import pytest

from oomguard.hook.caches import lru as module
from oomguard.hook.caches.lru import Lru
from oomguard.hook.caches.sizeof import sizeof


def sized(most: int, **more) -> Lru:
    return Lru("test", most, sizeof=len, **more)


def test_the_oldest_goes_when_bytes_are_short() -> None:
    held = sized(100)
    held["a"], held["b"] = bytes(40), bytes(40)
    assert held["a"]  # used: now b is the oldest
    held["c"] = bytes(40)
    assert list(held) == ["a", "c"]
    assert (held.size(), held.evictions, held.hits, held.misses) == (80, 1, 1, 0)


def test_the_oldest_goes_when_there_are_too_many() -> None:
    held = sized(1000, max_items=2)
    for key in "abc":
        held[key] = b"x"
    assert list(held.items()) == [("b", b"x"), ("c", b"x")]


def test_one_larger_than_all_is_not_kept_and_leaves_no_old_value_behind() -> None:
    held = sized(100)
    held["a"], held["b"] = b"old", b"x"
    held["a"] = bytes(101)
    assert "a" not in held
    assert (list(held), held.size()) == (["b"], 1)


def test_it_is_a_mapping() -> None:
    held = sized(1000)
    held.update({"a": b"1", "b": b"22"})
    held["a"] = b"333"
    assert (len(held), held.size(), dict(held)) == (2, 5, {"b": b"22", "a": b"333"})
    assert held.get("missing") is None
    assert held.setdefault("c", b"4") == b"4"
    assert held.pop("c") == b"4"
    assert held.pop("c", None) is None
    assert held.popitem() == ("b", b"22")
    assert list(held.values()) == [b"333"]
    with pytest.raises(KeyError, match="missing"):
        held["missing"]
    with pytest.raises(KeyError):
        del held["missing"]
    with pytest.raises(KeyError):
        held.pop("missing")
    del held["a"]
    with pytest.raises(KeyError, match="is empty"):
        held.popitem()
    with pytest.raises(TypeError):
        held[[]] = b""
    assert (held.size(), held.evictions) == (0, 0)


class Same:
    """Keys that all have one hash."""

    def __init__(self, name: object) -> None:
        self.name = name

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and other.name == self.name


def test_it_does_what_a_plain_model_does() -> None:
    held, model = sized(60), OrderedDict()
    dice = random.Random(7)
    for _ in range(5000):
        key = dice.choice([int, Same, lambda number: -number])(dice.randrange(12))
        choice = dice.random()
        if choice < 0.4:
            value = bytes(dice.randrange(20))
            held[key] = value
            model.pop(key, None)
            model[key] = value
            while sum(map(len, model.values())) > 60:
                model.popitem(last=False)
        elif choice < 0.8:
            assert held.get(key) == model.get(key)
            if key in model:
                model.move_to_end(key)
        elif choice < 0.99:
            assert held.pop(key, None) == model.pop(key, None)
        else:
            held.clear()
            model.clear()
        assert list(held.items()) == list(model.items())
        assert held.size() == sum(map(len, model.values()))


def test_comparing_keys_may_wait_for_a_thread_that_uses_the_mapping() -> None:
    held = sized(1000)
    comparing, used = threading.Event(), threading.Event()

    class Patient(Same):
        __hash__ = Same.__hash__

        def __eq__(self, other: object) -> bool:
            comparing.set()
            assert used.wait(30)
            return super().__eq__(other)

    def other() -> None:
        assert comparing.wait(30)
        held["free"] = b"y"
        if held["free"] == b"y":
            used.set()

    held[Patient("a")] = b"x"
    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    assert Patient("a") in held
    held[Patient("b")] = b"z"
    thread.join(30)
    assert len(held) == 3


def test_a_key_that_is_stored_while_another_store_compares_is_not_filed_twice() -> None:
    held = sized(1000)
    raced: list[bool] = []

    class Racing(Same):
        __hash__ = Same.__hash__

        def __eq__(self, other: object) -> bool:
            if not raced:
                raced.append(True)
                held[Same("b")] = b"theirs"
            return super().__eq__(other)

    held[Racing("a")] = b"x"
    held[Same("b")] = b"ours"
    assert [(key.name, value) for key, value in held.items()] == [("a", b"x"), ("b", b"ours")]
    assert held.size() == 5


def test_a_value_that_goes_may_use_the_mapping() -> None:
    held = sized(100)
    seen: list[int] = []

    class Value(bytes):
        def __del__(self) -> None:
            seen.append(len(held))
            held["from a finalizer"] = b"x"

    held["a"] = Value(60)
    held["b"] = bytes(60)
    assert seen == [1]
    assert "from a finalizer" in held
    held["a"] = Value(20)
    held.clear()
    assert len(seen) == 2


def test_a_signal_handler_may_use_the_mapping() -> None:
    held = sized(1000)
    handled: list[int] = []

    def handler(*_: object) -> None:
        held[len(handled) % 7] = b"from the handler"
        handled.append(1)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        while len(handled) < 50:
            for key in range(20):
                held[key] = bytes(100)
                held.get(key)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert held.size() == sum(map(len, held.values()))
    assert held.size() <= 1000


def test_many_threads_keep_the_count_right() -> None:
    held = sized(2000)
    errors: list[BaseException] = []
    before = sys.getswitchinterval()

    def work(seed: int) -> None:
        dice = random.Random(seed)
        try:
            for _ in range(4000):
                key = dice.randrange(60)
                match dice.randrange(4):
                    case 0 | 1:
                        held[key] = bytes(dice.randrange(100))
                    case 2:
                        held.get(key)
                    case _:
                        held.pop(key, None)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert errors == []
    assert held.size() == sum(map(len, held.values())) <= 2000
    assert sorted(map(repr, held)) == sorted(
        repr(entry.key) for filed in held._filed.values() for entry in filed
    )


def test_a_fork_in_the_midst_of_a_store_leaves_a_mapping_that_works() -> None:
    held = sized(1000)
    held["a"] = b"xyz"
    locked, go = threading.Event(), threading.Event()

    def hold() -> None:
        with held._lock:
            held._bytes = 77  # half of a change
            locked.set()
            go.wait(60)
            held._bytes = 3

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait(30)
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        held.forked()
        held["b"] = b"four"
        os._exit(0 if held.size() == 7 and held["a"] == b"xyz" and held["b"] == b"four" else 1)
    assert os.waitpid(pid, 0)[1] == 0
    go.set()
    thread.join()


@pytest.mark.parametrize(
    "lie",
    [lambda _: -1, lambda _: 1 << 80, lambda _: "big", lambda _: 1 / 0],
    ids=["negative", "huge", "text", "raises"],
)
def test_a_sizeof_that_lies_or_raises_is_told_and_the_size_estimated(lie) -> None:
    told: list[str] = []
    held: Lru[str, bytes] = Lru("test", "1MiB", sizeof=lie)
    held.warn = told.append
    held["a"] = bytes(1000)
    assert held["a"] == bytes(1000)
    assert 1000 < held.size() < 2000
    assert "lru 'test': sizeof" in told[0]


@pytest.mark.parametrize(
    ("arguments", "more", "error", "text"),
    [
        (("x", 0), {}, ValueError, "lru 'x': max_bytes: 0 is not a size"),
        (("x", "much"), {}, ValueError, "'much' is not a size; write for example"),
        (("x", "50%"), {}, ValueError, "'50%' is not a size"),
        (("x", None), {}, TypeError, "not NoneType"),
        (("", 10), {}, ValueError, "1 to 100 characters"),
        (("x", 10), {"max_items": 0}, ValueError, "max_items must be a number above 0, not 0"),
        (("x", 10), {"sizeof": 3}, TypeError, "sizeof must be callable, not int"),
    ],
)
def test_a_slip_of_the_pen_is_told_at_once(arguments, more, error, text) -> None:
    with pytest.raises(error, match=text):
        Lru(*arguments, **more)


def test_text_sizes_are_understood() -> None:
    assert Lru("x", "512MiB").max_bytes == 512 << 20
    assert repr(Lru("x", "512MiB")) == "<Lru 'x': 0 entries, 0 bytes of 512 MiB>"


def test_what_an_entry_takes_besides_key_and_value_is_counted() -> None:
    held: Lru[int, None] = Lru("test", "1GiB", sizeof=lambda _: 0)
    keys = list(range(1 << 40, (1 << 40) + 20_000))
    gc.collect()
    tracemalloc.start()
    try:
        for key in keys:
            held[key] = None
        taken = tracemalloc.get_traced_memory()[0] / len(keys)
    finally:
        tracemalloc.stop()
    assert taken <= module.OVERHEAD * 1.1


class Holder:
    def __init__(self, value: object) -> None:
        self.value = value


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value


class Tensor:
    """Has its data elsewhere, as torch's do."""

    nbytes = 1 << 20


class Rude:
    def __sizeof__(self) -> int:
        raise RuntimeError("no")


LOOP: list = []
LOOP.append(LOOP)
NESTED: list = []
for _ in range(10_000):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        (None, 1, 100),
        (b"x" * 1000, 1000, 1100),
        ("x" * 1000, 1000, 1100),
        (memoryview(bytearray(5000)), 5000, 5400),
        (array.array("d", [0.5] * 1000), 8000, 8400),
        ([0.5 * number for number in range(1536)], 1536 * 32, 1536 * 33),
        ({str(number): bytes(1000) for number in range(500)}, 500_000, 600_000),
        ([[bytes(1000)] * 1, [bytes(1000)]], 2000, 2600),
        (Holder(bytes(10_000)), 10_000, 11_500),
        (Slotted(bytes(10_000)), 10_000, 11_000),
        (Tensor(), 1 << 20, (1 << 20) + 500),
        ({"vector": Tensor()}, 1 << 20, (1 << 20) + 1000),
        (Rude(), 1, 100),
        (LOOP, 1, 200),
        (NESTED, 1, 1000),
        (sys, 1, 1),
        (Holder, 1, 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_size_of_a_value_is_estimated(value: object, least: int, most: int) -> None:
    assert least <= sizeof(value) <= most


def test_an_estimate_is_bounded_in_work() -> None:
    class Counted(bytes):
        asked = 0

        def __sizeof__(self) -> int:
            Counted.asked += 1
            return 10

    sizeof([[[Counted() for _ in range(100)] for _ in range(100)] for _ in range(100)])
    assert 0 < Counted.asked < 10_000
