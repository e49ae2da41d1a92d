"""The cross-attention kernel against its reference, the reference against the network's own decoder layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from device import ON_GPU, there
from torch import Tensor

from clip4str.core.errors import DeviceError, DtypeError, LayoutError, ShapeError, UsageError
from clip4str.kernels.cross_attention import AttentionConfig, api, candidates, configuration
from clip4str.kernels.cross_attention.config import shared_bytes
from clip4str.kernels.shared.tiles import SHARED_LIMIT
from clip4str.model.network import DecoderLayer

attend_memory, cross_attention = there(api.attend_memory), there(api.cross_attention)

# Relative to the largest output; queries and answers are rounded to the dtype (bfloat16: the interpreter cuts).
TOLERANCES = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}
DTYPES = list(TOLERANCES)
INSIDE, OUTSIDE = AttentionConfig(64, 64, 4, 2, True), AttentionConfig(32, 32, 4, 2, False)


def draw(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0, seed: int = 0) -> Tensor:
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def close(got: Tensor, wanted: Tensor, factor: float = 1.0) -> None:
    assert got.dtype == wanted.dtype and got.shape == wanted.shape
    assert torch.isfinite(got).all()
    largest = wanted.float().abs().max().clamp(min=1.0)
    assert (got.float() - wanted.float()).abs().max() <= factor * TOLERANCES[got.dtype] * largest


def arguments(
    N: int, T: int, heads: int, e: int, M: int, X: int, dtype: torch.dtype = torch.float32, logits: float = 1.0
) -> dict[str, Any]:
    """logits: about the standard deviation of the scores."""
    d = heads * e
    text = draw(N, 2, heads, X, e, dtype=dtype, seed=5) if X else None
    return {
        "x": 2 * draw(N, T, d, dtype=dtype) + 1,
        "memory": draw(N, 2, heads, M, e, dtype=dtype, seed=6),
        "text": text,
        "query_weight": draw(d, d, dtype=dtype, scale=logits * (d * e) ** -0.5, seed=1),
        "query_bias": draw(d, dtype=dtype, scale=0.1, seed=2),
        "heads": heads,
    }


def outward(heads: int, e: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    d = heads * e
    return {"out_weight": draw(d, d, dtype=dtype, scale=d**-0.5, seed=3), "out_bias": draw(d, dtype=dtype, seed=4)}


SHAPES = [
    # N, T, heads, e, M, X
    (1, 1, 1, 8, 17, 0),
    (2, 7, 3, 24, 65, 16),
    (1, 26, 2, 64, 197, 16),
    (1, 32, 1, 96, 65, 16),
    (2, 26, 1, 128, 33, 0),
    (1, 16, 2, 64, 64, 5),
    (1, 17, 1, 40, 577, 32),
    (1, 2, 1, 16, 1, 1),
]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_its_reference(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    given = arguments(*shape, dtype=dtype)
    wanted = attend_memory(**given, implementation="reference")
    for config in (INSIDE, OUTSIDE):
        close(attend_memory(**given, config=config, implementation="triton"), wanted)
    given |= outward(*shape[2:4], dtype=dtype)
    close(cross_attention(**given, implementation="triton"), cross_attention(**given, implementation="reference"))


def test_reference_is_the_decoders_cross_attention() -> None:
    """norm1's gain and shift and the scale folded into the query projection; memory and text concatenated there."""
    torch.manual_seed(0)
    layer = DecoderLayer(48, 4, 96, 0.0).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x, memory, text = draw(2, 9, 48), draw(2, 20, 48, seed=1), draw(2, 16, 48, seed=2)
    attention, norm, scale = layer.cross_attn, layer.norm1, 12**-0.5
    weights = {
        "query_weight": scale * attention.in_proj_weight[:48] * norm.weight,
        "query_bias": scale * (attention.in_proj_bias[:48] + attention.in_proj_weight[:48] @ norm.bias),
        "out_weight": attention.out_proj.weight,
        "out_bias": attention.out_proj.bias,
    }
    with torch.no_grad():
        for features, second in ((memory, None), (torch.cat((memory, text), 1), text)):
            wanted = x + attention.attend(attention.query(norm(x)), attention.key_value(features))
            kv = [None if part is None else attention.key_value(part) for part in (memory, second)]
            for implementation in ("reference", "triton"):
                got = cross_attention(x, *kv, **weights, heads=4, implementation=implementation)
                close(got, wanted, factor=2)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("config", [INSIDE, OUTSIDE], ids=["inside", "outside"])
