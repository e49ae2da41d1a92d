"""Triton kernel of the linear layer."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..shared.dependent import dependent, launch_dependents, prefetch_rows, wait
from ..shared.product import product, product_deferred, upcast
from ..shared.tiles import power_of_two
from .config import LinearConfig


@triton.jit
def activate(y, ACTIVATION: tl.constexpr):
    """ "gelu": y Phi(y), exact. "quick_gelu": y sigmoid(1.702 y). y in float32."""
    if ACTIVATION == "gelu":
        y = 0.5 * y * (1.0 + tl.erf(y * 0.7071067811865476))
    if ACTIVATION == "quick_gelu":
        y = y / (1.0 + tl.exp(-1.702 * y))
    return y


@triton.jit
def biased(y, bias, feature, F: tl.constexpr, ACTIVATION: tl.constexpr):
    """act(y + bias): y [rows, features] float32, bias (F,) or None."""
    if bias is not None:
        y += tl.load(bias + feature, mask=feature < F, other=0.0).to(tl.float32)[None, :]
    return activate(y, ACTIVATION)


@triton.jit
def tile_of(number, tiles_m, tiles_f, GROUP: tl.constexpr):
    """(row of tiles, column of tiles): columns one after another within GROUP rows of tiles, so that tiles computed at
    the same time share x and W in the L2 cache."""
    first_m = number // (GROUP * tiles_f) * GROUP
    group = tl.minimum(tiles_m - first_m, GROUP)
    within = number % (GROUP * tiles_f)
    return first_m + within % group, within // group


@triton.jit(do_not_specialize=["rows"])  # one kernel for 1 row, 16 rows and all others
def linear_kernel(
    x,
    weight,
    bias,
    residual,
    out,
    rows,
    stride_x,
    stride_residual,
    stride_out,
    K: tl.constexpr,
    F: tl.constexpr,
    NORMALIZE: tl.constexpr,
    DEFER: tl.constexpr,
    ACTIVATION: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STATISTICS_K: tl.constexpr,
    GROUP: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """out = act(n(x) W^T + bias) + residual, one program per BLOCK_M x BLOCK_F tile; bias, residual may be None.

    x (rows, K), weight (F, K), bias (F,), residual and out (rows, F). n(x) is recomputed by every program of a row of
    tiles: the statistics need one more pass over BLOCK_M rows of x, which lie in the L2 cache, and save a launch and
    a round trip of x through memory. Sums stay in registers from the first product to the residual.

    Few rows (one word: 26): the time is that of streaming W once, 2 F K bytes, and of the launch; so BLOCK_F is as
    small as a tensor core's tile, and many programs load at once, each with `stages` chunks in flight.
    Many rows: 2 rows F K operations; tiles of 128 x 128 and more, in the order of `tile_of`.

    Rows and features past the end are clamped to the last one (no masks in the loop) and not stored.
    """
    launch_dependents(DEPENDENT)
    tiles_m = tl.cdiv(rows, BLOCK_M)
    tiles_f: tl.constexpr = (F + BLOCK_F - 1) // BLOCK_F
    tile_m, tile_f = tile_of(tl.program_id(0), tiles_m, tiles_f, GROUP)
    row = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    feature = tile_f * BLOCK_F + tl.arange(0, BLOCK_F)
    if DEFER:  # few rows: every program has weights of its own
        prefetch_rows(weight, tile_f * BLOCK_F, F, K, BLOCK_F, DEPENDENT)
    wait(DEPENDENT)
    row_x = tl.minimum(row, rows - 1).to(tl.int64) * stride_x
    row_w = tl.minimum(feature, F - 1).to(tl.int64) * K if F % BLOCK_F else feature.to(tl.int64) * K

    if NORMALIZE and DEFER:
        y = product_deferred(x, row_x, weight, row_w, K, UPCAST, BLOCK_M, BLOCK_F, BLOCK_K, STATISTICS_K)
    else:
        y = product(x, row_x, weight, row_w, K, NORMALIZE, UPCAST, BLOCK_M, BLOCK_F, BLOCK_K, STATISTICS_K)
    y = biased(y, bias, feature, F, ACTIVATION)
    row64 = row.to(tl.int64)
    inside = (row < rows)[:, None] & (feature < F)[None, :]
    if residual is not None:
        y += tl.load(residual + row64[:, None] * stride_residual + feature[None, :], mask=inside, other=0.0)
    tl.store(out + row64[:, None] * stride_out + feature[None, :], y.to(out.dtype.element_ty), mask=inside)


def tile_constants(
    K: int, F: int, activation: str, dtype: torch.dtype, config: LinearConfig, dependent: bool
) -> dict[str, int | bool | str]:
    """The constexprs that all kernels of this layer have."""
    return {
        "K": K,
        "F": F,
        "ACTIVATION": activation,
        "UPCAST": upcast(dtype),
        "BLOCK_M": config.block_m,
        "BLOCK_F": config.block_f,
        "BLOCK_K": config.block_k,
        "DEPENDENT": dependent,
    }


def linear_constants(
    K: int,
    F: int,
    normalize: bool,
    activation: str,
    dtype: torch.dtype,
    config: LinearConfig,
    dependent: bool = False,
) -> dict[str, int | bool | str]:
    """The constexprs of linear_kernel."""
    # The statistics pass holds up to 64 elements of x per thread: as few and as long loads as registers allow.
    statistics = min(power_of_two(K, 16), max(16, 64 * 32 * config.warps // config.block_m))
    own = {"NORMALIZE": normalize, "DEFER": config.defer, "STATISTICS_K": statistics, "GROUP": config.group}
    return {**tile_constants(K, F, activation, dtype, config, dependent), **own}


def launch_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    out: Tensor,
    normalize: bool,
    activation: str,
    config: LinearConfig,
) -> None:
    """x (rows, K), weight (F, K), residual and out (rows, F): checked by the caller, at least one row."""
    rows, K = x.shape
    F = weight.shape[0]
    grid = (triton.cdiv(rows, config.block_m) * triton.cdiv(F, config.block_f),)
    early = dependent(x.device)
    linear_kernel[grid](
        x,
        weight,
        bias,
        residual,
        out,
        rows,
        x.stride(0),
        0 if residual is None else residual.stride(0),
        out.stride(0),
        **linear_constants(K, F, normalize, activation, x.dtype, config, early),
        num_warps=config.warps,
        num_stages=config.stages,
        launch_pdl=early,
    )
