"""Colours, grounds, clutter and letters for a batch of words.

Pictures are float32 [n, 3, H, W], 0..255. Lengths of effects are in texels of the text plane.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .dice import Dice, plane
from .surfaces import HUES, SIGNS, texture_bank

GREY = (0.299, 0.587, 0.114)


class Grounds:
    """Textures on the device, and pictures of real places: uint8 [m, 3, h, w], blurred beyond reading, may be none."""

    def __init__(self, device: torch.device, places: Tensor | None = None) -> None:
        tiles = [torch.frombuffer(bytearray(tile.tobytes()), dtype=torch.uint8) for tile in texture_bank()]
        high, wide = texture_bank()[0].height, texture_bank()[0].width
        sheet = torch.cat(tiles).view(1, 1, len(tiles) * high, wide).to(device)
        self.textures, self.tile = (sheet.float() - 128) / 42, (high, wide)
        self.places = None if places is None or not len(places) else places.to(device).float()

    def texture(self, dice: Dice, shape: tuple[int, int], aspect: Tensor) -> Tensor:
        """A piece of a random texture for each word, about -3..3, [n, H, W]."""
        high, wide = self.tile
        count = self.textures.shape[2] // high
        x, y = unit_grid(shape, dice.device)
        zoom = dice.uniform(0.4, 2.2) * 40  # texture pixels per crop height
        angle = dice.normal(0, 0.15)
        dx = plane(zoom * aspect) * (x - 0.5)
        dy = plane(zoom) * (y - 0.5)
        u = plane(dice.uniform(0, wide)) + plane(angle.cos()) * dx - plane(angle.sin()) * dy
        v = plane(dice.uniform(0, high)) + plane(angle.sin()) * dx + plane(angle.cos()) * dy
        u, v = _mirrored(u, wide), _mirrored(v, high - 1) + plane(dice.index(count)) * high
        grid = torch.stack((u / wide * 2 - 1, (v + 0.5) / (count * high) * 2 - 1), dim=-1)
        sampled = F.grid_sample(self.textures, grid.view(1, -1, shape[1], 2), align_corners=False)
        return sampled.view(-1, *shape)

    def place(self, dice: Dice, rows: Tensor, shape: tuple[int, int]) -> Tensor:
        """A stretched, perhaps mirrored part of a real place for each of `rows`, [m, 3, H, W]."""
        assert self.places is not None
        source = self.places[dice.index(len(self.places))[rows]]
        zoom, aside, down = dice.uniform(0.3, 1.0)[rows], dice.uniform(-1, 1)[rows], dice.uniform(-1, 1)[rows]
        x, y = unit_grid(shape, dice.device)
        gx = plane(zoom * dice.sign()[rows]) * (2 * x - 1) + plane((1 - zoom) * aside)
        gy = plane(zoom) * (2 * y - 1) + plane((1 - zoom) * down)
        return F.grid_sample(source, torch.stack((gx, gy), dim=-1), padding_mode="border", align_corners=False)


def unit_grid(shape: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """x and y of pixel centres, 0..1, [H, W]."""
    high, wide = shape
    y = (torch.arange(high, device=device) + 0.5) / high
    x = (torch.arange(wide, device=device) + 0.5) / wide
    return x.expand(high, wide), y[:, None].expand(high, wide)


def _mirrored(t: Tensor, size: int) -> Tensor:
    """Coordinates folded back into 0..size."""
    return (t.remainder(2 * size) - size).abs()


def luminance(colour: Tensor) -> Tensor:
    """[n, 3, ...] -> [n, ...]."""
    return colour[:, 0] * GREY[0] + colour[:, 1] * GREY[1] + colour[:, 2] * GREY[2]


def colour_at(dice: Dice, target: Tensor, saturation: Tensor) -> Tensor:
    """Colours [n, 3] of random hue, of about the luminance `target`; see surfaces.colour_at."""
    hue = torch.where(dice.chance(0.8), dice.pick(HUES) + dice.normal(0, 0.03), dice.uniform()) * 6
    k = torch.stack([(hue + shift).remainder(6) for shift in (5.0, 3.0, 1.0)], dim=1)
    pure = 255 * (1 - saturation[:, None] * torch.minimum(k, 4 - k).clamp(0, 1))
    own = luminance(pure)
    scale = target / own.clamp_min(1)
    mix = ((target - own) / (255 - own).clamp_min(1)).clamp(0, 1)[:, None]
    fits = (scale[:, None] * pure).amax(1) <= 255
    return torch.where(fits[:, None], pure * scale[:, None], pure + (255 - pure) * mix)


def jitter(dice: Dice, colour: Tensor, amount: float) -> Tensor:
    return (colour + dice.field(3) * amount).clamp(0, 255)


def colour_pair(dice: Dice) -> tuple[Tensor, Tensor]:
    """(text, ground), [n, 3] each: as on signs, or free with a chosen contrast, now and then a low one."""
    signs = dice.table([part for pair in SIGNS for part in pair]).view(-1, 2, 3)[dice.index(len(SIGNS))]
    swapped = dice.chance(0.12)[:, None]
    text = jitter(dice, torch.where(swapped, signs[:, 1], signs[:, 0]), 14)
    ground = jitter(dice, torch.where(swapped, signs[:, 0], signs[:, 1]), 22)
    contrast = dice.mixture(((0.13, 30, 65), (0.29, 60, 130), (0.58, 110, 240)))
    low = dice.uniform(4, 250 - contrast)
    dark_text = dice.chance(0.58)
    text_l, ground_l = torch.where(dark_text, low, low + contrast), torch.where(dark_text, low + contrast, low)
    text_s = torch.where(dice.chance(0.3), dice.uniform() ** 0.8, dice.uniform(0, 0.15))
    ground_s = torch.where(dice.chance(0.4), dice.uniform(), dice.uniform(0, 0.25))
    from_sign = dice.chance(0.4)[:, None]
    return (torch.where(from_sign, text, colour_at(dice, text_l, text_s)),
            torch.where(from_sign, ground, colour_at(dice, ground_l, ground_s)))  # fmt: skip


def smooth(dice: Dice, cells: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    """Smooth random values of about unit size, [n, H, W]."""
    down, across = (_enlarging(few, many, dice.device) for few, many in zip(cells, shape))
    return down.mT @ (dice.field(*cells) * 0.8) @ across


@functools.lru_cache(maxsize=32)
def _enlarging(few: int, many: int, device: torch.device) -> Tensor:
    """[few, many]: bicubic interpolation from few values to many, as a matrix."""
    rows = torch.eye(few).view(few, 1, 1, few)
    return F.interpolate(rows, (1, many), mode="bicubic", align_corners=False).view(few, many).to(device)


def ramp(dice: Dice, shape: tuple[int, int]) -> Tensor:
    """Linear in a random direction, mostly up or down, -1..1 along each axis, [n, H, W]."""
    x, y = unit_grid(shape, dice.device)
    angle = _directions(dice)
    return plane(angle.cos()) * (2 * x - 1) + plane(angle.sin()) * (2 * y - 1)


def _directions(dice: Dice) -> Tensor:
    return torch.where(dice.chance(0.33), dice.uniform(-math.pi, math.pi), dice.sign() * (math.pi / 2))


def surface(dice: Dice, shape: tuple[int, int], colour: Tensor, busy: Tensor, rows: Tensor, texture: Tensor) -> Tensor:
    """[n, 3, H, W] of `colour` with gradients, noise of several octaves, and in `rows` texture [len(rows), H, W]; busy
    (0..1) scales how much."""

    def some(share: float, low: float, high: float) -> Tensor:
        return plane(dice.uniform(low, high) * busy * dice.chance(share))

    # All are products of few columns and few rows, so that one product of matrices adds them up.
    x, y = unit_grid(shape, dice.device)
    angle, size = _directions(dice), some(0.6, 5, 45)
    down = [(size * plane(angle.cos())).expand(-1, shape[0], 1), size * plane(angle.sin()) * (2 * y[:, :1] - 1)]
    across = [2 * x[:1] - 1, torch.ones_like(x[:1])]
    for cells, amount in (((2, 4), some(0.4, 4, 30)), ((6, 18), some(0.3, 3, 20)),
                          ((shape[0] // 2, shape[1] // 3), some(0.2, 2, 14))):  # fmt: skip
        down.append(_enlarging(cells[0], shape[0], dice.device).mT @ (dice.field(*cells) * (0.8 * amount)))
        across.append(_enlarging(cells[1], shape[1], dice.device))
    change = torch.cat(down, dim=2) @ torch.cat(across)
    change.index_add_(0, rows, texture * plane(dice.uniform() ** 1.5 * 30 * busy)[rows])
    tint = 1 + dice.field(3)[..., None, None] * 0.15
    return torch.addcmul(colour[..., None, None], change[:, None], tint)


def clutter(dice: Dice, ground: Tensor, text: Tensor, aspect: Tensor) -> Tensor:
    """Edges of signs, rules, frames and big shapes over the ground; text: its colour."""
    shape = (int(ground.shape[2]), int(ground.shape[3]))
    x, y = unit_grid(shape, dice.device)
    x = (x - 0.5) * plane(aspect)  # in crop heights from the middle
    for share in (0.9, 0.35):
        like = dice.chance(0.4)[:, None]
        other = colour_at(dice, dice.uniform(5, 250), dice.uniform(0, 0.7))
        tone = torch.where(like, jitter(dice, text, 20), other)
        kind, tilt = dice.uniform(), plane(dice.normal(0, 0.05))
        upright = plane(dice.chance(0.4))
        half = torch.where(upright, plane(aspect) / 2, 0.5)
        along = torch.where(upright, x, y - 0.5) * plane(dice.sign()) + tilt * torch.where(upright, y - 0.5, x)
        line = plane(dice.uniform(0.02, 0.08))
        edge = along - (half - plane(dice.uniform(0.02, 0.2)))
        rule = line / 2 - (along - (half - plane(dice.uniform(0.0, 0.12)))).abs()
        inset = plane(dice.uniform(0.01, 0.1))
        inner = torch.minimum(plane(aspect) / 2 - x.abs(), 0.5 - (y - 0.5).abs()) - inset
        frame = line / 2 - inner.abs()
        aside, down = plane(dice.uniform(-0.5, 0.5) * aspect), plane(dice.uniform(-0.3, 1.3))
        disc = plane(dice.uniform(0.2, 1.0)) - torch.hypot(x - aside, (y - down) * 1.3)
        which = plane(kind)
        inner_kind = torch.where(which < 0.82, frame, disc)
        distance = torch.where(which < 0.45, edge, torch.where(which < 0.7, rule, inner_kind))
        share_of = torch.where(kind < 0.82, 1.0, dice.uniform(0.2, 0.6)) * dice.chance(share)
        cover = (distance * shape[0] + 0.5).clamp(0, 1) * plane(share_of)
        ground = torch.lerp(ground, tone[..., None, None].expand_as(ground), cover[:, None])
    return ground


def coverage(distance: Tensor, slope: Tensor) -> Tensor:
    """Share of each pixel that lies inside, from the distance at its centre and its change per pixel."""
    return (distance / slope + 0.5).clamp(0, 1)


def coarser(values: Tensor, fine: int) -> Tensor:
    """Means of each `fine` values across: [n, H, fine * W] -> [n, H, W]."""
    total = values[..., ::fine]
    for k in range(1, fine):
        total = total + values[..., k::fine]
    return total / fine if fine > 1 else total


def slopes(distance: Tensor) -> Tensor:
    """Change of the distance per pixel. One-sided, so that strokes of a pixel's width still have one."""
    across, down = distance.diff(dim=2).abs(), distance.diff(dim=1).abs()
    gx = torch.maximum(F.pad(across, (1, 0)), F.pad(across, (0, 1)))
    gy = torch.maximum(F.pad(down, (0, 0, 1, 0)), F.pad(down, (0, 0, 0, 1)))
    return torch.hypot(gx, gy).clamp_min(0.02)


def shifted(field: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """[m, H, W] moved by dx, dy pixels, [m] each."""
    high, wide = field.shape[-2:]
    x, y = unit_grid((high, wide), field.device)
    grid = torch.stack((2 * x - 1 - plane(dx) * (2 / wide), 2 * y - 1 - plane(dy) * (2 / high)), dim=-1)
    return F.grid_sample(field[:, None], grid, padding_mode="border", align_corners=False)[:, 0]


def over(picture: Tensor, colour: Tensor, cover: Tensor) -> Tensor:
    """`colour` ([n, 3] or [n, 3, H, W]) painted where `cover` [n, H, W] is 1."""
    colour = colour[..., None, None] if colour.ndim == 2 else colour
    return torch.lerp(picture, colour.expand_as(picture), cover[:, None])
