"""crop_resize: the reference against Pillow (runtime.images.prepare), the kernel against the reference, to the bit."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from device import ON_GPU, there
from PIL import Image

from clip4str.core.errors import DeviceError, DtypeError, LayoutError, ShapeError, UsageError
from clip4str.core.rectify import homographies, nv12_to_rgb
from clip4str.kernels.crop_resize import CropConfig, api, candidates
from clip4str.kernels.crop_resize import reference as plain
from clip4str.kernels.crop_resize.bench import cases
from clip4str.kernels.crop_resize.kernel import crop_resize_triton as launch
from clip4str.kernels.crop_resize.taps import enlarge, share_unit, split_weight
from clip4str.runtime.images import prepare

crop_resize, crop_resize_triton = there(api.crop_resize), there(launch)
SQUARE = [[10.0, 10.0], [40.0, 10.0], [40.0, 20.0], [10.0, 20.0]]


@pytest.fixture(scope="module")
def frame() -> torch.Tensor:
    """Noise in black and white and between: every filter over- and undershoots on it."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (300, 1100, 3), dtype=np.uint8)
    noise[:, ::3] = random.integers(0, 2, noise[:, ::3].shape) * 255
    return torch.from_numpy(noise)


def box(x0, y0, x1, y1):
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def same(got, want):
    """To the bit. Beyond what the interpreter shows, a GPU may round a turned quad's positions another way: then no
    more than a level, and hardly anywhere."""
    if not ON_GPU:
        assert torch.equal(got, want)
    else:
        off = (got.float() - want.float()).abs()
        assert off.max() < 0.04 and (off > 1e-3).float().mean() < 1e-3


def cut(frame, x0, y0, x1, y1):
    return frame.numpy()[y0:y1, x0:x1]


@pytest.mark.parametrize("size", [(224, 224), (32, 128), (17, 33), (96, 40)])
def test_boxes_equal_pillow_to_the_bit(frame, size):
    random = np.random.default_rng(size[0])
    boxes = [(0, 0, 2, 2), (50, 7, 1050, 27), (3, 1, 7, 300), (11, 13, 11 + size[1], 13 + size[0]), (0, 0, 1100, 300)]
    for _ in range(20):
        w, h = int(2 * 500 ** random.random()), int(2 * 140 ** random.random())
        x0, y0 = random.integers(0, 1100 - w), random.integers(0, 300 - h)
        boxes.append((x0, y0, x0 + w, y0 + h))
    for normalization in ("half", "clip"):
        got = crop_resize(frame, [box(*b) for b in boxes], size, normalization=normalization)
        assert np.array_equal(got.numpy(), prepare([cut(frame, *b) for b in boxes], size, normalization))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_the_same_rounded(frame, dtype):
    want = torch.from_numpy(prepare([cut(frame, 5, 6, 90, 31)], (32, 64)))
    assert torch.equal(crop_resize(frame, [box(5, 6, 90, 31)], (32, 64), dtype=dtype), want.to(dtype))


@triton.jit
def write_weights(out, length, count, first_pixel, first_place, PIXELS: tl.constexpr, PLACES: tl.constexpr):
    pixel = first_pixel + tl.arange(0, PIXELS)
    place = tl.minimum(first_place + tl.arange(0, PLACES), count - 1)
    unit, rest = share_unit(place, length, count)
    lengths, counts = enlarge(length, count)
    high, low = split_weight(pixel[None, :], place[:, None], unit[:, None], rest[:, None], lengths, counts, length)
    weight = high.to(tl.float32) * 4096 + low.to(tl.float32)
    tl.store(out + tl.arange(0, PLACES)[:, None] * PIXELS + tl.arange(0, PIXELS)[None, :], weight)


@pytest.mark.gpu
@pytest.mark.parametrize("length, count", [(1, 5), (2, 224), (40, 224), (129, 128), (37, 32), (600, 17), (8192, 999)])
def test_kernel_makes_pillows_weights(length, count):
    """Of the last places, up to behind the end of the crop."""
    window, places = 128, 8
    pixel, place = max(0, length - window + 8), max(0, count - places)
    out = torch.empty(places, window)
    run = there(lambda out: write_weights[(1,)](out, length, count, pixel, place, PIXELS=window, PLACES=places))
    run(out)
    want = plain.weights(length, count)[place:, pixel:]
    assert torch.equal(out[: count - place, : length - pixel].double(), want)
    assert not out[:, length - pixel :].any()


