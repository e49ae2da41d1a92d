"""Puts the letters of a batch on their grounds: shadow, depth, glow, outline, fill, wear, relief."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .dice import Dice, plane
from .frames import Frames, frame
from .layout import EM
from .paint import (
    Grounds,
    clutter,
    coarser,
    colour_at,
    colour_pair,
    coverage,
    jitter,
    luminance,
    over,
    ramp,
    shifted,
    slopes,
    smooth,
    surface,
)

# Shares of words; costly things are computed for these only.
CLUTTERED, PLACED, CAST, WORN, RELIEF = 0.24, 0.1, 0.26, 0.06, 0.12
EMBOSSED = 0.03  # of the ground's own colour, or nearly, in relief: cast metal, stone, moulded plastic
TEXTURED, FILLED, FILLED_ALONE = 0.4, 0.4, 0.2
TITLED = 0.05  # as on the covers of games and books: outlined, deep, in two colours; they are part of CAST


def strokes(dice: Dice, weight: Tensor) -> Tensor:
    """What to add to distances so that letters come out bolder or thinner, in texels [n]; weight: the faces'."""
    bolder = dice.uniform(0.2, 0.055 * EM) * dice.chance(0.1)
    thinner = dice.uniform(0.1, 0.9) * dice.chance(0.1) * (weight > 0.35)
    hairlines = ((0.24 - weight) * 4).clamp(0, 0.6)  # finer than the texels, they would come out dotted
    return bolder - thinner + hairlines


