"""Linear layer with row normalisation before, activation and residual after."""

from __future__ import annotations

import torch
from torch import Tensor

from clip4str.core.errors import LayoutError, UsageError

from ..options import options
from ..shared.checks import (
    FLOATS,
    MOST_FEATURES,
    as_rows,
    begin_aligned,
    begin_alike,
    check_contiguous,
    check_dtype,
    check_range,
    check_same_device,
    check_shape,
)
from ..shared.launch import capability_of, on_device, on_gpu, use_kernel
from ..shared.tiles import FUSED_ROWS
from ..shared.variants import ACTIVATIONS
from . import reference
from .config import (
    SPLIT_ROWS,
    SPLIT_TILES,
    LinearConfig,
    configuration,
    descriptor_configuration,
    split_configuration,
)


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    normalize: bool = False,
    activation: str = "none",
    residual: Tensor | None = None,
    out: Tensor | None = None,
    config: LinearConfig | str | None = None,
    counters: Tensor | None = None,
    implementation: str = "auto",
) -> Tensor:
    """y = act(n(x) W^T + bias) + residual, with n(x) = (x - mean) / sqrt(var + 1e-5) over each row, or x itself.

    x (..., K): rows dense, one stride from row to row. weight (F, K) contiguous. bias (F,) in x's dtype or float32.
    residual, out (..., F): like x; out may be the residual (not x). All in one of float16, bfloat16, float32;
    accumulation is in float32. activation: "none", "gelu" (exact), "quick_gelu" (y * sigmoid(1.702 y)).

    config: None chooses on a GPU by the number of rows: up to FUSED_ROWS one fused kernel with the tiles of
    `configuration`; above them rows are normalised by a kernel of their own, and `by_library` decides which product. A
    LinearConfig asks for the fused kernel with these tiles, "library" for cuBLAS beside elementwise kernels. A row's
    result depends on the configuration, but on no other row. counters: see `split_counters`; with them K is split where
    that should take less time. A LinearConfig with parts > 1 splits it in any case, not with `normalize`; one with
    descriptors is for half precision without a residual, all rows beginning at multiples of 16 bytes.

    Returns out, or a new (..., F). Raises ShapeError, DtypeError, LayoutError, DeviceError, UsageError.
    """
    x2, residual2, out2 = _check_linear(x, weight, bias, activation, residual, out)
    kernel = use_kernel(
        check_same_device({"x": x, "weight": weight, "bias": bias, "residual": residual, "out": out}), implementation
    )
    if not isinstance(config, LinearConfig | None) and config != "library":
        raise UsageError(f"config is a LinearConfig, 'library' or None, not {config!r}")
    if isinstance(config, LinearConfig) and config.parts > 1:
        _check_parts(config, x.shape[-1], normalize)
    if counters is not None:
        check_shape("counters", counters, (SPLIT_TILES,), {})
        check_dtype("counters", counters, (torch.int32,))
        check_same_device({"x": x, "counters": counters})
        check_contiguous("counters", counters)
    if out is None and kernel:
        out = x.new_empty(*x.shape[:-1], weight.shape[0])
        out2 = out.view(-1, weight.shape[0])
    if not kernel:
        return reference.linear(x, weight, bias, normalize=normalize, activation=activation, residual=residual, out=out)
    assert out is not None and out2 is not None
    if x2.shape[0] == 0:
        return out
    describable = _describable(x2, weight, residual, out2)
    described = isinstance(config, LinearConfig) and config.descriptors
    if described and not describable:
        raise LayoutError("config: descriptors are for half precision, rows at multiples of 16 bytes, no residual")
    many = config is None and x2.shape[0] > FUSED_ROWS
    if config == "library" or (many and by_library(activation, residual is not None)):
        _library(x2, weight, bias, normalize, activation, residual2, out2)
        return out
    from .kernel import launch_linear

    if (many or described) and normalize:  # each of many tiles in a row would recompute the statistics
        x2, normalize = _normalized(x2), False
    if not isinstance(config, LinearConfig):
        problem = x2.shape[0], x2.shape[1], weight.shape[0], x.dtype, capability_of(x.device)
        split = None if counters is None or normalize else split_configuration(*problem)
        loaded = descriptor_configuration(*problem) if many and describable and options().descriptors else None
        config = split or loaded or configuration(*problem)
    if config.descriptors:
        from .descriptors import launch_descriptors

        with on_device(x.device):
            launch_descriptors(x2, weight, bias, out2, activation, config)
        return out
    if config.parts > 1:
        from .split import launch_split

        with on_device(x.device):
            launch_split(x2, weight, bias, residual2, out2, activation, config, counters)
        return out
    with on_device(x.device):
        launch_linear(x2, weight, bias, residual2, out2, normalize, activation, config)
    return out


