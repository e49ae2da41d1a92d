"""Times shrinking frames on a GPU: `python kernels/thumbnail/bench.py`."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from clip4str.kernels.shared.bench import Arguments, Case, run_cases, seeded
from clip4str.kernels.thumbnail import candidates, thumbnail

FRAMES = {"1080p": (1080, 1920), "2160p": (2160, 3840)}
SIZE = (360, 640)


def cases(capability: tuple[int, int] = (9, 0)) -> list[Case]:
    """Frames of two sizes to 640 x 360, grey as it is followed and in colour as it is searched."""
    return [
        _case(name, frame, layout, colour)
        for name, frame in FRAMES.items()
        for layout in ("rgb", "nv12")
        for colour in (False, True)
    ]


def _case(name: str, size: tuple[int, int], layout: str, colour: bool) -> Case:
    shape = (size[0] * 3 // 2, size[1]) if layout == "nv12" else (*size, 3)
    area, channels = size[0] * size[1], 3 if colour else 1
    read = area * (3 if layout == "rgb" else 1.5 if colour else 1)

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        generator = seeded(device)
        frame = torch.randint(0, 256, shape, dtype=torch.uint8, device=device, generator=generator)
        return {"frame": frame, "size": SIZE, "layout": layout, "colour": colour}

    def library(frame: Tensor, size: tuple[int, int], layout: str, colour: bool) -> Tensor:
        """torch's own area interpolation of what is packed already; NV12's luma alone."""
        planes = frame[: frame.shape[0] * 2 // 3][None] if layout == "nv12" else frame.permute(2, 0, 1)
        return torch.nn.functional.interpolate(planes[None].half(), size, mode="area")[0].byte()

    return Case(
        name=f"{name} {layout} {'colour' if colour else 'grey'}",
        function=thumbnail,
        make=make,
        bytes=int(read) + channels * SIZE[0] * SIZE[1],
        flops=2 * area * channels,
        configs=candidates(),
        baseline=library if (layout == "nv12") != colour else None,
    )


if __name__ == "__main__":
    sys.exit(run_cases("kernels/thumbnail/bench.py", cases()))
