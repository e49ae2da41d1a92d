"""Times cropping words out of a frame on a GPU: `python kernels/crop_resize/bench.py`."""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor

from clip4str.kernels.crop_resize import candidates, crop_resize
from clip4str.kernels.shared.bench import BATCHES, Arguments, Case, run_cases, seeded
from clip4str.kernels.shared.variants import NETWORKS, Network

FRAME = (1080, 1920)
WORDS = {"words": (120, 40), "large": (1000, 250), "tall": (60, 400)}  # typical width and height in pixels


def cases(capability: tuple[int, int] = (9, 0)) -> list[Case]:
    """Words of some 120 x 40 pixels out of a 1080p frame, upright and turned, RGB and NV12; large and tall ones."""
    found = []
    for network in (NETWORKS["base16"], NETWORKS["small"]):
        for batch in BATCHES:
            found += [
                _case(network, batch, "words", layout, angle, capability)
                for layout in ("rgb", "nv12")
                for angle in (0, 15)
            ]
        found += [_case(network, 64, kind, "rgb", 0, capability) for kind in ("large", "tall")]
    return found


def _case(network: Network, batch: int, kind: str, layout: str, angle: int, capability: tuple[int, int]) -> Case:
    boxes = _boxes(batch, kind)
    pixels = int(((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sum())
    height, width = network.image_size

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        generator = seeded(device)
        shape = (FRAME[0] * 3 // 2, FRAME[1]) if layout == "nv12" else (*FRAME, 3)
        frame = torch.randint(0, 256, shape, dtype=torch.uint8, device=device, generator=generator)
        quads = torch.from_numpy(_turned(boxes, angle)).to(device)
        return {"frame": frame, "quads": quads, "size": (height, width), "layout": layout, "dtype": dtype}

    def library(frame: Tensor, quads: Tensor, size: tuple[int, int], layout: str, dtype: torch.dtype) -> Tensor:
        """Upright boxes in torch's own operators, crop by crop. Does not round, and needs the boxes on the host."""
        crops = [frame[y0:y1, x0:x1].permute(2, 0, 1)[None].to(dtype) for x0, y0, x1, y1 in boxes.tolist()]
        resize = torch.nn.functional.interpolate
        resized = [resize(crop, size, mode="bicubic", antialias=True, align_corners=False) for crop in crops]
        return torch.cat(resized).clamp_(0, 255).div_(127.5).sub_(1)

    return Case(
        name=f"{network.name} {kind} {layout} {'turned' if angle else 'upright'} batch {batch}",
        function=crop_resize,
        make=make,
        bytes=pixels * 3 // (2 if layout == "nv12" else 1) + 32 * batch + 2 * batch * 3 * height * width,
        flops=sum(resize_flops(x1 - x0, y1 - y0, height, width) for x0, y0, x1, y1 in boxes.tolist()),
        configs=candidates(height, width, capability),
        baseline=library if angle == 0 and layout == "rgb" else None,
    )


def _boxes(batch: int, kind: str) -> np.ndarray:
    """(batch, 4) int: left, top, right, bottom of boxes in the frame, from two thirds to four thirds of the size."""
    random = np.random.default_rng(0)
    size = (np.array(WORDS[kind]) * random.uniform(2 / 3, 4 / 3, (batch, 2))).astype(int)
    corner = (random.uniform(0, 1, (batch, 2)) * (np.array(FRAME[::-1]) - size)).astype(int)
    return np.concatenate((corner, corner + size), 1)


def _turned(boxes: np.ndarray, angle: int) -> np.ndarray:
    """Boxes -> quads (batch, 4, 2) float32, turned about their centres by `angle` degrees."""
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]].astype(np.float64)
    centre, turn = corners.mean(1, keepdims=True), np.deg2rad(angle)
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return ((corners - centre) @ matrix + centre).astype(np.float32)


def resize_flops(w: int, h: int, height: int, width: int) -> int:
    """Of the two passes, horizontal first: four taps per pixel, more when shrinking."""
    return int(2 * 3 * width * 4 * (h * max(1, w / width) + height * max(1, h / height)))


if __name__ == "__main__":
    sys.exit(run_cases("kernels/crop_resize/bench.py", cases()))
