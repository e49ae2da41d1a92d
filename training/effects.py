"""Colours, surfaces, geometry and camera faults for synthetic scene text. Pillow and numpy only.

Scalars come from `random.Random` (ten times quicker than a numpy Generator for single values) and whole arrays from its
`randbytes` or from banks made once, so that one seed decides everything.
"""

from __future__ import annotations

import colorsys
import functools
import io
import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[float, float, float]
BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
BANK_SEED = 20230523

# Text and ground as signs pair them; each is jittered when drawn.
SIGNS: tuple[tuple[Colour, Colour], ...] = (
    ((245, 245, 245), (10, 90, 60)), ((245, 245, 245), (20, 60, 140)), ((245, 245, 245), (190, 25, 30)),
    ((245, 245, 245), (20, 20, 22)), ((25, 25, 25), (245, 245, 245)), ((20, 20, 20), (250, 205, 20)),
    ((250, 215, 40), (190, 20, 30)), ((200, 25, 30), (245, 240, 235)), ((20, 50, 140), (240, 240, 240)),
    ((250, 220, 60), (20, 60, 140)), ((60, 35, 20), (215, 190, 150)), ((225, 195, 120), (60, 25, 20)),
    ((245, 245, 245), (220, 110, 20)), ((15, 100, 60), (240, 240, 230)), ((215, 170, 60), (15, 15, 15)),
    ((240, 240, 240), (120, 90, 60)), ((50, 50, 55), (170, 165, 155)), ((250, 240, 90), (20, 20, 20)),
)

HUES = (0.0, 0.02, 0.06, 0.09, 0.12, 0.15, 0.35, 0.45, 0.55, 0.6, 0.63, 0.66)   # paint, brick, wood, grass, sky; few pinks


def luminance(c: Colour) -> float:
    return 0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2]


def colour_at(rng: random.Random, target: float, saturation: float) -> Colour:
    """A colour of random hue, of about the luminance `target` (0..255)."""
    hue = rng.choice(HUES) + rng.gauss(0, 0.03) if rng.random() < 0.8 else rng.random()
    r, g, b = colorsys.hsv_to_rgb(hue % 1.0, saturation, 1.0)
    scale = target / max(1.0, luminance((r * 255, g * 255, b * 255))) * 255
    c = (r * scale, g * scale, b * scale)
    over = max(c) - 255
    if over > 0:  # too bright for so pure a colour: mix with white
        mix = min(1.0, (target - luminance((r * 255, g * 255, b * 255))) / max(1.0, 255 - luminance((r * 255, g * 255, b * 255))))
        c = (255 * (r + (1 - r) * mix), 255 * (g + (1 - g) * mix), 255 * (b + (1 - b) * mix))
    return c


def jitter(rng: random.Random, c: Colour, amount: float) -> Colour:
    r, g, b = (min(255.0, max(0.0, v + rng.gauss(0, amount))) for v in c)
    return r, g, b


def colour_pair(rng: random.Random) -> tuple[Colour, Colour]:
    """(text, ground): as on signs, or free with a stated contrast; every eighth pair or so is hard to tell apart."""
    u = rng.random()
    if u < 0.42:
        text, ground = rng.choice(SIGNS)
        if rng.random() < 0.12:
            text, ground = ground, text
        return jitter(rng, text, 14), jitter(rng, ground, 22)
    contrast = rng.uniform(32, 65) if u < 0.55 else rng.uniform(65, 215)
    low = rng.uniform(8, 248 - contrast)
    dark_text = rng.random() < 0.45
    text_l, ground_l = (low, low + contrast) if dark_text else (low + contrast, low)
    text_s = rng.random() ** 0.8 if rng.random() < 0.35 else rng.uniform(0, 0.15)
    ground_s = rng.random() if rng.random() < 0.4 else rng.uniform(0, 0.25)
    return colour_at(rng, text_l, text_s), colour_at(rng, ground_l, ground_s)


# Surfaces

