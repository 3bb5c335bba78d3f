"""One sentence on where memory is and what would help."""

from dataclasses import replace

from tests.unit.test_export import MIB, SNAPSHOT, hook

from oomguard.export.advice import advice
from oomguard.hookmodel import (
    AllocatorStats,
    AppStats,
    ConstructionStats,
    ModelState,
    ModelStats,
    StreamStats,
)
from oomguard.model import Reading, Status

GIB = 1 << 30
JINA = ModelStats("jina-v3", ModelState.LOADED, 3200 * MIB, 9.0, 720.0, 8, 0, 1, 0, 0, 0, 0, isolated=False)


def said(*hooks):
    return advice(replace(SNAPSHOT, hooks=Reading(Status.OK, hooks)))


def bare(allocator=None, **app):
    stats = Reading(Status.ABSENT) if allocator is None else Reading(Status.OK, allocator)
    return replace(hook(), allocator=stats, caches=(), app=AppStats(**app))


def test_it_names_caches_and_what_malloc_keeps_the_larger_first():
    assert (
        advice(SNAPSHOT)
        == "50.0 MiB in registered caches: caches returns it; 25.0 MiB free inside malloc: trim returns it"
    )


def test_without_hooks_nothing_is_said():
    assert advice(replace(SNAPSHOT, hooks=Reading(Status.ABSENT))) == ""
    assert said(bare()) == ""


def test_an_idle_model_is_named_with_what_it_holds():
    assert said(bare(models=(JINA,))) == "model jina-v3 idle for 12 min holds 3.12 GiB"
    assert said(bare(models=(JINA,)), bare(models=(replace(JINA, idle=7300.0),))).startswith(
        "model jina-v3 idle for 12 min holds 6.25 GiB"
    )


def test_a_model_in_use_or_unloaded_is_not():
    busy, gone = replace(JINA, in_use=1), replace(JINA, state=ModelState.UNLOADED, bytes=None)
    assert said(bare(models=(busy, gone, replace(JINA, idle=5.0)))) == ""


def test_a_model_for_each_request_comes_first():
    made = ConstructionStats("sentence_transformers.SentenceTransformer", 41, 3, 900 * MIB)
    assert said(bare(models=(JINA,), constructions=(made,))).startswith(
        "sentence_transformers.SentenceTransformer was made 41 times, 3 live: load it once (model_per_request); "
    )


def test_a_few_models_of_one_class_are_usual():
    made = ConstructionStats("onnxruntime.InferenceSession", 4, 4, 900 * MIB)
    assert said(*(bare(constructions=(made,)) for _ in range(8))) == ""


def test_many_arenas_that_hold_free_memory_are_named():
    strewn = AllocatorStats("glibc", 900 * MIB, 300 * MIB, 0, 0, arenas=48)
    assert said(bare(strewn)) == "300.0 MiB are free in up to 48 arenas: set MALLOC_ARENA_MAX=2"
    assert said(bare(replace(strewn, arenas=2))) == ""
    assert said(bare(replace(strewn, arenas=None))) == ""


def test_old_streams_are_counted():
    streams = StreamStats(12, None, 12, {}, 0, 3 * 3600.0, None)
    assert said(bare(streams=streams)) == "12 streams open, oldest 3 h"
    assert said(bare(streams=replace(streams, oldest_age=60.0))) == ""


def test_what_matters_most_is_said_and_no_more():
    models = tuple(replace(JINA, name=f"m{size}", bytes=size * GIB) for size in (2, 5, 1, 4))
    assert [part.split()[1] for part in said(bare(models=models)).split("; ")] == ["m5", "m4", "m2"]
