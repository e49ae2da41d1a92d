"""Whatever call fails, and whenever: one line of ours, nothing lost, and the next read is right."""

from __future__ import annotations

import gc
import threading
import warnings

import numpy as np
import pytest
from fake_gpu import FakeCuda
from trt_rig import forgive, life

from clip4str.core.errors import BackendError
from clip4str.core.reading import Decoding
from clip4str.runtime.backends.capturing import capturing
from clip4str.runtime.backends.ort import OrtBackend
from clip4str.runtime.bundle import Bundle
from clip4str.runtime.cuda import CudaContextLost

CALLS = (
    "allocate", "allocate_host", "free", "free_host", "create_stream", "destroy_stream", "synchronise", "copy_in",
    "copy_out", "copy", "begin_capture", "end_capture", "launch", "destroy_graph", "deserialize", "context", "enqueue",
    "current",
)  # fmt: skip
N = 3
QUICK = [21, 68, 1]  # images that few passes read, two of them with a second caption


def read_by_onnxruntime(bundle, pixels):
    from trt_rig import driver_of

    bundle = Bundle.open(bundle)
    return driver_of(bundle)(OrtBackend(bundle, threads=1), pixels).ids


@pytest.fixture
def want(tiny_bundle, images):
    return read_by_onnxruntime(tiny_bundle, images[:N])


@pytest.mark.parametrize("error, least", [("CUDA_ERROR_OUT_OF_MEMORY", 3), ("CUDA_ERROR_INVALID_VALUE", 50)])
def test_every_call_may_fail(rig, engine_bundle, tiny_bundle, images, quick_collections, error, least):
    """least: errors that are reported at all; the others only cost a graph, or a smaller batch."""
    r, folder = rig(), engine_bundle(profile={"min": 1, "opt": 2, "max": 2})
    bundle, images = Bundle.open(folder), images[QUICK]
    want = read_by_onnxruntime(tiny_bundle, images)
    life(r, bundle, images)
    r.check_empty()
    counts, failed = dict(r.gpu.calls), 0
    assert all(counts[call] for call in CALLS), counts
    for call in CALLS:
        for number in range(1, counts[call] + 1):
            r.gpu.fail(call, number, error)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                ids, raised = life(r, bundle, images)
            r.gpu.faults.clear()
            assert ids is None or np.array_equal(ids, want), (call, number)
            # What fails while giving back is nobody's concern, but must not stop the rest.
            leaves = call in ("free", "free_host", "destroy_stream", "destroy_graph", "current")
            forgive(r, call) if leaves else r.check_empty()
            failed += raised is not None
    assert failed > least


def test_less_memory_means_smaller_batches(rig, engine_bundle, images, want):
    r, folder = rig(), engine_bundle()
    backend, driver = r.open(folder)
    whole = r.gpu.in_use
    backend.close()
    r.gpu.memory = int(whole * 0.6)
    with pytest.warns(RuntimeWarning, match="out of memory on Orin with 8 images: reading 4 at a time from now on"):
        backend, driver = r.open(folder)
    reading = backend.read(driver, images[:7])
    assert np.array_equal(reading.ids[:N], want) and reading.stats.batches == 2
    assert (backend.batch_size, backend.largest) == (8, 4)
    backend.close()
    r.gpu.memory = 1000
    with pytest.raises(BackendError, match="out of memory"):
        r.open(folder)
    r.check_empty()


def test_memory_that_runs_out_while_reading(rig, engine_bundle, images, want):
    r, folder = rig(), engine_bundle()
    backend, driver = r.open(folder, cache=3)
    held = backend.image(images[:2])
    r.gpu.fail("context", 1)  # of a smaller batch, which is made when it is first needed
    with pytest.warns(RuntimeWarning, match="with 3 images: reading 2 at a time"):
        assert np.array_equal(backend.read(driver, images[:N]).ids, want)
    with pytest.raises(BackendError, match="earlier batch"):
        held[0].numpy()
    r.gpu.fail("launch", 1)
    with pytest.warns(RuntimeWarning, match="with 2 images: reading 1 at a time"):
        assert np.array_equal(backend.read(driver, images[:N]).ids, want)
    r.gpu.fail("launch", 1)
    with pytest.raises(BackendError, match="out of memory on Orin with a single image"):
        backend.read(driver, images[:1])
    assert np.array_equal(backend.read(driver, images[:N]).ids, want)
    backend.close()
    r.check_empty()


def test_a_stage_that_fails_says_what_tensorrt_said(rig, engine_bundle, images, want):
    r = rig()
    backend, driver = r.open(engine_bundle())
    r.gpu.fail("enqueue", 1, "CUDA_ERROR_INVALID_VALUE")
    with pytest.raises(
        BackendError, match=r"the image stage failed in TensorRT: IExecutionContext::enqueueV3: Error Co"
    ):
        backend.read(driver, images[:N])
    assert np.array_equal(backend.read(driver, images[:N]).ids, want)
    backend.close()
    r.check_empty()


