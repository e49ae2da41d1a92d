"""Muon's work shared out among processes."""

import os

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from clip4str.training.muon import MuonAdamW

SHAPES = ((8, 8), (8, 8), (8, 8), (24, 8), (8, 32), (32, 8))  # three of a kind: an odd number for two processes


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