QUADS = {
    "enlarged": box(20, 30, 60, 44),
    "whole frame high": box(700, 0, 712, 300),
    "wide": box(0, 100, 130, 104),
    "turned": [[200.3, 40.2], [230.9, 60.7], [224.1, 71.5], [193.2, 50.8]],
    "perspective": [[30.5, 31.0], [62.0, 22.0], [66.25, 60.0], [31.0, 44.0]],
    "over the edge": [[-8.0, -3.5], [20.0, -6.0], [22.0, 9.0], [-7.0, 12.0]],
}


@pytest.mark.gpu
@pytest.mark.parametrize("layout", ["rgb", "bgr", "nv12"])
def test_kernel_equals_reference_to_the_bit(frame, layout):
    picture = frame[..., 0].contiguous() if layout == "nv12" else frame
    names = list(QUADS) if layout == "rgb" else ["perspective"]
    quads, size = [QUADS[name] for name in names], (31, 29)
    options = {"layout": layout, "matrix": "bt709", "normalization": "clip"}
    want = crop_resize(picture, quads, size, **options, implementation="reference")
    got = crop_resize(picture, quads, size, **options, implementation="triton")
    same(got, want)


@pytest.mark.gpu
def test_tiles_do_not_show(frame):
    """Nor do other crops of the batch, nor the dtype beyond one rounding."""
    want = crop_resize(frame, [QUADS["turned"]], (40, 33), normalization="clip")
    tall = crop_resize(frame, [QUADS["whole frame high"]], (40, 33), normalization="clip")
    for config in (candidates(40, 33)[-2], CropConfig(16, 64, 32, 32, 4)):
        options = {"config": config, "normalization": "clip", "dtype": torch.float16, "implementation": "triton"}
        same(crop_resize(frame, [QUADS["turned"]], (40, 33), **options), want.half())
    both = [QUADS["whole frame high"], QUADS["turned"]]
    same(crop_resize(frame, both, (40, 33), **options), torch.cat((tall, want)).half())


@pytest.mark.gpu
@pytest.mark.parametrize("matrix, full_range", [("bt601", False), ("bt709", False), ("bt601", True), ("bt709", True)])
def test_nv12_equals_conversion_then_rgb(matrix, full_range):
    random = np.random.default_rng(1)
    luma, chroma = random.integers(0, 256, (60, 80), np.uint8), random.integers(0, 256, (30, 40, 2), np.uint8)
    kr, kb = (0.299, 0.114) if matrix == "bt601" else (0.2126, 0.0722)
    y = luma / 255 if full_range else (luma - 16.0) / 219
    u, v = np.moveaxis((chroma - 128.0) / (255 if full_range else 224), -1, 0).repeat(2, 1).repeat(2, 2)
    r, b = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
    colours = (np.stack((r, (y - kr * r - kb * b) / (1 - kr - kb), b), -1) * 255).round().clip(0, 255)
    rgb = torch.from_numpy(nv12_to_rgb(luma, chroma.reshape(30, 80), matrix, full_range))
    assert np.abs(rgb.numpy() - colours).max() <= 1 and (rgb.numpy() == colours).mean() > 0.999  # near ties: one level
    packed = torch.from_numpy(np.concatenate((luma, chroma.reshape(30, 80))))
    quads, options = [SQUARE, QUADS["perspective"]], {"matrix": matrix, "full_range": full_range}
    want = crop_resize(rgb, quads, (32, 48))
    assert torch.equal(crop_resize(packed, quads, (32, 48), layout="nv12", **options), want)
    parts = (packed[:60], packed[60:].clone())
    assert torch.equal(crop_resize(parts, quads, (32, 48), layout="nv12", **options), want)
    kernel = crop_resize(parts, quads[1:], (32, 48), layout="nv12", **options, implementation="triton")
    same(kernel, want[1:])


@pytest.mark.gpu
@pytest.mark.parametrize("implementation", ["reference", "triton"])
def test_channel_order_and_row_stride(frame, implementation):
    quads, options = [QUADS["turned"]], {"implementation": implementation}
    want = crop_resize(frame, quads, (16, 30))
    same(crop_resize(frame.flip(-1), quads, (16, 30), layout="bgr", **options), want)
    pitched = torch.zeros(300, 1153, 3, dtype=torch.uint8)[:, 5:1105]
    pitched.copy_(frame)
    same(crop_resize(pitched, quads, (16, 30), **options), want)


def test_turned_by_quarters_equals_the_turned_crop(frame):
    corners = box(100, 50, 170, 84)
    for quarters in range(4):
        want = prepare([np.rot90(cut(frame, 100, 50, 170, 84), quarters)], (100, 110))  # grows: passes keep their order
        quad = corners[quarters:] + corners[:quarters]
        assert np.array_equal(crop_resize(frame, [quad], (100, 110)).numpy(), want)


