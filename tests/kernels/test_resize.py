"""resize: the reference against Pillow (runtime.images.prepare), the kernel against Pillow and the reference, to the
bit."""

import numpy as np
import pytest
import torch
from device import there
from PIL import Image

from clip4str.core.errors import DeviceError, DtypeError, LayoutError, ShapeError, UsageError
from clip4str.core.normalization import NORMALIZATION
from clip4str.kernels.crop_resize import CropConfig, candidates
from clip4str.kernels.resize import api
from clip4str.kernels.resize.bench import cases
from clip4str.kernels.resize.kernel import resize_triton as launch
from clip4str.kernels.resize.reference import packed
from clip4str.runtime.images import load_image, prepare

resize, resize_triton = there(api.resize), there(launch)
SHAPES = [(2, 2), (31, 100), (7, 5), (300, 9), (9, 300), (33, 29), (61, 17), (1, 40), (40, 1), (1, 1)]  # height, width


def noise(height, width, seed=0):
    """In black and white and between: every filter over- and undershoots on it."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[:, ::3] = random.integers(0, 2, pixels[:, ::3].shape) * 255
    return pixels


def put(pictures):
    return packed([torch.from_numpy(np.array(picture)) for picture in pictures])


def pillows(picture, size, normalization="half"):
    """Pillow's own, of pictures that `prepare` refuses too: of one pixel a side."""
    image = Image.fromarray(picture)
    across = image.resize((size[1], image.height), Image.Resampling.BICUBIC)
    made = np.asarray(across.resize(size[::-1], Image.Resampling.BICUBIC), np.float32)
    mean, std = (np.asarray(v, np.float32) for v in NORMALIZATION[normalization])
    return ((made / np.float32(255) - mean) / std).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [(224, 224), (32, 128), (17, 33)])
def test_reference_equals_pillow_to_the_bit(size):
    random = np.random.default_rng(size[0])
    pictures = [noise(*shape) for shape in SHAPES]
    pictures += [noise(int(120 ** random.random()), int(400 ** random.random()), i) for i in range(20)]
    for normalization in ("half", "clip"):
        got = resize(*put(pictures), size, normalization=normalization).numpy()
        for row, picture in zip(got, pictures):
            assert np.array_equal(row, pillows(picture, size, normalization))


@pytest.mark.gpu
@pytest.mark.parametrize("normalization", ["half", "clip"])
def test_kernel_equals_pillow_to_the_bit(normalization):
    """Of any sizes in one launch: odd ones, tall ones, wide ones, single pixels."""
    pictures, size = [noise(*shape) for shape in SHAPES], (31, 29)
    got = resize(*put(pictures), size, normalization=normalization, implementation="triton").numpy()
    for row, picture in zip(got, pictures):
        assert np.array_equal(row, pillows(picture, size, normalization)), picture.shape


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [(3, 8192), (8192, 2), (300, 400)])
def test_huge_pictures(shape):
    picture, config = noise(*shape), CropConfig(16, 16, 32, 32, 4)  # few chunks: each costs the interpreter alike
    got = resize(*put([picture]), (8, 9), config=config, implementation="triton").numpy()
    assert np.array_equal(got[0], pillows(picture, (8, 9)))


@pytest.mark.gpu
def test_a_picture_of_the_networks_size_stays_as_it_is():
    """So what the host has resized goes through the same launch."""
    picture = noise(32, 48)
    got = resize(*put([picture]), (32, 48), implementation="triton").numpy()
    assert np.array_equal(got, prepare([picture], (32, 48)))


@pytest.mark.gpu
def test_pictures_of_every_kind():
    """What load_image makes of them: grey, with a palette, transparent, 16 bits."""
    rgba = np.concatenate((noise(20, 33), noise(20, 33, 1)[..., :1]), -1)
    given = [
        Image.fromarray(noise(20, 33)[..., 0]), Image.fromarray(rgba), Image.fromarray(noise(20, 33)).convert("P"),
        Image.fromarray(noise(20, 33)).convert("CMYK"), Image.fromarray(noise(20, 33)[..., 0].astype(np.uint16) * 200),
        Image.fromarray(rgba).convert("LA"), Image.fromarray(noise(20, 33)).convert("1"),
    ]  # fmt: skip
    got = resize(*put([np.asarray(load_image(image)) for image in given]), (16, 40), implementation="triton")
    assert np.array_equal(got.numpy(), prepare(given, (16, 40)))


