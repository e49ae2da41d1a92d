"""thumbnail: core.thumbnail against OpenCV, the kernel against core.thumbnail, to the bit."""

import numpy as np
import pytest
import torch
from device import there

from clip4str.core.errors import Clip4StrError, DtypeError, LayoutError, ShapeError, UsageError
from clip4str.core.rectify import nv12_to_rgb
from clip4str.core.thumbnail import thumbnail as specified
from clip4str.core.thumbnail import thumbnail_size
from clip4str.kernels.thumbnail import api
from clip4str.kernels.thumbnail.bench import cases

thumbnail = there(api.thumbnail)
SIZES = [((12, 20), (4, 7)), ((4, 160), (4, 160)), ((10, 8), (1, 1)), ((6, 300), (2, 299)), ((2, 2), (2, 1))]


def noise(*shape):
    return np.random.default_rng(shape[1]).integers(0, 256, shape, dtype=np.uint8)


def apart(a, b):
    return np.abs(a.astype(int) - b.astype(int)).max()


@pytest.mark.parametrize(("frame", "size"), SIZES)
def test_it_is_what_opencv_shrinks_to(frame, size):
    cv2 = pytest.importorskip("cv2")
    pixels = noise(*frame, 3)
    shrunk = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_AREA).reshape(*size, 3)
    assert apart(specified(pixels, size, colour=True).transpose(1, 2, 0), shrunk) <= 1  # OpenCV sums in float32
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    assert np.array_equal(specified(pixels, frame)[0], grey)
    assert np.array_equal(specified(np.ascontiguousarray(pixels[..., ::-1]), frame, "bgr")[0], grey)
    assert apart(specified(pixels, size)[0], cv2.resize(grey, size[::-1], interpolation=cv2.INTER_AREA)) <= 1


def test_an_area_is_averaged_exactly():
    pixels = np.array([[0, 10, 20], [1, 2, 250]], np.uint8)
    frame = np.stack([pixels] * 3, -1)
    assert specified(frame, (1, 1))[0, 0, 0] == round(pixels.sum() / 6)
    wanted = [[(0 + 0.5 * 10) / 1.5, (0.5 * 10 + 20) / 1.5], [(1 + 0.5 * 2) / 1.5, (0.5 * 2 + 250) / 1.5]]
    assert np.array_equal(specified(frame, (2, 2))[0], np.floor(np.array(wanted) + 0.5))


@pytest.mark.gpu
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("layout", ["rgb", "bgr", "nv12"])
@pytest.mark.parametrize(("frame", "size"), SIZES)
def test_the_kernel_gives_the_same_bits(frame, size, layout, colour):
    shape = (frame[0] * 3 // 2, frame[1]) if layout == "nv12" else (*frame, 3)
    pixels = noise(*shape)
    for matrix, full in (("bt601", False), ("bt709", True)):
        want = specified(pixels, size, layout, colour=colour, matrix=matrix, full_range=full)
        how = {"layout": layout, "colour": colour, "matrix": matrix, "full_range": full}
        got = thumbnail(torch.from_numpy(pixels), size, **how, implementation="triton")
        assert np.array_equal(got.cpu().numpy(), want)
        assert np.array_equal(api.thumbnail(torch.from_numpy(pixels), size, **how).numpy(), want)


@pytest.mark.gpu
def test_planes_with_pitches_of_their_own_and_chroma_in_pairs():
    luma, chroma = noise(16, 64)[:, :50], noise(8, 56)[:, :50]
    want = specified((np.ascontiguousarray(luma), np.ascontiguousarray(chroma)), (5, 20), "nv12", colour=True)
    planes = torch.from_numpy(luma), torch.from_numpy(chroma)
    for given in (planes, (planes[0], planes[1].unflatten(1, (25, 2)))):
        got = thumbnail(given, (5, 20), layout="nv12", colour=True, implementation="triton")
        assert np.array_equal(got.cpu().numpy(), want)
    assert apart(want.transpose(1, 2, 0).mean((0, 1)), nv12_to_rgb(luma, chroma, "bt601", False).mean((0, 1))) <= 1


def test_sizes_of_thumbnails():
    assert thumbnail_size((1080, 1920), 640) == (360, 640)
    assert thumbnail_size((720, 400), 640) == (640, 356)
    assert thumbnail_size((30, 64), 640) == (30, 64)
    assert thumbnail_size((2, 32768), 640) == (1, 640)
    with pytest.raises(UsageError, match="1 to 4096 pixels, not 0"):
        thumbnail_size((9, 9), 0)


U8 = torch.uint8
BAD = [
    ({"layout": "yuv"}, UsageError, "layout is 'rgb', 'bgr' or 'nv12'"),
    ({"matrix": "bt2020"}, UsageError, "matrix is"),
    ({"size": (9, 8)}, ShapeError, "size: height: supported are 1 to 8, got 9"),
    ({"size": (0, 8)}, ShapeError, "size: height"),
    ({"frame": torch.zeros(8, 8, 3)}, DtypeError, "frame: expected uint8, got float32"),
    ({"frame": torch.zeros(3, 8, 8, dtype=U8).permute(1, 2, 0)}, LayoutError, "frame: expected contiguous"),
    ({"frame": torch.zeros(12, 8, dtype=torch.uint16), "layout": "nv12"}, DtypeError, r"10- and 16-bit .*P010"),
    ({"frame": torch.zeros(12, 7, dtype=U8), "layout": "nv12"}, ShapeError, "nv12 has even"),
    ({"implementation": "fast"}, UsageError, "implementation is"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_arguments(change, error, message):
    with pytest.raises(error, match=message) as raised:
        api.thumbnail(**{"frame": torch.zeros(8, 8, 3, dtype=U8), "size": (4, 4), **change})
    assert "\n" not in str(raised.value)
    assert issubclass(error, Clip4StrError)


def test_benchmark_cases_run():
    for case in (c for c in cases() if "1080p" in c.name and c.baseline):
        arguments = case.make(torch.device("cpu"), torch.float32)
        got, other = case.function(**arguments), case.baseline(**arguments)
        assert got.shape == other.shape and (got.int() - other.int()).abs().float().mean() < 1
        assert case.bytes > got.numel() and case.flops > 0