def test_perspective_equals_pillows_transform():
    """Which cuts levels' fractions off instead of rounding positions: a level or so; half a pixel would be eight."""
    x, y = np.meshgrid(np.arange(200), np.arange(160))
    waves = np.stack((np.sin(x / 6), np.cos(y / 5), np.sin(x / 7) * np.cos(y / 6)), -1)
    smooth = (128 + 100 * waves).astype(np.uint8)
    quad = np.array([[40.0, 30.0], [150.0, 45.0], [160.0, 120.0], [35.0, 90.0]])
    w = round(max(np.hypot(*(quad[1] - quad[0])), np.hypot(*(quad[2] - quad[3]))))
    h = round(max(np.hypot(*(quad[3] - quad[0])), np.hypot(*(quad[2] - quad[1]))))
    rows, sides = [], []
    for (u, v), (px, py) in zip([(0, 0), (w, 0), (w, h), (0, h)], quad):
        rows += [[u, v, 1, 0, 0, 0, -u * px, -v * px], [0, 0, 0, u, v, 1, -u * py, -v * py]]
        sides += [px, py]
    coefficients = np.linalg.solve(np.array(rows, np.float64), np.array(sides))
    crop = Image.fromarray(smooth).transform(
        (w, h), Image.Transform.PERSPECTIVE, coefficients, Image.Resampling.BILINEAR
    )
    want = prepare([crop], (64, 200))
    got = crop_resize(torch.from_numpy(smooth), [quad], (64, 200)).numpy()
    difference = np.abs(got - want) * 127.5
    assert difference.max() < 3.5 and difference.mean() < 0.75


def test_outside_the_frame_its_edge_repeats(frame):
    padded = np.pad(frame.numpy(), ((20, 20), (20, 20), (0, 0)), mode="edge")
    got = crop_resize(frame, [box(-15, -9, 40, 12), box(1090, 280, 1119, 318)], (32, 64))
    assert np.array_equal(got.numpy(), prepare([padded[11:32, 5:60], padded[300:338, 1110:1139]], (32, 64)))


@pytest.mark.parametrize("kind", [list, np.float32, np.int64, torch.float64])
def test_quads_of_any_kind_and_none_at_all(frame, kind):
    quads = [SQUARE]
    given = (
        quads if kind is list else torch.tensor(quads, dtype=kind) if kind is torch.float64 else np.array(quads, kind)
    )
    assert torch.equal(crop_resize(frame, given, (8, 9)), crop_resize(frame, [box(10, 10, 40, 20)], (8, 9)))
    assert crop_resize(frame, given[:0], (8, 9), dtype=torch.float16).shape == (0, 3, 8, 9)


def test_out(frame):
    out = torch.empty(1, 3, 8, 9)
    assert crop_resize(frame, [SQUARE], (8, 9), out=out) is out
    assert torch.equal(out, crop_resize(frame, [SQUARE], (8, 9)))


NAN, INF = float("nan"), float("inf")
BAD_QUADS = {
    "finite": [[10.0, 10.0], [40.0, NAN], [40.0, 20.0], [10.0, 20.0]],
    "finite numbers": [[10.0, 10.0], [INF, 10.0], [40.0, 20.0], [10.0, 20.0]],
    "at least 2": box(10, 10, 40, 11),
    "at most 8192": box(0, 0, 8193, 20),
    "at most 8192 ": [[0.0, 0.0], [1e30, 0.0], [1e30, 1e30], [0.0, 1e30]],
    "clockwise": SQUARE[::-1],
    "convex": [SQUARE[0], SQUARE[1], SQUARE[3], SQUARE[2]],
    "no three corners": [[10.0, 10.0], [40.0, 10.0], [25.0, 10.0], [10.0, 20.0]],
    "at least": [[10.0, 10.0]] * 4,
    "lies in the frame of 1100x300": box(1100, 10, 1200, 40),
}


@pytest.mark.parametrize("reason", BAD_QUADS)
def test_bad_host_quads_name_their_index(frame, reason):
    with pytest.raises(ShapeError, match=rf"^quad 1 of 3: .*{reason.strip()}") as error:
        crop_resize(frame, [SQUARE, BAD_QUADS[reason], BAD_QUADS[reason]], (8, 8))
    assert "\n" not in str(error.value)


