"""The towers' attention: one kernel of torch's, by name, and the process's own choice left alone."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from clip4str.runtime.backends.pytorch import attention as module
from clip4str.runtime.backends.pytorch.attention import attention, kernel_for


class Called(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def flash_there(monkeypatch):
    monkeypatch.setattr(module, "_flash_is_there", lambda: True)


@pytest.mark.parametrize(
    ("dtype", "head_dim", "kernel"),
    [
        (torch.float16, 64, "flash"), (torch.bfloat16, 88, "flash"), (torch.float16, 20, "torch"),
        (torch.float32, 64, "efficient"), (torch.float32, 20, "efficient"), (torch.float32, 30, "torch"),
        (torch.float16, 264, "efficient"),
    ],
)  # fmt: skip
def test_which_kernel_runs_on_a_gpu(flash_there, dtype, head_dim, kernel):
    assert kernel_for("cuda", dtype, head_dim) == kernel
    assert kernel_for("cpu", dtype, head_dim) == "torch"


def test_where_torch_was_built_without_flash(monkeypatch):
    monkeypatch.setattr(module, "_flash_is_there", lambda: False)
    assert kernel_for("cuda", torch.float16, 64) == "efficient"


@pytest.mark.parametrize("kernel", module.KERNELS)
def test_one_that_was_chosen_by_measurement(flash_there, monkeypatch, kernel):
    monkeypatch.setattr(module, "chosen", kernel)
    assert kernel_for("cuda", torch.float16, 64) == kernel


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("kernel", "dtype"), [("flash", torch.float16), ("efficient", torch.float32)])
def test_the_operator_is_called_by_its_name(monkeypatch, kernel, dtype, causal):
    """On the meta device, where each of them says what it would give; as the towers call it, on views."""
    monkeypatch.setattr(module, "kernel_for", lambda *_: kernel)
    q, k, v = torch.empty(2, 33, 3, 5, 64, dtype=dtype, device="meta").permute(2, 0, 3, 1, 4)
    flags = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()
    with Called() as called:
        out = attention(q, k, v, causal)
    assert out.shape == (2, 5, 33, 64) and out.dtype == dtype
    assert called.names[0] == f"_scaled_dot_product_{kernel}_attention"
    assert flags == (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled())
