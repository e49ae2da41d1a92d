"""Muon for the matrices, AdamW for everything else, as one optimizer.

Muon (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024) replaces the momentum of a matrix
by its nearest orthogonal matrix, U V^T of its singular value decomposition, found by Newton-Schulz iteration. It is the
default where a network starts from random weights; from CLIP's weights the published AdamW is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

# Quintic coefficients of the Muon report: steep at zero, singular values end between about 0.7 and 1.2.
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Nearest orthogonal matrices, roughly: (B, rows, columns) -> the same."""
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.mT if tall else x


def _shared(matrices: Tensor) -> Tensor:
    """As `orthogonalize`; the processes of a group each do a part, for all have the same gradients."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return orthogonalize(matrices)
    world, count = dist.get_world_size(), len(matrices)
    share = -(-count // world)
    parts = F.pad(matrices, (0, 0, 0, 0, 0, share * world - count)).chunk(world)
    own = orthogonalize(parts[dist.get_rank()]).contiguous()
    found = [torch.empty_like(own) for _ in range(world)]
    dist.all_gather([part.view(torch.uint8) for part in found], own.view(torch.uint8))
    return torch.cat(found)[:count]


class MuonAdamW(torch.optim.Optimizer):
    """Groups with muon=True take Muon steps, the others AdamW steps; lr means the same change per weight in both.

    A group's `stacked` names how many square matrices each of its parameters stacks (3 for fused query, key and
    value weights): each is made orthogonal by itself.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float] = (0.9, 0.98),
                 eps: float = 1e-6, momentum: float = 0.95, dtype: torch.dtype = torch.float32) -> None:  # fmt: skip
        defaults = {"lr": lr, "betas": betas, "eps": eps, "momentum": momentum, "weight_decay": 0.0,
                    "muon": False, "stacked": 1}  # fmt: skip
        super().__init__(groups, defaults)
        self.dtype = dtype  # of the orthogonalization, which bfloat16 is good enough for

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
            (self._muon if group["muon"] else self._adamw)(parameters, group)
        return loss

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        by_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
        for p in parameters:
            by_shape[tuple(p.shape)].append(p)
        for same in by_shape.values():
            momenta = [self._state(p, "momentum") for p in same]
            grads = _grads(same)
            torch._foreach_lerp_(momenta, grads, 1 - group["momentum"])
            nesterov = torch.stack(torch._foreach_lerp(grads, momenta, group["momentum"])).flatten(2)
            rows, columns = nesterov.shape[1] // group["stacked"], nesterov.shape[2]
            update = _shared(nesterov.reshape(-1, rows, columns).to(self.dtype)).to(nesterov.dtype)
            update = update.reshape(len(same), *same[0].shape)
            # An orthogonal matrix's entries have root mean square 1 / sqrt(longer side); AdamW's steps about 0.2.
            torch._foreach_add_(same, list(update.unbind()), alpha=-group["lr"] * 0.2 * max(rows, columns) ** 0.5)

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        first = [self._state(p, "exp_avg") for p in parameters]
        second = [self._state(p, "exp_avg_sq") for p in parameters]
        grads = _grads(parameters)
        group["steps"] = steps = group.get("steps", 0) + 1
        beta1, beta2 = group["betas"]
        torch._foreach_lerp_(first, grads, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, grads, grads, 1 - beta2)
        scale = torch._foreach_div(second, 1 - beta2**steps)
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, group["eps"])
        torch._foreach_addcdiv_(parameters, first, scale, -group["lr"] / (1 - beta1**steps))

    def _state(self, parameter: Tensor, name: str) -> Tensor:
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state[name]


def _grads(parameters: list[Tensor]) -> list[Tensor]:
    return [p.grad for p in parameters if p.grad is not None]
