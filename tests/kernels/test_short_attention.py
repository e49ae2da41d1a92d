"""A tower's attention over few tokens, projected: the kernel against torch's own attention in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from device import ON_GPU, there
from torch import Tensor

from clip4str.core.errors import DeviceError, DtypeError, LayoutError, ShapeError, UsageError
from clip4str.kernels.options import Options, using
from clip4str.kernels.shared import launch
from clip4str.kernels.shared.tiles import SHARED_LIMIT
from clip4str.kernels.short_attention import ShortAttentionConfig, api, candidates, configuration

short_attention = there(api.short_attention)

# Relative to the largest output; attention and answers are rounded to the dtype (bfloat16: the interpreter cuts).
TOLERANCES = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def draw(*shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0, seed: int = 0) -> Tensor:
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).to(dtype)


def arguments(N: int, S: int, heads: int, e: int, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    d = heads * e
    return {
        "qkv": draw(N, S, 3 * d, dtype=dtype, scale=1.5),
        "residual": draw(N, S, d, dtype=dtype, seed=1),
        "weight": draw(d, d, dtype=dtype, scale=d**-0.5, seed=2),
        "bias": draw(d, dtype=dtype, seed=3),
        "heads": heads,
    }


def wanted(qkv: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None, heads: int, causal: bool) -> Tensor:
    """By torch, in float64, nothing rounded."""
    n, length, _ = qkv.shape
    q, k, v = qkv.double().view(n, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)
    return residual.double() + F.linear(attended, weight.double(), None if bias is None else bias.double())


def close(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape and torch.isfinite(got).all()
    assert (got.double() - want).abs().max() <= TOLERANCES[got.dtype] * want.abs().max().clamp(min=1.0)


SHAPES = [
    # N, S, heads, e
    (1, 16, 8, 64),  # a caption of B/16
    (2, 33, 3, 64),  # an image of the bundled network
    (1, 64, 1, 64),
    (3, 1, 1, 8),
    (2, 7, 5, 24),
    (1, 50, 3, 40),
    (2, 17, 6, 16),
]


@pytest.mark.gpu
@pytest.mark.parametrize("implementation", ["reference", "triton"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_torch_computes(shape, causal, implementation):
    given = arguments(*shape)
    close(short_attention(**given, causal=causal, implementation=implementation), wanted(**given, causal=causal))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES[1:5:3])
def test_half_precision(shape, dtype):
    given = arguments(*shape, dtype=dtype)
    got = short_attention(**given, causal=True, implementation="triton")
    assert got.dtype == dtype
    close(got, wanted(**given, causal=True))


@pytest.mark.gpu
@pytest.mark.parametrize("config", [*candidates(1, 17, 6, 16, torch.float32), ShortAttentionConfig(16, 1, 4)], ids=str)
def test_any_tiles_without_a_bias_in_place(config):
    given = arguments(2, 17, 6, 16) | {"bias": None}
    want = wanted(**given, causal=False)
    out = given["residual"].clone()
    given["residual"] = out
    assert short_attention(**given, out=out, config=config, implementation="triton") is out
    close(out, want)


@pytest.mark.gpu
def test_what_lies_around_is_not_read(dtype=torch.float16):
    """NaN behind every tensor; a bias in float32."""
    given = arguments(2, 7, 5, 24, dtype=dtype)
    given["bias"] = given["bias"].float()
    want = wanted(**given, causal=False)
    for name in ("qkv", "residual", "weight", "bias"):
        tensor = given[name]
        room = torch.full((tensor.numel() + 4096,), torch.nan, dtype=tensor.dtype)
        room[: tensor.numel()] = tensor.flatten()
        given[name] = room[: tensor.numel()].view(tensor.shape)
    close(short_attention(**given, implementation="triton"), want)


@pytest.mark.gpu
def test_a_sample_depends_on_no_other_one_and_large_scores_are_no_infinities():
    given = arguments(3, 20, 2, 32)
    given["qkv"][1] *= 60  # scores of thousands
    one = ShortAttentionConfig(16, 2, 4)
    together = short_attention(**given, causal=True, config=one, implementation="triton")
    close(together, wanted(**given, causal=True))
    for i in range(3):
        alone = given | {name: given[name][i : i + 1].contiguous() for name in ("qkv", "residual")}
        assert torch.equal(short_attention(**alone, causal=True, config=one, implementation="triton")[0], together[i])


def test_no_words():
    given = arguments(2, 4, 2, 8)
    given |= {name: given[name][:0] for name in ("qkv", "residual")}
    for implementation in ("reference", "triton"):
        assert short_attention(**given, implementation=implementation).shape == (0, 4, 16)


@pytest.mark.parametrize(
    "change, error, words",
    [
        ({"heads": 3}, UsageError, "heads: expected a divisor of d = 16, got 3"),
        ({"heads": 0}, UsageError, "heads: expected a divisor"),
        ({"qkv": torch.zeros(2, 4, 32)}, ShapeError, "qkv"),
        ({"qkv": torch.zeros(2, 65, 48), "residual": torch.zeros(2, 65, 16)}, ShapeError, "length S"),
        ({"weight": torch.zeros(16, 8)}, ShapeError, "weight"),
        ({"bias": torch.zeros(8)}, ShapeError, "bias"),
        ({"residual": torch.zeros(2, 4, 16, dtype=torch.float16)}, DtypeError, "residual"),
        ({"qkv": torch.zeros(2, 4, 48, dtype=torch.float64)}, DtypeError, "qkv"),
        ({"weight": torch.zeros(16, 32)[:, ::2]}, LayoutError, "weight"),
        ({"implementation": "cuda"}, UsageError, "implementation"),
        ({"bias": torch.zeros(16, device="meta")}, DeviceError, "bias"),
    ],
)
def test_wrong_arguments(change, error, words):
    with pytest.raises(error, match=words):
        api.short_attention(**{**arguments(2, 4, 2, 8), **change})


def test_heads_wider_than_a_tile_and_outputs_over_inputs_are_refused():
    with pytest.raises(ShapeError, match="head dimension e"):
        api.short_attention(**arguments(1, 4, 1, 80))
    square = arguments(1, 4, 2, 8)
    with pytest.raises(LayoutError, match="out: expected memory other than qkv's"):
        api.short_attention(**square, out=square["qkv"].view(-1)[: 4 * 16].view(1, 4, 16))


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (10, 0), (12, 0)])
@pytest.mark.parametrize("dtype", list(TOLERANCES))
def test_every_configuration_fits_the_device(capability, dtype):
    for samples in (1, 3, 8, 64):
        for _, length, heads, e in [*SHAPES, (1, 50, 12, 64), (1, 16, 16, 64)]:
            for config in candidates(samples, length, heads, e, dtype, capability):
                limit = 1024 * SHARED_LIMIT[10 * capability[0] + capability[1]]
                assert config.heads & (config.heads - 1) == 0 < config.heads
                assert config.shared_bytes(length, e, dtype) <= limit
    few, many = (configuration(n, 16, 8, 64, dtype, (9, 0)).block_f for n in (1, 16))
    assert few == 16 and (many == 64 or dtype == torch.float32)


@pytest.mark.parametrize(
    "asked, shape, heads, taken",
    [
        (True, (1, 16, 512), 8, True),
        (False, (1, 16, 512), 8, False),
        (True, (16, 16, 512), 8, True),
        (True, (17, 16, 512), 8, False),  # 136 programs of 64 features for 132 multiprocessors
        (True, (1, 197, 768), 12, False),
        (True, (1, 33, 192), 2, False),  # heads of 96
        (True, (44, 33, 192), 3, True),  # 132 programs for 132 multiprocessors
        (True, (45, 33, 192), 3, False),
    ],
)
def test_where_towers_take_it(asked, shape, heads, taken, monkeypatch):
    monkeypatch.setattr(launch, "_compiled_for", (9, 0))
    with using(Options(short_attention=asked)):
        x = torch.empty(shape, device="meta", dtype=torch.float16)
        assert api.fits(x, heads) == taken
        assert not api.fits(x.float(), heads) and not api.fits(torch.empty(shape).half(), heads), "on a CPU"


@pytest.mark.skipif(ON_GPU, reason="compiles ahead, which needs no GPU")
def test_it_compiles_onto_tensor_cores_without_spills():
    from compiled_kernels import short_attention_figures

    rows = short_attention_figures()
    assert {tuple(row["capability"]) for row in rows} == {(8, 7), (9, 0)} and len(rows) == 12
    for row in rows:
        assert row["spills"] == 0 and row["tensor"] and row["shared"] <= 99 * 1024
        assert row["dependent"] == bool(row["prefetches"]) == (row["capability"] == [9, 0])
