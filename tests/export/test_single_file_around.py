"""The graphs around a single file: the resize beside Pillow's, texts beside the charset's."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from clip4str.core.packaged import PACKAGED
from clip4str.core.text import Charset
from clip4str.export.single_file.around import write_resize, write_texts
from clip4str.runtime.bundle import Bundle
from clip4str.runtime.images import prepare


@pytest.fixture(scope="module")
def manifest():
    return Bundle.open(PACKAGED, verify=False).manifest


def run(path, **feed):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, feed)))


@pytest.mark.parametrize("size", [(2, 2), (31, 77), (32, 128), (200, 333)])
def test_the_resize_is_pillows(manifest, tmp_path, size):
    write_resize(tmp_path / "resize.onnx", manifest, "net@1")
    pictures = np.random.default_rng(0).integers(0, 256, (3, *size, 3), np.uint8)
    found = run(tmp_path / "resize.onnx", pixels=pictures)
    expected = prepare([Image.fromarray(one) for one in pictures], manifest.image_size, manifest.normalization)
    assert found["resized"].shape == expected.shape and found["bundle"].tolist() == ["net@1"] * 3
    assert np.abs(found["resized"] - expected).max() < 2 / 127  # a level of 255
    assert (np.abs(found["resized"] - expected) > 1e-5).mean() < 0.02


def test_texts_are_the_charsets(manifest, tmp_path):
    write_texts(tmp_path / "texts.onnx", manifest)
    steps, rng = manifest.config["steps"], np.random.default_rng(0)
    ids = rng.integers(1, len(manifest.charset) + 1, (6, steps)).astype(np.int32)
    for row, end in enumerate((0, 1, 5, steps - 1, steps)):
        ids[row, end : end + 1] = 0  # what lies behind it does not count
    charset = Charset(manifest.charset, manifest.charset_test)
    assert run(tmp_path / "texts.onnx", ids=ids)["text"].tolist() == [charset.decode(row) for row in ids]
