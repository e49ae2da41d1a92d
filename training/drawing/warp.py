"""Bends, slants, rotations and perspective of a batch of words.

A point of the crop goes through the inverse of a projective map, then of a bend, to the text plane.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .dice import Dice

# Shares of words. Turned ones are cut out along the axes, as crops of rotated words are; those cut out along the word
# (its smallest rectangle) come straight, or, where that cannot tell top from side, by a quarter or half turn. Of the
# words in IC15's photos 7 % lie beyond 20 degrees, 3 % beyond 30; here more, for the network read half of those.
TILTED, TURNED = 0.1, 0.055  # 8 to 30 degrees, 30 to 50
# Hardly any in IC15's photos, but never read so far.
UPRIGHT, OVER = 0.024, 0.012  # of words short enough; up and down alike
BENT, SAGGING, WAVING = 0.16, 0.05, 0.03
ROUND = 0.3  # of bent words: those not at the top or bottom of their circle
ALONE = 1.3  # of ink, width to height: single characters; turned far, N is Z, and 6 is 9
CUT = 0.12  # crops cut so narrow that a part of the outer letters, or of their height, is outside
SHORT = 4.0  # of ink, width to height: longer words turned upright have less than 5 pixels a letter
MARGINS = ((0.24, -0.05, 0.03), (0.56, 0.02, 0.14), (0.2, 0.1, 0.3))  # in text heights: share, low, high
_POINTS = 9  # per edge, to find how far a bent box reaches


class Warp(NamedTuple):
    """to_plane [n, 3, 3]: (x, y, 1) with 0..1 over the crop -> the straight but not yet unbent plane. bend: angle of
    the arc in radians, positive arches upwards; radius > 0. sag, wave: depths of a parabola and a sine. All [n]."""

    to_plane: Tensor
    bend: Tensor
    radius: Tensor
    sag: Tensor
    wave: Tensor
    period: Tensor
    half: Tensor
    aspect: Tensor  # of the crop: width / height
    share: Tensor  # of the crop's height that the letters fill, or would if they stood upright


def plain_warp(width: Tensor, height: Tensor, margin: float = 0.1) -> Warp:
    """Straight on, `margin` text heights of room on every side."""
    zero = torch.zeros_like(width)
    w, h = width + 2 * margin * height, height * (1 + 2 * margin)
    matrix = _matrix(w, zero, -w / 2, zero, h, -h / 2, zero, zero, zero + 1)
    return Warp(matrix, zero, zero + 1, zero, zero, zero + 1, width / 2, w / h, height / h)


def random_warp(width: Tensor, height: Tensor, dice: Dice, calm: Tensor | None = None, arched: Tensor | None = None,
                spare: Tensor | None = None) -> Warp:  # fmt: skip
    """For words whose ink is width x height texels. calm, bool [n]: those that lie straight, or nearly. arched, bool
    [n]: to be bent, if long enough. spare [n, 3]: what may be cut off, see layout.Layout; by default nothing is."""
    aspect = width / height
    if calm is None:
        calm = torch.zeros_like(aspect, dtype=torch.bool)
    if arched is None:
        arched = dice.chance(BENT)
    period = width / dice.uniform(0.6, 1.8)
    bend, sag, wave = (depth * ~calm for depth in _bends(aspect, height, period, arched, dice))
    radius = torch.where(bend != 0, width / bend.abs().clamp_min(1e-3), 1.0)
    matrix = _projection(width, height, bend, dice, calm)

    # Where the box's edges go tells what the crop must show.
    along = torch.linspace(-0.5, 0.5, _POINTS, device=width.device)
    x = (width[:, None] * along).repeat(1, 2)
    side = height[:, None].expand(-1, _POINTS) / 2
    y = torch.cat((side, -side), dim=1)
    sign, r = bend.sign()[:, None], radius[:, None]
    around, phi = r - sign * y, x / r
    arc_x, arc_y = around * phi.sin(), sign * (r - around * phi.cos())
    bent = (bend != 0)[:, None]
    dip = sag[:, None] * (2 * x / width[:, None]) ** 2 + wave[:, None] * (2 * math.pi * x / period[:, None]).sin()
    x, y = torch.where(bent, arc_x, x), torch.where(bent, arc_y, y + dip)
    points = matrix @ torch.stack((x, y, torch.ones_like(x)), dim=1)
    px, py = points[:, 0] / points[:, 2], points[:, 1] / points[:, 2]
    x0, x1, y0, y1 = px.amin(1), px.amax(1), py.amin(1), py.amax(1)
    unit = torch.minimum(y1 - y0, 2 * height)
    # On an arc the box meets single corners of letters, so there it is cut by no more than on a line.
    margins = [dice.mixture(MARGINS) for _ in range(4)]
    left, top, right, bottom = (m * torch.where(m < 0, torch.minimum(unit, height), unit) for m in margins)
    if spare is not None:
        able = (bend == 0) & (sag == 0) & (wave == 0) & dice.chance(CUT)
        left, right, top, bottom = _cuts(dice, able, spare, px, width, (left, right, top, bottom))
    x0, y0, x1, y1 = x0 - left, y0 - top, x1 + right, y1 + bottom
    zero = torch.zeros_like(x0)
    crop = _matrix(x1 - x0, zero, x0, zero, y1 - y0, y0, zero, zero, zero + 1)
    turned = _turns(dice, ~calm & (aspect > ALONE), aspect < SHORT)
    to_plane = inverse(matrix) @ crop @ turned[0]
    seen = (x1 - x0) / (y1 - y0)
    seen = torch.where(turned[1], 1 / seen, seen)
    share = height / torch.where(turned[1], x1 - x0, y1 - y0)
    return Warp(to_plane, bend, radius, sag, wave, period, width / 2, seen, share)


def _cuts(dice: Dice, able: Tensor, spare: Tensor, px: Tensor, width: Tensor, margins: tuple[Tensor, ...]
          ) -> list[Tensor]:  # fmt: skip
    """Margins at left, right, top and bottom, those of some `able` words as far inside of the ink as is to spare:
    of the outer letters at the middle of their height. px [n, 2 * _POINTS]: where the lower and the upper edge go."""
    u, share = dice.uniform(), dice.uniform(0.6, 1)
    sides = ((u < 0.4), (u > 0.3) & (u < 0.7), (u > 0.7) & (u < 0.8), u > 0.8)
    first, last, tall = spare.unbind(1)
    edges = px.unflatten(1, (2, _POINTS))
    scale = edges.diff(dim=2).mean(1).clamp_min(0) * ((_POINTS - 1) / width[:, None])  # near ends are larger
    lean = (edges[:, 0] - edges[:, 1]).abs() / 2
    ends = [share * part * scale[:, at] for part, at in ((first, 0), (last, -1))]
    ends = [end + torch.minimum(lean[:, at], end) for end, at in zip(ends, (0, -1))]
    cuts = (*ends, share * tall, share * tall)
    return [torch.where(able & side & (cut > 0), -cut, margin) for side, cut, margin in zip(sides, cuts, margins)]


def _bends(aspect: Tensor, height: Tensor, period: Tensor, arched: Tensor, dice: Dice
           ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    u, wide = dice.uniform(), aspect > 1.6
    # The inner side of the arc must not shrink to a point, nor long words to less than can be read.
    most = torch.minimum(aspect.clamp_max(3.2), 22 / aspect)
    bend = dice.mixture(((0.6, 0.2, 0.7), (0.4, 0.7, 1.0))) * most * torch.where(dice.chance(0.67), 1.0, -1.0)
    bend = bend * (wide & arched)
    sag = dice.uniform(-0.4, 0.4) * height * (aspect / 3).clamp_max(1.5)
    sag = sag * (wide & ~arched & (u < SAGGING / (1 - BENT)))
    # Steeper, its letters would lean beyond reading: they are moved up and down, not turned.
    wave = torch.minimum(dice.uniform(0.1, 0.5) * height, 0.1 * period)
    wave = wave * dice.sign() * (wide & ~arched & (u > 1 - WAVING / (1 - BENT)))
    return bend, sag, wave


def _steepest(aspect: Tensor) -> Tensor:
    """Sine of the angle at which a turned word's letters have 70 pixels each of the 4,096 of its squeezed crop: their
    number is about 4096 * 0.65 * height^2 / (crop's width * height)."""
    return ((38 / aspect - 1) / aspect).clamp(0.02, 1)


def _projection(width: Tensor, height: Tensor, bend: Tensor, dice: Dice, calm: Tensor) -> Tensor:
    """Stretch, slant, rotation, a climbing line, one end nearer than the other: [n, 3, 3]."""
    zero, one = torch.zeros_like(width), torch.ones_like(width)
    stretch = (dice.normal() * torch.where(dice.chance(0.7), 0.12, 0.3)).clamp(-0.8, 0.8).exp()
    slant = dice.normal(0, 0.12) * dice.chance(0.35)
    v = dice.uniform()
    spread = torch.where(v < 0.28, 0.0, torch.where(v < 0.66, 2.5, 6.0))
    far = torch.where(v > 1 - TURNED, dice.uniform(30, 50), dice.uniform(8, 30)) * dice.sign()
    far = far * torch.where(width / height > ALONE, 1.0, 0.4)
    angle = torch.where(v < 1 - TILTED - TURNED, dice.normal() * spread, far) * torch.where(calm, 0.1, 1.0)
    aside = dice.uniform(-45, 45)  # along the circle: a seal's first or last word
    angle = torch.where((bend != 0) & dice.chance(ROUND), aside, angle)
    steepest = _steepest(width / height)
    s = (angle * (math.pi / 180)).sin().clamp(-steepest, steepest)
    c = (1 - s * s).sqrt()
    flat = _matrix(stretch, slant, zero, zero, one, zero, zero, zero, one)
    turned = _matrix(c, -s, zero, s, c, zero, zero, zero, one) @ flat
    # Long words have no pixels to spare for a steep line or a far end.
    room = (12 * height / width).clamp_max(1) * torch.where(calm, 0.3, 1.0)
    climb = dice.normal(0, 0.11).clamp(-0.35, 0.35) * (dice.chance(0.3) * room**2)
    near = dice.chance(0.4) * room
    px = dice.normal(0, 0.17).clamp(-0.4, 0.4) * near / (width * stretch / 2)
    py = dice.normal(0, 0.08).clamp(-0.2, 0.2) * near / (height / 2 + width * s.abs() / 2)
    return _matrix(one, zero, zero, zero, one, zero, px, py, one) @ _matrix(
        one, zero, zero, climb, one, zero, zero, zero, one) @ turned  # fmt: skip


def _turns(dice: Dice, able: Tensor, short: Tensor) -> tuple[Tensor, Tensor]:
    """Signs that run up or down a wall, or hang upside down: a map of the crop's unit square, and which words
    it turns by a quarter. able: words that may be turned at all, short: by a quarter."""
    u = dice.uniform()
    quarter, half, left = able & short & (u < UPRIGHT), able & (u > 1 - OVER), dice.chance(0.5)
    zero, one = torch.zeros(dice.count, device=dice.device), torch.ones(dice.count, device=dice.device)
    straight = _matrix(one, zero, zero, zero, one, zero, zero, zero, one)
    over = _matrix(-one, zero, one, zero, -one, one, zero, zero, one)
    up = _matrix(zero, -one, one, one, zero, zero, zero, zero, one)
    down = _matrix(zero, one, zero, -one, zero, one, zero, zero, one)
    turned = torch.where((quarter & left)[:, None, None], up, torch.where(quarter[:, None, None], down, straight))
    return torch.where(half[:, None, None], over, turned), quarter


def text_points(warp: Warp, high: int, wide: int) -> tuple[Tensor, Tensor]:
    """Where the pixels of a high x wide picture lie on the text plane: u, v, each [n, high, wide]."""
    device = warp.bend.device
    y = (torch.arange(high, device=device) + 0.5) / high
    x = (torch.arange(wide, device=device) + 0.5) / wide
    grid = torch.stack((x.repeat(high), y.repeat_interleave(wide), torch.ones(high * wide, device=device)))
    points = warp.to_plane @ grid
    depth = 1 / points[:, 2]
    x, y = points[:, 0] * depth, points[:, 1] * depth
    sign, r = warp.bend.sign()[:, None], warp.radius[:, None]
    inner = sign * y
    phi, around = torch.atan2(x, r - inner), torch.hypot(x, r - inner)
    dip = warp.sag[:, None] * (x / warp.half[:, None]) ** 2
    dip = dip + warp.wave[:, None] * (2 * math.pi * x / warp.period[:, None]).sin()
    bent = (warp.bend != 0)[:, None]
    u, v = torch.where(bent, phi * r, x), torch.where(bent, sign * (r - around), y - dip)
    return u.view(-1, high, wide), v.view(-1, high, wide)


def inverse(m: Tensor) -> Tensor:
    """Of projective maps [n, 3, 3], up to a factor: torch.linalg.inv would wait for the GPU."""
    a, b, c = m[:, 0], m[:, 1], m[:, 2]
    cross = torch.linalg.cross
    adjugate = torch.stack((cross(b, c), cross(c, a), cross(a, b)), dim=-1)
    return adjugate / (a * cross(b, c)).sum(-1)[:, None, None]


def _matrix(*values: Tensor) -> Tensor:
    return torch.stack(values, dim=-1).unflatten(-1, (3, 3))