def test_bad_device_quads_give_colours_in_bounded_time(frame):
    """What the GPU gets is not looked at: kernel and reference agree on some colours, whatever the corners are."""
    wild = [q for name, q in BAD_QUADS.items() if "8192" not in name]
    wild += [[[NAN] * 2] * 4, [[3e38, -3e38], [5.0, 5.0], [-INF, INF], [0.0, 0.0]]]
    sizes, maps = homographies(np.array([*wild, BAD_QUADS["at most 8192 "]], np.float32))
    assert np.isfinite(maps).all() and sizes.min() >= 1 and sizes.max() <= 8192
    quads = torch.tensor(wild)[torch.from_numpy(sizes[:-1].max(1) < 100)]
    assert len(quads) >= 6
    want, got = torch.empty(2, len(quads), 3, 16, 16).fill_(NAN)
    plain.crop_resize_reference(frame, None, quads, (16, 16), out=want)
    crop_resize_triton(frame, None, quads, (16, 16), out=got)
    assert want.abs().max() <= 1 and torch.equal(got, want)


U8 = torch.uint8
BAD_CALLS = {
    "UsageError: layout is 'rgb', 'bgr' or 'nv12', not 'yuv'": {"layout": "yuv"},
    "UsageError: normalization is": {"normalization": "none"},
    "UsageError: matrix is": {"matrix": "bt2020"},
    "UsageError: implementation is": {"implementation": "fast"},
    "ShapeError: size: height: supported are 1 to 2048, got 0": {"size": (0, 8)},
    "ShapeError: size: expected": {"size": 8},
    r"ShapeError: frame: expected shape \(height, width, 3\), got \(9, 9\)": {"frame": torch.zeros(9, 9, dtype=U8)},
    r"ShapeError: frame: expected shape .*, got \(9, 9, 4\)": {"frame": torch.zeros(9, 9, 4, dtype=U8)},
    "ShapeError: frame: height": {"frame": torch.zeros(0, 9, 3, dtype=U8)},
    "ShapeError: frame: rgb is one tensor": {"frame": (torch.zeros(8, 8, dtype=U8), torch.zeros(4, 8, dtype=U8))},
    "ShapeError: frame: nv12 has height": {"layout": "nv12", "frame": torch.zeros(10, 8, dtype=U8)},
    "ShapeError: frame: nv12 has even": {"layout": "nv12", "frame": torch.zeros(12, 7, dtype=U8)},
    "ShapeError: chroma": {"layout": "nv12", "frame": (torch.zeros(8, 8, dtype=U8), torch.zeros(4, 6, dtype=U8))},
    "DtypeError: frame: expected uint8, got float32": {"frame": torch.zeros(9, 9, 3)},
    "LayoutError: frame: expected contiguous": {"frame": torch.zeros(3, 9, 9, dtype=U8).permute(1, 2, 0)},
    r"ShapeError: quads: expected shape \(N, 4, 2\), got \(4, 2\)": {"quads": SQUARE},
    "ShapeError: quads: .*unequal": {"quads": [SQUARE, SQUARE[:3]]},
    "DtypeError: quads: expected numbers": {"quads": [[["a", "b"]] * 4]},
    "DtypeError: quads: expected numbers, got complex64": {"quads": torch.zeros(1, 4, 2, dtype=torch.complex64)},
    "DtypeError: dtype: .* got float64": {"dtype": torch.float64},
    r"ShapeError: out: expected shape \(1, 3, 8, 9\), got \(2, 3, 8, 9\)": {"out": torch.empty(2, 3, 8, 9)},
    "DtypeError: out": {"out": torch.empty(1, 3, 8, 9, dtype=torch.float16)},
    "LayoutError: out": {"out": torch.empty(1, 3, 8, 18)[..., ::2]},
    "DeviceError: .*out.* meta": {"out": torch.empty(1, 3, 8, 9, device="meta")},
}
ERRORS = {e.__name__: e for e in (DeviceError, DtypeError, LayoutError, ShapeError, UsageError)}


@pytest.mark.parametrize("what", BAD_CALLS)
def test_bad_arguments(frame, what):
    error, _, message = what.partition(": ")
    arguments = {"frame": frame, "quads": [SQUARE], "size": (8, 9), **BAD_CALLS[what]}
    with pytest.raises(ERRORS[error.strip()], match=message) as raised:
        api.crop_resize(**arguments)
    assert "\n" not in str(raised.value)


def test_benchmark_cases_run():
    case = next(c for c in cases() if "small" in c.name and "upright batch 1" in c.name and "rgb" in c.name)
    arguments = case.make(torch.device("cpu"), torch.float32)
    got, other = case.function(**arguments), case.baseline(**arguments)
    assert got.shape == other.shape and (got - other).abs().mean() < 0.02  # torch rounds nothing in between
    assert case.bytes > got.numel() * 2 and case.flops > 0
