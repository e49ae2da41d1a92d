"""Many rows: persistent programs whose tiles the tensor memory accelerator loads and stores, from 9.0 on."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from ..shared.dependent import dependent, launch_dependents, wait
from ..shared.launch import capability_of, multiprocessors
from ..shared.product import multiply_add
from .config import LinearConfig, programs_at_once
from .kernel import biased, tile_constants, tile_of


@triton.jit(do_not_specialize=["rows"])
def descriptor_kernel(
    x,
    weight,
    bias,
    out,
    rows,
    K: tl.constexpr,
    F: tl.constexpr,
    ACTIVATION: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """out = act(x W^T + bias); x (rows, K), weight (F, K) and out (rows, F) are descriptors, bias (F,) may be None.

    Descriptors of the host, which lie among the kernel's arguments: a CUDA graph keeps them, and nothing is to be
    allocated. Every program computes each tl.num_programs-th tile. The loops over tiles and K become one, whose loads
    run ahead: while a tile is activated and stored, the next one's x and W arrive. Stored in halves, through half the
    shared memory, so that two programs fit on a multiprocessor: one multiplies while the other activates.

    Past the last row, feature and column of K the accelerator loads zeros, and stores nothing.
    """
    HALF: tl.constexpr = BLOCK_F // 2
    launch_dependents(DEPENDENT)
    tiles_m = tl.cdiv(rows, BLOCK_M)
    tiles_f: tl.constexpr = (F + BLOCK_F - 1) // BLOCK_F
    wait(DEPENDENT)
    for tile in tl.range(tl.program_id(0), tiles_m * tiles_f, tl.num_programs(0), flatten=True):
        tile_m, tile_f = tile_of(tile, tiles_m, tiles_f, GROUP)
        row = tile_m * BLOCK_M
        feature = tile_f * BLOCK_F
        sums = tl.zeros([BLOCK_M, BLOCK_F], tl.float32)
        for start in range(0, K, BLOCK_K):
            sums = multiply_add(x.load([row, start]), weight.load([feature, start]).T, sums, UPCAST)
        left, right = sums.reshape([BLOCK_M, 2, HALF]).permute(0, 2, 1).split()
        _store(left, bias, out, row, feature, F, ACTIVATION, HALF)
        _store(right, bias, out, row, feature + HALF, F, ACTIVATION, HALF)


@triton.jit
def _store(y, bias, out, row, feature, F: tl.constexpr, ACTIVATION: tl.constexpr, FEATURES: tl.constexpr):
    y = biased(y, bias, feature + tl.arange(0, FEATURES), F, ACTIVATION)
    out.store([row, feature], y.to(out.dtype))


def descriptor_constants(
    K: int, F: int, activation: str, dtype: torch.dtype, config: LinearConfig, dependent: bool = False
) -> dict[str, int | bool | str]:
    """The constexprs of descriptor_kernel."""
    return {**tile_constants(K, F, activation, dtype, config, dependent), "GROUP": config.group}


def descriptor_blocks(config: LinearConfig) -> dict[str, tuple[int, int]]:
    """What one request to the accelerator moves of each operand: rows, columns."""
    return {
        "x": (config.block_m, config.block_k),
        "weight": (config.block_f, config.block_k),
        "out": (config.block_m, config.block_f // 2),
    }


def launch_descriptors(
    x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, activation: str, config: LinearConfig
) -> None:
    """x (rows, K), weight (F, K), out (rows, F): rows that `begin_aligned`, at least one, checked by the caller."""
    (rows, K), F = x.shape, weight.shape[0]
    blocks = descriptor_blocks(config)

    def described(name: str, tensor: Tensor) -> TensorDescriptor:
        return TensorDescriptor(tensor, list(tensor.shape), [tensor.stride(0), 1], list(blocks[name]))

    at_once = multiprocessors(x.device) * programs_at_once(config, x.dtype, capability_of(x.device))
    early = dependent(x.device)
    descriptor_kernel[(min(config.tiles(rows, F), at_once),)](
        described("x", x),
        described("weight", weight),
        bias,
        described("out", out),
        rows,
        **descriptor_constants(K, F, activation, x.dtype, config, early),
        num_warps=config.warps,
        num_stages=config.stages,
        launch_pdl=early,
    )
