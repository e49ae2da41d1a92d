"""The TensorRT backend on a fake GPU that executes: words, order of calls, memory."""

from __future__ import annotations

import gc
import threading
from collections import Counter

import numpy as np
import pytest
from fake_gpu import FakeGpu
from trt_rig import driver_of

from clip4str.core.errors import BackendError
from clip4str.core.masks import Rule
from clip4str.core.reading import Decoding
from clip4str.export.parity import compare
from clip4str.runtime.backends.ort import OrtBackend
from clip4str.runtime.bundle import Bundle

WAYS = [Decoding(d, r, b) for d in ("ar", "nar") for r in (0, 1, 2) for b in ("cross", "visual")]


@pytest.fixture(scope="module")
def expected(tiny_bundle, images):
    """expected(decoding) -> what ONNX Runtime reads in all the images"""
    bundle, known = Bundle.open(tiny_bundle), {}
    stages = OrtBackend(bundle, threads=1)

    def read(decoding):
        if decoding not in known:
            known[decoding] = driver_of(bundle, decoding)(stages, images)
        return known[decoding]

    return read


def assert_same(reading, want, rows):
    assert np.array_equal(reading.ids, want.ids[rows])
    np.testing.assert_allclose(reading.probs, want.probs[rows], rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("integrated", [False, True], ids=["discrete", "integrated"])
def test_every_batch_reads_as_onnxruntime_does(rig, engine_bundle, images, expected, integrated):
    r, how = rig(FakeGpu(integrated=integrated)), Decoding()
    backend, driver = r.open(engine_bundle(), how, cache=40)
    for n in (*range(1, 18), 24, 41, 70):  # the profile ends at 8
        reading = backend.read(driver, images[:n])
        assert_same(reading, expected(how), slice(n))
    assert reading.stats.images == 70 and reading.stats.batches == 9
    backend.close()
    r.check_empty()


@pytest.mark.parametrize("how", WAYS, ids=lambda d: f"{d.decode}-{d.refine}-{d.branch}")
def test_every_way_to_decode(rig, engine_bundle, images, expected, how):
    r = rig()
    backend, driver = r.open(engine_bundle(), how, cache=3)
    for start, n in ((0, 1), (1, 3), (4, 8), (12, 7), (2, 2), (30, 9)):
        reading = backend.read(driver, images[start : start + n])
        assert_same(reading, expected(how), slice(start, start + n))
    assert reading.stats.batches == 2, "nine images in batches of up to eight"
    if how.branch == "visual":
        assert {stage for stage, _ in r.trt.enqueued} == {"image", "visual"}
        kv = np.zeros((1, 2, 8, 17, 8), np.float32)
        for call in (lambda: backend.cross(np.zeros((1, 26), np.int32), Rule("causal", np.full(1, 25), 26), kv, kv),
                     lambda: backend.text(np.zeros((1, 16), np.int32))):  # fmt: skip
            with pytest.raises(BackendError, match="visual branch alone"):
                call()
    backend.close()
    r.check_empty()


def test_half_precision_keys_and_values(rig, engine_bundle, half_tiny_bundle, images):
    folder, r = engine_bundle(half_tiny_bundle), rig()
    stages = OrtBackend(Bundle.open(half_tiny_bundle), threads=1)
    backend, driver = r.open(folder)
    want = driver(stages, images[:12])
    got = backend.read(driver, images[:12])
    assert (got.ids == want.ids).all(axis=1).sum() >= 11, "another batch may round a word of random weights otherwise"
    kv, _ = backend.image(images[:2])
    assert kv.numpy().dtype == np.float16 and kv.numpy().shape == stages.image(images[:2])[0].shape
    backend.close()
    r.check_empty()


def test_graphs_are_captured_once_for_a_bucket_and_replayed(rig, engine_bundle, images):
    r = rig()
    backend, driver = r.open(engine_bundle())
    backend.read(driver, images[:3])
    assert {rows for stage, rows in r.trt.enqueued if stage != "text"} == {4}, "three images are padded to four"
    for n in (3, 4, 1, 2, 3, 8, 8, 5, 1):
        backend.read(driver, images[:n])
    made = Counter(r.trt.enqueued)
    assert set(made.values()) == {2}, "each stage and bucket: once as it is, once while recording, then replayed"
    assert {rows for _, rows in made} == {1, 2, 4, 8} and len(made) == 16
    assert r.gpu.calls["begin_capture"] == r.gpu.calls["end_capture"] == r.gpu.calls["context"] == len(made)
    launched = [graph for _, name, graph in r.gpu.trace if name == "launch"]
    assert set(launched) <= set(r.gpu.graphs) and len(launched) > 3 * len(made)
    backend.close()
    r.check_empty()


def test_after_warm_up_nothing_is_captured_any_more(rig, engine_bundle, images, expected):
    r = rig()
    backend, driver = r.open(engine_bundle())
    backend.warm_up(driver, [4, 1])
    captured, contexts = r.gpu.calls["begin_capture"], r.gpu.calls["context"]
    for n in (3, 4, 1):
        assert_same(backend.read(driver, images[:n]), expected(Decoding()), slice(n))
    assert (r.gpu.calls["begin_capture"], r.gpu.calls["context"]) == (captured, contexts)
    assert {rows for stage, rows in r.trt.enqueued if stage == "text"} == {1, 2, 4}, "captions are often the fewer"
    backend.read(driver, images[:8])
    assert r.gpu.calls["begin_capture"] > captured
    backend.close()
    r.check_empty()


def test_without_graphs(rig, engine_bundle, images, expected):
    r = rig()
    backend, driver = r.open(engine_bundle(), graphs=False)
    for n in (1, 5, 5):
        assert_same(backend.read(driver, images[:n]), expected(Decoding()), slice(n))
    assert r.gpu.calls["begin_capture"] == r.gpu.calls["launch"] == 0
    backend.close()
    r.check_empty()


def test_memory_is_taken_once(rig, engine_bundle, images, tiny_bundle):
    """What is allocated, in bytes, from the manifest alone: float32 keys and values of 8 images, slots, scratch."""
    r = rig()
    backend, driver = r.open(engine_bundle(), cache=5)
    at_load, sizes = Counter(r.gpu.calls), list(r.gpu.sizes)
    kv, text = 2 * 8 * 17 * 8 * 4, 2 * 8 * 16 * 8 * 4
    device = {
        "pixels": 8 * 3 * 64 * 64 * 4, "visual_kv": 8 * kv, "cross_kv": 8 * kv, "tokens": 8 * 26 * 4,
        "attend": 8 * 26 * 26, "ids": 8 * 26 * 4, "probs": 8 * 26 * 4, "logits": 8 * 26 * 95 * 4, "bpe": 8 * 16 * 4,
        "text": 8 * text, "cross.text": 8 * text, "scratch": 512 * 8 + 100, "slots": (5 + 2 * 8) * text,
    }  # fmt: skip
    config = Bundle.open(tiny_bundle).manifest.config
    assert (config["d"], config["decoder_heads"], config["context"]) == (64, 8, 16)
    assert sorted(sizes) == sorted(device.values())
    assert at_load["allocate_host"] == 6, "pixels, tokens, attend, bpe, ids, probs"
    for n in (8, 1, 3, 70, 5):
        backend.read(driver, images[:n])
    assert (r.gpu.calls["allocate"], r.gpu.calls["allocate_host"]) == (at_load["allocate"], at_load["allocate_host"])
    backend.close()
    r.check_empty()


def test_an_integrated_gpu_copies_nothing_to_and_from_the_host(rig, engine_bundle, images, expected):
    r = rig(FakeGpu(integrated=True))
    backend, driver = r.open(engine_bundle())
    for n in (3, 3, 8):
        assert_same(backend.read(driver, images[:n]), expected(Decoding()), slice(n))
    assert r.gpu.calls["copy_in"] == r.gpu.calls["copy_out"] == 0
    assert r.gpu.calls["mapped"] == 6
    backend.close()
    r.check_empty()


@pytest.mark.parametrize(("value", "copies"), [("1", True), ("0", False), ("", False)])
def test_an_integrated_gpu_that_copies_all_the_same(rig, engine_bundle, images, expected, monkeypatch, value, copies):
    monkeypatch.setenv("CLIP4STR_COPY_BUFFERS", value)
    r = rig(FakeGpu(integrated=True))
    backend, driver = r.open(engine_bundle())
    assert_same(backend.read(driver, images[:3]), expected(Decoding()), slice(3))
    assert bool(r.gpu.calls["copy_in"]) is bool(r.gpu.calls["copy_out"]) is copies
    assert bool(r.gpu.calls["mapped"]) is not copies
    backend.close()
    r.check_empty()


def test_what_is_copied_between_host_and_device(rig, engine_bundle, images):
    r = rig()
    backend, driver = r.open(engine_bundle())
    reading = backend.read(driver, images[:4])
    sizes = Counter(d for _, name, d in r.gpu.trace if name in ("copy_in", "copy_out"))
    # tokens, ids and probs have the same size; every pass at most twice (as it is, and recorded)
    assert set(sizes) <= {4 * 3 * 64 * 64 * 4, 4 * 26 * 4, 4 * 26 * 26, *(n * 16 * 4 for n in (1, 2, 4))}
    assert sizes[4 * 3 * 64 * 64 * 4] == 2 and reading.stats.images == 4
    backend.close()


def test_engines_with_a_least_batch_and_an_odd_largest(rig, engine_bundle, images, expected):
    r = rig()
    backend, driver = r.open(engine_bundle(profile={"min": 2, "opt": 4, "max": 6}), cache=4)
    for n in (1, 2, 3, 6, 13):
        assert_same(backend.read(driver, images[:n]), expected(Decoding()), slice(n))
    assert {rows for stage, rows in r.trt.enqueued if stage == "image"} <= {2, 4, 6}
    assert backend.batch_size == backend.largest == 6
    backend.close()
    smaller, driver = r.open(backend.folder, batch_size=3)
    assert smaller.batch_size == 3
    assert_same(smaller.read(driver, images[:5]), expected(Decoding()), slice(5))
    smaller.close()
    larger, driver = r.open(backend.folder, batch_size=100)
    assert larger.batch_size == 6
    larger.close()
    r.check_empty()


def test_engines_of_one_size(rig, engine_bundle, images, expected):
    r = rig()
    backend, driver = r.open(engine_bundle(profile={"min": 4, "opt": 4, "max": 4}))
    assert_same(backend.read(driver, images[:5]), expected(Decoding()), slice(5))
    assert {rows for _, rows in r.trt.enqueued} == {4}
    backend.close()
    r.check_empty()


def test_rtx(rig, engine_bundle, images, expected):
    r = rig(rtx=True, version="1.7.1.116")
    folder = engine_bundle(target="tensorrt-rtx", version="1.7.1.116")
    backend, driver = r.open(folder)
    for n in (3, 3, 8):
        assert_same(backend.read(driver, images[:n]), expected(Decoding()), slice(n))
    assert r.gpu.calls["begin_capture"] >= 7 and r.gpu.calls["launch"]
    backend.close()
    r.check_empty()


def test_cached_captions_are_not_encoded_again(rig, engine_bundle, images, expected):
    r = rig()
    backend, driver = r.open(engine_bundle(), cache=100)
    backend.read(driver, images[:8])
    before = sum(stage == "text" for stage, _ in r.trt.enqueued)
    launched = r.gpu.calls["launch"]
    reading = backend.read(driver, images[:8][::-1].copy())
    assert_same(reading, expected(Decoding()), slice(7, None, -1))
    assert reading.stats.text_calls == 0 and sum(stage == "text" for stage, _ in r.trt.enqueued) == before
    assert r.gpu.calls["launch"] > launched
    slots = backend._session.slots
    assert slots.free == slots.count - len(driver.cache), "only what the cache keeps is in use"
    backend.close()
    driver.cache.clear()
    r.check_empty()


def test_slots_come_back_and_grow(rig, engine_bundle, images, expected):
    r = rig()
    backend, driver = r.open(engine_bundle(), cache=2)
    slots = backend._session.slots
    assert slots.count == 2 + 2 * 8
    kept = [backend.text(driver.tokenizer([f"w{i}{j}" for j in range(8)])) for i in range(4)]
    assert slots.count > 2 + 2 * 8, "somebody keeps more than there was room for"
    values = [rows.numpy() for rows in kept]
    assert_same(backend.read(driver, images[:16]), expected(Decoding()), slice(16))
    assert all(np.array_equal(rows.numpy(), value) for rows, value in zip(kept, values)), "a row's memory is its own"
    del kept
    gc.collect()
    assert slots.free == slots.count - len(driver.cache)
    backend.close()
    r.check_empty()


def test_many_threads_and_several_instances(rig, engine_bundle, images, expected):
    r, folder, wrong = rig(), engine_bundle(), []
    opened = [r.open(folder, cache=cache) for cache in (0, 20)]

    def work(number):
        backend, driver = opened[number % 2]
        for turn in range(6):
            start, n = (number * 7 + turn * 5) % 50, 1 + (number + turn) % 11
            reading = backend.read(driver, images[start : start + n])
            try:
                assert_same(reading, expected(Decoding()), slice(start, start + n))
            except AssertionError as error:
                wrong.append((number, turn, error))

    expected(Decoding())
    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    streams = {backend._session.stream.handle for backend, _ in opened}
    assert len(streams) == 2 and 0 not in streams
    for backend, _ in opened:
        backend.close()
    r.check_empty()


def test_the_callers_context_is_current_again(rig, engine_bundle, images):
    r = rig()
    backend, driver = r.open(engine_bundle())
    backend.read(driver, images[:2])
    assert r.gpu.local.depth == 0
    with pytest.raises(BackendError, match="up to 8"):
        backend.image(images[:9])
    assert r.gpu.local.depth == 0
    backend.close()


def test_dropping_the_last_reference_gives_everything_back(rig, engine_bundle, images):
    r = rig()
    backend, driver = r.open(engine_bundle(), cache=9)
    backend.read(driver, images[:5])
    del backend
    r.check_empty()
    del driver


def test_closed_is_closed(rig, engine_bundle, images):
    r = rig()
    backend, driver = r.open(engine_bundle())
    backend.close()
    backend.close()
    r.check_empty()
    for call in (lambda: backend.read(driver, images[:1]), lambda: backend.accept(images[:1])):
        with pytest.raises(BackendError, match="was closed"):
            call()


def test_keys_and_values_of_another_batch_are_refused(rig, engine_bundle, images):
    r = rig()
    backend, _ = r.open(engine_bundle())
    other, _ = r.open(backend.folder)
    old, _ = backend.image(images[:2])
    of_other, _ = other.image(images[:2])
    backend.image(images[2:4])
    tokens, rule = np.full((2, 26), 95, np.int32), Rule("causal", np.full(2, 25), 26)
    with pytest.raises(BackendError, match="earlier batch"):
        backend.visual(tokens, rule, old)
    with pytest.raises(BackendError, match="earlier batch"):
        old.numpy()
    with pytest.raises(BackendError, match="another recogniser"):
        backend.visual(tokens, rule, of_other)
    backend.visual(tokens, rule, of_other.numpy())
    with pytest.raises(BackendError, match="visual_kv is of 3 images, the visual stage was given tokens of 2"):
        backend.visual(tokens, rule, backend.image(images[:3])[0])
    for bad in (tokens[:, :9], tokens.astype(np.int32)[:, :1]):
        with pytest.raises(BackendError, match="one length"):
            backend.visual(bad, rule, backend.image(images[:2])[0])
    backend.close(), other.close()
    r.check_empty()


def test_arrays_as_keys_and_values_leave_the_image_stages_own_alone(rig, engine_bundle, tiny_bundle, images):
    """What a build's parity check does: replay recorded calls, then read on with what image() gave."""
    r = rig()
    backend, driver = r.open(engine_bundle())
    backend.with_logits = True
    stages = OrtBackend(Bundle.open(tiny_bundle), threads=1)
    random = np.random.default_rng(1)
    tokens = random.integers(0, 96, (5, 26)).astype(np.int32)
    rule, fewer = (Rule("causal", np.full(n, 25), 26) for n in (5, 3))
    visual_kv, cross_kv = stages.image(images[:5])
    text_kv = stages.text(driver.tokenizer(["a", "bb", "ccc", "dd", "e"]))
    held = backend.image(images[5:8])
    for call in range(2):
        for stage, kv in (("visual", (visual_kv,)), ("cross", (cross_kv, text_kv))):
            want, got = (getattr(s, stage)(tokens, rule, *kv) for s in (stages, backend))
            np.testing.assert_allclose(got.logits, want.logits, atol=1e-3)
            assert got.ids.dtype == np.int32 and got.probs.dtype == np.float32
        mixed = backend.cross(tokens[:3], fewer, held[1], text_kv[:3])
        theirs = stages.cross(tokens[:3], fewer, stages.image(images[5:8])[1], text_kv[:3])
        np.testing.assert_allclose(mixed.logits, theirs.logits, atol=1e-3, err_msg=str(call))
    np.testing.assert_allclose(held[0].numpy(), stages.image(images[5:8])[0], atol=1e-3)
    with pytest.raises(BackendError, match="text_kv is"):
        backend.cross(tokens, rule, cross_kv, text_kv[:, :, :, :4])
    backend.close()
    r.check_empty()


def test_two_calls_in_a_row_do_not_overwrite_what_the_first_still_reads(rig, engine_bundle, tiny_bundle, images):
    r = rig()
    backend, driver = r.open(engine_bundle())
    stages = OrtBackend(Bundle.open(tiny_bundle), threads=1)
    for words in (["one", "two"], ["three", "four"], ["five", "six"]):  # no decoder pass, so nothing waits in between
        rows = [backend.text(driver.tokenizer([word])) for word in words]
        together = backend.stack([row[0] for row in rows]).numpy()
        np.testing.assert_allclose(together, stages.text(driver.tokenizer(words)), atol=1e-3)
    backend.image(images[:2])
    kv, _ = backend.image(images[2:4])
    np.testing.assert_allclose(kv.numpy(), stages.image(images[2:4])[0], atol=1e-3)
    backend.close()
    r.check_empty()


def test_captions_are_gathered_once_for_each_batch_of_them(rig, engine_bundle, tiny_bundle, images):
    """Also when two batches of captions take turns, and when buffers were made anew in between."""
    r = rig()
    backend, driver = r.open(engine_bundle())
    stages = OrtBackend(Bundle.open(tiny_bundle), threads=1)
    tokens = np.random.default_rng(2).integers(0, 96, (3, 26)).astype(np.int32)
    rule = Rule("causal", np.full(3, 25), 26)
    bpe = [driver.tokenizer(words) for words in (["one", "two", "three"], ["xyz", "abc", "longer"])]
    captions = [backend.stack(list(backend.text(b))[::-1]) for b in bpe]
    cross_kv = stages.image(images[:3])[1]

    def check(which):
        before = r.gpu.calls["copy"]
        got = backend.cross(tokens, rule, backend.image(images[:3])[1], captions[which])
        want = stages.cross(tokens, rule, cross_kv, stages.text(bpe[which])[::-1])
        assert np.array_equal(got.ids, want.ids)
        np.testing.assert_allclose(got.probs, want.probs, atol=1e-4)
        return r.gpu.calls["copy"] - before

    assert [check(which) for which in (0, 0, 1, 1, 0)] == [3, 0, 3, 0, 3], "reversed rows are copied one by one"
    with pytest.warns(RuntimeWarning, match="reading 4 at a time"):
        backend._shrink(8)
    assert check(0) == 3
    captions.clear()
    backend.close()
    r.check_empty()


def test_a_builds_parity_check_finds_them_equal(rig, engine_bundle, tiny_bundle, images):
    r = rig()
    backend, driver = r.open(engine_bundle())
    backend.with_logits = True
    parity = compare(driver, OrtBackend(Bundle.open(tiny_bundle), threads=1), backend, images[:20])
    assert parity.agreement == 1 and parity.images == 20
    assert all(stage.calls and stage.relative < 1e-4 for stage in parity.stages.values())
    backend.close()
    r.check_empty()
