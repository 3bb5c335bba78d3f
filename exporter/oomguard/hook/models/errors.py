"""What a caller of a model may meet besides the application's own errors.

::

    RuntimeError
     └─ ModelUnavailable    not to be had now: switched off, its load failed a moment ago, being unloaded for long
    OSError
     └─ ModelProcessDied    the process of an isolated model died, and so did the fresh one
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ModelProcessDied", "ModelUnavailable", "copy_of", "text_of"]


class ModelUnavailable(RuntimeError):  # noqa: N818 (a state of affairs; Unavailable is what people look for)
    """The model can't be had now; the text says why, and when it is worth while to ask again."""


class ModelProcessDied(OSError):  # noqa: N818 (as above)
    """The process that runs an isolated model died twice; `reason` is ``oom_kill`` or ``unknown``.

    ``oom_kill``: the kernel's counter of OOM kills rose in the interval in which the process vanished.
    """

    def __init__(self, name: str, reason: str) -> None:
        why = "the kernel's OOM killer shot it" if reason == "oom_kill" else "the reason is unknown"
        super().__init__(f"model {name!r}: its process died, and a fresh one did too: {why}")
        self.name = name
        self.reason = reason

    def __reduce__(self) -> tuple[type[ModelProcessDied], tuple[str, str]]:
        return type(self), (self.name, self.reason)


def copy_of(error: BaseException, at: TracebackType | None) -> BaseException:
    """An exception like that one, raised at `at`, for one of many who get it: each raising adds to its traceback.

    The same one, with its traceback cut back, where its class can't be copied.
    """
    from copy import copy  # noqa: PLC0415 (only when something was raised)

    try:
        made = copy(error)
        if type(made) is not type(error):
            made = error
    except Exception:  # noqa: BLE001 (the application's own class)
        made = error
    if made is not error:
        made.args = error.args  # its class may make them of what it was called with
        made.__cause__, made.__context__ = error.__cause__, error.__context__
        made.__suppress_context__ = error.__suppress_context__
    return made.with_traceback(at)


def text_of(error: BaseException) -> str:
    """Its class and what it says; never raises."""
    try:
        return f"{type(error).__name__}: {error}"[:200]
    except BaseException:  # noqa: BLE001 (an exception whose __str__ raises)
        return type(error).__name__
