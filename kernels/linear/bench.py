"""Times the linear layer of decoder and image tower on a GPU: `python kernels/linear/bench.py`.

Cases are plain data that benchmarks/gpu_suite.py times too; those of other operators are made of the same class.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from clip4str.core.console import fail
from clip4str.core.errors import Clip4StrError, DeviceError
from clip4str.kernels.linear import candidates, linear
from clip4str.kernels.variants import NETWORKS, Network

SIZES = ("small", "base16", "large", "huge")
BATCHES = (1, 8, 64, 256)
Arguments = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One timing: function(**make(device, dtype)), and what it must at least move and compute.

    make: allocates the arguments, `config` not among them. bytes: inputs read and outputs written once, in half
    precision. flops: of matrix products, nothing padded. configs: what a sweep passes as `config`, the chosen first.
    baseline: the same from the library's operators, same arguments.
    """

    name: str
    function: Callable[..., Tensor]
    make: Callable[[torch.device, torch.dtype], Arguments]
    bytes: int
    flops: int
    configs: Sequence[Any] = field(default=())
    baseline: Callable[..., Tensor] | None = None


def cases(capability: tuple[int, int] = (9, 0)) -> list[Case]:
    """Decoder layers over 26 rows a word, image tower layers over all its tokens."""
    found = []
    for network in (NETWORKS[name] for name in SIZES):
        d, hidden, width = network.d, network.mlp, network.image_width
        layers = (
            ("queries", network.steps, d, d, True, "none", False),
            ("decoder out", network.steps, d, d, False, "none", True),
            ("decoder up", network.steps, d, hidden, True, "gelu", False),
            ("decoder down", network.steps, hidden, d, False, "none", True),
            ("tower qkv", network.memory, width, 3 * width, True, "none", False),
            ("tower up", network.memory, width, 4 * width, True, "quick_gelu", False),
            ("tower down", network.memory, 4 * width, width, False, "none", True),
        )
        found += [_case(network, batch, capability, *layer) for layer in layers for batch in BATCHES]
    return found


def _case(
    network: Network,
    batch: int,
    capability: tuple[int, int],
    layer: str,
    tokens: int,
    K: int,
    F: int,
    normalize: bool,
    activation: str,
    residual: bool,
) -> Case:
    rows = batch * tokens

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        generator = torch.Generator(device).manual_seed(0)

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            return scale * torch.randn(*shape, device=device, dtype=dtype, generator=generator)

        arguments: Arguments = {"x": draw(rows, K), "weight": draw(F, K, scale=K**-0.5), "bias": draw(F)}
        arguments |= {"normalize": normalize, "activation": activation}
        return arguments | {"residual": draw(rows, F) if residual else None}

    return Case(
        name=f"{network.name} {layer} batch {batch}",
        function=linear,
        make=make,
        bytes=2 * (rows * K + F * K + F + rows * F * (2 if residual else 1)),
        flops=2 * rows * K * F,
        configs=(None, "library", *candidates(rows, K, F, torch.float16, capability)),
        baseline=library_linear,
    )


def library_linear(
    x: Tensor, weight: Tensor, bias: Tensor, normalize: bool, activation: str, residual: Tensor | None
) -> Tensor:
    """What eager torch does."""
    functional = torch.nn.functional
    y = functional.linear(functional.layer_norm(x, x.shape[-1:]) if normalize else x, weight, bias)
    y = functional.gelu(y) if activation == "gelu" else y * torch.sigmoid(1.702 * y) if activation != "none" else y
    return y if residual is None else y + residual


def run_cases(prog: str, found: Sequence[Case]) -> int:
    """Time all cases under CUDA graphs (weights and inputs warm in the L2 cache where they fit) and print them."""
    try:
        if not torch.cuda.is_available():
            raise DeviceError("no GPU here; kernels are timed on one")
        device = torch.device("cuda")
        print(f"{torch.cuda.get_device_name(device)}, float16, medians")
        print(f"{'case':36}{'us':>9}{'GB/s':>9}{'TFLOP/s':>9}{'torch us':>10}")
        for case in found:
            with torch.no_grad():
                arguments = case.make(device, torch.float16)
                time = _microseconds(case.function, arguments)
                torch_time = _microseconds(case.baseline, arguments) if case.baseline else float("nan")
            rates = f"{case.bytes / time / 1e3:9.0f}{case.flops / time / 1e6:9.1f}"
            print(f"{case.name:36}{time:9.1f}{rates}{torch_time:10.1f}", flush=True)
        return 0
    except Clip4StrError as error:
        return fail(prog, error)
    except KeyboardInterrupt:
        return 130


def _microseconds(function: Callable[..., Tensor], arguments: Arguments) -> float:
    from triton.testing import do_bench_cudagraph

    return 1e3 * do_bench_cudagraph(lambda: function(**arguments), return_mode="median")


if __name__ == "__main__":
    sys.exit(run_cases("kernels/linear/bench.py", cases()))