def test_huge_logits(config: AttentionConfig, dtype: torch.dtype) -> None:
    """Scores of +-1e4: the softmax is one-hot, nothing overflows; ties are shared."""
    given = arguments(1, 5, 1, 16, 40, 16, dtype=dtype)
    given |= {"query_weight": torch.zeros(16, 16, dtype=dtype), "query_bias": torch.zeros(16, dtype=dtype)}
    given["query_bias"][0] = 100.0
    for name, position in (("memory", 39), ("text", 15)):
        given["memory"][:, 0, ..., 0] = given["text"][:, 0, ..., 0] = -100.0
        given[name][:, 0, :, position, 0] = 100.0
        got = attend_memory(**given, config=config, implementation="triton")
        close(got, given[name][:, 1, 0, position, None].expand(-1, 5, -1))
    given["memory"][:, 0, ..., 0] = given["text"][:, 0, ..., 0] = -100.0
    given["memory"][:, 0, ..., 1:] = given["text"][:, 0, ..., 1:] = 0
    mean = torch.cat((given["memory"], given["text"]), 3)[:, 1, 0].float().mean(1, keepdim=True)
    close(attend_memory(**given, config=config, implementation="triton"), mean.expand(-1, 5, -1).to(dtype))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_wide_logits(dtype: torch.dtype) -> None:
    """Scores of some hundreds, as random weights give them: float16 queries are rounded, so compare as attention."""
    given = arguments(1, 26, 2, 24, 65, 16, dtype=dtype, logits=30.0)
    wanted = attend_memory(**given, implementation="reference")
    got = attend_memory(**given, config=INSIDE, implementation="triton")
    assert torch.isfinite(got).all()
    error = (got.float() - wanted.float()).norm() / wanted.float().norm()
    assert error < {torch.float32: 1e-4, torch.float16: 0.03, torch.bfloat16: 0.25}[dtype]


@pytest.mark.gpu
def test_constant_rows() -> None:
    """Rows without deviation: the queries are the bias."""
    given = arguments(1, 26, 2, 24, 65, 16)
    given["x"] = torch.full_like(given["x"], 3.0)
    flat = {**given, "query_weight": torch.zeros(48, 48)}
    for config in (INSIDE, OUTSIDE):
        got = attend_memory(**given, config=config, implementation="triton")
        close(got, attend_memory(**flat, implementation="reference"))


@pytest.mark.gpu
def test_strided_memory() -> None:
    """Keys and values as the towers leave them: both decoders' side by side in rows of 4 d; text rows of 2 d."""
    given = arguments(2, 7, 2, 24, 20, 16)
    d = 48
    image, words = draw(2, 20, 4 * d), draw(2, 16, 2 * d, seed=1)
    memory = image[..., 2 * d :].unflatten(-1, (2, 2, 24)).permute(0, 2, 3, 1, 4)
    text = words.unflatten(-1, (2, 2, 24)).permute(0, 2, 3, 1, 4)
    wanted = attend_memory(**{**given, "memory": memory.contiguous(), "text": text.contiguous()})
    for config in (INSIDE, OUTSIDE):
        got = attend_memory(**{**given, "memory": memory, "text": text}, config=config, implementation="triton")
        close(got, wanted)
    odd = draw(2, 2, 2, 20, 25)[..., :24]  # rows that start at no vector's border
    wanted = attend_memory(**{**given, "memory": odd.contiguous()})
    close(attend_memory(**{**given, "memory": odd}, implementation="triton"), wanted)
    one = memory[:1].expand(2, -1, -1, -1, -1)
    close(
        attend_memory(**{**given, "memory": one}, implementation="triton"),
        attend_memory(**{**given, "memory": one.contiguous()}),
    )


