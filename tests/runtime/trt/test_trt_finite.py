"""NaN and infinity, in pixels that lie on the GPU and out of engines: said, and never read as words."""

from __future__ import annotations

import numpy as np
import pytest
from device_arrays import DeviceArray, DLPack, Interface
from fake_gpu import FakeCuda
from overflow import overflowing

from clip4str.core.errors import ImageError, NonFiniteError
from clip4str.runtime import Recognizer


@pytest.fixture
def read_pixels(rig, engine_bundle):
    """read_pixels of a recogniser on engines over a fake GPU, of batches of up to 4"""
    r = rig()
    with Recognizer.load(engine_bundle(), "tensorrt", batch_size=4) as recognizer:
        recognizer.gpu, recognizer.cuda = r.gpu, FakeCuda(r.gpu)
        yield recognizer
        recognizer.cuda.close()
    r.check_empty()


@pytest.mark.parametrize("kind", [Interface, DLPack])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_on_the_gpu_that_are_not_finite_are_an_error_naming_the_row(read_pixels, images, kind, value):
    want, broken = read_pixels.read_pixels(images[:7]), images[:7].copy()
    broken[5, 1, 3, 4] = value
    array = DeviceArray(read_pixels.gpu, read_pixels.cuda, broken)
    with pytest.raises(ImageError, match=r"pixels\[5\] are not finite") as caught:
        read_pixels.read_pixels(kind(array))
    assert caught.value.index == 5
    array.free()
    with pytest.raises(ImageError, match=r"pixels\[5\] are not finite"):
        read_pixels.read_pixels(broken)
    assert read_pixels.read_pixels(images[:7]) == want, "and usable after it"


@pytest.mark.parametrize(("stage", "named"), [("visual", "visual"), ("cross", "cross-modal")])
def test_an_engine_that_overflows_in_half_precision_reads_no_words(rig, engine_bundle, half_tiny_bundle, golden,
                                                                   tmp_path, stage, named):  # fmt: skip
    spoilt = overflowing(half_tiny_bundle, tmp_path / "spoilt", stage, 20_000)
    crops = list(golden("tiny")["images"][:3])
    r = rig()
    with Recognizer.load(engine_bundle(spoilt), "tensorrt") as recognizer:
        with pytest.raises(
            NonFiniteError, match=rf"images\[0\]: tiny-fp16: the {named} decoder's output is not finite"
        ):
            recognizer.read(crops)
        assert recognizer.read(crops, on_error="skip") == [None] * 3
    r.check_empty()


@pytest.mark.parametrize(("stage", "named"), [("visual", "visual"), ("cross", "cross-modal")])
def test_onnx_runtime_that_overflows_reads_no_words(tiny_bundle, half_tiny_bundle, golden, tmp_path, stage, named):
    for bundle, factor in ((tiny_bundle, 1e38), (half_tiny_bundle, 20_000)):
        recognizer = Recognizer.load(overflowing(bundle, tmp_path / bundle.name, stage, factor), threads=1)
        with pytest.raises(NonFiniteError, match=f"the {named} decoder's output is not finite"):
            recognizer.read(list(golden("tiny")["images"][:3]))