@pytest.mark.parametrize("call", ["begin_capture", "end_capture", "enqueue"])
def test_a_stage_that_cannot_be_captured_runs_without(rig, engine_bundle, images, want, call):
    r = rig()
    backend, driver = r.open(engine_bundle())
    first = 2 if call == "enqueue" else 1
    for number in (first, first + 1):
        r.gpu.fail(call, number, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")
    with pytest.warns(RuntimeWarning, match="the image stage runs without a CUDA graph") as warned:
        assert np.array_equal(backend.read(driver, images[:N]).ids, want)
        for n in (N, 1, 8):
            assert np.array_equal(backend.read(driver, images[:n]).ids[:N], want[:n])
    assert len(warned) == 1 and not r.gpu.capturing
    made = [rows for stage, rows in r.trt.enqueued if stage == "image"]
    assert len(made) == (6 if call in ("end_capture", "enqueue") else 4), "anew for each of the four reads"
    assert r.gpu.calls["launch"], "the other stages are replayed"
    backend.close()
    r.check_empty()


@pytest.mark.parametrize("call", ["begin_capture", "end_capture", "enqueue"])
def test_a_capture_that_another_library_broke_succeeds_the_second_time(rig, engine_bundle, images, want, call):
    r = rig()
    backend, driver = r.open(engine_bundle())
    r.gpu.fail(call, 2 if call == "enqueue" else 1, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert np.array_equal(backend.read(driver, images[:N]).ids, want)
    made = [rows for stage, rows in r.trt.enqueued if stage == "image"]
    assert len(made) == (2 if call == "begin_capture" else 3), "then it is replayed"
    backend.close()
    r.check_empty()


@pytest.mark.parametrize("fail", [None, "begin_capture", "enqueue", "end_capture"])
def test_garbage_is_not_collected_while_a_graph_is_captured(rig, engine_bundle, images, monkeypatch, fail):
    r, enabled = rig(), []

    def noted(call):
        def note(self, stream):
            enabled.append(gc.isenabled())
            return call(self, stream)

        return note

    for name in ("begin_capture", "end_capture"):
        monkeypatch.setattr(FakeCuda, name, noted(getattr(FakeCuda, name)))
    backend, driver = r.open(engine_bundle())
    if fail:
        r.gpu.fail(fail, 2 if fail == "enqueue" else 1, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
    assert gc.isenabled()
    backend.read(driver, images[:N])
    assert len(enabled) >= 2 and not any(enabled) and gc.isenabled()
    assert not r.gpu.faults, "it failed"
    backend.close()
    r.check_empty()


def test_a_capture_begins_when_another_backends_has_ended(rig, engine_bundle, images, want):
    r, found = rig(), []
    backend, driver = r.open(engine_bundle())
    thread = threading.Thread(target=lambda: found.append(backend.read(driver, images[:N]).ids))
    with capturing():
        thread.start()
        for _ in range(100):  # until it waits
            thread.join(0.05)
            if r.gpu.calls["enqueue"]:
                break
        thread.join(0.2)
        assert r.gpu.calls["enqueue"] and not r.gpu.calls["begin_capture"] and thread.is_alive()
    thread.join(20)
    assert np.array_equal(found[0], want) and r.gpu.calls["begin_capture"]
    backend.close()
    r.check_empty()


def test_a_lost_context_is_said_so_and_stays_so(rig, engine_bundle, images):
    r = rig()
    backend, driver = r.open(engine_bundle())
    r.gpu.fail("synchronise", 2, "CUDA_ERROR_ILLEGAL_ADDRESS")
    for _ in range(2):
        with pytest.raises(CudaContextLost, match="context is lost, restart it"):
            backend.read(driver, images[:N])
    calls = dict(r.gpu.calls)
    with pytest.raises(CudaContextLost):
        backend.accept(images[:1])
    assert dict(r.gpu.calls) == calls, "nothing more is asked of it"
    backend.close()
    assert r.gpu.retained == 0


def test_an_error_in_the_middle_leaves_no_slot_behind(rig, engine_bundle, images, want):
    r = rig()
    backend, driver = r.open(engine_bundle(), Decoding(refine=2), cache=4)
    for number in range(1, 12):
        r.gpu.fail("synchronise", number, "CUDA_ERROR_INVALID_VALUE")
        with pytest.raises(BackendError):
            backend.read(driver, images[:N])
            backend.read(driver, images[:N])
            backend.read(driver, images[:N])
        r.gpu.faults.clear()
    slots = backend._session.slots
    assert slots.count - slots.free == len(driver.cache)
    backend.close()
    driver.cache.clear()
    r.check_empty()
