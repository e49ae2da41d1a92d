"""What a camera does to a batch of words: light, blur, few pixels, noise, JPEG, things in front.

Blur, the sensor's pixels and the final resize are linear and separable: one matrix per word and axis takes the scene to
the sensor, another takes the sensor's picture to the result. Every word has a sensor of its own size that way.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .dice import Dice, constant, plane
from .paint import colour_at, luminance, over, ramp, smooth, unit_grid

OCCLUDED, MOVED, UNEVEN, NOISY, PACKED = 0.04, 0.08, 0.42, 0.5, 0.6
LOW = 0.15  # of words, with letters of 5 to 13 pixels: what is read worst beside long and turned ones
# fmt: off
LUMA = (16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56,
        14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
        49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99)
CHROMA = (17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99,
          47, 66, 99, 99, 99, 99, 99, 99) + (99,) * 32
# fmt: on


def photograph(dice: Dice, scene: Tensor, aspect: Tensor, letters: Tensor, size: tuple[int, int]) -> Tensor:
    """float32 [n, 3, H, W] of a scene in its light -> the same, as a camera takes it; letters: share of the
    crop's height that they fill."""
    rows = dice.subset(OCCLUDED)
    scene = scene.index_copy(0, rows, occlude(Dice(len(rows), dice.generator), scene[rows], aspect[rows]))
    rows = dice.subset(MOVED)
    scene = scene.index_copy(0, rows, move(Dice(len(rows), dice.generator), scene[rows], letters[rows], aspect[rows]))
    still = torch.ones_like(aspect).index_fill(0, rows, 0.25)
    return sensor(dice, scene.clamp(0, 255), aspect, letters, still, size).clamp(0, 255)


def light(dice: Dice, scene: Tensor) -> Tensor:
    """Uneven light, shadows, glare, exposure and colour cast."""
    rows = dice.subset(UNEVEN)
    scene = scene.index_copy(0, rows, uneven(Dice(len(rows), dice.generator), scene[rows]))
    taken = dice.chance(0.55)
    gain = dice.normal(-0.03, 0.3).exp().clamp(0.35, 1.3)
    haze = dice.uniform() ** 2.5 * 0.45
    cast = (1 + dice.field(3) * 0.06) * gain[:, None]
    factor = torch.where(taken[:, None], (1 - haze)[:, None] * cast, 1.0)
    summand = torch.where(taken[:, None], (dice.uniform(20, 220) * haze)[:, None] * cast, 0.0)
    return torch.addcmul(summand[..., None, None], scene, factor[..., None, None])


def uneven(dice: Dice, scene: Tensor) -> Tensor:
    """Light from one side, clouds of it, a shadow's edge, glare."""
    shape = (int(scene.shape[2]), int(scene.shape[3]))
    u = plane(dice.uniform())
    slope, clouds = ramp(dice, shape), smooth(dice, (2, 4), shape)
    amount = plane(dice.uniform(0.05, 0.4))
    edge = (slope * plane(dice.uniform(3, 30)) + plane(dice.uniform(-2, 2)) + 0.5).clamp(0, 1)
    factor = torch.where(u < 0.76, 1 + clouds * amount, 1 - (amount + 0.1) * edge)
    factor = torch.where(u < 0.48, 1 + slope * amount, factor)
    glare = clouds.clamp(0, 1) * plane(dice.uniform(30, 90)) * (u > 0.88)
    return scene * torch.where(u > 0.88, 1.0, factor)[:, None] + glare[:, None]


def occlude(dice: Dice, scene: Tensor, aspect: Tensor) -> Tensor:
    """A wire, a pole or a leaf in front of the word."""
    high, wide = scene.shape[-2:]
    x, y = unit_grid((high, wide), dice.device)
    x, y = (x - plane(dice.uniform(0.1, 0.9))) * plane(aspect), y - 0.5
    lean = plane(dice.uniform(-0.6, 0.6))
    pole = plane(dice.uniform(0.015, 0.07)) - (x - lean * y).abs() / (1 + lean**2).sqrt()
    leaf = plane(dice.uniform(0.08, 0.2)) - torch.hypot(x, y - plane(dice.uniform(-0.5, 0.5)))
    distance = torch.where(plane(dice.chance(0.7)), pole, leaf)
    tone = colour_at(dice, dice.uniform(10, 230), dice.uniform(0, 0.6))
    return over(scene, tone, (distance * high + 0.5).clamp(0, 1))


