"""Pixels that lie on the GPU, from other libraries: read in place where that is possible, waited for, never misread."""

from __future__ import annotations

import numpy as np
import pytest
from device_arrays import DeviceArray, DLPack, Interface
from fake_gpu import FakeCuda, FakeGpu
from trt_rig import driver_of

from clip4str.core.errors import ImageError
from clip4str.runtime import Recognizer
from clip4str.runtime.backends.ort import OrtBackend
from clip4str.runtime.bundle import Bundle


@pytest.fixture(scope="module")
def want(tiny_bundle, images):
    bundle = Bundle.open(tiny_bundle)
    return driver_of(bundle)(OrtBackend(bundle, threads=1), images[:20]).ids


@pytest.fixture(params=[False, True], ids=["discrete", "integrated"])
def opened(request, rig, engine_bundle):
    r = rig(FakeGpu(integrated=request.param))
    backend, driver = r.open(engine_bundle())
    r.cuda = FakeCuda(r.gpu)
    yield r, backend, driver
    backend.close()
    r.cuda.close()
    r.check_empty()


def addresses_used(r):
    """Of `pixels`, by the engine's contexts."""
    return {context.addresses["pixels"] for context in r.trt.alive if "pixels" in getattr(context, "addresses", ())}


@pytest.mark.parametrize("kind", [Interface, DLPack])
def test_read_in_place(opened, images, want, kind):
    r, backend, driver = opened
    for n in (1, 3, 8, 11, 3):
        array = DeviceArray(r.gpu, r.cuda, images[:n])
        before = len(r.gpu.trace)
        pixels = backend.accept(kind(array))
        assert len(pixels) == n
        assert np.array_equal(backend.read(driver, pixels).ids, want[:n])
        copied = [detail for _, name, detail in r.gpu.trace[before:] if name == "copy"]
        assert not any(array.block <= source < array.block + n * array.row for _, source, _ in copied)
        assert images[0].nbytes not in [detail for _, name, detail in r.gpu.trace[before:] if name == "copy_in"]
        assert array.address + (n > 8) * 8 * array.row in addresses_used(r)
        array.free()
    assert np.array_equal(backend.read(driver, images[:3]).ids, want[:3]), "and from the host again"


@pytest.mark.parametrize(
    "layout", [{"offset": 16}, {"pad": 64}, {"offset": 4, "pad": 12}], ids=["unaligned", "padded", "both"]
)
@pytest.mark.parametrize("kind", [Interface, DLPack])
def test_copied_on_the_device_where_they_cannot_be_read_in_place(opened, images, want, kind, layout):
    r, backend, driver = opened
    for n in (2, 9):
        array = DeviceArray(r.gpu, r.cuda, images[:n], **layout)
        before = r.gpu.calls["copy"]
        assert np.array_equal(backend.read(driver, backend.accept(kind(array))).ids, want[:n])
        assert r.gpu.calls["copy"] > before
        array.free()
    assert np.array_equal(backend.read(driver, images[:3]).ids, want[:3])


def test_rows_of_what_was_accepted(opened, images, want):
    r, backend, driver = opened
    array = DeviceArray(r.gpu, r.cuda, images[:10])
    pixels = backend.accept(DLPack(array, byte_offset=512))
    assert np.array_equal(backend.read(driver, pixels[4:7]).ids, want[4:7])
    assert np.array_equal(backend.read(driver, pixels[8:100]).ids, want[8:10])
    assert len(pixels[10:12]) == 0
    with pytest.raises(ImageError):
        pixels[::2]
    array.free()


def test_the_producers_stream_is_waited_for(opened, images):
    r, backend, _ = opened
    array = DeviceArray(r.gpu, r.cuda, images[:2])
    shown = DLPack(array)
    backend.accept(shown)
    assert shown.asked == [backend._session.stream.handle]
    waits = lambda: [stream for _, name, stream in r.gpu.trace if name == "wait_for"]  # noqa: E731
    backend.accept(Interface(array))
    assert waits()[-1] == array.stream
    count = len(waits())
    backend.accept(Interface(array, stream=None))
    assert len(waits()) == count, "version 3 says that nothing is pending"
    backend.accept(Interface(array, version=2, stream=None))
    assert waits()[-1] == 1 and len(waits()) == count + 1, "an older version cannot say: the default stream"
    array.free()


