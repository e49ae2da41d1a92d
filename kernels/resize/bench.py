"""Times resizing batches of pictures on a GPU: `python kernels/resize/bench.py`."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import torch
from torch import Tensor

from clip4str.kernels.crop_resize import candidates
from clip4str.kernels.crop_resize.bench import resize_flops
from clip4str.kernels.resize import resize
from clip4str.kernels.resize.reference import packed
from clip4str.kernels.shared.bench import BATCHES, Arguments, Case, run_cases, seeded
from clip4str.kernels.shared.variants import NETWORKS, Network

PICTURES = {"words": (120, 40), "large": (1000, 250), "tall": (60, 400)}  # typical width and height in pixels


def cases(capability: tuple[int, int] = (9, 0)) -> list[Case]:
    """Crops of some 120 x 40 pixels, and larger and taller ones."""
    networks = NETWORKS["base16"], NETWORKS["small"]
    found = [_case(network, batch, "words", capability) for network in networks for batch in BATCHES]
    return found + [_case(network, 64, kind, capability) for network in networks for kind in ("large", "tall")]


def _case(network: Network, batch: int, kind: str, capability: tuple[int, int]) -> Case:
    random = np.random.default_rng(0)
    sizes = (np.array(PICTURES[kind]) * random.uniform(2 / 3, 4 / 3, (batch, 2))).astype(int).tolist()
    height, width = network.image_size

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        noise = partial(torch.randint, 0, 256, dtype=torch.uint8, device=device, generator=seeded(device))
        pixels, table = packed([noise((h, w, 3)) for w, h in sizes])
        return {"pixels": pixels, "pictures": table.to(device), "size": (height, width), "dtype": dtype}

    def library(pixels: Tensor, pictures: Tensor, size: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """torch's own operators, picture by picture. Does not round, and needs the sizes on the host."""
        parts = pixels[: sum(3 * w * h for w, h in sizes)].split([3 * w * h for w, h in sizes])
        shaped = [part.view(h, w, 3).permute(2, 0, 1)[None].to(dtype) for part, (w, h) in zip(parts, sizes)]
        resized = torch.nn.functional.interpolate
        made = [resized(one, size, mode="bicubic", antialias=True, align_corners=False) for one in shaped]
        return torch.cat(made).clamp_(0, 255).div_(127.5).sub_(1)

    return Case(
        name=f"{network.name} {kind} batch {batch}",
        function=resize,
        make=make,
        bytes=sum(3 * w * h for w, h in sizes) + 12 * batch + 2 * batch * 3 * height * width,
        flops=sum(resize_flops(w, h, height, width) for w, h in sizes),
        configs=candidates(height, width, capability),
        baseline=library,
    )


if __name__ == "__main__":
    sys.exit(run_cases("kernels/resize/bench.py", cases()))
