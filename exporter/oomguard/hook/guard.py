"""The guard: what the application holds, and what ties the hook's parts to the life of its process."""

from __future__ import annotations

import atexit
import os
import sys
from time import monotonic

from oomguard import __version__
from oomguard.hook import protocol, unpatched
from oomguard.hook.allocator import Allocator
from oomguard.hook.caches import Caches
from oomguard.hook.gcstats import GcWatch, mostly_frozen
from oomguard.hook.link import Link
from oomguard.hook.statm import Statm
from oomguard.hook.steps import Steps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from oomguard.hook.admin.endpoint import Endpoint

_FORK_DELAY = 0.05
"""Seconds. A child that only forks to exec is gone by then and leaves no trace at the sidecar."""
_PARK = 0.1
"""Seconds that a fork waits for the hook's thread; it goes on without it while a longer step is under way."""
_EXIT = 0.05
"""Seconds that the end of the process waits for it."""
_BUSY = 0.1
"""Seconds that a caller of /admin/memory waits for a step to end before it gets the last reading."""


class Guard:
    """One for a process. None of its methods blocks; `cache` and the mounts raise, at once, for a wrong argument.

    Works without a sidecar as well: caches are registered, and only the mounts ask.
    """

    def __init__(self) -> None:
        self._caches = Caches()
        self._watch = GcWatch()
        self._statm = Statm()
        self._allocator: Allocator | None = None
        self._steps: Steps | None = None
        self._link: Link | None = None
        self._environ: Mapping[str, str] = {}
        self._admin: Endpoint | None = None
        self._work = unpatched.allocate_lock()
        """Held for a reading or a step: the sidecar and /admin may ask at the same time, the allocator not."""
        self._last: tuple[float, dict[str, object]] | None = None
        """The last reading, and when it was taken (monotonic)."""
        self._forked = False
        self._shared_heap = False
        self._begun = False
        self._registered = False
        self._starting = unpatched.allocate_lock()
        self._state = ("off", "not started")

    def cache(
        self,
        name: str,
        clear: Callable[[], object],
        size: Callable[[], int] | None = None,
        entries: Callable[[], int] | None = None,
    ) -> None:
        """Let the step `caches` clear this cache; a name that is taken is replaced (see `status`).

        `clear` is called in the hook's thread, so it must be safe beside the application's own, and it must
        not wait for an event loop. `size` (bytes) and `entries` are asked about once a second. What the
        callbacks raise is reported to the sidecar and goes nowhere else.

        Raises TypeError for a callback that can't be called or a name that is not text, ValueError for a name
        that is empty or longer than 100 characters.
        """
        self._caches.register(name, clear, size, entries)

    def asgi(self, app: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap an ASGI application: GET /admin/memory and POST /admin/cleanup are answered in front of it.

        Everything else is passed through. Also fits where a class of middleware is expected
        (`app.add_middleware(guard.asgi)`). The caller needs a token (docs/admin.md); ``OOMGUARD_HOOK=0`` returns
        the application as it is. Raises TypeError for what is no application.
        """
        _check_callable(app)
        endpoint = self._endpoint()
        if endpoint is None:
            return app
        from oomguard.hook.admin import asgi  # noqa: PLC0415 (it needs asyncio, which only its users have loaded)

        return asgi.mount(app, endpoint)

    def wsgi(self, app: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a WSGI application; otherwise as `asgi`."""
        _check_callable(app)
        endpoint = self._endpoint()
        if endpoint is None:
            return app
        from oomguard.hook.admin import wsgi  # noqa: PLC0415 (as above)

        return wsgi.mount(app, endpoint)

    def aiohttp(self, app: Any) -> None:
        """Add the same, as its first middleware, to an `aiohttp.web.Application` that does not run yet.

        Raises TypeError for what is none, RuntimeError for one that runs.
        """
        if not hasattr(app, "middlewares") or not hasattr(app, "frozen"):
            raise TypeError(f"an aiohttp.web.Application is needed, not {type(app).__name__}")
        endpoint = self._endpoint()
        if endpoint is not None:
            from oomguard.hook.admin import aiohttp  # noqa: PLC0415 (as above)

            aiohttp.mount(app, endpoint)

    def stop(self) -> None:
        """End the thread and the connection, here and in children yet to come; `start()` begins again.

        What is mounted stays: the application has it in its hands.
        """
        self._begun = False
        self._state = ("stopped", "")
        link = self._link
        if link is not None:
            link.stop(_PARK)
        self._watch.remove()

    def status(self) -> dict[str, object]:
        """For people and logs: `state`, `reason`, the names of the `caches`, and `warnings`."""
        link = self._link
        state, reason = (link.state, link.reason) if link is not None and self._begun else self._state
        return {
            "state": state,
            "reason": reason,
            "caches": self._caches.names(),
            "warnings": list(self._caches.warnings),
        }

    def begin(self, environ: Mapping[str, str], *, here: bool = True) -> None:
        """Start, as the environment says; with `here` false only in children that are forked from here.

        Never raises. Done once, however many threads call: one that comes second goes on at once.
        """
        if self._begun or not self._starting.acquire(False):
            return
        try:
            self._begin(environ, here=here)
        except Exception as error:  # noqa: BLE001 (the host must start, whatever happens)
            self._state = ("failed", f"{type(error).__name__}: {error}"[:200])
        finally:
            self._starting.release()

    def _begin(self, environ: Mapping[str, str], *, here: bool) -> None:
        if environ.get("OOMGUARD_HOOK") == "0":
            self._state = ("off", "OOMGUARD_HOOK=0")
            return
        if not environ.get("OOMGUARD_RUNTIME_DIR"):
            self._state = ("off", "OOMGUARD_RUNTIME_DIR is not set: no sidecar")
            return
        self._environ = dict(environ)
        self._register()
        self._begun = True
        if here:
            self._connect(delay=0.0)

    def _register(self) -> None:
        if self._registered:
            return
        self._registered = True
        os.register_at_fork(
            before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._in_child
        )
        atexit.register(self._at_exit)

    def _equip(self) -> None:
        """Everything that a thread needs is made here, in the host's thread, before there is one."""
        self._statm.open()
        if self._allocator is None:
            self._allocator = Allocator(self._statm)
            self._allocator.reading()  # the slack before the application has allocated anything
        self._steps = Steps(self._caches, self._watch, self._allocator, shared_heap=self._shared_heap)
        self._watch.install()

    def _connect(self, delay: float) -> None:
        self._equip()
        self._link = Link(self._environ["OOMGUARD_RUNTIME_DIR"], self._hello(), self._answer, delay)
        self._link.start()

    # -- what the sidecar is told

    def _hello(self) -> dict[str, object]:
        return {
            "hello": protocol.VERSION,
            "pid": os.getpid(),
            "start_ticks": _start_ticks(),
            "pidns": _pid_namespace(),
            "target": self._environ.get("OOMGUARD_TARGET", ""),
            "runtime": "python",
            "runtime_version": ".".join(map(str, sys.version_info[:3])),
            "hook_version": __version__,
            "forked": self._forked,
        }

    def _answer(self, question: dict[str, object]) -> dict[str, object]:
        ask = question["ask"]
        if ask == "reading":
            with self._work:
                return {"reading": self._reading()}
        if ask == "step":
            return {"step": self._step(question)}
        return {"error": f"unknown ask {str(ask)[:40]!r}"}

    def _step(self, question: dict[str, object]) -> dict[str, object]:
        assert self._steps is not None
        with self._work:
            return self._steps.run(question)

    def _reading(self) -> dict[str, object]:
        assert self._allocator is not None
        reading: dict[str, object] = {
            "gc": _guarded(self._watch.reading),
            "allocator": _guarded(self._allocator.reading),
            "caches": self._caches.reading(),
        }
        if self._caches.warnings:
            reading["warnings"] = list(self._caches.warnings)
        self._last = (monotonic(), reading)
        return reading

    # -- what callers from outside are told

    def _endpoint(self) -> Endpoint | None:
        """Make what the mounts serve, once; None where the hook is turned off, or that failed (see `status`)."""
        try:
            if os.environ.get("OOMGUARD_HOOK") == "0":
                return None
            if self._admin is None:
                from oomguard.hook.admin.endpoint import Endpoint  # noqa: PLC0415 (only those who mount pay for it)

                self._register()
                if self._steps is None:
                    self._equip()
                # The environment itself: what the application puts into it later (python-dotenv) counts too.
                self._admin = Endpoint(os.environ, lambda step: self._step({"step": step}), self._read)
        except Exception as error:  # noqa: BLE001 (the host must start, whatever happens)
            self._caches.warnings.append(f"/admin is not mounted: {type(error).__name__}: {error}"[:200])
        return self._admin

    def _read(self) -> tuple[dict[str, object], float | None]:
        """Take a reading, or return the last one and its age in seconds while a step is under way."""
        work = self._work  # a callback that forks gets another one in the child
        if work.acquire(True, _BUSY):
            try:
                return self._reading(), 0.0
            finally:
                work.release()
        if self._last is None:
            return {}, None
        taken, reading = self._last
        return reading, monotonic() - taken

    # -- the life of the process; none of these may raise: Python would print it in the host's name

    def _before_fork(self) -> None:
        try:
            if self._link is not None and self._begun:
                self._link.park(_PARK)
        except BaseException as error:  # noqa: BLE001 (a second Ctrl-C, too, would be printed by the interpreter)
            self._state = ("failed", str(error))

    def _after_fork(self) -> None:
        try:
            if self._link is not None and self._begun:
                self._link.resume()
        except BaseException as error:  # noqa: BLE001 (a second Ctrl-C, too, would be printed by the interpreter)
            self._state = ("failed", str(error))

    def _in_child(self) -> None:
        try:
            self._starting = unpatched.allocate_lock()  # its holder may not have come along
            self._work = unpatched.allocate_lock()
            if self._link is not None:
                self._link.abandon()
                self._link = None
            self._statm.close()
            self._forked = True
            # Asked now: what the child allocates later would make the frozen part look small.
            self._shared_heap = not mostly_frozen()
            self._watch.forked()
            if self._admin is not None:
                self._admin.forked()
                self._equip()
            if self._begun:
                self._connect(delay=_FORK_DELAY)
        except BaseException as error:  # noqa: BLE001 (a second Ctrl-C, too, would be printed by the interpreter)
            self._state = ("failed", str(error))

    def _at_exit(self) -> None:
        try:
            if self._link is not None:
                self._link.stop(_EXIT)
            self._watch.remove()
        except BaseException as error:  # noqa: BLE001 (a second Ctrl-C, too, would be printed by the interpreter)
            self._state = ("failed", str(error))


def _check_callable(app: object) -> None:
    if not callable(app):
        raise TypeError(f"an application is needed, which can be called, not {type(app).__name__}")


def _guarded(read: Callable[[], dict[str, object]]) -> dict[str, object]:
    try:
        return read()
    except Exception as error:  # noqa: BLE001 (one part of a reading must not take the others along)
        return {"status": "failed", "reason": f"{type(error).__name__}: {error}"[:200]}


def _start_ticks() -> int | None:
    """Field 22 of /proc/self/stat (proc_pid_stat(5)); comm may hold spaces and parentheses."""
    try:
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123 (pathlib costs 3 ms)
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None


def _pid_namespace() -> int | None:
    try:
        return os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 (as above)
    except OSError:
        return None
