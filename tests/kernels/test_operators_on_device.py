"""Every operator's kernel against its reference in float32: real shapes on a GPU, small ones in the interpreter.

Inputs are fresh random numbers, memory that nobody wrote holds NaN, and everything is computed twice: an answer that
differs between two runs on the same input is a race.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from device import DEVICE, ON_GPU, poisoned
from torch import Tensor

from clip4str.core.bpe import BytePairTokenizer
from clip4str.core.text import Charset
from clip4str.kernels.collapse import collapse
from clip4str.kernels.crop_resize import crop_resize
from clip4str.kernels.cross_attention import cross_attention
from clip4str.kernels.decode_pass import Answer, decode_pass, pack_decoder
from clip4str.kernels.linear import linear, normalize, quick_gelu_
from clip4str.kernels.resize import resize
from clip4str.kernels.resize.reference import packed
from clip4str.kernels.thumbnail import thumbnail
from clip4str.kernels.tokenize import TokenizerTables, tokenize

pytest.importorskip("triton")
pytestmark = pytest.mark.gpu
LIMITS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}  # ||out - reference|| / ||reference||
# the interpreter computes half precision in each operator's own test
DTYPES = pytest.mark.parametrize("dtype", LIMITS if ON_GPU else [torch.float32], ids=str)


class Draw:
    """Random tensors on the device."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.seed, self.dtype = secrets.randbits(32), dtype
        print(f"seed {self.seed}")  # pytest shows it if the test fails
        self._generator = torch.Generator(DEVICE).manual_seed(self.seed)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return (scale * torch.randn(shape, generator=self._generator, device=DEVICE)).to(self.dtype)

    def integers(self, high: int, *shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.randint(0, high, shape, generator=self._generator, device=DEVICE).to(dtype)


def shapes(real: list[Any], small: list[Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("shape", real if ON_GPU else small, ids=str)


def distance(out: Tensor, reference: Tensor) -> float:
    """||out - reference|| / ||reference||; a billion for another shape or what is not finite."""
    if out.shape != reference.shape or not torch.isfinite(out).all():
        return 1e9
    difference = (out.double() - reference.double()).norm()
    return float(difference / reference.double().norm().clamp_min(1e-30))


def check(operator: Callable[..., Tensor], given: dict[str, Any], limit: float) -> None:
    """The kernel twice, the reference in float32. Raises AssertionError."""
    with torch.inference_mode():
        with poisoned():
            out, again = (operator(**fresh(given), implementation="triton").clone() for _ in range(2))
        reference = operator(**fresh(given, torch.float32), implementation="reference")
    error = distance(out, reference) if out.is_floating_point() else float((out != reference).float().mean())
    assert error <= limit, f"differs from its reference by {error:.2g}, allowed is {limit:.2g}"
    assert torch.equal(out, again), "two runs on the same input differ"


def fresh(given: dict[str, Any], dtype: torch.dtype | None = None) -> dict[str, Any]:
    """Copies of what may be written to, in another floating-point type where wanted."""

    def one(value: Any) -> Any:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.to(dtype) if dtype else value.clone() if value.is_contiguous() else value
        return value

    return {name: one(value) for name, value in given.items()}


REAL_LINEAR = [(1, 64, 64), (26, 512, 2048), (26, 2048, 512), (197, 768, 768), (333, 100, 75), (5, 37, 1000),
               (1664, 512, 512), (2100, 768, 96), (4000, 256, 256)]  # fmt: skip
OPTIONS = list(itertools.product((False, True), ("none", "gelu", "quick_gelu"), (False, True)))


@DTYPES
@shapes(REAL_LINEAR, [(1, 64, 64), (33, 100, 75)])
def test_linear(dtype, shape):
    draw = Draw(dtype)
    rows, k, f = shape
    which = 2 * REAL_LINEAR.index(shape) if shape in REAL_LINEAR else 5
    for normalized, activation, residual in (OPTIONS[which % 12], OPTIONS[(which + 7) % 12]):
        given = {
            "x": draw.normal(rows, k) + 0.5,
            "weight": draw.normal(f, k, scale=k**-0.5),
            "bias": draw.normal(f),
            "residual": draw.normal(rows, f) if residual else None,
        }
        check(partial(linear, normalize=normalized, activation=activation), given, LIMITS[dtype])


@DTYPES
@shapes([(7, 37), (300, 768)], [(7, 37)])
@pytest.mark.parametrize("operator", [normalize, quick_gelu_])
def test_elementwise(dtype, shape, operator):
    draw = Draw(dtype)
    check(operator, {"x": draw.normal(*shape)}, LIMITS[dtype])


@DTYPES
@shapes(
    [(1, 1, 64, 8, 17, 0), (1, 26, 512, 8, 197, 0), (3, 26, 192, 8, 65, 16), (2, 7, 768, 8, 257, 16),
     (64, 26, 512, 8, 197, 16), (2, 32, 1024, 8, 577, 16), (5, 26, 64, 8, 50, 16)],
    [(1, 1, 64, 8, 17, 0), (2, 5, 64, 8, 33, 16)],
)  # fmt: skip
@pytest.mark.parametrize("sharp", [1.0, 30.0])
def test_cross_attention(dtype, shape, sharp):
    """sharp: factor of the queries: huge scores too."""
    draw = Draw(dtype)
    n, t, d, h, m, x = shape
    # as the towers leave them: views, with strides that are not the plain ones
    memory = draw.normal(n, m, 4 * d)[..., : 2 * d].unflatten(-1, (2, h, -1)).permute(0, 2, 3, 1, 4)
    text = draw.normal(n, x, 2 * d).unflatten(-1, (2, h, -1)).permute(0, 2, 3, 1, 4) if x else None
    given = {
        "x": draw.normal(n, t, d),
        "memory": memory,
        "text": text,
        "query_weight": draw.normal(d, d, scale=sharp * (d * d / h) ** -0.5),
        "query_bias": draw.normal(d, scale=0.1),
        "out_weight": draw.normal(d, d, scale=d**-0.5),
        "out_bias": draw.normal(d),
    }
    check(partial(cross_attention, heads=h), given, LIMITS[dtype] * (1 if sharp == 1 else 8))  # queries are rounded


@DTYPES
@shapes([192, 512, 768], [64])
@pytest.mark.parametrize("mode", ["start", "causal", "cloze"])
def test_decode_pass(dtype, shape, mode, random_model):
    draw = Draw(dtype)
    d = shape
    decoder = random_model(seed=3, image_layers=1, d=d, decoder_heads=8, decoder_mlp=4 * d).cross_decoder
    packed, exact = (pack_decoder(decoder, kind, DEVICE) for kind in (dtype, torch.float32))
    for n, x in itertools.product((1, 3, 65), (0, 16)) if ON_GPU else ((1, 16),):
        memory, text = (draw.normal(n, 2, 8, m, d // 8) for m in (33, 16))
        given = {
            "ids": draw.integers(97, n, 26),
            "memory": memory,
            "text": text if x else None,
            "keep": draw.integers(26, n) if mode == "cloze" else None,
        }

        def run(implementation: str, **arguments: Any) -> Tensor:
            weights = exact if implementation == "reference" else packed
            answer = decode_pass(weights, mode=mode, logits=True, implementation=implementation, **arguments)
            agrees_with_itself(answer)
            return answer.logits

        check(run, given, 4 * LIMITS[dtype])


def agrees_with_itself(answer: Answer) -> None:
    """ids, probs and last are what the logits say."""
    probs, chosen = answer.logits.softmax(-1).amax(-1), answer.logits.gather(-1, answer.ids.long()[..., None])[..., 0]
    assert torch.equal(chosen, answer.logits.amax(-1)), "an id is not the most likely one"
    assert (answer.probs - probs).abs().max() < 1e-4, "a probability is not its softmax"
    steps = answer.ids.shape[1]
    ended = torch.where(answer.ids == 0, torch.arange(steps, device=DEVICE), steps).amin(1)
    assert torch.equal(answer.last, ended.clamp_max(steps - 1).int()), "last is not the first end token"


@pytest.mark.parametrize("words", [100_000] if ON_GPU else [6])
def test_tokenize(words):
    """The host's tokenizer says the same of the first few."""
    draw = Draw()
    charset, tokenizer = Charset(), BytePairTokenizer()
    tables = TokenizerTables.build(tokenizer, charset, DEVICE)
    ids = draw.integers(97, words, 26)
    ids[: words // 2] %= 37  # mostly letters and digits, ended early
    check(partial(tokenize, tables), {"ids": ids}, 0.0)
    captions = [charset.caption(i for i in row if i < 95) for row in ids[:500].tolist()]
    assert np.array_equal(tokenize(tables, ids[:500], implementation="triton").cpu(), tokenizer(captions))


@DTYPES
@shapes([(256, 32), (256, 42), (256, 1000)], [(4, 32)])
def test_collapse(dtype, shape):
    draw = Draw(dtype)
    logits = draw.normal(*shape, 95)
    logits[..., 0] += 1.5  # about half of the frames show nothing
    logits[:, 1::3] = logits[:, ::3][:, : logits[:, 1::3].shape[1]]  # and some what the one before shows
    check(partial(collapse, steps=26), {"logits": logits}, 0.0)


@DTYPES
@shapes(
    [("rgb", 540, 962, (32, 128)), ("bgr", 540, 962, (56, 47)), ("nv12", 540, 962, (224, 224))],
    [("nv12", 96, 128, (16, 24))],
)
def test_crop_resize(dtype, shape):
    draw = Draw(dtype)
    layout, height, width, size = shape
    rows = height * 3 // 2 if layout == "nv12" else height
    frame = draw.integers(256, rows, width, *(() if layout == "nv12" else (3,)), dtype=torch.uint8)
    quads = some_quads(np.random.default_rng(draw.seed), 16 if ON_GPU else 1, height, width)

    def run(implementation: str, **arguments: Any) -> Tensor:
        exact = implementation == "reference"
        kind = torch.float32 if exact else dtype
        return crop_resize(**arguments, size=size, layout=layout, dtype=kind, implementation=implementation)

    check(run, {"frame": frame, "quads": quads}, max(LIMITS[dtype], 1e-3))


@shapes([(224, 224), (32, 128)], [(9, 12)])
def test_resize(shape):
    """To the bit, on a GPU too: there are whole numbers alone up to the last step."""
    draw = Draw(torch.float32)
    sizes = [(31, 100), (200, 9), (4, 1), (64, 777)] if ON_GPU else [(3, 10)]
    pixels, table = packed([draw.integers(256, h, w, 3, dtype=torch.uint8).cpu() for h, w in sizes])
    want = resize(pixels, table, shape)
    where = "cuda" if ON_GPU else "cpu"
    assert torch.equal(resize(pixels.to(where), table, shape, implementation="triton").cpu(), want)


@shapes(
    [("rgb", 540, 962, True), ("bgr", 1080, 1920, False), ("nv12", 1080, 1920, False), ("nv12", 540, 962, True)],
    [("nv12", 8, 16, True)],
)
def test_thumbnail(shape):
    layout, height, width, colour = shape
    rows = height * 3 // 2 if layout == "nv12" else height
    frame = Draw(torch.float32).integers(256, rows, width, *(() if layout == "nv12" else (3,)), dtype=torch.uint8)
    given = {"size": (height // 3, width // 3), "layout": layout, "colour": colour}
    got = thumbnail(frame.to("cuda" if ON_GPU else "cpu"), **given, implementation="triton")
    assert torch.equal(got.cpu(), thumbnail(frame.cpu(), **given))


def some_quads(random: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    """Boxes of any size inside the frame, turned by up to 30 degrees and bent a little: (count, 4, 2)."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    quads = []
    for _ in range(count):
        half = random.uniform((8, 5), (width / 5, height / 8))
        angle = random.uniform(-0.5, 0.5)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        centre = random.uniform((width * 0.3, height * 0.3), (width * 0.7, height * 0.7))
        quads.append((corners * half * random.uniform(0.9, 1.1, (4, 2))) @ turn + centre)
    return np.asarray(quads, np.float32)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda out: out * 1.1, "differs from its reference by"),
        (lambda out: torch.empty_like(out), "differs from its reference by 1e[+]09"),
        (lambda out: torch.cat((out[:-1], torch.empty_like(out[-1:]))), "differs from its reference by 1e[+]09"),
        (lambda out: out + 1e-7 * torch.rand((), device=out.device), "two runs on the same input differ"),
    ],
    ids=["wrong", "unwritten", "last row unwritten", "race"],
)
def test_wrong_kernels_are_found(spoil, why):
    def spoilt(x: Tensor, implementation: str) -> Tensor:
        right = normalize(x, implementation="reference")
        return right if implementation == "reference" else spoil(right)

    with pytest.raises(AssertionError, match=why):
        check(spoilt, {"x": Draw().normal(5, 64)}, LIMITS[torch.float32])