def move(dice: Dice, scene: Tensor, letters: Tensor, aspect: Tensor) -> Tensor:
    """Motion blur in any direction."""
    high, wide = scene.shape[-2:]
    x, y = unit_grid((high, wide), dice.device)
    angle, length = dice.uniform(0, math.pi), dice.uniform(0.06, 0.18) * letters
    dx, dy = length * angle.cos() / aspect, length * angle.sin()
    total = torch.zeros_like(scene)
    for k in range(7):
        t = k / 3 - 1
        grid = torch.stack((2 * x - 1 + plane(dx) * t, 2 * y - 1 + plane(dy) * t), dim=-1)
        total = total + F.grid_sample(scene, grid, padding_mode="border", align_corners=False)
    return total / 7


def sensor(dice: Dice, scene: Tensor, aspect: Tensor, letters: Tensor, still: Tensor,
           size: tuple[int, int]) -> Tensor:  # fmt: skip
    """Optics, pixels, noise and JPEG, and the resize to `size` at the end. still: scales the blur, [n]."""
    high, wide = scene.shape[-2:]
    seen = (dice.normal(3.2, 0.5)).exp().clamp(9, 72)  # pixels of the letters' height
    low = dice.chance(LOW) & (still == 1)
    native = torch.where(low, dice.uniform(5, 13), seen) / letters  # of the crop's
    rows = native.clamp_max(float(high))
    columns = (native * aspect).clamp(8, float(wide))
    # In shares of the letters' height; what a sharp picture has is left to the pixels.
    u = dice.uniform()
    spread = torch.where(u < 0.4, 0.0, torch.where(u < 0.75, dice.uniform(0.01, 0.04), dice.uniform(0.03, 0.075)))
    box = torch.where(dice.chance(0.08), dice.uniform(0.03, 0.11), 0.0)
    still = torch.where(low, 0.5, still)  # either few pixels or a blur: with both, nothing could be read
    spread, box = spread * letters * still, box * letters * still
    phase_y, phase_x = dice.uniform(0, 8).floor(), dice.uniform(0, 8).floor()
    buffer = (-(-high // 8) * 8 + 8, -(-wide // 8) * 8 + 8)
    down_y = _to_sensor(buffer[0], high, rows, phase_y, spread, box)
    down_x = _to_sensor(buffer[1], wide, columns, phase_x, spread / aspect, box / aspect)
    taken = _separable(down_y, scene, down_x)
    some = dice.subset(NOISY)
    taken.index_copy_(0, some, grain(Dice(len(some), dice.generator), taken[some]))
    some = dice.subset(PACKED)
    taken.index_copy_(0, some, jpeg(Dice(len(some), dice.generator), taken[some]))
    up_y = _from_sensor(size[0], buffer[0], rows, phase_y)
    up_x = _from_sensor(size[1], buffer[1], columns, phase_x)
    return _separable(up_y, taken, up_x)


def _separable(down: Tensor, picture: Tensor, across: Tensor) -> Tensor:
    """down [n, h, H] and across [n, w, W] on each channel of [n, 3, H, W], in two products that copy no matrix."""
    n, channels, high, wide = picture.shape
    rows = down @ picture.transpose(1, 2).reshape(n, high, channels * wide)
    columns = rows.view(n, -1, wide) @ across.mT
    return columns.view(n, down.shape[1], channels, -1).transpose(1, 2)


def _to_sensor(pixels: int, length: int, count: Tensor, phase: Tensor, spread: Tensor, box: Tensor) -> Tensor:
    """[n, pixels, length]: what each pixel of the sensor sees of a line of the scene. The first is number `phase`,
    there are `count`; those beyond repeat the last ones. spread: deviation of the blur, box: width of a second one,
    in shares of the line."""
    index = torch.arange(pixels, device=count.device)
    centre = ((index - phase[:, None]).maximum(count.new_zeros(())) + 0.5).minimum(count[:, None] - 0.5)
    scale = 1 / ((spread * length).clamp_min(0.2) * math.sqrt(2))
    centre = centre * (length / count * scale)[:, None]
    away = centre[..., None] - (torch.arange(length, device=count.device) + 0.5) * plane(scale)
    half = plane(torch.maximum(length / count, box * length) / 2 * scale)
    weight = (away + half).erf_().sub_(away.sub_(half).erf_())
    return weight.div_(weight.sum(-1, keepdim=True))


def _from_sensor(length: int, pixels: int, count: Tensor, phase: Tensor) -> Tensor:
    """[n, length, pixels]: bicubic interpolation, as Pillow's, of the sensor's picture."""
    where = (torch.arange(length, device=count.device) + 0.5) / length
    where = where * count[:, None] + phase[:, None] - 0.5
    index = where.floor()[..., None] + torch.arange(-1, 3, device=count.device)  # all others weigh nothing
    t = (where[..., None] - index).abs()
    near, far = (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
    weight = torch.where(t < 1, near, far) * ((index >= 0) & (index < pixels))
    weight = weight / weight.sum(-1, keepdim=True)
    empty = torch.zeros(len(count), length, pixels, device=count.device)
    return empty.scatter_add_(-1, index.clamp(0, pixels - 1).long(), weight)


def grain(dice: Dice, picture: Tensor) -> Tensor:
    """Noise of the sensor, grey or coloured, more of it where it is dark in some."""
    amount = torch.where(dice.chance(0.85), dice.uniform(0.5, 5), dice.uniform(5, 14))
    noise = dice.field(*picture.shape[1:])
    grey = dice.chance(0.4)[:, None, None, None]
    noise = torch.where(grey, noise[:, :1], noise)
    return (picture + noise * amount[:, None, None, None]).clamp(0, 255)


def jpeg(dice: Dice, picture: Tensor) -> Tensor:
    """Quantised 8 x 8 cosine blocks, colours at half the resolution in some; sides are multiples of 8."""
    n, _, high, wide = picture.shape
    quality = torch.where(dice.chance(0.35), dice.uniform(15, 60), dice.uniform(60, 95))
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    scale = scale[:, None, None, None, None, None]
    luma = luminance(picture)
    colour = torch.stack(((picture[:, 2] - luma) * 0.564, (picture[:, 0] - luma) * 0.713), dim=1)
    coarse = F.interpolate(F.avg_pool2d(colour, 2), scale_factor=2, mode="nearest")
    colour = torch.where(dice.chance(0.4)[:, None, None, None], coarse, colour)
    blocks = torch.cat((luma[:, None] - 128, colour), dim=1).view(n, 3, high // 8, 8, wide // 8, 8).transpose(3, 4)
    basis = _cosines(picture.device)
    table = torch.stack((constant(LUMA, picture.device), *[constant(CHROMA, picture.device)] * 2))
    step = (table.view(1, 3, 1, 1, 8, 8) * scale).clamp_min(0.05)
    values = ((basis @ blocks @ basis.mT) / step).round() * step
    back = (basis.mT @ values @ basis).transpose(3, 4).reshape(n, 3, high, wide)
    y, b, r = back[:, 0] + 128, back[:, 1] / 0.564, back[:, 2] / 0.713
    green = (y - 0.299 * (y + r) - 0.114 * (y + b)) / 0.587
    return torch.stack((y + r, green, y + b), dim=1).clamp(0, 255)


def _cosines(device: torch.device) -> Tensor:
    rows = [[math.sqrt((1 if k == 0 else 2) / 8) * math.cos(math.pi * (i + 0.5) * k / 8) for i in range(8)]
            for k in range(8)]  # fmt: skip
    return constant(tuple(tuple(row) for row in rows), device)