@pytest.mark.gpu
def test_nothing_past_the_ends_is_used() -> None:
    """Memory, text and queries lie inside larger tensors full of NaN."""
    given = arguments(1, 7, 1, 24, 17, 3)
    wanted = attend_memory(**given, implementation="reference")
    for name in ("memory", "text"):
        n, two, heads, length, e = given[name].shape
        padded = torch.full((n, two, heads, length + 70, e + 8), float("nan"))
        padded[..., :length, :e] = given[name]
        given[name] = padded[..., :length, :e]
    rows = torch.full((60, 24), float("nan"))
    rows[:7] = given["x"][0]
    given["x"] = rows[None, :7]
    for config in (INSIDE, OUTSIDE):
        close(attend_memory(**given, config=config, implementation="triton"), wanted)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("config", [INSIDE, OUTSIDE], ids=["inside", "outside"])
def test_a_sample_does_not_depend_on_the_batch(config: AttentionConfig, dtype: torch.dtype) -> None:
    # 16 rows a sample: the projection's tiles are the same, and numpy's products add up alike in the same row of a tile
    given = arguments(3, 16, 2, 24, 33, 16, dtype=dtype)
    together = attend_memory(**given, config=config, implementation="triton")
    for n in range(3):
        alone = {name: given[name][n : n + 1] for name in ("x", "memory", "text")}
        one = attend_memory(**{**given, **alone}, config=config, implementation="triton")[0]
        if config is OUTSIDE and ON_GPU:  # a `linear` before it, whose tiles are chosen by the number of rows
            close(one, together[n])
        else:
            assert torch.equal(one, together[n])


@pytest.mark.gpu
def test_out_and_no_bias() -> None:
    given = arguments(2, 5, 2, 8, 20, 0) | {"query_bias": None}
    more = outward(2, 8) | {"out_bias": None}
    wanted = attend_memory(**given, implementation="reference")
    for implementation in ("triton", "reference"):
        out = torch.full((2, 5, 16), float("nan"))
        assert attend_memory(**given, out=out, implementation=implementation) is out
        close(out, wanted)
        x = given["x"].clone()
        assert cross_attention(**{**given, "x": x}, **more, out=x, implementation=implementation) is x
        close(x, cross_attention(**given, **more, implementation="reference"))


@pytest.mark.gpu
def test_no_samples_and_empty_text() -> None:
    given = arguments(2, 5, 1, 8, 20, 0)
    empty = torch.zeros(2, 2, 1, 0, 8)
    for implementation in ("triton", "reference"):
        got = attend_memory(**{**given, "text": empty}, implementation=implementation)
        close(got, attend_memory(**given, implementation="reference"))
        none = {"x": given["x"][:0], "memory": given["memory"][:0]}
        assert attend_memory(**{**given, **none}, implementation=implementation).shape == (0, 5, 8)


def test_every_candidate_computes_the_same() -> None:
    given = arguments(1, 5, 2, 24, 65, 16, dtype=torch.float16)
    wanted = attend_memory(**given, implementation="reference")
    for config in candidates(1, 2, 24, 65, torch.float16):
        close(attend_memory(**given, config=config, implementation="triton"), wanted)


def test_configurations_fit_every_gpu() -> None:
    for capability, limit in SHARED_LIMIT.items():
        for dtype in DTYPES:
            for samples in (1, 8, 9, 64, 256):
                for e, M in ((24, 65), (64, 197), (96, 257), (128, 577), (8, 17)):
                    shape = (samples, 8, e, M, dtype, divmod(capability, 10))
                    assert candidates(*shape)[0] == configuration(*shape)
                    for config in candidates(*shape):
                        assert shared_bytes(config, e, dtype) <= 1024 * limit
    assert configuration(1, 8, 64, 197, torch.float16).project_inside
    assert not configuration(64, 8, 64, 197, torch.float16).project_inside


