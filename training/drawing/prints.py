"""Words printed in small: receipts and labels, whole or in dots, and displays of lamps."""

from __future__ import annotations

import torch
from torch import Tensor

from .atlas import CAP
from .dice import Dice, plane
from .paint import coarser, colour_at, coverage, over, ramp, slopes, smooth

DOTTED, LIT = 0.3, 0.1  # shares of printed words: needles or lamps, and lamps on black


def printed(dice: Dice, field: Tensor, u: Tensor, v: Tensor, fine: int) -> Tensor:
    """float32 [m, 3, H, W], 0..255; field: distances at the points (u, v) of the text plane, [m, H, fine * W]."""
    field = field + plane(dice.uniform(-0.7, 1.2))  # thermal heads run out of heat, ink spreads
    cover = coverage(field, slopes(field))
    lit = dice.chance(LIT)
    cover = torch.where(plane(lit | dice.chance(DOTTED - LIT)), _dots(dice, field, u, v), cover)
    cover = coarser(cover, fine)
    shape = (int(cover.shape[1]), int(cover.shape[2]))
    # Worn ribbons and heads fade in bands.
    wear = (smooth(dice, (3, 10), shape) * plane(dice.uniform(0, 0.35)) + 1).clamp(0.3, 1)

    paper = colour_at(dice, 255 - 75 * dice.uniform() ** 2, dice.uniform(0, 0.12))
    ink = colour_at(dice, dice.uniform(5, 110), dice.uniform() ** 3)
    lamps = colour_at(dice, dice.uniform(110, 230), dice.uniform(0.3, 1))
    black = colour_at(dice, dice.uniform(3, 40), dice.uniform(0, 0.3))
    ground, tone = torch.where(lit[:, None], black, paper), torch.where(lit[:, None], lamps, ink)
    gain = (1 - 0.5 * dice.uniform() ** 2 * dice.chance(0.4))[:, None]  # scanned, or taken in worse light
    ground, tone = ground * gain, tone * gain
    creases = ramp(dice, shape) * plane(dice.uniform(0, 14)) + smooth(dice, (3, 8), shape) * plane(dice.uniform(0, 8))
    picture = ground[..., None, None] + creases[:, None]
    return over(picture, tone, cover * wear).clamp(0, 255)


def _dots(dice: Dice, field: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Capitals of 7 to 11 dots' height; dots may touch."""
    pitch = plane(CAP / dice.uniform(7, 11))
    x, y = u / pitch, v / pitch
    away = torch.hypot(x - x.round(), y - y.round())
    return coverage(field + 0.5, slopes(field)) * ((plane(dice.uniform(0.38, 0.62)) - away) * 4 + 0.5).clamp(0, 1)
