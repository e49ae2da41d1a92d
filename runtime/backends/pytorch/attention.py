"""The towers' attention, by one kernel of torch's that is always the same.

Left to itself torch takes another one with another version, and on new GPUs cuDNN's, which plans for 23 to 37 ms in
every thread and for every shape. Choosing by torch.nn.attention.sdpa_kernel would change it for the whole process, and
for good where two threads do it at once; so the operator is called by its name.
"""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

KERNELS = ("flash", "efficient", "torch")  # torch: what torch chooses
MOST_HEAD_DIM = 256
chosen: str | None = None  # of KERNELS: for all that is captured from now on; None: the first that takes the tensors


def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """softmax(q k^T e^-0.5) v over (N, heads, S, e) -> the same shape."""
    kernel = kernel_for(q.device.type, q.dtype, q.shape[-1])
    if kernel == "flash":
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal)[0]
    if kernel == "efficient":
        return torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, False, 0.0, causal)[0]
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal)


def kernel_for(device: str, dtype: torch.dtype, head_dim: int) -> str:
    """Which of KERNELS runs."""
    takes = {
        "flash": dtype != torch.float32 and head_dim % 8 == 0 and head_dim <= MOST_HEAD_DIM and _flash_is_there(),
        "efficient": head_dim % (4 if dtype == torch.float32 else 8) == 0,
        "torch": True,
    }
    if device != "cuda":
        return "torch"
    return next(kernel for kernel in (*([chosen] if chosen else []), *KERNELS) if takes[kernel])


@functools.cache
def _flash_is_there() -> bool:
    """Some builds of torch for Jetsons have none."""
    try:
        return torch.backends.cuda.is_flash_attention_available()
    except AttributeError:  # before torch 2.6: they all had it
        return True
