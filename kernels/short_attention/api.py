"""A tower's self-attention over few tokens, its projection and the residual."""

from __future__ import annotations

import torch
from torch import Tensor

from clip4str.core.errors import LayoutError, UsageError

from ..options import options
from ..shared.checks import (
    FLOATS,
    begin_alike,
    check_contiguous,
    check_dtype,
    check_range,
    check_same_device,
    check_shape,
)
from ..shared.launch import capability_of, on_device, on_gpu, use_kernel
from ..shared.tiles import most_multiprocessors
from . import reference
from .config import FEATURES, ShortAttentionConfig, configuration, programs

MOST_LENGTH = 64
MOST_HEAD_DIM = 64


def short_attention(
    qkv: Tensor,
    residual: Tensor,
    *,
    weight: Tensor,
    bias: Tensor | None,
    heads: int,
    causal: bool = False,
    out: Tensor | None = None,
    config: ShortAttentionConfig | None = None,
    implementation: str = "auto",
) -> Tensor:
    """y = residual + softmax(q k^T e^-0.5) v Wo^T + bo, in one launch.

    qkv (N, S, 3 d): queries, keys and values, each of h heads of size e side by side, d = h e; S <= 64, e <= 64.
    residual (N, S, d). weight (d, d), rows are outputs; bias (d,) in their dtype or float32. causal: a token sees none
    after it. out (N, S, d): where to write; may be the residual. All contiguous, in one of float16, bfloat16, float32;
    sums are float32, attention is rounded to the dtype before it is projected. config: None chooses `configuration`
    by N; with the same one no sample's result depends on the others.

    Returns (N, S, d). Raises ShapeError, DtypeError, LayoutError, DeviceError, UsageError.
    """
    tensors = {"qkv": qkv, "residual": residual, "weight": weight, "out": out}
    n, length, width = _check(tensors, bias, heads)
    device = check_same_device({**tensors, "bias": bias})
    if not use_kernel(device, implementation):
        y = reference.short_attention(qkv, weight, bias, residual, heads, causal)
        return y if out is None else out.copy_(y)
    from .kernel import launch_short_attention

    out = torch.empty_like(residual) if out is None else out
    if out.numel():
        config = config or configuration(n, length, heads, width // heads, qkv.dtype, capability_of(device))
        with on_device(device):
            launch_short_attention(qkv, weight, bias, residual, out, heads, causal, config)
    return out


def fits(x: Tensor, heads: int) -> bool:
    """Is a tower's attention over x (N, S, d) to be `short_attention`'s? On a GPU, in half precision, if options() say
    so and all of its programs run at once on the largest GPU of that compute capability, as `configuration` has it."""
    n, length, width = x.shape
    if not (on_gpu(x.device) and options().short_attention and x.dtype != torch.float32):
        return False
    at_once = programs(n, width, FEATURES[-1]) <= most_multiprocessors(capability_of(x.device))
    return length <= MOST_LENGTH and width // heads <= MOST_HEAD_DIM and at_once


def _check(tensors: dict[str, Tensor | None], bias: Tensor | None, heads: int) -> tuple[int, int, int]:
    """N, S, d."""
    qkv, residual, weight, out = tensors.values()
    assert qkv is not None and residual is not None and weight is not None
    sizes: dict[str, int] = {}
    check_shape("residual", residual, ("N", "S", "d"), sizes)
    if heads < 1 or sizes["d"] % heads:
        raise UsageError(f"heads: expected a divisor of d = {sizes['d']}, got {heads}")
    check_range("length S", sizes["S"], 1, MOST_LENGTH)
    check_range("head dimension e", sizes["d"] // heads, 1, MOST_HEAD_DIM)
    check_shape("qkv", qkv, ("N", "S", "3 d"), {**sizes, "3 d": 3 * sizes["d"]})
    check_shape("weight", weight, ("d", "d"), sizes)
    if out is not None:
        check_shape("out", out, ("N", "S", "d"), sizes)
        if begin_alike(out, qkv):
            raise LayoutError("out: expected memory other than qkv's: every program needs all of it")
    check_dtype("qkv", qkv, FLOATS)
    for name, tensor in tensors.items():
        if tensor is not None:
            check_dtype(name, tensor, qkv.dtype)
            check_contiguous(name, tensor)
    if bias is not None:
        check_shape("bias", bias, ("d",), sizes)
        check_dtype("bias", bias, sorted({qkv.dtype, torch.float32}, key=str))
        check_contiguous("bias", bias)
    return sizes["N"], sizes["S"], sizes["d"]
