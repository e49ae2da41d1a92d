"""A batch in one launch: image engine, passes, tokeniser, text engine, refinements recorded as one graph on a fake GPU.

Engines are run by ONNX Runtime, kernels by their references, so words are to be exactly those that the same parts give
when the driver asks for one after the other; that those are right is test_trt_fused.py's concern.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from device_arrays import DeviceArray, Interface
from fake_decoders import add_kernels, install, packed_decoders
from fake_gpu import FakeCuda, FakeGpu

from clip4str.core.drafts import collapse
from clip4str.core.errors import BackendError
from clip4str.core.reading import Decoding
from clip4str.export.bundles import build_bundle
from clip4str.model import load_checkpoint, save_checkpoint
from clip4str.model.draft import DraftHead
from clip4str.runtime.backends import fixed_passes
from clip4str.runtime.backends.fixed_passes import Passes
from clip4str.runtime.backends.ort import OrtBackend
from clip4str.runtime.backends.trt import program
from clip4str.runtime.backends.trt.stage_by_stage import VARIABLE
from clip4str.runtime.bundle import Bundle
from clip4str.training.draft import with_head

MODES = [
    Decoding(),
    Decoding(refine=0),
    Decoding("nar"),
    Decoding("nar", refine=0),
    Decoding(branch="visual"),
    Decoding(branch="visual", refine=0),
    Decoding("nar", branch="visual"),
    Decoding("nar", refine=0, branch="visual"),
]
PARTS = ((0, 1), (1, 3), (4, 8), (12, 8), (20, 3), (23, 1), (24, 9), (33, 7))  # first image and number of batches
FRAMES = 8  # of a draft head, a column


@pytest.fixture(scope="module")
def arrays(golden_checkpoint):
    return packed_decoders(golden_checkpoint("tiny"))


@pytest.fixture(scope="module")
def drafting(golden_checkpoint, few_crops, tmp_path_factory):
    """The golden tiny network in half precision with a draft head of random weights."""
    model, folder = load_checkpoint(golden_checkpoint("tiny")), tmp_path_factory.mktemp("drafting")
    torch.manual_seed(0)
    save_checkpoint(with_head(model, DraftHead(replace(model.config, draft_frames=FRAMES))), folder / "net.safetensors")
    how = {"precision": "fp16", "min_agreement": 0, "sample_folder": few_crops}
    return build_bundle(folder / "net.safetensors", folder / "bundle", **how)


@pytest.fixture
def kernels(monkeypatch):
    """kernels(gpu, without=...) puts the stand-in in the loader's place."""
    return lambda gpu, **how: install(monkeypatch, gpu, **how)


@pytest.fixture
def made(rig, engine_bundle, half_tiny_bundle, arrays, kernels):
    """made(gpu=..., source=..., profile=..., library={...}) -> (rig, bundle's folder)"""

    def make(gpu=None, source=None, library=None, name="bundle", **how):
        r = rig(gpu)
        kernels(r.gpu, **(library or {}))
        return r, add_kernels(engine_bundle(source or half_tiny_bundle, name, **how), arrays)

    return make


def read_stage_by_stage(monkeypatch, r, folder, parts, decoding=None, **options):
    """Readings of these batches."""
    with monkeypatch.context() as patch:
        patch.setenv(VARIABLE, "0")
        backend, driver = r.open(folder, decoding, **options)
        assert backend.compiled_kernels and not backend.one_launch
        try:
            return [backend.read(driver, part) for part in parts]
        finally:
            backend.close()


def assert_same(reading, want):
    """Another batch size rounds a few matrix products otherwise."""
    assert np.array_equal(reading.ids, want.ids)
    assert np.array_equal(reading.steps_run, want.steps_run)
    np.testing.assert_allclose(reading.probs, want.probs, rtol=2e-2, atol=1e-3)


def runs(backend):
    """What was sent so far: (kind, rows, were keys and values copied together?)"""
    return set(backend._session.pipeline.program._runs)