@pytest.mark.gpu
def test_where_pictures_lie_and_their_neighbours_do_not_show():
    first, second = noise(12, 31), noise(30, 7, 1)
    want = resize(*put([first, second]), (40, 33))
    pixels = torch.full((5000,), 77, dtype=torch.uint8)
    pixels[3001 : 3001 + first.size] = torch.from_numpy(first).flatten()
    pixels[5 : 5 + second.size] = torch.from_numpy(second).flatten()
    table = torch.tensor([[5, 30, 7], [3001, 12, 31], [5, 30, 7]], dtype=torch.int32)
    got = resize(pixels, table, (40, 33), implementation="triton")
    assert torch.equal(got, want[[1, 0, 1]])
    for config in (CropConfig(16, 16, 16, 16, 2), CropConfig(64, 32, 16, 32, 8)):
        assert torch.equal(resize(pixels, table, (40, 33), config=config, implementation="triton"), got)
    half = resize(pixels, table, (40, 33), dtype=torch.float16, implementation="triton")
    assert torch.equal(half, got.half())


@pytest.mark.gpu
def test_sides_out_of_bounds_on_the_gpu_are_cut():
    """Nothing is checked there, yet it ends, and reads as far as was said."""
    pixels = torch.zeros(3 * 8192, dtype=torch.uint8)
    table = torch.tensor([[0, -5, 1], [0, 0, 0], [0, 1, 2**31 - 1]], dtype=torch.int32)
    out = torch.empty(3, 3, 8, 8)
    resize_triton(pixels, table, (8, 8), out=out, config=CropConfig(16, 16, 16, 32, 2))
    assert torch.equal(out, torch.full_like(out, -1.0))


def test_no_pictures_and_an_output_of_the_callers():
    pixels, table = put([noise(4, 5)])
    assert resize(pixels, table[:0], (8, 9), dtype=torch.float16).shape == (0, 3, 8, 9)
    out = torch.full((1, 3, 8, 9), torch.nan)
    assert resize(pixels, table, (8, 9), out=out) is out
    assert torch.equal(out, resize(pixels, table.numpy(), (8, 9)))


def wrong(**change):
    pixels, table = put([noise(4, 5), noise(3, 2)])
    return {"pixels": pixels, "pictures": table, "size": (8, 9), **change}


@pytest.mark.parametrize("change, error, words", [
    ({"pixels": torch.zeros(2, 2, dtype=torch.uint8)}, ShapeError, r"pixels: expected shape \(bytes\)"),
    ({"pixels": torch.zeros(78)}, DtypeError, "pixels: expected uint8, got float32"),
    ({"pixels": torch.zeros(156, dtype=torch.uint8)[::2]}, LayoutError, "pixels: expected contiguous"),
    ({"pixels": torch.zeros(77, dtype=torch.uint8)}, ShapeError, "1 of 2: lies in the 77 bytes, got 2x3 from byte 60"),
    ({"pictures": torch.zeros(2, 4, dtype=torch.int32)}, ShapeError, r"pictures: expected shape \(N, 3\)"),
    ({"pictures": torch.zeros(2, 3)}, DtypeError, "pictures: expected int32"),
    ({"pictures": np.array([[0, 4, 0]], np.int32)}, ShapeError, "picture 0 of 1: sides are 1 to 8192 pixels, got 0x4"),
    ({"pictures": np.array([[-1, 4, 2]], np.int32)}, ShapeError, "lies in the 78 bytes, got 2x4 from byte -1"),
    ({"pictures": np.array([[2**31 - 1, 8192, 8192]], np.int32)}, ShapeError, "lies in the 78 bytes"),
    ({"size": (0, 9)}, ShapeError, "size: height"),
    ({"size": 9}, ShapeError, r"size: expected \(height, width\)"),
    ({"normalization": "none"}, UsageError, "normalization is 'half' or 'clip'"),
    ({"dtype": torch.int8}, DtypeError, "dtype: expected float16"),
    ({"out": torch.zeros(1, 3, 8, 9)}, ShapeError, "out: expected shape"),
    ({"implementation": "cuda"}, UsageError, "implementation is"),
])  # fmt: skip
def test_wrong_arguments(change, error, words):
    with pytest.raises(error, match=words):
        api.resize(**wrong(**change))


def test_what_cannot_run_here(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(DeviceError, match="Triton kernels run on CUDA tensors"):
        api.resize(**wrong(), implementation="triton")


def test_benchmark_cases_are_what_the_operator_takes():
    for case in cases():
        if " batch 1" in case.name and "words" in case.name:
            arguments = case.make(torch.device("cpu"), torch.float32)
            got, want = case.function(**arguments), case.baseline(**arguments)
            assert got.shape == want.shape and (got - want).abs().mean() < 0.01  # torch does not round between the two
        assert case.bytes > 0 and case.flops > 0 and case.configs == candidates(*case_size(case))


def case_size(case):
    return (32, 128) if case.name.startswith("small") else (224, 224)
