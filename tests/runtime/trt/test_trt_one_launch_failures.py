"""When a batch cannot be read in one launch, or a call fails while it is: stage by stage then, said once; one line of
ours; nothing lost, and the next read is right."""

from __future__ import annotations

import traceback
import warnings
from collections import defaultdict

import numpy as np
import pytest
from fake_decoders import add_kernels, install, packed_decoders
from fake_gpu import FakeCuda
from trt_rig import driver_of, forgive, life

from clip4str.core.caption_tables import caption_tables
from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import BackendError, NonFiniteError, ShapeError, UsageError
from clip4str.core.reading import Decoding
from clip4str.core.text import Charset
from clip4str.runtime.backends import fixed_passes
from clip4str.runtime.backends.fixed_passes import Passes
from clip4str.runtime.backends.trt import one_launch
from clip4str.runtime.backends.trt.one_launch import OTHERWISE
from clip4str.runtime.backends.trt.stage_by_stage import VARIABLE
from clip4str.runtime.bundle import Bundle
from clip4str.runtime.cuda import CudaContextLost

SENT = ("copy_in", "copy_out", "copy", "enqueue", "decode_pass", "tokenize")
GIVES_BACK = ("free", "free_host", "destroy_stream", "destroy_graph", "current")
N = 3


@pytest.fixture(scope="module")
def arrays(golden_checkpoint):
    return packed_decoders(golden_checkpoint("tiny"))


@pytest.fixture
def made(rig, engine_bundle, half_tiny_bundle, arrays, monkeypatch):
    """made(profile=..., library={...}) -> (rig, bundle's folder)"""

    def make(library=None, arrays=arrays, name="bundle", **how):
        r = rig()
        install(monkeypatch, r.gpu, **(library or {}))
        return r, add_kernels(engine_bundle(half_tiny_bundle, name, **how), arrays)

    return make


@pytest.fixture
def want(made, images, monkeypatch):
    """What is read stage by stage."""
    with monkeypatch.context() as patch:
        patch.setenv(VARIABLE, "0")
        r, folder = made(name="elsewhere")
        backend, driver = r.open(folder)
        found = backend.read(driver, images[:12]).ids
        backend.close()
        r.check_empty()
    return found


@pytest.fixture
def same_tables(monkeypatch):
    """The tokeniser's are made once, not at every load."""
    kept = {}

    def tables(tokenizer, charset):
        key = tokenizer, charset.characters, charset.test
        if key not in kept:
            kept[key] = caption_tables(tokenizer, charset)
        return kept[key]

    monkeypatch.setattr(one_launch, "caption_tables", tables)


def places_of(gpu, monkeypatch, run):
    """Where the runtime's code makes the calls of run(): {(call, lines of the stack): numbers of its kind}"""
    places, called, before = defaultdict(list), gpu.called, dict(gpu.calls)

    def noted(name, detail=None):
        stack = (frame for frame, _ in traceback.walk_stack(None))
        lines = tuple((f.f_code, f.f_lineno) for f in stack if f.f_globals["__name__"].startswith("clip4str.runtime."))
        places[name, lines].append(gpu.calls[name] + 1 - before.get(name, 0))
        return called(name, detail)

    with monkeypatch.context() as patch:
        patch.setattr(gpu, "called", noted)
        run()
    return places


@pytest.mark.parametrize("which", ["each place", pytest.param("all", marks=pytest.mark.slow)])
@pytest.mark.parametrize("error, least", [("CUDA_ERROR_OUT_OF_MEMORY", 3), ("CUDA_ERROR_INVALID_VALUE", 50)])
def test_every_call_may_fail(made, images, want, quick_collections, same_tables, monkeypatch, error, least, which):
    """which: the first call of each kind from each place in the code, or all of them. least: errors that are reported
    at all; the others only cost a graph, or a smaller batch."""
    monkeypatch.setattr(fixed_passes, "FIRST", Passes(2, 1))  # so that words are resumed
    r, folder = made(profile={"min": 1, "opt": 2, "max": 2})
    bundle = Bundle.open(folder)
    places = places_of(r.gpu, monkeypatch, lambda: life(r, bundle, images[:N]))
    r.check_empty()
    counts, failed = dict(r.gpu.calls), 0
    assert {call for call, _ in places} == counts.keys() and sum(map(len, places.values())) == sum(counts.values())
    assert all(counts[call] for call in (*SENT, *GIVES_BACK, "begin_capture", "end_capture", "launch", "synchronise"))
    for (call, _), numbers in places.items():
        for number in numbers if which == "all" else numbers[:1]:
            r.gpu.fail(call, number, error)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                ids, raised = life(r, bundle, images[:N])
            assert not r.gpu.faults, "the call was made, and failed"
            assert ids is None or np.array_equal(ids, want[:N]), (call, number)
            forgive(r, call) if call in GIVES_BACK else r.check_empty()
            failed += raised is not None
    assert failed > least