@pytest.mark.parametrize("integrated", [False, True], ids=["discrete", "integrated"])
@pytest.mark.parametrize("passes", [None, Passes(2, 1)], ids=["usual", "few"])
@pytest.mark.parametrize("how", MODES, ids=str)
def test_words_are_the_drivers(made, images, monkeypatch, how, passes, integrated):
    r, folder = made(FakeGpu(integrated=integrated))
    parts = [images[start : start + n] for start, n in PARTS]
    want = read_stage_by_stage(monkeypatch, r, folder, parts, how)
    if passes:
        monkeypatch.setattr(fixed_passes, "FIRST", passes)
    backend, driver = r.open(folder, how, cache=7)
    assert backend.one_launch
    kinds = set()
    for part, wanted in zip(parts, want):
        assert_same(backend.read(driver, part), wanted)
        kinds |= {kind for kind, _, _ in runs(backend)}
    assert backend.one_launch and not len(driver.cache), "the driver was not asked"
    resumed = how.decode == "ar"
    reread = how.refine and how.branch == "cross"
    assert kinds == {"read", *(["resume"] if resumed else []), *(["reread"] if reread else [])}
    backend.close()
    r.check_empty()


@pytest.mark.parametrize("how", [Decoding(), Decoding("nar"), Decoding(branch="visual")], ids=str)
def test_a_read_is_one_launch_and_one_wait(made, images, monkeypatch, how):
    monkeypatch.setattr(fixed_passes, "FIRST", Passes(26, 26))  # everything settles
    r, folder = made()
    backend, driver = r.open(folder, how)
    for n in (1, 3, 8):
        backend.read(driver, images[:n])
    enqueued = len(r.trt.enqueued)
    for n in (1, 3, 8, 2):
        before = len(r.gpu.trace)
        backend.read(driver, images[:n])
        names = [name for _, name, _ in r.gpu.trace[before:] if name != "current"]
        if n != 2:
            reread = ["launch", "synchronise"] if how.branch == "cross" else []
            assert names in (["launch", "synchronise"], ["launch", "synchronise", *reread])
    assert len(r.trt.enqueued) > enqueued, "of two images, which were new"
    backend.close()
    r.check_empty()


@pytest.mark.parametrize("worth", [4, 2, 1])
def test_rows_read_further_are_copied_together_where_they_are_few(made, images, monkeypatch, worth):
    monkeypatch.setattr(fixed_passes, "FIRST", Passes(2, 1))
    monkeypatch.setattr(program, "WORTH", worth)  # copied into a batch so many times smaller; 1: always
    r, folder = made(profile={"min": 1, "opt": 8, "max": 32})
    parts = [images[:32], images[32:49], images[49:58], images[58:]]
    want = read_stage_by_stage(monkeypatch, r, folder, parts)
    backend, driver = r.open(folder)
    for part, wanted in zip(parts, want):
        assert_same(backend.read(driver, part), wanted)
    further = {key for key in runs(backend) if key[0] != "read"}
    assert all(rows * worth <= 32 for _, rows, together in further if together)
    kinds = {(kind, together) for kind, _, together in further}
    assert ("resume", True) in kinds and (("reread", True) in kinds or worth == 4)
    assert (("resume", False) in kinds) == (("reread", False) in kinds) == (worth > 1)
    backend.close()
    r.check_empty()


@pytest.mark.parametrize("integrated", [False, True], ids=["discrete", "integrated"])
@pytest.mark.parametrize(
    "how", [Decoding(), Decoding(branch="visual"), Decoding(draft=False), Decoding("nar")], ids=str
)
def test_drafts_are_collapsed_in_the_same_launch(made, drafting, images, monkeypatch, how, integrated):
    parts = [images[:8], images[8:11], images[11:19], images[19:20]]
    plain, plain_folder = made(name="plain")
    want = read_stage_by_stage(monkeypatch, plain, plain_folder, parts, how)
    plain.check_empty()
    r, folder = made(FakeGpu(integrated=integrated), drafting)
    backend, driver = r.open(folder, how)
    assert backend.one_launch
    drafts = how.draft and how.decode == "ar"
    for part, wanted in zip(parts, want):
        reading = backend.read(driver, part)
        assert_same(reading, wanted)
        assert reading.stats.drafted == (len(part) if drafts else 0)
    started = [detail for _, name, detail in r.gpu.trace if name == "decode_pass" and detail[0] == "start"]
    assert bool(r.gpu.calls["collapse"]) == drafts
    # one pass of each branch from the start token is the library's trial, the others are the program's
    assert (len(started) > 2) == (not drafts)
    backend.close()
    r.check_empty()


