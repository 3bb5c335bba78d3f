"""The guard: everything that an application writes of oomguard, each method a door to one of the hook's parts.

What a part needs is imported when it is first asked for, in the application's own thread: an application pays
for what it uses, and the hook's thread never imports.
"""

from __future__ import annotations

import os

from oomguard.hook.process import Process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypedDict, overload

    from typing_extensions import Unpack

    from oomguard.hook.admin.endpoint import Endpoint
    from oomguard.hook.alone.interval import Interval
    from oomguard.hook.caches.lru import Lru
    from oomguard.hook.children import Child, Children
    from oomguard.hook.limits import Limit
    from oomguard.hook.limits.budgets import Budget
    from oomguard.hook.models.model import Model
    from oomguard.hook.web import Parts, Web
    from oomguard.hook.web.options import Options
    from oomguard.hook.web.streams import Held

    class ModelOptions(TypedDict, total=False):
        """What `Guard.model` takes."""

        idle_timeout: float | None
        enabled: bool
        fallback: Callable[[], Any] | None
        min_residency: float
        unload: Callable[[Any], object] | None
        isolate: bool


class Guard:
    """One for a process. Nothing here blocks, but what waits by its nature (`limit`, a model's load).

    Wrong arguments raise at once, TypeError or ValueError; nothing else does that is not named. Works without a
    sidecar as well.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._process = Process(os.environ if environ is None else environ)
        self._admin: Endpoint | None = None
        self._interval: Interval | None = None
        self._web: Web | None = None

    # -- memory that can be had back

    def cache(
        self,
        name: str,
        clear: Callable[[], object],
        size: Callable[[], int] | None = None,
        entries: Callable[[], int] | None = None,
        *,
        expire: Callable[[], object] | None = None,
    ) -> None:
        """Let the step `caches` clear this cache; a name that is taken is replaced (see `status`).

        The callbacks are called in the hook's thread, so they must be safe beside the application's own, and must
        not wait for an event loop. `size` (bytes) and `entries` are asked about once a second; `expire` drops what
        is too old anyway, before all is cleared. What they raise is reported to the sidecar and goes nowhere else.

        Raises TypeError for a callback that can't be called or a name that is not text, ValueError for a name
        that is empty or longer than 100 characters.
        """
        self._process.answers.caches.register(name, clear, size, entries, expire)

    def lru(
        self,
        name: str,
        max_bytes: int | str,
        *,
        max_items: int | None = None,
        sizeof: Callable[[Any], int] | None = None,
    ) -> Lru[Any, Any]:
        """Make a mapping that is bounded in bytes (``"512MiB"``), drops what was not used for longest, and is a cache.

        `sizeof` tells the bytes of a value; without it, they are estimated. Raises ValueError for a bound that is
        none.
        """
        from oomguard.hook.caches.lru import Lru  # noqa: PLC0415 (see above)

        made: Lru[Any, Any] = Lru(name, max_bytes, max_items=max_items, sizeof=sizeof)
        self._process.answers.caches.add(made)
        return made

    if TYPE_CHECKING:

        @overload
        def model(
            self, name: str, load: None = None, **options: Unpack[ModelOptions]
        ) -> Callable[[Callable[[], Any]], Model]: ...

        @overload
        def model(self, name: str, load: Callable[[], Any], **options: Unpack[ModelOptions]) -> Model: ...

    def model(
        self,
        name: str,
        load: Callable[[], Any] | None = None,
        **options: Unpack[ModelOptions],
    ) -> Model | Callable[[Callable[[], Any]], Model]:
        """Hold a model that is loaded when it is first used and unloaded when it is idle or memory is short.

        ``with guard.model(...) as model:`` (or ``async with``) uses it; without `load` it decorates the function
        that loads. The options are those of `oomguard.hook.models.registry.Models.register`: `idle_timeout`,
        `min_residency`, `enabled`, `fallback`, `unload`, `isolate`. See docs/hook.md.
        """
        from oomguard.hook.models.registry import Models  # noqa: PLC0415 (see above)

        process = self._process
        models = process.part("models", lambda: Models(process.core))
        process.answers.add_step("models", models.take)
        if options.get("isolate"):
            self._children().others = models.children
        return models.register(name, load, **options)

    # -- memory that is kept from being taken

    def budget(self, name: str, limit: int | str) -> Budget:
        """Return the budget of this name: ``with guard.budget("weights", limit="200MiB").reserve(n):``.

        `reserve` raises BudgetExceeded, a MemoryError, where fewer than `n` bytes are left.
        """
        from oomguard.hook.limits.budgets import Budgets  # noqa: PLC0415 (see above)

        return self._process.part("budgets", lambda: Budgets(self._process.core)).get(name, limit)

    def limit(self, name: str, at_most: int | None = None) -> Limit:
        """Return the limit of this name: ``with guard.limit("agents", 2):`` runs at most two at once, others wait.

        None: what ``MAX_CONCURRENT_AGENTS`` says.
        """
        from oomguard.hook.limits import Limits  # noqa: PLC0415 (see above)

        return self._process.part("limits", lambda: Limits(self._process.core)).get(name, at_most)

    # -- what may be shot, and what stays open

    def child(
        self, name: str, start: Callable[[], Any], reset: Callable[..., object] | None = None
    ) -> Child[Any]:
        """Hold a child process that may be shot: ``guard.child("tools", start=spawn).call(fn)`` starts it again."""
        return self._children().register(name, start, reset)

    def _children(self) -> Children:
        from oomguard.hook.children import Children  # noqa: PLC0415 (see above)

        return self._process.part("children", lambda: Children(self._process.core))

    def stream(self, name: str) -> Held:
        """Count something that stays open: ``with guard.stream("mcp"):``, or ``async with``."""
        return self._doors().streams.stream(name)

    # -- the application's doors

    def asgi(self, app: Callable[..., Any], **options: Unpack[Options]) -> Callable[..., Any]:
        """Wrap an ASGI application: streams and requests are seen, /admin is answered, new requests may be shed.

        The options are those of `oomguard.hook.web.options`. GET /admin/memory and POST /admin/cleanup need a token
        (docs/admin.md). ``OOMGUARD_HOOK=0`` returns the application as it is.

        Also fits where a class of middleware is expected (`app.add_middleware(guard.asgi)`). Raises TypeError for
        what is no application, TypeError or ValueError for a bad option.
        """
        _check_callable(app)
        parts = self._mounted(options)
        if parts is None:
            return app
        from oomguard.hook.web import asgi  # noqa: PLC0415 (it needs asyncio, which only its users have loaded)

        return asgi.mount(app, parts)

    def wsgi(self, app: Callable[..., Any], **options: Unpack[Options]) -> Callable[..., Any]:
        """Wrap a WSGI application; otherwise as `asgi`."""
        _check_callable(app)
        parts = self._mounted(options)
        if parts is None:
            return app
        from oomguard.hook.web import wsgi  # noqa: PLC0415 (as above)

        return wsgi.mount(app, parts)

    def aiohttp(self, app: Any, **options: Unpack[Options]) -> Any:
        """Add the same, as its first middleware, to an `aiohttp.web.Application` that does not run yet; returns it.

        Raises TypeError for what is none, RuntimeError for one that runs.
        """
        if not hasattr(app, "middlewares") or not hasattr(app, "frozen"):
            raise TypeError(f"an aiohttp.web.Application is needed, not {type(app).__name__}")
        parts = self._mounted(options)
        if parts is not None:
            from oomguard.hook.web import aiohttp  # noqa: PLC0415 (as above)

            aiohttp.mount(app, parts)
        return app

    def _mounted(self, options: Options) -> Parts | None:
        """What a mount serves; None where the hook is turned off, or that failed (see `status`)."""
        process = self._process
        if process.off:
            return None
        from oomguard.hook.web.options import Options  # noqa: PLC0415 (only those who mount pay for it)

        for name in options:
            if name not in Options.__annotations__:
                raise TypeError(f"unknown option {name!r}: there are {', '.join(Options.__annotations__)}")
        web = self._doors()
        try:
            endpoint = self._endpoint()
        except Exception as error:  # noqa: BLE001 (the host must start, whatever happens)
            process.core.warn(f"nothing is mounted: {type(error).__name__}: {error}")
            return None
        return web.parts(endpoint, **options)

    def _endpoint(self) -> Endpoint:
        if self._admin is None:
            from oomguard.hook.admin.endpoint import Endpoint  # noqa: PLC0415 (only those who mount pay for it)

            process = self._process
            process.equip()
            # The environment itself: what the application puts into it later (python-dotenv) counts too.
            self._admin = Endpoint(process.core.environ, process.answers.turn, process.answers.read)
            process.followers.append(self._admin.forked)
        return self._admin

    def _doors(self) -> Web:
        """What all mounts share, which has parts of its own."""
        if self._web is None:
            from oomguard.hook.web import Web  # noqa: PLC0415 (as above)

            process = self._process
            web = Web(process.core, self._models_loaded)
            with process.changing:
                if self._web is None:
                    process.take_in(
                        {
                            "streams": web.streams,
                            "shed": web.shedding,
                            "requests": web.requests,
                            "loop": web.lag,
                        },
                        {"streams": web.streams.take, "shed": web.shedding.take},
                    )
                    self._web = web
        return self._web

    def _models_loaded(self) -> dict[str, object]:
        models = self._process.answers.parts.get("models")
        if models is None:
            return {}
        told = models.reading()
        assert isinstance(told, list)
        return {"models_loaded": sum(one["state"] == "loaded" for one in told)}

    # -- what it knows, and its life

    def health(self) -> dict[str, object]:
        """Judge memory against the limit: `status` is healthy, degraded, critical or unknown; sizes in MB of 2^20."""
        return self._doors().health()

    def log(self, text: str) -> None:
        """Log one line with what memory looks like now, under the logger ``oomguard``."""
        from oomguard.hook.telling import memory_line, tell  # noqa: PLC0415 (see above)

        tell("info", memory_line(text, self._process.answers))

    def freeze_before_fork(self) -> int:
        """In a master that has loaded everything and is about to fork its workers: keep the heap shared.

        Collects, trims, and calls `gc.freeze`: otherwise every collection in a worker copies the pages that it walks
        (226 to 596 MB with four workers, measured), and the step `gc` is not taken there. Returns how many objects
        are frozen.
        """
        return self._process.answers.freeze()

    def stop(self) -> None:
        """End the thread and the connection, here and in children yet to come; `start()` begins again.

        What is mounted stays: the application has it in its hands.
        """
        self._process.stop()

    def status(self) -> dict[str, object]:
        """For people and logs: `state`, `reason`, the names of the `caches`, and `warnings`."""
        process = self._process
        state, reason = process.told
        return {
            "state": state,
            "reason": reason,
            "caches": process.answers.caches.names(),
            "parts": list(process.answers.parts),
            "warnings": [*process.answers.caches.warnings, *process.core.warnings],
        }

    def begin(self, *, here: bool = True, autonomous: bool = False) -> None:
        """See `oomguard.hook.start`; never raises."""
        process = self._process
        try:
            cleans = bool(process.core.environ.get("MEMORY_CLEANUP"))
            if not process.begin(here=here, acts=autonomous or cleans):
                return
            if autonomous or process.configured:
                from oomguard.hook.alone import Alone  # noqa: PLC0415 (not where there is nothing to wait for)

                alone = process.part(
                    "alone", lambda: Alone(process.core, process.answers.step, autonomous=autonomous)
                )
                process.noted = alone.note_read
                self._notice_constructions()
            if cleans:
                self._clean_by_the_clock()
        except Exception as error:  # noqa: BLE001 (the host must start, whatever happens)
            process.core.warn(f"{type(error).__name__}: {error}")

    def _notice_constructions(self) -> None:
        from oomguard.hook.models.constructions import Constructions  # noqa: PLC0415 (as above)

        self._process.part("constructions", Constructions)

    def _clean_by_the_clock(self) -> None:
        from oomguard.hook.alone.interval import Interval, wanted  # noqa: PLC0415 (only where it is asked for)

        process = self._process
        if self._interval is None and wanted(process.core.environ):
            self._interval = Interval(process.core, process.answers.caches.expire)
            process.followers.append(self._interval.forked)


def _check_callable(app: object) -> None:
    if not callable(app):
        raise TypeError(f"an application is needed, which can be called, not {type(app).__name__}")