@pytest.mark.parametrize("call", ["begin_capture", "end_capture", "enqueue", "decode_pass", "tokenize", "copy"])
def test_what_cannot_be_captured_is_read_stage_by_stage(made, images, want, call):
    r, folder = made()
    backend, driver = r.open(folder)
    calls = dict(r.gpu.calls)
    backend.read(driver, images[:N])
    sent = r.gpu.calls[call] - calls.get(call, 0)
    backend.close()
    backend, driver = r.open(folder)
    first = 1 if call.endswith("capture") else {"enqueue": 3, "decode_pass": 8, "tokenize": 3, "copy": 2}[call]
    assert sent >= first
    for number in (first, first + 1):  # it is tried twice
        r.gpu.fail(call, number, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
    with pytest.warns(RuntimeWarning, match=OTHERWISE) as warned:
        for n in (N, 1, 8, N, 12):
            launched = r.gpu.calls["launch"]
            assert np.array_equal(backend.read(driver, images[:n]).ids, want[:n]), n
    assert len(warned) == 1 and not r.gpu.capturing and not backend.one_launch
    assert not r.gpu.faults, "it was in the capture that it failed"
    assert r.gpu.calls["launch"] - launched > 4, "the stages are replayed, each by itself"
    backend.close()
    r.check_empty()


@pytest.mark.parametrize(
    "library, words",
    [
        ({"without": {"tokenize": ShapeError("no kernel for C=95")}}, "no kernel for C=95"),
        ({"without": {"tokenize": BackendError("CUDA error")}}, "CUDA error"),
        ({"spoil": ("tokenize", lambda tokens: tokens + 1)}, "the compiled tokeniser and the host's differ"),
    ],
)
def test_a_tokeniser_that_does_not_serve(made, images, want, library, words):
    r, folder = made(library)
    with pytest.warns(RuntimeWarning, match=f"{OTHERWISE}: {words}") as warned:
        backend, driver = r.open(folder)
        assert np.array_equal(backend.read(driver, images[:N]).ids, want[:N])
    assert len(warned) == 1 and backend.compiled_kernels and not backend.one_launch
    backend.close()
    backend, driver = r.open(folder, Decoding(branch="visual"))  # which tokenises nothing
    assert backend.one_launch
    backend.close()
    r.check_empty()


def test_captions_of_other_characters_are_the_hosts(made, images):
    r, folder = made()
    bundle = Bundle.open(folder)
    m = bundle.manifest
    usual = driver_of(bundle)
    driver = PredictAndRefine(Charset(m.charset, m.charset + "-'"), usual.tokenizer, m.config["steps"])
    with pytest.warns(RuntimeWarning, match=f"{OTHERWISE}: the test charset makes"):
        from clip4str.runtime.backends import Options
        from clip4str.runtime.backends.trt import open_backend

        backend = open_backend(bundle, driver, Options())
    assert not backend.one_launch
    backend.read(driver, images[:N])
    backend.close()
    driver.cache.clear()
    r.check_empty()


def test_who_asks_for_something_else_gets_it(made, images, want, monkeypatch, recwarn):
    r, folder = made()
    launches = []

    def reads(how=None, n=N, **options):
        backend, driver = r.open(folder, how, **options)
        launches.append(backend.one_launch)
        ids = backend.read(driver, images[:n]).ids
        backend.close()
        driver.cache.clear()
        return ids

    assert np.array_equal(reads(), want[:N]) and launches == [True]
    assert np.array_equal(reads(graphs=False), want[:N])
    reads(Decoding(refine=2))
    monkeypatch.setattr(FakeCuda, "captures", False)  # pycuda's
    assert np.array_equal(reads(), want[:N])
    monkeypatch.undo()
    assert launches == [True, False, False, False] and not recwarn.list


def test_the_switch(made, monkeypatch):
    r, folder = made()
    for value, on in (("0", False), ("1", True), ("", True)):
        monkeypatch.setenv(VARIABLE, value)
        backend, _ = r.open(folder)
        assert backend.one_launch == on
        backend.close()
    monkeypatch.setenv(VARIABLE, "off")
    with pytest.raises(UsageError, match=f"{VARIABLE} is 0 .stage by stage. or 1, not 'off'"):
        r.open(folder)
    r.check_empty()


def test_logits_other_drivers_and_who_watches_stages(made, images, want):
    r, folder = made()
    backend, driver = r.open(folder)
    backend.with_logits = True
    assert backend.read(driver, images[:N]).logits.shape == (N, 26, 95)
    backend.with_logits = False
    seen = []

    class Watching:
        flexible_steps, image, text, stack = False, backend.image, backend.text, backend.stack

        def visual(self, *call):
            seen.append("visual")
            return backend.visual(*call)

        def cross(self, *call):
            seen.append("cross")
            return backend.cross(*call)

    assert np.array_equal(backend.read(driver, images[:N], Watching()).ids, want[:N])
    assert {"visual", "cross"} <= set(seen)
    other = driver_of(Bundle.open(folder), Decoding(refine=0))
    assert backend.read(other, images[:N]).stats.refine_passes == 0
    m = Bundle.open(folder).manifest
    other = PredictAndRefine(Charset(m.charset, "abc"), driver.tokenizer, 26)
    captions = backend.read(other, images[:N]).stats
    assert captions.text_calls <= 2, "its own captions, encoded for it"
    assert not any(kind for kind in backend._session.pipeline.program._runs), "none of these in one launch"
    assert np.array_equal(backend.read(driver, images[:N]).ids, want[:N])
    assert backend._session.pipeline.program._runs
    other.cache.clear()
    backend.close()
    r.check_empty()


@pytest.mark.parametrize("branch, words", [("visual", "the visual decoder"), ("cross", "the cross-modal decoder")])
def test_numbers_that_are_none_are_an_error(made, images, arrays, branch, words):
    broken = dict(arrays)
    broken[f"{branch}.head_bias"] = np.full_like(arrays[f"{branch}.head_bias"], np.nan)
    r, folder = made(arrays=broken)
    backend, driver = r.open(folder)
    for _ in range(2):
        with pytest.raises(NonFiniteError, match=words):
            backend.read(driver, images[:N])
    assert backend.one_launch
    backend.close()
    r.check_empty()


def test_words_that_never_settle_are_an_error(made, images, monkeypatch):
    r, folder = made()
    backend, driver = r.open(folder)
    program = backend._session.pipeline.program
    monkeypatch.setattr(program, "open_rows", lambda results: np.ones(len(results), bool))
    monkeypatch.setattr(fixed_passes, "MOST_RESUMED", 1)
    with pytest.raises(BackendError, match="1 words change with every pass"):
        backend.read(driver, images[:1])
    backend.close()
    r.check_empty()


def test_memory_that_runs_out_while_reading(made, images, want):
    r, folder = made()
    backend, driver = r.open(folder)
    r.gpu.fail("context", 1)  # of a smaller batch, which is made when it is first needed
    with pytest.warns(RuntimeWarning, match="with 3 images: reading 2 at a time"):
        assert np.array_equal(backend.read(driver, images[:N]).ids, want[:N])
    assert backend.largest == 2 and backend.one_launch
    r.gpu.fail("launch", 1)
    with pytest.warns(RuntimeWarning, match="with 2 images: reading 1 at a time"):
        assert np.array_equal(backend.read(driver, images[:N]).ids, want[:N])
    r.gpu.fail("launch", 1)
    with pytest.raises(BackendError, match="out of memory on Orin with a single image"):
        backend.read(driver, images[:1])
    assert np.array_equal(backend.read(driver, images[:N]).ids, want[:N])
    backend.close()
    r.check_empty()


def test_a_lost_context_is_said_so_and_stays_so(made, images):
    r, folder = made()
    backend, driver = r.open(folder)
    backend.read(driver, images[:N])
    r.gpu.fail("launch", 1, "CUDA_ERROR_ILLEGAL_ADDRESS")
    for _ in range(2):
        with pytest.raises(CudaContextLost, match="context is lost, restart it"):
            backend.read(driver, images[:N])
    backend.close()
    assert r.gpu.retained == 0