def test_bad_input() -> None:
    given = arguments(2, 5, 2, 8, 20, 16) | outward(2, 8)
    wrong = [
        (ShapeError, "queries T: supported are 1 to 32, got 33", {"x": draw(2, 33, 16)}),
        (ShapeError, r"x: expected shape \(N, T, d\), got \(5, 16\)", {"x": draw(5, 16)}),
        (ShapeError, r"memory.*\(N, 2, h, M, e\) = \(2, 2, 2, M, 8\), got", {"memory": draw(3, 2, 2, 20, 8)}),
        (ShapeError, "memory.*got", {"memory": draw(2, 3, 2, 20, 8)}),
        (ShapeError, "memory.*got", {"memory": draw(2, 2, 2, 20, 9)}),
        (ShapeError, "memory length M: supported are 1 to 577, got 578", {"memory": draw(2, 2, 2, 578, 8)}),
        (ShapeError, "memory length M.*got 0", {"memory": draw(2, 2, 2, 0, 8)}),
        (ShapeError, "text length X: supported are 0 to 32, got 33", {"text": draw(2, 2, 2, 33, 8)}),
        (ShapeError, r"text.*\(2, 2, 2, X, 8\), got", {"text": draw(1, 2, 2, 16, 8)}),
        (ShapeError, "query_weight.*16, 16.*got", {"query_weight": draw(16, 15)}),
        (ShapeError, "query_bias.*got", {"query_bias": draw(15)}),
        (ShapeError, "out_weight|weight", {"out_weight": draw(16, 15)}),
        (ShapeError, "out.*got", {"out": draw(2, 5, 15)}),
        (DtypeError, "x: expected float16 or bfloat16 or float32, got int64", {"x": torch.zeros(2, 5, 16).long()}),
        (DtypeError, "memory: expected float32, got float16", {"memory": given["memory"].half()}),
        (DtypeError, "text: expected float32, got float16", {"text": given["text"].half()}),
        (DtypeError, "query_bias: expected float32, got float16", {"query_bias": draw(16).half()}),
        (LayoutError, "memory: expected contiguous in its last", {"memory": draw(2, 2, 2, 8, 20).transpose(3, 4)}),
        (LayoutError, "text: expected contiguous in its last", {"text": draw(2, 2, 2, 8, 16).transpose(3, 4)}),
        (LayoutError, "x: expected contiguous in its last", {"x": draw(2, 16, 5).transpose(1, 2)}),
        (LayoutError, "x: expected one stride", {"x": draw(5, 2, 16).transpose(0, 1)}),
        (LayoutError, "query_weight: expected contiguous", {"query_weight": draw(16, 16).t()}),
        (DeviceError, "memory: expected on cpu like x, got meta", {"memory": given["memory"].to("meta")}),
        (UsageError, "heads: expected a divisor of d = 16, got 3", {"heads": 3}),
        (UsageError, "heads", {"heads": 0}),
        (UsageError, "implementation is", {"implementation": "cuda"}),
    ]
    for error, message, change in wrong:
        for implementation in ("triton", "reference"):
            with pytest.raises(error, match=message):
                api.cross_attention(**{**given, "implementation": implementation, **change})
    wide = arguments(1, 5, 1, 136, 20, 0)
    with pytest.raises(ShapeError, match="head dimension e: supported are 1 to 128, got 136"):
        attend_memory(**wide)
    given = arguments(2, 5, 2, 8, 20, 16)
    with pytest.raises(LayoutError, match="out: expected contiguous"):
        attend_memory(**given, out=draw(2, 5, 32)[..., :16])
    with pytest.raises(LayoutError, match="out: expected memory other than x's"):
        attend_memory(**given, out=given["x"])
