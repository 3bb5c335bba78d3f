"""Model classes that are noticed without being registered; modules of the same names stand for the real ones."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import inspect
import subprocess
import sys
import threading
import zipfile
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest

from oomguard.hook.models import constructions
from oomguard.hook.models.constructions import Constructions

ROOT = Path(__file__).resolve().parents[3]
MIB = 1 << 20
LARGE = 100 * MIB
"""More than malloc may keep free at the top of its heap after other tests (mallopt(3): M_TRIM_THRESHOLD, 64 MB)."""

SOURCES = {
    "sentence_transformers/__init__.py": """
from sentence_transformers.inner import SentenceTransformer
class Sub(SentenceTransformer):
    def __init__(self, *args, **kw):
        super().__init__(*args, **kw)
""",
    "sentence_transformers/inner.py": """
class SentenceTransformer:
    def __init__(self, size: int = 0, *, fails: bool = False):
        "Make it."
        if fails:
            raise ValueError("no such model")
        from fastembed import TextEmbedding
        self.inner = TextEmbedding(size)
""",
    "fastembed/__init__.py": """
class TextEmbedding:
    __hash__ = None
    def __eq__(self, other): return True
    def __init__(self, size=0):
        self.weights = b"x" * size
""",
    "transformers/__init__.py": "",
    "transformers/modeling_utils.py": """
class PreTrainedModel:
    def __init__(self, config):
        pass
    @classmethod
    def from_pretrained(cls, size, both=False):
        model = cls({})
        model.weights = b"x" * size
        return (model, {}) if both else model
class Bert(PreTrainedModel):
    pass
""",
    "onnxruntime/__init__.py": """
class InferenceSession:
    __slots__ = ("x",)
    def __init__(self, size=0): self.x = 5
""",
    "llama_cpp/__init__.py": "raise ImportError('libllama.so is missing')\n",
}


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A place from which packages of these names are imported."""
    for name, source in SOURCES.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if ours(name)}
    yield tmp_path
    for name in [name for name in sys.modules if ours(name)]:
        del sys.modules[name]
    sys.modules.update(before)


def ours(name):
    return name.partition(".")[0] in {file.partition("/")[0] for file in SOURCES}


@pytest.fixture
def noticed(packages):
    noticed = Constructions()
    yield noticed
    noticed.remove()


def seen(noticed, name):
    return next((one for one in noticed.reading() if one["class"] == name), None)


def test_a_class_is_counted_from_its_import_on(noticed):
    assert noticed.reading() == []
    import fastembed

    models = [fastembed.TextEmbedding() for _ in range(3)]
    assert seen(noticed, "fastembed.TextEmbedding")["made"] == 3
    assert seen(noticed, "fastembed.TextEmbedding")["live"] == 3
    del models[1:]
    gc.collect()
    assert seen(noticed, "fastembed.TextEmbedding")["made"] == 3
    assert seen(noticed, "fastembed.TextEmbedding")["live"] == 1


def test_a_class_that_was_imported_before_is_counted_too(packages):
    import fastembed

    noticed = Constructions()
    try:
        fastembed.TextEmbedding()
        assert seen(noticed, "fastembed.TextEmbedding")["made"] == 1
    finally:
        noticed.remove()


def test_memory_is_counted_once_where_one_class_makes_another(noticed):
    import sentence_transformers

    models = [sentence_transformers.SentenceTransformer(LARGE) for _ in range(2)]
    outer = seen(noticed, "sentence_transformers.SentenceTransformer")
    assert (outer["made"], outer["live"]) == (2, 2)
    assert 190 * MIB < outer["bytes"] < 230 * MIB
    assert seen(noticed, "fastembed.TextEmbedding") == {
        "class": "fastembed.TextEmbedding", "made": 2, "live": 2, "bytes": 0,
    }  # fmt: skip
    del models


def test_a_subclass_counts_as_the_class_and_a_failure_not_at_all(noticed):
    import sentence_transformers

    model = sentence_transformers.Sub()
    with pytest.raises(ValueError, match="no such model"):
        sentence_transformers.SentenceTransformer(fails=True)
    assert seen(noticed, "sentence_transformers.SentenceTransformer")["made"] == 1
    assert isinstance(model, sentence_transformers.SentenceTransformer)


def test_a_pretrained_model_is_counted_with_its_weights(noticed):
    from transformers.modeling_utils import Bert

    model = Bert.from_pretrained(LARGE)
    both, _ = Bert.from_pretrained(0, both=True)
    found = seen(noticed, "transformers.PreTrainedModel")
    assert type(model) is type(both) is Bert
    assert (found["made"], found["live"]) == (2, 2)
    assert found["bytes"] > 90 * MIB


