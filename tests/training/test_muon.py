"""Muon beside AdamW: each half for itself, and its work shared out among processes."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from clip4str.training.muon import MuonAdamW, orthogonalize

SHAPES = ((8, 8), (8, 8), (8, 8), (24, 8), (8, 32), (32, 8))  # three of a kind: an odd number for two processes


def test_adamw_half_equals_torch():
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(5, 4)), torch.nn.Parameter(torch.randn(4))]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    a = MuonAdamW([{"params": ours, "weight_decay": 0.1}], lr=1e-2)
    b = torch.optim.AdamW(theirs, lr=1e-2, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.1)
    for _ in range(5):
        for p, q in zip(ours, theirs):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        a.step()
        b.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 8, 32), (2, 32, 8)])
def test_orthogonal_steps(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(*shape)))
    assert values.min() > 0.3 and values.max() < 1.3


def steps() -> list[torch.Tensor]:
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    groups = [{"params": parameters[:3] + parameters[4:], "muon": True},
              {"params": [parameters[3]], "muon": True, "stacked": 3}]  # fmt: skip
    optimizer = MuonAdamW(groups, lr=0.1, dtype=torch.bfloat16)
    for _ in range(3):
        for p in parameters:
            p.grad = torch.randn_like(p)
        optimizer.step()
    return [p.detach() for p in parameters]


def process(rank: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.save(steps(), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_take_the_steps_of_one(tmp_path):
    alone = steps()
    mp.spawn(process, (_free_port(), str(tmp_path)), nprocs=2)
    one, two = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for a, b, c in zip(alone, one, two):
        assert torch.equal(b, c)  # or the processes would drift apart
        torch.testing.assert_close(b, a, rtol=0, atol=2e-3)


def _free_port() -> int:
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])
