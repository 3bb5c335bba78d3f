"""Models small enough to be started in a process of their own by a test; importable there by this module's name."""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import sys
import time
from pathlib import Path

from tests.support.parts_core import make_core

from oomguard.hook.models.registry import Models

models = Models(make_core())


class OnlyThereError(Exception):
    """What the application has not imported when the test has removed it."""

    def __init__(self, one, two):
        super().__init__(one)


class Buffer:
    """Bytes that leave the pickle, as an array of numpy's does."""

    def __init__(self, content):
        self.content = content

    def __reduce_ex__(self, protocol):
        return Buffer, (pickle.PickleBuffer(self.content),)


class Small:
    rate = 7

    def __init__(self):
        self.label = "small"
        self.calls = 0

    def __call__(self, value):
        return ("called", value)

    def same(self, value):
        return value

    def buffer(self, size):
        return Buffer(bytearray(b"x") * size)

    def kind_of_content(self, buffer):
        return type(buffer.content.obj).__name__ if isinstance(buffer.content, memoryview) else "copied"

    def pid(self):
        return os.getpid()

    def count(self):
        self.calls += 1
        return self.calls

    def sleep(self, seconds, value=None):
        time.sleep(seconds)
        return value

    def fail(self, text):
        raise ValueError(text)

    def fail_unpicklably(self):
        raise OnlyThereError("one", "two")

    def fail_of_another_module(self):
        import zipfile

        raise zipfile.BadZipFile("broken")

    def leave(self):
        sys.exit(3)

    def answer_what_can_not_be_sent(self):
        return lambda: 5

    def say(self, text):
        print(text, flush=True)
        os.write(1, b"and by its number\n")
        return sys.stdin.read()

    def die(self, signal_number=signal.SIGKILL):
        os.kill(os.getpid(), signal_number)
        time.sleep(60)

    def die_once(self, file):
        if not Path(file).exists():
            Path(file).touch()
            self.die()
        return "alive"

    def leave_behind(self, file):
        atexit.register(Path(file).touch)

    def spin(self, seconds):
        """Hold the interpreter in C."""
        import re

        re.match(r"(a+)+$", "a" * 40 + "b")

    def readings(self):
        return models.reading()

    def descriptors(self):
        numbers = [file for file in Path("/proc/self/fd").iterdir() if file.exists()]
        return {int(file.name): str(file.readlink()) for file in numbers}

    def oom_score_adj(self):
        return int(Path("/proc/self/oom_score_adj").read_text())

    def signals(self):
        return sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))


def load():
    return Small()


def load_nothing():
    raise FileNotFoundError("weights.bin")


def load_and_die():
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def load_function():
    return len


@models.register("decorated", isolate=True)
def decorated():
    return Small()


def load_that_asks_for_another():
    with decorated:
        pass
