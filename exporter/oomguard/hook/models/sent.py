"""What is sent to the process of an isolated model, and back: `load` by its name, errors with their traceback."""

from __future__ import annotations

import builtins
import os
import pickle
import sys

from oomguard.hook.models.channel import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from oomguard.hook.models.channel import Segments

    Name = tuple[str, str, tuple[str, str] | None]
    """Module and qualified name; for the main module, ("module" or "path", of what is run) as well."""

MAIN = "__mp_main__"
"""The main module's name in the other process, as multiprocessing has it: libraries know it."""


class TracebackThere(Exception):  # noqa: N818 (no error of its own: the cause of one)
    """The traceback in the model's process, as text."""

    def __str__(self) -> str:
        return "\n" + str(self.args[0])


def name_of(model: str, load: Callable[[], object]) -> Name:
    """The name by which the other process finds `load`; raises ValueError where it has none."""
    module, name = getattr(load, "__module__", None), getattr(load, "__qualname__", None)
    mend = "define it with `def` at the top level of a module"
    if not sys.executable or not os.access(sys.executable, os.X_OK) or getattr(sys, "frozen", False):
        raise ValueError(
            f"model {model!r}: isolate=True needs a Python at sys.executable, not {sys.executable!r}"
        )
    if not isinstance(module, str) or not isinstance(name, str) or "<" in name:
        raise ValueError(f"model {model!r}: load {load!r} can't be sent to another process by name: {mend}")
    bound = getattr(load, "__self__", None)
    if bound is not None and not isinstance(bound, type) and not hasattr(bound, "__spec__"):
        raise ValueError(f"model {model!r}: load {name} belongs to an object, which can't be sent: {mend}")
    return module, name, _main(model) if module == "__main__" else None


def _main(model: str) -> tuple[str, str]:
    main = sys.modules["__main__"]
    sys.modules.setdefault(MAIN, main)  # for answers made of classes of the main module
    file = getattr(main, "__file__", None)
    if file is None:
        raise ValueError(
            f"model {model!r}: load is defined where no other process can import it (-c, or interactively): "
            "define it in a module"
        )
    path = os.path.abspath(file)  # noqa: PTH100 (pathlib costs 3 ms)
    try:
        with open(path, "rb") as source:  # noqa: PTH123 (as above)
            guarded = b"__name__" in source.read()
    except OSError:
        guarded = False
    if not guarded:
        raise ValueError(
            f"model {model!r}: {path} would be run a second time to find load: put what starts the service under "
            '`if __name__ == "__main__":`, or load into a module of its own'
        )
    spec = getattr(main, "__spec__", None)
    return ("module", spec.name) if spec is not None else ("path", path)


def answer(value: object) -> Segments:
    """The message that a call returned `value`; raises what pickling it does."""
    return encode((True, value))


def failure(error: BaseException) -> Segments:
    """The message that a call raised: the exception, its class and text, its traceback."""
    import traceback  # noqa: PLC0415 (the linecache with it: only when something was raised)

    there = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    kind = type(error)
    text = (
        f"{kind.__module__}.{kind.__qualname__}: {error}"
        if kind.__module__ != "builtins"
        else f"{kind.__qualname__}: {error}"
    )
    pickled = None
    if isinstance(error, Exception):  # SystemExit must not end the application
        try:
            pickled = pickle.dumps(error, protocol=5)
            pickle.loads(pickled)  # noqa: S301 (made a line above)
        except Exception:  # noqa: BLE001 (an exception that can't be pickled, or not read back)
            pickled = None
    return encode((False, (pickled, text, there)))


def outcome(message: Segments) -> Any:
    """The value of an answer, or raise what the call did."""
    done, value = decode(message)
    if done:
        return value
    pickled, text, there = value
    error: object = None
    if pickled is not None:
        try:
            error = decode([memoryview(pickled)], find=_imported)
        except Exception:  # noqa: BLE001 (of a class that is not imported here)
            error = None
    if not isinstance(error, Exception):
        error = RuntimeError(text)
    raise error from TracebackThere(there)


def _imported(module: str, name: str) -> object:
    """A class of a module that this process has: an error must not import torch here."""
    found: object = builtins if module == "builtins" else sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part)
    return found
