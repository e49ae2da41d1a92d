"""Words with one difficulty at a time: kinds of text written plainly, and ordinary words bent, turned or blurred."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from clip4str.core.errors import DataError
from clip4str.core.text import CHARSET_94
from clip4str.training.words import WordSampler

HIGH = 64  # pixels of a clean picture
_PAPER, _INK = np.array([226, 222, 214.0]), np.array([38, 40, 52.0])
Picture = np.ndarray  # uint8 (H, W, 3)
Change = Callable[[Picture, np.random.Generator], Picture]


def _pil(change: Callable[[Image.Image, np.random.Generator], Image.Image]) -> Change:
    return lambda pixels, rng: np.asarray(change(Image.fromarray(pixels), rng))


def turned(low: float, high: float) -> Change:
    """By degrees, either way, on the same ground."""

    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        angle = rng.uniform(low, high) * rng.choice((-1, 1))
        return image.rotate(angle, Image.Resampling.BICUBIC, expand=True, fillcolor=image.getpixel((0, 0)))

    return _pil(change)


def curved(low: float, high: float) -> Change:
    """Along an arc of so many degrees, half of them hollow side up."""

    def change(pixels: Picture, rng: np.random.Generator) -> Picture:
        high_, wide = pixels.shape[:2]
        angle = np.radians(rng.uniform(low, high))
        radius = max(wide / angle, 0.7 * high_)  # of the middle line; letters of a short word would meet at the centre
        half = min(wide / radius, np.pi) / 2
        outer, inner = radius + high_ / 2, radius - high_ / 2
        bottom = inner * np.cos(half)
        x, y = np.meshgrid(np.arange(-outer * np.sin(half), outer * np.sin(half)), np.arange(outer, bottom, -1))
        across, down = np.arctan2(x, y) * radius + wide / 2, outer - np.hypot(x, y)
        upside = rng.random() < 0.5
        if upside:
            across, down = across[::-1], high_ - down[::-1]
        inside = (across >= 0) & (across < wide) & (down >= 0) & (down < high_)
        taken = pixels[down.astype(int).clip(0, high_ - 1), across.astype(int).clip(0, wide - 1)]
        return np.where(inside[..., None], taken, pixels[0, 0])

    return change


def smaller(height: int) -> Change:
    """Scaled down to a height in pixels."""
    return _pil(lambda image, _: image.resize((max(4, round(image.width * height / image.height)), height),
                                              Image.Resampling.BOX))  # fmt: skip


def blurred(radius: float) -> Change:
    return _pil(lambda image, _: image.filter(ImageFilter.GaussianBlur(radius)))


def noisy(deviation: float) -> Change:
    return lambda pixels, rng: (pixels + rng.normal(0, deviation, pixels.shape)).clip(0, 255).astype(np.uint8)


def faint(contrast: float) -> Change:
    return lambda pixels, rng: (pixels[0, 0] + contrast * (pixels.astype(float) - pixels[0, 0])).astype(np.uint8)


def slanted(share: float) -> Change:
    """Seen from one side: that end smaller by a share."""

    def change(image: Image.Image, rng: np.random.Generator) -> Image.Image:
        w, h = image.size
        cut = share * h / 2 / (1 - share)  # of what the far end shows beyond the word
        corners = [(0, -cut), (0, h + cut), (w, h), (w, 0)]
        if rng.random() < 0.5:
            corners = [(0, 0), (0, h), (w, h + cut), (w, -cut)]
        quad = [value for corner in corners for value in corner]
        return image.transform((w, h), Image.Transform.QUAD, quad, Image.Resampling.BICUBIC,
                               fillcolor=image.getpixel((0, 0)))  # fmt: skip

    return _pil(change)


def plain() -> Change:
    return lambda pixels, _: pixels


def texts(words: WordSampler) -> dict[str, Callable[[], str]]:
    """Kinds of text: what is written, straight and plain."""
    r = words.rng

    def long(low: int, high: int) -> str:
        text = ""
        while not low <= len(text) <= high:
            text = words.plain().lower() if len(text) > high else text + words.plain().lower()
        return text

    return {
        "small letters": lambda: words.plain().lower(),
        "Capitalised": lambda: words.plain().capitalize(),
        "CAPITALS": lambda: words.plain().upper(),
        "mIXed case": lambda: "".join(r.choice((c.lower(), c.upper())) for c in words.plain()),
        "digits": lambda: words.digits(r.randint(2, 7)),
        "prices, dates, numbers": lambda: r.choice((words.price, words.date, words.phone))(),
        "punctuation": words.punctuated,
        "any of 94 characters": lambda: "".join(r.choice(CHARSET_94) for _ in range(r.randint(3, 8))),
        "random letters": lambda: "".join(r.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(r.randint(3, 10))),
        "one character": lambda: r.choice(CHARSET_94[:62]),
        "11 to 15 letters": lambda: long(11, 15),
        "16 to 25 letters": lambda: long(16, 25),
    }


CHANGES: dict[str, Change] = {
    "slightly curved": curved(40, 80),
    "curved": curved(100, 160),
    "turned 10 to 20 degrees": turned(10, 20),
    "turned 30 to 45 degrees": turned(30, 45),
    "vertical": turned(90, 90),
    "upside down": turned(180, 180),
    "seen from the side": slanted(0.5),
    "16 pixels high": smaller(16),
    "10 pixels high": smaller(10),
    "7 pixels high": smaller(7),
    "blurred": blurred(4),
    "noise": noisy(50),
    "faint": faint(0.12),
    "light on dark": lambda pixels, rng: 255 - pixels,
}


class Pen:
    """Writes a text in a typeface of the atlas, the same for the same seed."""

    def __init__(self, atlas: str | Path) -> None:
        from clip4str.training.drawing.atlas import load_atlas
        from clip4str.training.drawing.order import MAIN, SIDE, SLOTS, Order, Orders, encode
        from clip4str.training.drawing.renderer import Renderer

        self._order = lambda text: encode([("", "\0" * SIDE + text.ljust(MAIN, "\0"), "")]).reshape(1, 3, SLOTS)
        self._make, self._most = Order, MAIN
        self._renderer = Renderer(load_atlas(atlas), Orders(load_atlas(atlas)))

    def __call__(self, text: str, rng: np.random.Generator) -> Picture | None:
        """None if the text is too long, or no typeface has all of its characters."""
        import torch

        if len(text) > self._most:
            return None
        codes, orders = self._order(text), self._renderer.orders
        able = orders.drawable[:, codes.ravel()].all(axis=1) & ~orders.unicase
        weights = orders.shares * able
        if not weights.sum():
            return None
        face = rng.choice(len(weights), p=weights / weights.sum())
        order = self._make(codes, np.array([face]), [text])
        layout = self._renderer.glyphs.lay_out(torch.from_numpy(codes).long(), torch.from_numpy(order.faces))
        wide, high = (float(side) for side in layout.size)
        # A line of text is as high as its letters might be, not as these happen to be.
        self._renderer.size = (HIGH, int(np.clip(round(HIGH * (wide + 6) / max(high + 6, 12)), 16, 1600)))
        ink = self._renderer.clean(order, 0.12)[0, :, :, None].numpy()
        return (_PAPER + ink * (_INK - _PAPER)).astype(np.uint8)


def draw_rows(pen: Pen, words: WordSampler, count: int, seed: int) -> dict[str, list[tuple[Picture, str]]]:
    """name -> (picture, text), `count` of each: kinds of text, then what is done to ordinary words."""
    kinds = texts(words)
    ordinary = lambda: words.rng.choice((kinds["small letters"], kinds["Capitalised"], kinds["CAPITALS"]))()  # noqa: E731
    rows = {name: (kind, plain()) for name, kind in kinds.items()}
    rows |= {name: (ordinary, change) for name, change in CHANGES.items()}
    drawn: dict[str, list[tuple[Picture, str]]] = {}
    for name, (kind, change) in rows.items():
        words.rng.seed(f"{seed}/{name}")
        rng = np.random.default_rng(words.rng.getrandbits(64))
        drawn[name] = []
        for _ in range(20 * count):
            text = kind().replace(" ", "")
            pixels = pen(text, rng) if 0 < len(text) <= 25 else None
            if pixels is not None:
                drawn[name].append((change(pixels, rng), text))
            if len(drawn[name]) == count:
                break
        else:
            raise DataError(f"the atlas has no typeface for {name}; make it with more faces")
    return drawn