@functools.lru_cache(maxsize=1)
def texture_bank(count: int = 72, size: int = 192) -> list[Image.Image]:
    """Grey textures about 128 (L, size x 2 size): clouds, grain, bricks, boards, stripes, cloth, foliage, rubble."""
    g = np.random.default_rng(BANK_SEED)
    high, wide = size, 2 * size
    bank = []
    for i in range(count):
        field = np.zeros((high, wide), np.float32)
        cell = 2 ** g.uniform(1.0, 5.5)
        while cell > 1.2:  # 1/f noise, from a random coarsest scale downwards
            shape = (int(high / cell) + 2, int(wide / cell / g.uniform(0.6, 2.5)) + 2)
            layer = Image.fromarray(g.standard_normal(shape).astype(np.float32))
            field += np.asarray(layer.resize((wide, high), BICUBIC)) * cell ** g.uniform(0.3, 0.8)
            cell /= 2
        field /= field.std() + 1e-6
        yy, xx = np.mgrid[0:high, 0:wide].astype(np.float32)
        kind = i % 9
        if kind == 1:  # bricks or tiles
            bh, bw = g.integers(8, 40), g.integers(16, 80)
            shift = (yy // bh % 2) * (bw / 2)
            joints = (yy % bh < g.integers(1, 4)) | ((xx + shift) % bw < g.integers(1, 4))
            field = field * 0.5 + joints * g.choice([-2.5, 2.5])
        elif kind == 2:  # boards with grain
            bh = g.integers(10, 60)
            grain = np.sin(yy * g.uniform(0.3, 1.2) + field * 2.5 + 0.02 * xx)
            field = field * 0.3 + grain + (yy % bh < 2) * -2.0
        elif kind == 3:  # shutters, corrugated iron, blinds
            angle = g.choice([0.0, np.pi / 2, g.uniform(0, np.pi)])
            field = field * 0.3 + 1.5 * np.sign(np.sin((xx * np.cos(angle) + yy * np.sin(angle)) * g.uniform(0.1, 1.0)))
        elif kind == 4:  # dots or cloth
            f = g.uniform(0.4, 1.4)
            field = field * 0.4 + np.sin(xx * f) * np.sin(yy * f) * 1.6
        elif kind == 5:  # leaves, rubble: hard thresholds
            field = np.tanh(field * 4) + 0.5 * np.roll(np.tanh(field * 4), (3, 2), (0, 1))
        elif kind == 6:  # random rectangles: windows, shelves
            canvas = Image.new("L", (wide, high), 128)
            pen = ImageDraw.Draw(canvas)
            for _ in range(g.integers(10, 60)):
                x, y = g.integers(-20, wide), g.integers(-20, high)
                pen.rectangle((int(x), int(y), int(x + g.integers(5, 120)), int(y + g.integers(5, 70))), fill=int(g.integers(0, 256)))
            field = field * 0.25 + (np.asarray(canvas, np.float32) - 128) / 50
        field = (field - field.mean()) / (field.std() + 1e-6)
        bank.append(Image.fromarray(np.clip(128 + 42 * field, 0, 255).astype(np.uint8)))
    return bank


@functools.lru_cache(maxsize=1)
def noise_bank() -> np.ndarray:
    """Standard normal values, [256, 1024, 3] float32."""
    return np.random.default_rng(BANK_SEED + 1).standard_normal((256, 1024, 3)).astype(np.float32)


def noise(rng: random.Random, high: int, wide: int) -> np.ndarray:
    bank = noise_bank()
    if high > 256 or wide > 1024:
        bank = np.tile(bank, (high // 256 + 1, wide // 1024 + 1, 1))
    y, x = rng.randint(0, bank.shape[0] - high), rng.randint(0, bank.shape[1] - wide)
    return bank[y : y + high, x : x + wide]


def smooth_field(rng: random.Random, wide: int, high: int, cells_x: int, cells_y: int) -> np.ndarray:
    """Smooth random values -1..1, [high, wide] float32."""
    small = Image.frombytes("L", (cells_x, cells_y), rng.randbytes(cells_x * cells_y))
    return (np.asarray(small.resize((wide, high), BICUBIC), np.float32) - 127.5) / 127.5


def ramp(rng: random.Random, wide: int, high: int) -> np.ndarray:
    """Linear -1..1 in a random direction, mostly up or down, [high, wide] float32."""
    angle = rng.choice((math.pi / 2, -math.pi / 2, rng.uniform(-math.pi, math.pi)))
    x, y = np.linspace(-1, 1, wide, dtype=np.float32), np.linspace(-1, 1, high, dtype=np.float32)
    return np.float32(math.cos(angle)) * x[None] + np.float32(math.sin(angle)) * y[:, None]


def surface(rng: random.Random, wide: int, high: int, colour: Colour, busy: float) -> Image.Image:
    """An RGB picture of `colour` with gradients and texture; `busy` (0..1) scales how much."""
    if busy <= 0 or (u := rng.random()) < 0.25:
        return Image.new("RGB", (wide, high), tuple(int(c) for c in colour))
    field = np.zeros((high, wide), np.float32)
    if u < 0.65 or rng.random() < 0.3:
        field += ramp(rng, wide, high) * (rng.uniform(5, 45) * busy)
    if u > 0.45:
        field += smooth_field(rng, wide, high, rng.randint(2, 9), rng.randint(2, 6)) * (rng.uniform(5, 40) * busy)
    if u > 0.6:
        tile = rng.choice(texture_bank())
        scale = rng.uniform(0.5, 2.5)
        tw, th = min(tile.width - 1.0, wide / scale), min(tile.height - 1.0, high / scale)
        x, y = rng.uniform(0, tile.width - tw), rng.uniform(0, tile.height - th)
        texture = tile.resize((wide, high), BILINEAR, box=(x, y, x + tw, y + th))
        field += (np.asarray(texture, np.float32) - 128) * (rng.random() ** 1.5 * 0.9 * busy)
    tint = np.array([c * rng.uniform(0.7, 1.3) for c in (1, 1, 1)], np.float32)
    pixels = np.array(colour, np.float32) + field[..., None] * tint
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def clutter(rng: random.Random, ground: Image.Image, colour: Colour) -> None:
    """Draws edges of signs, frames, bars and blobs over the ground, mostly near the borders."""
    pen = ImageDraw.Draw(ground)
    wide, high = ground.size
    for _ in range(rng.choice((1, 1, 2, 3))):
        ink = tuple(int(v) for v in (jitter(rng, colour, 20) if rng.random() < 0.4 else colour_at(rng, rng.uniform(5, 250), rng.random() * 0.7)))
        kind = rng.random()
        if kind < 0.35:  # the edge of the sign and what lies beyond, along one side
            side, depth = rng.randint(0, 3), rng.uniform(0.03, 0.2)
            tilt = rng.uniform(-0.06, 0.06)
            if side < 2:
                y = high * (depth if side == 0 else 1 - depth)
                edge = -5 if side == 0 else high + 5
                pen.polygon([(-5, edge), (wide + 5, edge), (wide + 5, y + tilt * high), (-5, y - tilt * high)], fill=ink)
            else:
                x = depth * high if side == 2 else wide - depth * high
                edge = -5 if side == 2 else wide + 5
                pen.polygon([(edge, -5), (edge, high + 5), (x - tilt * high, high + 5), (x + tilt * high, -5)], fill=ink)
        elif kind < 0.6:  # a rule above or below, or a frame
            width = max(1, int(high * rng.uniform(0.02, 0.08)))
            y, tilt = high * rng.choice((rng.uniform(0, 0.12), rng.uniform(0.88, 1))), rng.uniform(-0.05, 0.05) * high
            pen.line([(0, y - tilt), (wide, y + tilt)], fill=ink, width=width)
        elif kind < 0.75:
            inset = high * rng.uniform(0.01, 0.09)
            box = (inset, inset, max(inset + 2, wide - inset), max(inset + 2, high - inset))
            pen.rounded_rectangle(box, radius=high * rng.uniform(0, 0.3), outline=ink, width=max(1, int(high * rng.uniform(0.02, 0.07))))
        elif kind < 0.9:  # something big in the background
            x, y, r = rng.uniform(0, wide), rng.uniform(-0.2, 1.2) * high, high * rng.uniform(0.2, 1)
            mixed = tuple(int(0.6 * c + 0.4 * i) for c, i in zip(ground.getpixel((wide // 2, 0)), ink))
            pen.ellipse((x - r, y - r * 0.7, x + r, y + r * 0.7), fill=mixed)
        else:
            x = rng.uniform(0, wide)
            mixed = tuple(int(0.7 * c + 0.3 * i) for c, i in zip(ground.getpixel((0, high // 2)), ink))
            pen.polygon([(x, -2), (x + high * rng.uniform(0.2, 2), -2), (x + high * rng.uniform(-1, 2), high + 2), (x - high * 0.4, high + 2)], fill=mixed)


# Geometry

@dataclass
class Warp:
    """Where each point of a flat text box goes: bend, then a projective map; `matrix` is 3x3, source to target.

    The text box is width x height pixels, its centre at (0, 0). bend: angle of the arc in radians, positive arches
    upwards. sag: depth of a parabola in pixels, used when bend is 0.
    """

    width: float
    height: float
    bend: float
    sag: float
    matrix: np.ndarray

    @property
    def curved(self) -> bool:
        return self.bend != 0 or self.sag != 0

    def scaled(self, width: float, height: float, scale: float) -> Warp:
        """The same warp for a box drawn `scale` times as large, of exactly `width` x `height` pixels."""
        grow = np.diag([scale, scale, 1.0])
        return Warp(width, height, self.bend, self.sag * scale, grow @ self.matrix @ np.diag([1 / scale, 1 / scale, 1.0]))

    def forward(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.bend:
            sign, radius = math.copysign(1, self.bend), self.width / abs(self.bend)
            r, phi = radius - sign * y, x / radius
            x, y = r * np.sin(phi), sign * (radius - r * np.cos(phi))
        elif self.sag:
            y = y + self.sag * (2 * x / self.width) ** 2
        return project(self.matrix, x, y)

    def backward(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y = project(np.linalg.inv(self.matrix), x, y)
        if self.bend:
            sign, radius = math.copysign(1, self.bend), self.width / abs(self.bend)
            y = sign * y
            phi, r = np.arctan2(x, radius - y), np.hypot(x, radius - y)
            x, y = phi * radius, sign * (radius - r)
        elif self.sag:
            y = y - self.sag * (2 * x / self.width) ** 2
        return x, y

    def extent(self) -> tuple[float, float, float, float]:
        """Bounding box of the warped text box: left, top, right, bottom."""
        edge = np.linspace(-0.5, 0.5, 9) * self.width
        side = np.full(9, self.height / 2)
        x, y = self.forward(np.concatenate([edge, edge]), np.concatenate([side, -side]))
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())

    def apply(self, layers: Image.Image, centre: tuple[float, float], crop: tuple[float, float, float, float], size: tuple[int, int]) -> Image.Image:
        """Draws `layers`, whose text box is centred at `centre`, into a picture of `size` that shows the target area `crop`."""
        (wide, high), (left, top, right, bottom) = size, crop
        to_target = np.array([[(right - left) / wide, 0, left], [0, (bottom - top) / high, top], [0, 0, 1]])
        if not self.curved:
            to_source = np.array([[1, 0, centre[0]], [0, 1, centre[1]], [0, 0, 1]])
            m = to_source @ np.linalg.inv(self.matrix) @ to_target
            return layers.transform(size, Image.Transform.PERSPECTIVE, tuple((m / m[2, 2]).ravel()[:8]), BICUBIC)
        columns, rows = max(2, min(24, wide // 8)), 4
        xs, ys = np.linspace(0, wide, columns + 1).round(), np.linspace(0, high, rows + 1).round()
        gx, gy = np.meshgrid(xs, ys)
        sx, sy = self.backward(*project(to_target, gx, gy))
        sx, sy = (sx + centre[0]).tolist(), (sy + centre[1]).tolist()
        mesh = []
        for j in range(rows):
            for i in range(columns):
                box = (int(xs[i]), int(ys[j]), int(xs[i + 1]), int(ys[j + 1]))
                quad = (sx[j][i], sy[j][i], sx[j + 1][i], sy[j + 1][i], sx[j + 1][i + 1], sy[j + 1][i + 1], sx[j][i + 1], sy[j][i + 1])
                mesh.append((box, quad))
        return layers.transform(size, Image.Transform.MESH, mesh, BICUBIC)


def project(matrix: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    w = matrix[2, 0] * x + matrix[2, 1] * y + matrix[2, 2]
    return (matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2]) / w, (matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]) / w


def random_warp(rng: random.Random, width: float, height: float) -> Warp:
    """Bend, stretch, slant, rotation and perspective as found on crops; only the proportions of the box matter."""
    bend = sag = 0.0
    aspect = width / height
    u = rng.random()
    if u < 0.13 and aspect > 1.6:
        most = min(2.9, 1.5 * aspect / 2)  # the inner side of the arc must not shrink to a point
        bend = rng.uniform(0.25, 1) * most * rng.choice((1, 1, 1, -1))
    elif u < 0.19 and aspect > 1.6:
        sag = rng.uniform(-0.4, 0.4) * height * min(1.5, aspect / 3)
    stretch = math.exp(rng.gauss(0, 0.12) if rng.random() < 0.7 else rng.gauss(0, 0.3))
    slant = rng.gauss(0, 0.12) if rng.random() < 0.35 else 0.0
    v = rng.random()
    angle = 0.0 if v < 0.3 else rng.gauss(0, 2.5) if v < 0.7 else rng.gauss(0, 6) if v < 0.93 else rng.uniform(-32, 32)
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    matrix = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[stretch, slant, 0], [0, 1, 0], [0, 0, 1]])
    if rng.random() < 0.4:
        px = rng.gauss(0, 0.16) / (width / 2 + 1e-6)     # one end nearer than the other
        py = rng.gauss(0, 0.08) / (height / 2 + 1e-6)
        matrix = np.array([[1, 0, 0], [rng.gauss(0, 0.04) if rng.random() < 0.5 else 0, 1, 0], [np.clip(px * width, -0.7, 0.7) / width, np.clip(py * height, -0.35, 0.35) / height, 1]]) @ matrix
    return Warp(width, height, bend, sag, matrix)


# The camera

def light(rng: random.Random, pixels: np.ndarray) -> np.ndarray:
    """Uneven light, shadows, highlights, exposure and colour cast; float32 [H, W, 3] in, the same out."""
    high, wide = pixels.shape[:2]
    u = rng.random()
    if u < 0.2:
        pixels = pixels * (1 + ramp(rng, wide, high) * rng.uniform(0.05, 0.4))[..., None]
    elif u < 0.32:
        pixels = pixels * (1 + smooth_field(rng, wide, high, rng.randint(2, 4), rng.randint(2, 3)) * rng.uniform(0.05, 0.4))[..., None]
    elif u < 0.37:  # the edge of a shadow
        edge = ramp(rng, wide, high) * rng.uniform(3, 30) + rng.uniform(-2, 2)
        pixels = pixels * (1 - rng.uniform(0.15, 0.5) * np.clip(edge + 0.5, 0, 1))[..., None]
    elif u < 0.42:  # glare
        glare = np.clip(smooth_field(rng, wide, high, rng.randint(2, 5), 2), 0, 1) * rng.uniform(30, 100)
        pixels = pixels + glare[..., None]
    if rng.random() < 0.55:
        gain, haze = math.exp(rng.gauss(-0.12, 0.3)), rng.random() ** 2 * 0.55
        level = rng.uniform(20, 220)
        cast = np.array([rng.gauss(1, 0.07) for _ in range(3)], np.float32) * gain
        pixels = (pixels * (1 - haze) + level * haze) * cast
    return pixels


def blur(rng: random.Random, picture: Image.Image, letters: float) -> Image.Image:
    """Gaussian, defocus or motion blur, in proportion to the height of the letters in pixels."""
    high = picture.height
    u = rng.random()
    if u < 0.5:
        return picture
    strength = letters / 26
    if u < 0.8:
        return picture.filter(ImageFilter.GaussianBlur(strength * rng.uniform(0.3, 1.0 if u < 0.7 else 1.9)))
    if u < 0.88:
        return picture.filter(ImageFilter.BoxBlur(strength * rng.uniform(0.4, 1.4)))
    length = max(2, round(strength * rng.uniform(2, 5)))
    angle = rng.uniform(0, math.pi)
    dx, dy = math.cos(angle), math.sin(angle)
    total = np.zeros((high, picture.width, 3), np.float32)
    source = np.pad(np.asarray(picture, np.float32), ((length, length), (length, length), (0, 0)), mode="edge")
    for k in range(length):
        t = k - (length - 1) / 2
        y, x = length + round(dy * t), length + round(dx * t)
        total += source[y : y + high, x : x + picture.width]
    return Image.fromarray((total / length).astype(np.uint8))


def sensor(rng: random.Random, picture: Image.Image, letters: float) -> Image.Image:
    """Low resolution, noise and JPEG, in this order; returns a picture of the same size."""
    wide, high = picture.size
    if rng.random() < 0.4:
        # Letters of 8 pixels are the least that can be read.
        low = int(high * max(rng.uniform(0.3, 0.9), rng.uniform(8, 13) / letters))
        if low < high:
            small = picture.resize((max(4, wide * low // high), low), rng.choice((BILINEAR, BICUBIC, Image.Resampling.BOX)))
            picture = _grain(rng, small, 0.35).resize((wide, high), rng.choice((BILINEAR, BICUBIC, BICUBIC)))
    picture = _grain(rng, picture, 0.4)
    if rng.random() < 0.55:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=rng.randint(15, 60) if rng.random() < 0.4 else rng.randint(60, 92))
        picture = Image.open(buffer).convert("RGB")
    return picture


def _grain(rng: random.Random, picture: Image.Image, chance: float) -> Image.Image:
    if rng.random() >= chance:
        return picture
    grain = noise(rng, picture.height, picture.width)
    amount = rng.uniform(1, 5) if rng.random() < 0.85 else rng.uniform(5, 14)
    if rng.random() < 0.4:
        grain = grain[..., :1]
    return Image.fromarray(np.clip(np.asarray(picture, np.float32) + grain * amount, 0, 255).astype(np.uint8))