def split_counters(x: Tensor, launches: int) -> Tensor | None:
    """Zeros for the split products of some launches onto x (..., F), (launches, SPLIT_TILES) int32, made in one launch;
    None where K is not to be split: on a CPU, for many rows, or if options() say so. Each row serves one launch."""
    few = x.numel() // max(1, x.shape[-1]) <= SPLIT_ROWS
    if not (on_gpu(x.device) and few and options().split_k):
        return None
    return torch.zeros(launches, SPLIT_TILES, dtype=torch.int32, device=x.device)


def by_library(activation: str, residual: bool) -> bool:
    """Does cuBLAS multiply many rows? Only if nothing follows the product: an activation in place moves every output
    twice more, a residual three times, which costs more than a fused kernel that reaches two thirds of the matrix
    rate."""
    return activation == "none" and not residual


def adds_in_place(x: Tensor) -> bool:
    """Are residual products onto x (..., F) to be `add_product_`'s? Of many rows on a GPU, where options() say so."""
    return on_gpu(x.device) and x.numel() // max(1, x.shape[-1]) > FUSED_ROWS and options().library_residual


def add_product_(residual: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """residual += x W^T in place, by the library: residual (..., F) dense, x and weight as `linear` takes them.

    No bias: a library adds either a residual or a bias behind its product. `normalize` takes the sum of the biases that
    a residual stream lacks as its shift. Returns residual. Raises ShapeError, DtypeError, LayoutError, DeviceError.
    """
    check_contiguous("residual", residual)
    x2, residual2, _ = _check_linear(x, weight, None, "none", residual, None)
    check_same_device({"x": x, "weight": weight, "residual": residual})
    assert residual2 is not None
    residual2.addmm_(x2, weight.t())
    return residual


def normalize(
    x: Tensor, *, shift: Tensor | None = None, out: Tensor | None = None, implementation: str = "auto"
) -> Tensor:
    """(x - mean) / sqrt(var + 1e-5) over the last dimension: x (..., K), rows dense -> (..., K). out may be x.

    shift (K,) float32: of x + shift instead. LayerNorm without its affine part, which must be folded into the weights
    that follow. Raises as `linear` does.
    """
    check_dtype("x", x, FLOATS)
    x2 = as_rows("x", x)
    if out is not None:
        _check_like("out", out, x, x.shape[-1])
    if shift is not None:
        check_shape("shift", shift, (x.shape[-1],), {})
        check_dtype("shift", shift, (torch.float32,))
        check_contiguous("shift", shift)
    if not use_kernel(check_same_device({"x": x, "shift": shift, "out": out}), implementation):
        y = reference.normalize_rows(x, shift)
        return y if out is None else out.copy_(y)
    out = torch.empty_like(x, memory_format=torch.contiguous_format) if out is None else out
    if x.numel():
        from .elementwise import launch_normalize

        with on_device(x.device):
            launch_normalize(x2, shift, as_rows("out", out))
    return out


def activate_(
    x: Tensor,
    activation: str,
    *,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    implementation: str = "auto",
) -> Tensor:
    """x = act(x + bias) + residual in place: what `linear` does after its product. x, residual (..., F), rows dense.

    Raises as `linear` does.
    """
    _check_activation(activation)
    check_dtype("x", x, FLOATS)
    x2 = _written_rows("x", x)
    _check_bias(bias, x, x.shape[-1])
    residual2 = None if residual is None else _check_like("residual", residual, x, x.shape[-1])
    if not use_kernel(check_same_device({"x": x, "bias": bias, "residual": residual}), implementation):
        return reference.activate_(x, activation, bias=bias, residual=residual)
    if x.numel():
        from .elementwise import launch_activate

        with on_device(x.device):
            launch_activate(x2, activation, bias, residual2)
    return x


def quick_gelu_(x: Tensor, *, implementation: str = "auto") -> Tensor:
    """x = x * sigmoid(1.702 x) in place, (..., F), rows dense: CLIP's activation. Raises as `linear` does."""
    return activate_(x, "quick_gelu", implementation=implementation)


def _normalized(x: Tensor) -> Tensor:
    return normalize(x, implementation="triton")


def _written_rows(name: str, x: Tensor) -> Tensor:
    rows = as_rows(name, x)
    if rows.shape[0] > 1 and rows.stride(0) < rows.shape[1]:
        raise LayoutError(f"{name}: expected rows that do not overlap, got strides {x.stride()}; it is written to")
    return rows


def _library(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    normalize_: bool,
    activation: str,
    residual: Tensor | None,
    out: Tensor,
) -> None:
    """The same from cuBLAS and the elementwise kernels. Rounds to the dtype after the product and the bias."""
    x = _normalized(x) if normalize_ else x
    product = out if residual is None or not begin_alike(residual, out) else torch.empty_like(out)
    if bias is not None and bias.dtype == x.dtype:
        torch.addmm(bias, x, weight.t(), out=product)
        rest = None
    else:
        torch.mm(x, weight.t(), out=product)
        rest = bias
    if activation != "none" or rest is not None or residual is not None:
        activate_(product, activation, bias=rest, residual=residual, implementation="triton")
    if product is not out:
        out.copy_(product)


def _check_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, residual: Tensor | None, out: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """x, residual and out as rows."""
    _check_activation(activation)
    check_dtype("x", x, FLOATS)
    x2 = as_rows("x", x)
    check_shape("weight", weight, ("F", "K"), {"K": x.shape[-1]})
    check_dtype("weight", weight, x.dtype)
    check_contiguous("weight", weight)
    features = weight.shape[0]
    check_range("weight's rows F", features, 1, MOST_FEATURES)
    _check_bias(bias, x, features)
    residual2 = None if residual is None else _check_like("residual", residual, x, features)
    if out is None:
        return x2, residual2, None
    _check_like("out", out, x, features)
    if begin_alike(x, out):
        raise LayoutError("out: expected memory other than x's: every output needs a whole row of x")
    return x2, residual2, _written_rows("out", out)


def _describable(x: Tensor, weight: Tensor, residual: Tensor | None, out: Tensor) -> bool:
    """Can the tensor memory accelerator load and store these rows?"""
    return residual is None and x.dtype.itemsize == 2 and all(begin_aligned(rows) for rows in (x, weight, out))


def _check_parts(config: LinearConfig, K: int, normalize: bool) -> None:
    if normalize:
        raise UsageError("config: parts of K are for products of rows as they are, without normalize")
    if K % (config.parts * config.block_k):
        raise UsageError(f"config: K = {K} is no multiple of parts x block_k = {config.parts * config.block_k}")


def _check_activation(activation: str) -> None:
    if activation not in ACTIVATIONS:
        raise UsageError(f"activation is one of {', '.join(ACTIVATIONS)}, not {activation!r}")


def _check_bias(bias: Tensor | None, x: Tensor, features: int) -> None:
    if bias is not None:
        check_shape("bias", bias, (features,), {})
        check_dtype("bias", bias, sorted({x.dtype, torch.float32}, key=str))
        check_contiguous("bias", bias)


def _check_like(name: str, tensor: Tensor, x: Tensor, features: int) -> Tensor:
    """A tensor (..., features) beside x (..., K), as rows."""
    check_shape(name, tensor, (*x.shape[:-1], features), {})
    check_dtype(name, tensor, x.dtype)
    return as_rows(name, tensor)
