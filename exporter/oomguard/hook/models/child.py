"""The process of an isolated model: it loads, then answers one call after another until nobody asks any more."""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import os
import select
import signal
import sys
from contextlib import suppress

from oomguard.hook.descriptors import Descriptor
from oomguard.hook.models import inside, sent
from oomguard.hook.models.channel import Channel, ChannelClosed, decode
from oomguard.hook.models.model import Model
from oomguard.hook.models.process import NUMBER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from oomguard.hook.models.channel import Segments
    from oomguard.hook.models.sent import Name

_PR_SET_PDEATHSIG = 1
_VICTIM = 500
"""Added to oom_score_adj (proc_pid_oom_score_adj(5)): this process can be started again, the service can't."""


def main(parent: int, name: str) -> None:
    """Serve the channel at its number until its end; `parent` is the PID of the application."""
    inside.name = name
    _die_with(parent)
    _volunteer()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C is the application's: it ends this process if it ends
    number = fcntl.fcntl(NUMBER, fcntl.F_DUPFD_CLOEXEC, NUMBER + 1)
    _close_inherited()
    channel = Channel(Descriptor(number), _wait)
    _hook()
    try:
        _serve(channel)
    except ChannelClosed:
        _leave()


def _leave() -> None:
    """End at once: taking torch and its like apart takes a second, in which the hook would answer nobody."""
    try:
        atexit._run_exitfuncs()  # noqa: SLF001 (as multiprocessing's children have functions of their own run)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(0)


def _serve(channel: Channel) -> None:
    model: object = None
    while True:
        number, message = channel.receive()
        try:
            kind, *rest = decode(message)
            del message
            if kind == "load":
                model, answer = _load(*rest)
            else:
                answer = _call(model, kind, *rest)
            del rest
        except BaseException as error:  # noqa: BLE001 (whatever it was, the caller is to have it)
            answer = sent.failure(error)
        channel.send(number, answer)
        del answer


def _load(name: Name, path: list[str], argv: list[str]) -> tuple[object, Segments]:
    sys.path[:] = path
    sys.argv[:] = argv
    module, qualified, main = name
    if main is not None:
        _run_main(*main)
    __import__(module)
    load: object = sys.modules[module]
    for part in qualified.split("."):
        load = getattr(load, part)
    if isinstance(load, Model):  # guard.model was its decorator
        load = load.load
    model = load()  # type: ignore[operator]
    return model, sent.answer(_methods(model))


def _run_main(how: str, what: str) -> None:
    """Run the application's main module under another name than ``__main__``, as multiprocessing does."""
    import runpy  # noqa: PLC0415 (only for a load in the main module)
    from types import ModuleType  # noqa: PLC0415 (as above)

    module = ModuleType(sent.MAIN)
    if how == "module":
        content = runpy.run_module(what, run_name=sent.MAIN, alter_sys=True)
    else:
        content = runpy.run_path(what, run_name=sent.MAIN)
    module.__dict__.update(content)
    sys.modules["__main__"] = sys.modules[sent.MAIN] = module


def _methods(model: object) -> list[str]:
    """What the model's class can be asked to do; an attribute of the object itself may be a value."""
    own = getattr(model, "__dict__", {})
    names = (name for name in dir(type(model)) if name not in own and not name.startswith("__"))
    return [name for name in names if _is_method(type(model), name)]


def _is_method(kind: type, name: str) -> bool:
    for base in kind.__mro__:
        if name in base.__dict__:
            found = base.__dict__[name]
            return callable(found) or isinstance(found, classmethod | staticmethod)
    return False


def _call(
    model: object, kind: str, name: str, arguments: tuple[object, ...], keywords: dict[str, object]
) -> Segments:
    found = getattr(model, name)
    if kind == "get":
        return sent.answer((False, None) if callable(found) else (True, found))
    return sent.answer(found(*arguments, **keywords))


def _die_with(parent: int) -> None:
    """Let the kernel kill this process with the application, even while it computes (prctl(2))."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:  # it was too late
        os._exit(1)


def _volunteer() -> None:
    try:
        with open("/proc/self/oom_score_adj", "r+") as file:  # noqa: PTH123 (pathlib costs 3 ms)
            adjusted = min(1000, int(file.read()) + _VICTIM)
            file.seek(0)
            file.write(str(adjusted))
    except (OSError, ValueError):
        pass


def _close_inherited() -> None:
    """Close what the application lets every child have, a listening socket perhaps; what is opened here is not so."""
    try:
        numbers = [int(number) for number in os.listdir("/proc/self/fd")]  # noqa: PTH208 (as above)
    except OSError:
        numbers = list(range(256))
    for number in numbers:
        with suppress(OSError):
            if number >= NUMBER and not fcntl.fcntl(number, fcntl.F_GETFD) & fcntl.FD_CLOEXEC:
                os.close(number)


def _hook() -> None:
    """The steps gc and trim are for this process, too."""
    from oomguard import hook  # noqa: PLC0415 (after its descriptors would have been closed)

    hook.start()


def _wait(number: int, writing: bool) -> None:
    poll = select.poll()
    poll.register(number, select.POLLOUT if writing else select.POLLIN)
    poll.poll()