def test_what_is_not_pixels_is_refused(opened, images):
    r, backend, _ = opened
    array = DeviceArray(r.gpu, r.cuda, images[:2])
    whole = DeviceArray(r.gpu, r.cuda, np.zeros((2, 3, 64, 64), np.int32))
    small = DeviceArray(r.gpu, r.cuda, np.zeros((2, 3, 32, 64), np.float32))
    turned = [images.strides[i] for i in (0, 1, 3, 2)]
    cases = [
        (Interface(whole), r"pixels are int32 \(2, 3, 64, 64\), expected float32 \(N, 3, 64, 64\)"),
        (DLPack(whole, code=0), r"pixels are int32"),
        (DLPack(array, bits=16), r"pixels are float16"),
        (DLPack(array, code=4, bits=16), r"type 'V2'|void"),
        (Interface(small), r"pixels are float32 \(2, 3, 32, 64\)"),
        (Interface(array, strides=turned), "not contiguous"),
        (Interface(array, strides=(-images.strides[0], *images.strides[1:])), "reverse order"),
        (Interface(array, mask=array), "masked"),
        (Interface(array, stream=0), "stream is 0"),
        (Interface(array, data=(12345, False)), "on no GPU"),
        (DLPack(array, device=(2, 1)), "on cuda:1, the recogniser is on cuda:0"),
        (DLPack(array, device=(7, 0)), "kind 7"),
        (images[:2].tolist(), "are a list, expected"),
        (images[:2].astype(np.float16), r"pixels are float16"),
        (images[0], r"pixels are float32 \(3, 64, 64\)"),
    ]
    for value, message in cases:
        with pytest.raises(ImageError, match=message) as caught:
            backend.accept(value)
        assert "\n" not in str(caught.value)
    for x in (array, whole, small):
        x.free()


def test_dlpack_from_the_host(opened, images, want):
    """torch tensors on the CPU, and numpy's own."""
    _, backend, driver = opened

    class OnHost:
        def __dlpack__(self, **how):
            return images[:2].copy().__dlpack__(**how)

        def __dlpack_device__(self):
            return (1, 0)

    assert np.array_equal(backend.read(driver, backend.accept(OnHost())).ids, want[:2])


def test_a_stream_that_cannot_be_waited_for(opened, images):
    r, backend, _ = opened
    array = DeviceArray(r.gpu, r.cuda, images[:2])
    r.gpu.fail("wait_for", 1, "CUDA_ERROR_INVALID_HANDLE")
    with pytest.raises(ImageError, match="cannot be waited for"):
        backend.accept(Interface(array))
    array.free()


def test_rtx_compiles_no_kernels_for_odd_sizes(rig, engine_bundle, images, want):
    r = rig(rtx=True, version="1.7.1.116")
    backend, driver = r.open(engine_bundle(target="tensorrt-rtx", version="1.7.1.116"))
    r.cuda = FakeCuda(r.gpu)
    for n in (3, 4):
        array = DeviceArray(r.gpu, r.cuda, images[:n])
        assert np.array_equal(backend.read(driver, backend.accept(DLPack(array))).ids, want[:n])
        array.free()
    assert {rows for stage, rows in r.trt.enqueued if stage == "image"} == {4}
    backend.close()
    r.cuda.close()
    r.check_empty()


def test_through_the_recogniser(rig, engine_bundle, tiny_bundle, golden, images):
    r = rig()
    recognizer = Recognizer.load(engine_bundle(), backend="tensorrt")
    want = golden("tiny")
    assert [word.text for word in recognizer.read(list(want["images"]))] == want["text"].tolist()
    assert recognizer.batch_size == 8
    cuda = FakeCuda(r.gpu)
    array = DeviceArray(r.gpu, cuda, images[:20])
    slow = Recognizer.load(tiny_bundle, backend="onnxruntime", threads=1).read_pixels(images[:20])
    assert [w.text for w in recognizer.read_pixels(DLPack(array))] == [w.text for w in slow]
    assert recognizer.stats.images == 20 + len(want["images"])
    array.free()
    cuda.close()
    recognizer.backend.close()
    r.check_empty()