def compose(dice: Dice, field: Tensor, fine: int, unit: tuple[Tensor, Tensor], aspect: Tensor,
            weight: Tensor, grounds: Grounds, frames: Frames) -> Tensor:  # fmt: skip
    """float32 [n, 3, H, W], 0..255.

    field: distances [n, H, fine * W], texels. unit: pixels per texel, across and down, [n] each. aspect: of the crop.
    """
    field = field + plane(strokes(dice, weight))
    slope = slopes(field)
    cast = dice.subset(CAST)
    titles = cast[: max(1, round(TITLED * len(weight)))]
    titled = torch.zeros_like(weight, dtype=torch.bool).index_fill(0, titles, True)
    rim = dice.uniform(0.03, 0.09) * EM
    outlined = dice.chance(0.15) | titled & dice.chance(0.7)
    mask = coarser(coverage(field, slope), fine)
    wider = coarser(coverage(field + plane(rim), slope), fine)
    coarse = coarser(field, fine)
    shape = (int(mask.shape[1]), int(mask.shape[2]))

    text, ground = colour_pair(dice)
    busy = dice.uniform() ** 1.3 * dice.chance(0.75)
    order = dice.subset(1)
    textured, filled, both = _overlapping(order)
    texture = grounds.texture(Dice(len(textured), dice.generator), shape, aspect[textured])
    picture = surface(dice, shape, ground, busy, textured, texture)
    rows = dice.subset(CLUTTERED)
    part = clutter(Dice(len(rows), dice.generator), picture[rows], text[rows], aspect[rows])
    picture.index_copy_(0, rows, part)
    if grounds.places is not None:
        rows = dice.subset(PLACED)
        picture.index_copy_(0, rows, grounds.place(dice, rows, shape))
    part = frame(Dice(len(frames.rows), dice.generator), picture[frames.rows], text[frames.rows], frames)
    picture.index_copy_(0, frames.rows, part)
    text = _readable(dice, text, picture, mask)
    some = Dice(len(filled), dice.generator)
    part = surface(some, shape, text[filled], some.uniform(0.1, 0.8), torch.arange(both, device=order.device),
                   texture[len(textured) - both :])  # fmt: skip
    fill = text[..., None, None].expand_as(picture).index_copy(0, filled, part)
    fill.index_copy_(0, titles, _graded(Dice(len(titles), dice.generator), fill[titles]))
    dark = jitter(dice, ground * 0.35, 8)

    solid = torch.where(outlined, rim, 0.0)[cast]
    part = _cast(Dice(len(cast), dice.generator), picture[cast], coarse[cast] + plane(solid), text[cast], dark[cast],
                 (unit[0][cast], unit[1][cast]), titled[cast])  # fmt: skip
    picture.index_copy_(0, cast, part)
    opposite = colour_at(dice, 255 - luminance(text), dice.uniform(0, 0.6))
    around = torch.where(dice.chance(0.6)[:, None], opposite, dark)
    picture = over(picture, around, wider * plane(outlined))
    hollow = outlined & dice.chance(0.15)
    fill = torch.where(hollow[:, None, None, None], jitter(dice, ground, 15)[..., None, None], fill)
    opacity = torch.where(dice.chance(0.12), dice.uniform(0.55, 0.9), 1.0)
    cover = mask * plane(opacity)
    rows = dice.subset(WORN)
    wear = smooth(Dice(len(rows), dice.generator), (shape[0] // 3, shape[1] // 4), shape)
    cover.index_copy_(0, rows, cover[rows] * (wear * 0.9 + 0.85).clamp(0.25, 1))
    rows = dice.subset(RELIEF)
    embossed = rows[: max(1, round(EMBOSSED * len(weight)))]
    some = Dice(len(embossed), dice.generator)
    cover.index_copy_(0, embossed, cover[embossed] * plane(some.uniform(0, 0.35)))
    picture = over(picture, fill, cover)
    part = _relief(Dice(len(rows), dice.generator), picture[rows], coarse[rows], mask[rows], len(embossed))
    return picture.index_copy_(0, rows, part).clamp_(0, 255)


def _overlapping(order: Tensor) -> tuple[Tensor, Tensor, int]:
    """Words with texture, words whose letters are not of one colour, and how many the last of those are the first of
    these: textures are costly, letters take the ground's."""
    first, second, third = (round(share * len(order)) for share in (FILLED_ALONE, TEXTURED, FILLED_ALONE + FILLED))
    return order[:second], order[first:third], second - first


def _cast(dice: Dice, picture: Tensor, field: Tensor, text: Tensor, dark: Tensor,
          unit: tuple[Tensor, Tensor], deep: Tensor) -> Tensor:  # fmt: skip
    """What letters throw on the ground: a shadow, their own sides, or light. deep, bool [m]: sides, and wide ones."""
    kind = torch.where(deep, 0.7, dice.uniform())
    depth = dice.uniform(0.03, 0.11) * EM * torch.where(deep, 1.6, 1.0)
    dx, dy = depth * dice.pick((-1, 1, 1)), depth * dice.pick((-1, 0, 1, 1))
    slope = slopes(field)
    sides = kind > 0.55
    steps = []
    for share in (1.0, 0.66, 0.33):
        far = torch.where(sides, share, 1.0)
        steps.append(shifted(field, dx * far * unit[0], dy * far * unit[1]))
    moved = torch.maximum(torch.maximum(steps[0], steps[1]), steps[2])
    soft = torch.where(dice.chance(0.5) & ~sides, dice.uniform(1.0, 4.0), 0.0)
    shadow = coverage(moved, slope + plane(soft))
    glow = ((field + 4 + plane(dice.uniform(0, 3))) / 8).clamp(0, 1)
    lit = kind > 0.82
    side = jitter(dice, text * dice.pick((0.5, 0.6, 1.35))[:, None], 10)
    tone = torch.where(lit[:, None], jitter(dice, text, 40), torch.where(sides[:, None], side, dark))
    opacity = torch.where(lit, dice.uniform(0.4, 0.9), torch.where(sides, 1.0, dice.uniform(0.4, 1.0)))
    return over(picture, tone, torch.where(plane(lit), glow, shadow) * plane(opacity))


def _graded(dice: Dice, fill: Tensor) -> Tensor:
    """From the letters' colour to another of much the same lightness, softly or at a line, mostly downwards."""
    shape = (int(fill.shape[2]), int(fill.shape[3]))
    where = ramp(dice, shape) * plane(dice.mixture(((0.7, 0.8, 1.5), (0.3, 6, 20)))) + plane(dice.uniform(-0.3, 0.3))
    level = luminance(fill.mean((2, 3))) + dice.uniform(-35, 35)
    other = colour_at(dice, level.clamp(5, 250), dice.uniform(0.3, 1))
    return over(fill, other, (where / 2 + 0.5).clamp(0, 1))


def _relief(dice: Dice, picture: Tensor, field: Tensor, mask: Tensor, strong: int) -> Tensor:
    """One edge of each stroke catches the light, the other lies in the shade. strong: how many of the first words can
    be read by that alone."""
    bevel = field.clamp(-1, 2.5)
    across, down = bevel.diff(dim=2), bevel.diff(dim=1)
    light = plane(dice.sign()) * F.pad(across, (1, 0)) + plane(dice.sign()) * F.pad(down, (0, 0, 1, 0))
    amount = dice.uniform(20, 70)
    amount[:strong] += 50
    light = light * plane(amount)
    return picture + (light * mask)[:, None]


def _readable(dice: Dice, colour: Tensor, ground: Tensor, mask: Tensor) -> Tensor:
    """`colour`, or black or white where it could not be told from what is really behind the letters."""
    weight = mask + 0.05
    total = weight.sum((1, 2))[:, None]
    behind = (ground * weight[:, None]).sum((2, 3)) / total
    spread = ((ground - behind[..., None, None]) ** 2 * weight[:, None]).sum((2, 3)) / total
    clear = (colour - behind).abs().amax(1) >= dice.uniform(22, 36) + 1.5 * spread.sqrt().amax(1)
    other = torch.where(behind.mean(1) > 120, dice.uniform(5, 40), dice.uniform(205, 250))
    return torch.where(clear[:, None], colour, other[:, None])
