"""What signs, badges and seals have around their words: bands, a tile or disc behind a character by itself, and what
stands on the hollow side of an arc: a disc, an emblem, a smaller line.

Lengths are in texels of the text plane, see layout.py.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .dice import Dice, constant, plane
from .layout import Layout
from .paint import colour_at, coverage, jitter, over, slopes
from .warp import ALONE, Warp

FRAMED = 0.1  # share of words: half of those on strong arcs, some single characters, few others
HOLLOW = 0.8  # radians: arcs beyond show their hollow side
FILLED = 0.05  # share of words, at most, with a line of text there
INNER = 0.6  # of the word's height, at most: a line on the hollow side


class Frames(NamedTuple):
    """rows int64 [m]: words with a frame; u, v [m, H, W]: points of the text plane; width, height, bend, radius [m]:
    of the word. filled, bool [m]: the arc has a line of text inside already."""

    rows: Tensor
    u: Tensor
    v: Tensor
    width: Tensor
    height: Tensor
    bend: Tensor
    radius: Tensor
    filled: Tensor


class Hollow(NamedTuple):
    """The hollow side of arcs, [m] each. begin: how far from the line's middle it begins; depth: how far from there
    to the line between the word's ends; both towards the centre. radius: of the arc's middle line."""

    begin: Tensor
    depth: Tensor
    radius: Tensor

    def points(self, u: Tensor, towards: Tensor) -> tuple[Tensor, Tensor]:
        """Unbent: how far aside of the arc's axis, and how far from the middle of the line towards the centre."""
        phi, around = u / plane(self.radius), plane(self.radius) - towards
        return around * phi.sin(), plane(self.radius) - around * phi.cos()

    def chord(self, share: float) -> Tensor:
        """Half of the width at a share of the depth."""
        down = self.radius - self.begin - share * self.depth
        return ((self.radius - self.begin) ** 2 - down**2).clamp_min(1).sqrt()


def hollow(begin: Tensor, height: Tensor, bend: Tensor, radius: Tensor) -> Hollow:
    ends = radius - (radius - height / 2) * (bend.abs().clamp_max(math.pi) / 2).cos()
    return Hollow(begin, (ends - begin).clamp_min(1), radius)


def fill_arcs(dice: Dice, layout: Layout, warp: Warp, u: Tensor, v: Tensor) -> tuple[Layout, Tensor, Tensor, Tensor]:
    """On strong arcs the line outside is left out, and that on the hollow side, which at its size and bent like the
    word would be read, is left out or made smaller and straight: layout, u, v, and which words have such a line."""
    height, upward = layout.size[1], warp.bend > 0
    line = torch.where(upward[:, None], layout.others[:, 1], layout.others[:, 0])
    split = torch.where(upward, layout.splits[:, 1], -layout.splits[:, 0])
    inside = hollow(split, height, warp.bend, warp.radius)
    strong = warp.bend.abs() > HOLLOW
    able = strong & (line[:, 2] > 0) & (inside.depth > 0.5 * height) & (split < inside.radius)
    rows = (able + 0.5 * dice.uniform()).topk(max(1, round(FILLED * dice.count))).indices
    filled = torch.zeros_like(able).index_fill(0, rows, True) & able
    shown = filled[:, None] & torch.stack((~upward, upward), dim=1)
    own = torch.where(shown, layout.splits, constant((-1e6, 1e6), u.device))
    splits = torch.where(strong[:, None], own, layout.splits)

    part = Hollow(*(each[rows] for each in inside))
    sign = plane(torch.where(upward[rows], 1.0, -1.0))
    middle_u, middle_v, long, high = line[rows].unbind(1)
    aside, towards = part.points(u[rows], sign * v[rows])
    scale = plane(torch.maximum(high / torch.minimum(INNER * height[rows], 0.5 * part.depth),
                                long / (1.5 * part.chord(0.58))).clamp(1, 40))  # fmt: skip
    along = plane(middle_u) + scale * aside
    down = scale * (towards - plane(part.begin + 0.58 * part.depth))
    along = torch.where(down.abs() > plane(high / 2 + 6), 1e6, along)
    there = plane(filled[rows]) & (sign * v[rows] > plane(part.begin))
    u = u.index_copy(0, rows, torch.where(there, along, u[rows]))
    v = v.index_copy(0, rows, torch.where(there, plane(middle_v) + sign * down, v[rows]))
    return layout._replace(splits=splits), u, v, filled


def choose(dice: Dice, layout: Layout, warp: Warp, u: Tensor, v: Tensor, filled: Tensor) -> Frames:
    """u, v: before fill_arcs."""
    width, height = layout.size
    wanted = (warp.bend.abs() > HOLLOW) & dice.chance(0.6) | (width < ALONE * height) & dice.chance(0.4)
    rows = (wanted + 0.9 * dice.uniform()).topk(max(1, round(FRAMED * dice.count))).indices
    return Frames(rows, u[rows], v[rows], width[rows], height[rows], warp.bend[rows], warp.radius[rows], filled[rows])


def frame(dice: Dice, picture: Tensor, text: Tensor, frames: Frames) -> Tensor:
    """[m, 3, H, W] with what belongs around the words of `frames` painted on it; text [m, 3]: their colour."""
    u, v, width, height = frames.u, frames.v, frames.width, frames.height
    bent = frames.bend != 0
    sign = torch.where(bent, frames.bend.sign(), dice.sign())
    begin = height * (0.5 + dice.uniform(0.1, 0.45))
    begin = torch.where(frames.filled, height * 0.6, begin)  # in front of the line inside
    towards = plane(sign) * v
    band = torch.where(plane(dice.chance(0.5)), v.abs(), towards) - plane(begin)
    reach = torch.hypot(width, height) / 2 * dice.uniform(0.95, 1.3)
    room = height * dice.uniform(0.08, 0.4)
    tile = torch.maximum(u.abs() - plane(width / 2 + room), v.abs() - plane(height / 2 + room))
    disc = torch.hypot(u, v) - plane(reach)
    alone = torch.where(plane(dice.chance(0.6)), disc, tile)
    beyond = torch.where(plane(width < ALONE * height), alone, band)
    slope = slopes(beyond)
    ring = coverage(plane(dice.uniform(0.8, 3)) / 2 - beyond.abs(), slope)
    cover = torch.where(plane(dice.chance(0.5)), ring, coverage(beyond, slope))
    picture = over(picture, _tone(dice, text), cover)

    inside = hollow(begin, height, frames.bend, frames.radius)
    able = (frames.bend.abs() > HOLLOW) & ~frames.filled & (inside.depth > 0.5 * height) & dice.chance(0.65)
    aside, down = inside.points(u, towards)
    down = down - plane(begin + 0.6 * inside.depth)
    spikes = dice.pick((0, 3, 4, 5, 5, 6, 8, 12))
    turn = plane(dice.uniform(-math.pi, math.pi))
    edge = 1 + plane(dice.uniform(0.05, 0.4)) * (plane(spikes) * torch.atan2(aside, down) + turn).cos()
    emblem = plane(inside.depth * dice.uniform(0.18, 0.36)) * edge - torch.hypot(aside, down)
    return over(picture, _tone(dice, text), coverage(emblem, slopes(emblem)) * plane(able))


def _tone(dice: Dice, text: Tensor) -> Tensor:
    other = colour_at(dice, dice.uniform(5, 250), dice.uniform(0, 0.8))
    return torch.where(dice.chance(0.4)[:, None], jitter(dice, text, 20), other)
