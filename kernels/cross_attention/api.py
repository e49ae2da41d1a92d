"""Cross-attention block of the decoder: normalise, project queries, attend to two memory segments, project, add."""

from __future__ import annotations

import torch
from torch import Tensor

from clip4str.core.errors import LayoutError, UsageError

from ..linear import linear
from ..shared.checks import (
    FLOATS,
    as_rows,
    begin_alike,
    check_contiguous,
    check_dtype,
    check_range,
    check_same_device,
    check_shape,
)
from ..shared.launch import capability_of, on_device, use_kernel
from . import reference
from .config import AttentionConfig, configuration

MOST_QUERIES = 32
MOST_HEAD_DIM = 128
MOST_MEMORY = 577  # 24 x 24 patches and the class token
MOST_TEXT = 32


def cross_attention(
    x: Tensor,
    memory: Tensor,
    text: Tensor | None = None,
    *,
    query_weight: Tensor,
    query_bias: Tensor | None,
    out_weight: Tensor,
    out_bias: Tensor | None,
    heads: int,
    out: Tensor | None = None,
    config: AttentionConfig | None = None,
    implementation: str = "auto",
) -> Tensor:
    """y = x + softmax(q K^T) V Wo^T + bo with q = n(x) Wq^T + bq; K, V: memory's and text's under one softmax.

    x (N, T, d), T <= 32. memory (N, 2, h, M, e): keys, then values, h * e = d, e <= 128, M <= 577. text
    (N, 2, h, X, e) or None, X <= 32. Their last dimension is dense, other strides are free. query_weight, out_weight
    (d, d), biases (d,), x and out as `linear` takes them; out may be x. The scale e^-0.5 and the LayerNorm's affine
    part must be folded into query_weight and query_bias. config: None chooses `configuration` by N; linear chooses its
    tiles by N T. With the same configuration, no sample's result depends on the others.

    Returns (N, T, d). Raises ShapeError, DtypeError, LayoutError, DeviceError, UsageError.
    """
    attended = attend_memory(
        x,
        memory,
        text,
        query_weight=query_weight,
        query_bias=query_bias,
        heads=heads,
        config=config,
        implementation=implementation,
    )
    return linear(attended, out_weight, out_bias, residual=x, out=out, implementation=implementation)


def attend_memory(
    x: Tensor,
    memory: Tensor,
    text: Tensor | None = None,
    *,
    query_weight: Tensor,
    query_bias: Tensor | None,
    heads: int,
    out: Tensor | None = None,
    config: AttentionConfig | None = None,
    implementation: str = "auto",
) -> Tensor:
    """softmax(q K^T) V of `cross_attention`, heads side by side: (N, T, d), for the output projection to follow.

    Arguments and errors as `cross_attention`; out (N, T, d) contiguous, not x.
    """
    _check(x, memory, text, query_weight, query_bias, heads, out)
    text = None if text is None or text.shape[3] == 0 else text
    device = check_same_device(
        {"x": x, "memory": memory, "text": text, "query_weight": query_weight, "query_bias": query_bias, "out": out}
    )
    if not use_kernel(device, implementation):
        return reference.attend_memory(
            x, memory, text, query_weight=query_weight, query_bias=query_bias, heads=heads, out=out
        )
    from .kernel import launch_attend

    out = x.new_empty(x.shape) if out is None else out
    if x.numel() == 0:
        return out
    if config is None:
        head_dim, M = memory.shape[4], memory.shape[3]
        config = configuration(x.shape[0], heads, head_dim, M, x.dtype, capability_of(device))
    with on_device(device):
        if config.project_inside:
            launch_attend(x, memory, text, query_weight, query_bias, out, config)
        else:
            q = linear(x, query_weight, query_bias, normalize=True, implementation=implementation)
            launch_attend(q, memory, text, None, None, out, config)
    return out


def _check(
    x: Tensor,
    memory: Tensor,
    text: Tensor | None,
    query_weight: Tensor,
    query_bias: Tensor | None,
    heads: int,
    out: Tensor | None,
) -> None:
    sizes: dict[str, int] = {"h": heads}
    check_shape("x", x, ("N", "T", "d"), sizes)
    if heads < 1 or sizes["d"] % heads:
        raise UsageError(f"heads: expected a divisor of d = {sizes['d']}, got {heads}")
    sizes["e"] = sizes["d"] // heads
    check_shape("memory", memory, ("N", 2, "h", "M", "e"), sizes)
    check_range("queries T", sizes["T"], 1, MOST_QUERIES)
    check_range("head dimension e", sizes["e"], 1, MOST_HEAD_DIM)
    check_range("memory length M", sizes["M"], 1, MOST_MEMORY)
    if text is not None:
        check_shape("text", text, ("N", 2, "h", "X", "e"), sizes)
        check_range("text length X", sizes["X"], 0, MOST_TEXT)
    check_shape("query_weight", query_weight, ("d", "d"), sizes)
    check_contiguous("query_weight", query_weight)
    check_dtype("x", x, FLOATS)
    if query_bias is not None:
        check_shape("query_bias", query_bias, ("d",), sizes)
        check_dtype("query_bias", query_bias, sorted({x.dtype, torch.float32}, key=str))
        check_contiguous("query_bias", query_bias)
    for name, tensor in {"memory": memory, "text": text, "query_weight": query_weight, "out": out}.items():
        if tensor is not None:
            check_dtype(name, tensor, x.dtype)
    as_rows("x", x)
    for name, tensor in {"memory": memory, "text": text}.items():
        if tensor is not None:
            check_contiguous(name, tensor, 1)
    if out is not None:
        check_shape("out", out, ("N", "T", "d"), sizes)
        check_contiguous("out", out)
        if begin_alike(out, x):
            raise LayoutError("out: expected memory other than x's: every head needs the whole of x")