def test_a_model_that_can_not_be_referred_to_weakly_is_made_and_that_is_all(noticed):
    import onnxruntime

    session = onnxruntime.InferenceSession()
    assert session.x == 5
    assert seen(noticed, "onnxruntime.InferenceSession")["made"] == 1
    assert seen(noticed, "onnxruntime.InferenceSession")["live"] is None


def test_the_class_looks_as_before(noticed):
    import sentence_transformers

    kind = sentence_transformers.SentenceTransformer
    assert list(inspect.signature(kind).parameters) == ["size", "fails"]
    assert kind.__init__.__qualname__ == "SentenceTransformer.__init__"
    assert kind.__init__.__doc__ == "Make it."
    assert type(sentence_transformers.__spec__.loader) is SourceFileLoader


def test_an_import_that_fails_fails_as_before(noticed):
    with pytest.raises(ImportError, match=r"libllama\.so is missing"):
        import llama_cpp  # noqa: F401
    assert "llama_cpp" not in sys.modules
    assert importlib.util.find_spec("onnxruntime") is not None
    with pytest.raises(ModuleNotFoundError, match="onnxruntime"):
        import onnxruntime.nothing_of_the_kind  # noqa: F401


def test_a_package_that_is_not_there_is_not_found_as_before(noticed, packages):
    (packages / "fastembed" / "__init__.py").unlink()
    (packages / "fastembed").rename(packages / "elsewhere")
    importlib.invalidate_caches()
    if importlib.util.find_spec("fastembed") is None:
        with pytest.raises(ModuleNotFoundError, match="fastembed"):
            import fastembed  # noqa: F401


@pytest.mark.parametrize("source", ["TextEmbedding = 5\n", "", "class TextEmbedding:\n    __init__ = None\n"])
def test_a_package_that_is_not_as_known_is_left_alone(noticed, packages, source):
    (packages / "fastembed" / "__init__.py").write_text(source)
    import fastembed

    assert fastembed.__name__ == "fastembed"
    assert noticed.reading() == []


def test_an_error_of_the_noticing_does_not_reach_the_import(noticed, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError

    monkeypatch.setattr(noticed, "_counting", broken)
    import fastembed

    assert fastembed.TextEmbedding().weights == b""


def test_another_finder_that_asks_all_of_them_is_borne(noticed):
    class Asks:
        """As the import hooks of tracers do."""

        def __init__(self):
            self.within = False

        def find_spec(self, name, path=None, target=None):
            if self.within:
                return None
            self.within = True
            try:
                return importlib.util.find_spec(name)
            finally:
                self.within = False

    asks = Asks()
    sys.meta_path.insert(0, asks)
    try:
        import fastembed
    finally:
        sys.meta_path.remove(asks)
    fastembed.TextEmbedding()
    assert seen(noticed, "fastembed.TextEmbedding")["made"] == 1


def test_a_package_in_a_zip_is_noticed(noticed, packages, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name, source in SOURCES.items():
            archive.writestr(name, source)
    sys.path.insert(0, str(tmp_path / "all.zip"))
    try:
        import sentence_transformers

        assert ".zip" in sentence_transformers.__file__
        sentence_transformers.SentenceTransformer()
    finally:
        sys.path.remove(str(tmp_path / "all.zip"))
    assert seen(noticed, "sentence_transformers.SentenceTransformer")["made"] == 1
    assert seen(noticed, "fastembed.TextEmbedding")["made"] == 1


def test_models_made_in_many_threads_are_all_counted(noticed):
    import fastembed

    def make():
        for _ in range(200):
            fastembed.TextEmbedding()

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    found = seen(noticed, "fastembed.TextEmbedding")
    assert (found["made"], found["live"]) == (1600, 0)


def test_a_forked_child_counts_from_zero_what_it_makes_itself(noticed):
    import fastembed

    model = fastembed.TextEmbedding()
    noticed.forked()
    assert seen(noticed, "fastembed.TextEmbedding") == {
        "class": "fastembed.TextEmbedding", "made": 0, "live": 1, "bytes": 0,
    }  # fmt: skip
    del model


def test_the_noticing_imports_nothing_heavy():
    code = (
        "import sys; from oomguard import hook; before = set(sys.modules)\n"
        "from oomguard.hook.models import constructions\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": str(ROOT / "exporter")},
        capture_output=True,
        text=True,
    )
    assert "oomguard.hook.models.constructions" in done.stdout.split()
    heavy = {
        "weakref",
        "typing",
        "pickle",
        "threading",
        "importlib.util",
        "oomguard.hook.models.model",
    }
    assert heavy & set(done.stdout.split()) == set()


def test_every_known_class_is_looked_for_in_the_package_that_offers_it():
    assert {module.partition(".")[0] for module in constructions._KNOWN} == {
        "sentence_transformers", "fastembed", "transformers", "onnxruntime", "llama_cpp",
    }  # fmt: skip
