"""Models that nobody registered: how many of the known classes were made, how many live, what memory they took.

A finder that stands first on `sys.meta_path` waits for the modules that offer these classes and answers for no
others, at the price of looking a name up. It lets the other finders find the module, and when it has been executed
it puts a counting method in front of the one that makes a model. Nothing of this may break an import: whatever goes
wrong here is dropped, and the class stays as it was.
"""

from __future__ import annotations

import sys
from _weakref import ref
from functools import wraps

from oomguard.hook import unpatched
from oomguard.hook.parts import resident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_INIT = "__init__"
_KNOWN = {
    "sentence_transformers": ("SentenceTransformer", _INIT),
    "fastembed": ("TextEmbedding", _INIT),
    # Its __init__ returns before there are any weights, and runs for each part of a model.
    "transformers.modeling_utils": ("PreTrainedModel", "from_pretrained"),
    "onnxruntime": ("InferenceSession", _INIT),
    "llama_cpp": ("Llama", _INIT),
}
"""By the module that is waited for: the class, and what makes one."""


class _Noticed:
    """One class."""

    __slots__ = ("bytes", "live", "made", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.made = 0
        self.live: dict[int, ref[object]] | None = {}
        """By the reference's id: a model need not be hashable. Its callback takes no lock, for it runs in a gc.
        None: it can't be known, since one was made that allows no weak reference."""
        self.bytes = 0


class Constructions:
    """The part that notices them; one for a process, installed from its making on."""

    def __init__(self) -> None:
        self._noticed: dict[str, _Noticed] = {}
        self._lock = unpatched.allocate_rlock()
        self._within: set[int] = set()
        """Threads that are making one now: what it makes in turn gains no memory of its own."""
        self._finder = _Finder(self._executed)
        sys.meta_path.insert(0, self._finder)
        for module in _KNOWN:
            found = sys.modules.get(module)
            if found is not None:
                self._executed(found)

    def remove(self) -> None:
        """Wait for no more modules; classes that are noticed stay so."""
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)

    def reading(self) -> list[dict[str, object]]:
        """Take the `constructions` part of a reading: the classes of which any was made or lives."""
        return [
            {
                "class": noticed.name,
                "made": noticed.made,
                "live": None if noticed.live is None else len(noticed.live),
                "bytes": noticed.bytes,
            }
            for noticed in list(self._noticed.values())
            if noticed.made or noticed.live
        ]

    def forked(self) -> None:
        """In a forked child: what lives came along."""
        self._lock = unpatched.allocate_rlock()
        self._within = {thread for thread in self._within if thread == unpatched.get_ident()}
        for noticed in self._noticed.values():
            noticed.made = noticed.bytes = 0

    def _executed(self, module: ModuleType) -> None:
        """Put a counting method in place; a class that is not there, or not as known, is left alone."""
        try:
            name, maker = _KNOWN[module.__name__]
            kind = module.__dict__.get(name)  # some modules import on access, which must not happen here
            label = f"{module.__name__.partition('.')[0]}.{name}"
            if not isinstance(kind, type) or label in self._noticed:
                return
            noticed = _Noticed(label)
            if maker == _INIT:
                setattr(kind, maker, self._counting(noticed, getattr(kind, maker), own=True))
            else:
                made = kind.__dict__[maker].__func__
                setattr(kind, maker, classmethod(self._counting(noticed, made, own=False)))
            self._noticed[label] = noticed
        except Exception:  # noqa: BLE001, S110 (the import goes on)
            pass

    def _counting(
        self, noticed: _Noticed, make: Callable[..., object], *, own: bool
    ) -> Callable[..., object]:
        """`make` with the counting around it; what was made is its first argument (`own`), or what it returns."""

        @wraps(make)
        def counted(*arguments: Any, **keywords: Any) -> object:
            thread = unpatched.get_ident()
            inner = thread in self._within
            before = None if inner else resident()
            self._within.add(thread)
            try:
                result = make(*arguments, **keywords)
            finally:
                if not inner:
                    self._within.discard(thread)
            model = arguments[0] if own and arguments else result
            self._made(noticed, model[0] if isinstance(model, tuple) and model else model, before)
            return result

        return counted

    def _made(self, noticed: _Noticed, model: object, before: int | None) -> None:
        after = None if before is None else resident()
        with self._lock:
            noticed.made += 1
            if before is not None and after is not None:
                noticed.bytes += max(0, after - before)
        live = noticed.live
        if live is None:
            return
        try:
            reference = ref(model, lambda gone: live.pop(id(gone), None))
            live[id(reference)] = reference
        except TypeError:
            noticed.live = None


class _Finder:
    """Finds the known modules with the help of all others, and calls `executed` when one has been."""

    def __init__(self, executed: Callable[[ModuleType], None]) -> None:
        self._executed = executed
        self._asking: set[tuple[int, str]] = set()
        """Another finder may ask all of them, and so this one, in turn."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in _KNOWN:
            return None
        asking = (unpatched.get_ident(), name)
        if asking in self._asking:
            return None
        self._asking.add(asking)
        try:
            for finder in list(sys.meta_path):
                find = None if finder is self else getattr(finder, "find_spec", None)
                spec: ModuleSpec | None = None if find is None else find(name, path, target)
                if spec is not None:
                    self._listen(spec)
                    return spec
        finally:
            self._asking.discard(asking)
        return None

    def _listen(self, spec: ModuleSpec) -> None:
        """Have `executed` called after the module was; the loader stays the one that was found."""
        loader: Any = spec.loader
        known, executed = spec.name, self._executed
        try:
            execute = loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                if module.__name__ == known:  # a zipimporter loads all modules of its archive
                    executed(module)

            loader.exec_module = exec_module
        except Exception:  # noqa: BLE001, S110 (a loader that can't be written to, or of the older kind)
            pass
