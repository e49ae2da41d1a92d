"""Words of quadrilaterals in frames, on every backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip4str.core.errors import Clip4StrError, ShapeError
from clip4str.core.packaged import PACKAGED
from clip4str.core.rectify import rectified
from clip4str.runtime import Recognizer


def box(x0, y0, x1, y1):
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer.load(threads=1)


@pytest.fixture(scope="module")
def frame():
    """A dark frame with three sample crops in it, and where they are."""
    pixels, boxes, x = np.full((240, 900, 3), 40, np.uint8), [], 20
    for path in sorted(Path(__file__).parents[2].joinpath("export/sample_crops").glob("*.jpg"))[:3]:
        crop = np.asarray(Image.open(path).convert("RGB"))[:200, :260]
        pixels[30 : 30 + crop.shape[0], x : x + crop.shape[1]] = crop
        boxes.append((x, 30, x + crop.shape[1], 30 + crop.shape[0]))
        x += crop.shape[1] + 20
    return pixels, boxes


def test_whole_boxes_are_read_as_their_crops_are(recognizer, frame):
    pixels, boxes = frame
    crops = [pixels[y0:y1, x0:x1] for x0, y0, x1, y1 in boxes]
    want = recognizer.read(crops)
    assert recognizer.read_quads(pixels, [box(*b) for b in boxes], turn=False) == want
    assert recognizer.read_boxes(pixels[..., ::-1], [box(*b) for b in boxes], "bgr", turn=False) == want


def test_the_host_cuts_out_what_the_torch_backend_cuts_out_to_the_bit(recognizer, frame):
    torch = pytest.importorskip("torch")
    from clip4str.kernels.crop_resize import crop_resize

    pixels, _ = frame
    random = np.random.default_rng(0)
    quads = [np.array(box(60, 40, 300, 120)) + random.uniform(-25, 25, (4, 2)) for _ in range(8)]
    want = crop_resize(torch.from_numpy(pixels), np.array(quads), recognizer.manifest.image_size)
    assert np.array_equal(recognizer.backend.crop(pixels, quads), want.numpy())


def test_a_word_that_runs_down_or_up_is_turned(recognizer, frame):
    pixels, boxes = frame
    x0, y0, x1, y1 = next(b for b in boxes if b[2] - b[0] > 1.6 * (b[3] - b[1]))
    word = pixels[y0:y1, x0:x1]
    want = recognizer.read([word])[0].text
    for turns in (1, 3):
        turned = np.ascontiguousarray(np.rot90(word, -turns))
        read = recognizer.read_quads(turned, [box(0, 0, turned.shape[1], turned.shape[0])])[0]
        assert (read.text, read.turns) == (want, turns)
        assert recognizer.read([np.rot90(turned, read.turns)])[0].text == want


def test_nv12_is_read_like_the_rgb_it_stands_for(recognizer, frame):
    pixels, boxes = frame
    grey = np.asarray(Image.fromarray(pixels).convert("L"))
    luma = (16 + np.round(grey * (219 / 255.0))).astype(np.uint8)
    nv12 = np.concatenate([luma, np.full((120, 900), 128, np.uint8)])
    quads = [box(*b) for b in boxes]
    want = [w.text for w in recognizer.read_quads(np.stack([grey] * 3, -1), quads)]
    assert [w.text for w in recognizer.read_quads(nv12, quads, "nv12")] == want
    assert [w.text for w in recognizer.read_quads((luma, nv12[240:]), quads, "nv12")] == want


def test_no_quads_no_words(recognizer, frame):
    assert recognizer.read_quads(frame[0], []) == []
    assert list(rectified(frame[0], np.zeros((0, 4, 2)))) == []


BAD = [
    ("rgb", np.zeros((9, 9, 3), np.float32), [box(1, 1, 8, 8)], "frame: expected a uint8 numpy array"),
    ("rgb", "frame.png", [box(1, 1, 8, 8)], "frame: expected a uint8 numpy array for rgb, got a str"),
    ("rgb", np.zeros((9, 9), np.uint8), [box(1, 1, 8, 8)], "frame: rgb is one array"),
    ("nv12", np.zeros((10, 8), np.uint8), [box(1, 1, 7, 5)], "frame: nv12 is"),
    ("nv12", np.zeros((9, 7), np.uint8), [box(1, 1, 6, 5)], "frame: nv12 has even"),
    ("yuv", np.zeros((9, 9, 3), np.uint8), [box(1, 1, 8, 8)], "layout is 'rgb', 'bgr' or 'nv12'"),
    ("rgb", np.zeros((99, 99, 3), np.uint8), [box(1, 1, 8, 40), box(5, 5, 5, 9)], "quad 1 of 2: "),
    ("rgb", np.zeros((99, 99, 3), np.uint8), [[[1, 2]]], r"quads: expected shape \(N, 4, 2\)"),
    ("rgb", np.zeros((99, 99, 3), np.uint8), [["a"]], "quads: expected numbers"),
]


@pytest.mark.parametrize(("layout", "pixels", "quads", "message"), BAD)
def test_what_is_no_frame_and_no_quad_is_refused_under_the_callers_number(recognizer, layout, pixels, quads, message):
    with pytest.raises(Clip4StrError, match=message) as error:
        recognizer.read_quads(pixels, quads, layout)
    assert "\n" not in str(error.value)


def test_a_quad_as_large_as_can_be_is_cut_out_in_bounded_memory(recognizer):
    pixels = np.zeros((64, 64, 3), np.uint8)
    assert recognizer.backend.crop(pixels, [box(-2000, -2000, 2000, 2000)]).shape[0] == 1
    with pytest.raises(ShapeError, match="at most 8192"):
        recognizer.backend.crop(pixels, [box(-9000, -9000, 9000, 9000)])


def test_the_packaged_bundle_is_what_is_read_with(recognizer):
    assert recognizer.bundle.folder == PACKAGED


@pytest.mark.parametrize("layout", ["rgb", "bgr", "nv12"])
def test_frames_of_any_strides_are_cut_out_alike(layout):
    """Rows with room behind them, every other row, upside down, columns apart: as the same pixels in one piece."""
    random = np.random.default_rng(5)
    shape = (90, 80) if layout == "nv12" else (60, 80, 3)
    quads = np.array([[[-3, 5], [50, 9], [47, 40], [2, 33]], [[30, 20], [79, 20], [79, 61], [30, 58]]], np.float32)
    whole = random.integers(0, 256, shape, np.uint8)
    want = list(rectified(whole, quads, layout))
    wide = np.zeros((shape[0], 100, *shape[2:]), np.uint8)
    wide[:, 7:87] = whole
    apart = np.zeros((2 * shape[0], 2 * shape[1], *shape[2:]), np.uint8)
    apart[::2, ::2] = whole
    for same in (wide[:, 7:87], whole[::-1].copy()[::-1], np.asfortranarray(whole), apart[::2, ::2]):
        for got, crop in zip(rectified(same, quads, layout), want, strict=True):
            np.testing.assert_array_equal(got, crop)