def test_the_first_guess_is_the_draft(made, drafting, images, monkeypatch):
    r, folder = made(source=drafting)
    backend, driver = r.open(folder)
    program_ = backend._session.pipeline.program
    nobody = lambda results: np.zeros(len(results), bool)  # noqa: E731
    monkeypatch.setattr(program_, "open_rows", nobody)
    monkeypatch.setattr(program_, "changed_rows", nobody)
    for _ in range(2):
        backend.read(driver, images[:8])
    guess = r.gpu.view(program_._given.at("word", 8), 8 * 26 * 4).view(np.int32).reshape(8, 26)
    frames = OrtBackend(Bundle.open(folder), threads=1).image(images[:8])[2]
    assert np.array_equal(guess, collapse(frames, 26, 94)) and guess.any()
    backend.close()
    r.check_empty()


def test_pixels_on_the_gpu(made, images, monkeypatch):
    r, folder = made()
    sizes = 3, 8, 11, 3
    want = read_stage_by_stage(monkeypatch, r, folder, [images[:n] for n in sizes])
    backend, driver = r.open(folder)
    cuda = FakeCuda(r.gpu)
    for layout in ({}, {"offset": 16}, {"pad": 64}):
        for n, wanted in zip(sizes, want):
            array = DeviceArray(r.gpu, cuda, images[:n], **layout)
            before = len(r.gpu.trace)
            assert_same(backend.read(driver, backend.accept(Interface(array))), wanted)
            assert images[0].nbytes not in [detail for _, name, detail in r.gpu.trace[before:] if name == "copy_in"]
            array.free()
        assert_same(backend.read(driver, images[:3]), want[0])
    backend.close()
    cuda.close()
    r.check_empty()


def test_words_of_a_frame(made, monkeypatch):
    r, folder = made()
    frame = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    quads = np.array([[[i, 3], [60 + i, 5], [60 + i, 40], [i, 38]] for i in range(11)], np.float32)
    backend, driver = r.open(folder)
    on_host = super(type(backend), backend).cut_out(backend.crop(frame, quads))
    (want,) = read_stage_by_stage(monkeypatch, r, folder, [on_host])
    before = r.gpu.calls["crop_resize"]
    assert_same(backend.read(driver, backend.crop(frame, quads)), want)
    assert r.gpu.calls["crop_resize"] == before + 2 and backend.one_launch
    assert_same(backend.read(driver, on_host), want)
    backend.close()
    r.check_empty()


def test_what_image_gave_before_is_not_there_any_more(made, images):
    r, folder = made()
    backend, driver = r.open(folder)
    held = backend.image(images[:2])
    backend.read(driver, images[:2])
    with pytest.raises(BackendError, match="earlier batch"):
        held[0].numpy()
    backend.close()
    r.check_empty()


def test_stages_and_the_one_launch_take_turns(made, images, monkeypatch):
    """A caller's own driver over the stages, between reads in one launch, over the same buffers and contexts."""
    r, folder = made()
    parts = [images[:n] for n in (3, 8, 1, 3)]
    want = read_stage_by_stage(monkeypatch, r, folder, parts)
    backend, driver = r.open(folder, cache=5)
    for part, wanted in zip(parts, want):
        assert_same(backend.read(driver, part), wanted)
        assert_same(driver(backend, part), wanted)
    backend.close()
    driver.cache.clear()
    r.check_empty()


@pytest.mark.parametrize("how", [Decoding(), Decoding("nar", refine=0), Decoding(branch="visual")], ids=str)
def test_after_warm_up_nothing_is_captured_any_more(made, images, monkeypatch, how):
    monkeypatch.setattr(fixed_passes, "FIRST", Passes(2, 1))  # so that words are resumed
    r, folder = made()
    parts = [images[:8], images[8:11], images[11:12], images[12:16]]
    want = read_stage_by_stage(monkeypatch, r, folder, parts, how)
    backend, driver = r.open(folder, how)
    held = backend.image(images[:2])
    backend.warm_up(driver, [8, 4, 1])
    with pytest.raises(BackendError, match="earlier batch"):
        held[0].numpy()
    captured = r.gpu.calls["begin_capture"]
    cuda = FakeCuda(r.gpu)
    for part, wanted in zip(parts, want):
        assert_same(backend.read(driver, part), wanted)
        array = DeviceArray(r.gpu, cuda, part)
        assert_same(backend.read(driver, backend.accept(Interface(array))), wanted)
        array.free()
    assert r.gpu.calls["begin_capture"] == captured and backend.one_launch
    backend.close()
    cuda.close()
    r.check_empty()
