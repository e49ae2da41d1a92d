"""Words turned and squeezed: as often as they should be, and not beyond reading."""

from __future__ import annotations

import torch
from torch import Tensor

from clip4str.training.drawing.dice import Dice
from clip4str.training.drawing.warp import Warp, inverse, random_warp, text_points


def jacobian(warp: Warp) -> Tensor:
    """Change of (u, v) along the crop, in shares of its height, at the middle: [n, 2, 2]."""
    u, v = text_points(warp, 33, 33)
    across = torch.stack((u[:, 16, 17] - u[:, 16, 15], v[:, 16, 17] - v[:, 16, 15]), 1) * (16.5 / warp.aspect[:, None])
    down = torch.stack((u[:, 17, 16] - u[:, 15, 16], v[:, 17, 16] - v[:, 15, 16]), 1) * 16.5
    return torch.stack((across, down), dim=2)


def warps(aspect: float, count: int = 4000, calm: bool = False) -> Warp:
    dice = Dice(count, torch.Generator().manual_seed(4))
    height = torch.full((count,), 30.0)
    return random_warp(aspect * height, height, dice, torch.full((count,), calm))


def angles(warp: Warp) -> Tensor:
    """Of the lines of text against the crop's x, in degrees, 0 to 180."""
    line = torch.linalg.inv(jacobian(warp))[:, :, 0]
    return torch.rad2deg(torch.atan2(line[:, 1], line[:, 0])).abs()


def test_words_are_turned_as_often_as_they_should_be():
    angle = angles(warps(3.5))
    share = lambda low, high: ((angle >= low) & (angle < high)).float().mean().item()  # noqa: E731
    assert 0.7 < share(0, 12) < 0.9 and 0.03 < share(28, 55) < 0.09
    assert 0.015 < share(70, 110) < 0.035 and 0.006 < share(160, 181) < 0.02
    assert (angles(warps(3.5, calm=True)) < 12).float().mean() > 0.98


def test_long_words_keep_the_pixels_that_their_letters_need():
    for aspect in (4.0, 8.0, 12.0, 16.0):
        warp = warps(aspect)
        shown = jacobian(warp).det().abs() * warp.aspect  # of the plane, in the whole crop
        letter = 4096 * 0.65 * 30.0**2 / shown
        assert letter.quantile(0.03) > 35, aspect


def test_inverse_of_projective_maps():
    maps = torch.randn(50, 3, 3, generator=torch.Generator().manual_seed(0)) + 3 * torch.eye(3)
    torch.testing.assert_close(inverse(maps) @ maps, torch.eye(3).expand(50, 3, 3), atol=1e-3, rtol=1e-3)
