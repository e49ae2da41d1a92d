"""Few rows and a long K: the product's sum over K is shared by several programs, which add it up in the same launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..shared.dependent import dependent, launch_dependents, prefetch_rows, wait
from ..shared.product import product
from .config import LinearConfig
from .kernel import biased, tile_constants


@triton.jit(do_not_specialize=["rows"])
def split_kernel(
    x,
    weight,
    bias,
    residual,
    out,
    partial,
    counters,
    rows,
    stride_x,
    stride_residual,
    stride_out,
    K: tl.constexpr,
    F: tl.constexpr,
    ACTIVATION: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_K: tl.constexpr,
    PARTS: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """As linear_kernel without normalisation; PARTS programs for each tile, each of K / PARTS.

    Every program writes its sums to partial [tiles, PARTS, BLOCK_M, BLOCK_F] float32 and counts itself in counters
    [tiles] int32, which were 0. The one that comes last adds all parts up, in their order and not that of their coming:
    the same bits in every run. Its counting acquires what the others' released.
    """
    LENGTH: tl.constexpr = K // PARTS
    launch_dependents(DEPENDENT)
    tiles_f: tl.constexpr = (F + BLOCK_F - 1) // BLOCK_F
    tile = tl.program_id(0) // PARTS
    part = tl.program_id(0) % PARTS
    row = tile // tiles_f * BLOCK_M + tl.arange(0, BLOCK_M)
    feature = tile % tiles_f * BLOCK_F + tl.arange(0, BLOCK_F)
    if part == 0:
        prefetch_rows(weight, tile % tiles_f * BLOCK_F, F, K, BLOCK_F, DEPENDENT)
    wait(DEPENDENT)
    row_x = tl.minimum(row, rows - 1).to(tl.int64) * stride_x + part * LENGTH
    row_w = tl.minimum(feature, F - 1).to(tl.int64) * K + part * LENGTH
    sums = product(x, row_x, weight, row_w, LENGTH, False, UPCAST, BLOCK_M, BLOCK_F, BLOCK_K, BLOCK_K)

    inner = tl.arange(0, BLOCK_M)[:, None] * BLOCK_F + tl.arange(0, BLOCK_F)[None, :]
    first = partial + tile.to(tl.int64) * (PARTS * BLOCK_M * BLOCK_F) + inner
    tl.store(first + part * (BLOCK_M * BLOCK_F), sums)
    tl.debug_barrier()  # all threads have written before one of them counts
    before = tl.atomic_add(counters + tile, 1, sem="acq_rel", scope="gpu")
    if before == PARTS - 1:
        y = tl.zeros([BLOCK_M, BLOCK_F], tl.float32)
        for other in range(PARTS):
            y += tl.load(first + other * (BLOCK_M * BLOCK_F), cache_modifier=".cg")
        y = biased(y, bias, feature, F, ACTIVATION)
        row64 = row.to(tl.int64)
        inside = (row < rows)[:, None] & (feature < F)[None, :]
        if residual is not None:
            here = residual + row64[:, None] * stride_residual + feature[None, :]
            y += tl.load(here, mask=inside, other=0.0)
        tl.store(out + row64[:, None] * stride_out + feature[None, :], y.to(out.dtype.element_ty), mask=inside)


def split_constants(
    K: int, F: int, activation: str, dtype: torch.dtype, config: LinearConfig, dependent: bool = False
) -> dict[str, int | bool | str]:
    """The constexprs of split_kernel."""
    return {**tile_constants(K, F, activation, dtype, config, dependent), "PARTS": config.parts}


def launch_split(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    out: Tensor,
    activation: str,
    config: LinearConfig,
    counters: Tensor | None,
) -> None:
    """As launch_linear. counters: at least a 0 for every tile, which this launch uses up; None makes them."""
    (rows, K), F = x.shape, weight.shape[0]
    tiles = config.tiles(rows, F)
    if counters is None:
        counters = torch.zeros(tiles, dtype=torch.int32, device=x.device)
    partial = torch.empty(tiles * config.parts, config.block_m, config.block_f, dtype=torch.float32, device=x.device)
    early = dependent(x.device)
    split_kernel[(tiles * config.parts,)](
        x,
        weight,
        bias,
        residual,
        out,
        partial,
        counters,
        rows,
        x.stride(0),
        0 if residual is None else residual.stride(0),
        out.stride(0),
        **split_constants(K, F, activation, x.dtype, config, early),
        num_warps=config.warps,
        num_stages=config.stages,
        launch_pdl=early,
    )
