"""Latin text of which nothing can be told: half-cut letters, and words smaller or more blurred than reading takes."""

from __future__ import annotations

import functools
import random

import numpy as np
from PIL import Image, ImageFilter, ImageFont

from clip4str.training.fonts import font_files, inspect_font
from clip4str.training.words import WordSampler, dictionary

from .paint import Size, two_colours
from .shapes import ground

FACES, HEIGHT = 32, 40
CUT = 0.13  # share of the letters' height that a half-cut line shows: from a fifth on, some can be guessed
SLIVER = 0.2  # share of a letter's width that looks in from a side
PIXELS = (1.3, 2.4)  # height of capitals beyond reading
BLUR = (0.45, 0.8)  # deviation of a blur beyond reading, in heights of the letters
_SAMPLING = (Image.Resampling.BICUBIC, Image.Resampling.BILINEAR, Image.Resampling.NEAREST)


@functools.lru_cache(maxsize=1)
def latin_faces() -> tuple[ImageFont.FreeTypeFont, ...]:
    """Up to 32 plain faces of this machine, the same ones as long as its fonts are the same."""
    files = font_files()
    random.Random(0).shuffle(files)
    found: list[ImageFont.FreeTypeFont] = []
    for path in files:
        font = inspect_font(path)
        if font is not None and font.legibility > 0.8:
            found.append(ImageFont.truetype(path, HEIGHT, layout_engine=ImageFont.Layout.BASIC))
        if len(found) == FACES:
            break
    return tuple(found)


@functools.lru_cache(maxsize=1)
def _sampler() -> WordSampler:
    return WordSampler((), random.Random(0), dictionary())


def line(rng: np.random.Generator, words: int = 1) -> Image.Image:
    """The ink of some words, L, cropped to it: about 40 pixels high."""
    faces, sampler = latin_faces(), _sampler()
    sampler.rng.seed(int(rng.integers(2**62)))
    while True:
        text = " ".join(sampler.sample() for _ in range(words))
        if (ink := draw(faces[rng.integers(len(faces))], text)) is not None and ink.height > 0.3 * HEIGHT:
            return ink


def draw(face: ImageFont.FreeTypeFont, text: str) -> Image.Image | None:
    """Ink of a text, L, cropped to it; None if there is none, or the face cannot draw it."""
    try:
        core = face.getmask(text, mode="L")
    except (OSError, ValueError):
        return None
    if not (1 <= core.size[0] <= 4000 and 1 <= core.size[1] <= 400):
        return None
    ink = Image.frombytes("L", core.size, bytes(core))
    box = ink.getbbox()
    return ink.crop(box) if box else None


def half_cut(rng: np.random.Generator, size: Size) -> np.ndarray:
    """A neighbouring line's tops or bottoms look in from an edge of the crop, or one letter's side does."""
    high, wide = size
    mask = Image.new("L", (wide, high))
    if rng.random() < 0.75:
        ink = line(rng, int(rng.integers(1, 4)))
        tall = rng.uniform(0.6, 2.5) * high
        ink = ink.resize((max(1, round(ink.width * tall / ink.height)), max(4, round(tall))), Image.Resampling.BILINEAR)
        seen = max(1, round(ink.height * rng.uniform(0.04, CUT)))
        left = round(rng.uniform(min(0, wide - ink.width), max(0, wide - ink.width)))
        tops = rng.random() < 0.5
        strip = (0, 0, ink.width, seen) if tops else (0, ink.height - seen, *ink.size)
        mask.paste(ink.crop(strip), (left, high - seen if tops else 0))
        if rng.random() < 0.1 and seen < 0.08 * ink.height:  # it alone, as where a detector found but a line's edge
            box = (0, high - seen, wide, high) if tops else (0, 0, wide, seen)
            mask = mask.crop(box).resize((wide, high), Image.Resampling.BICUBIC)
    else:
        mask = _sliver(rng, size)
    return _printed(rng, mask)


def _sliver(rng: np.random.Generator, size: Size) -> Image.Image:
    high, wide = size
    faces = latin_faces()
    mask = Image.new("L", (wide, high))
    letter = draw(faces[rng.integers(len(faces))], "ABCDEGHKMNOQRSUWXZabdeghkmnopqsuwxz2345689"[rng.integers(42)])
    if letter is None:
        return mask
    tall = rng.uniform(0.6, 1.3) * high
    letter = letter.resize((max(3, round(letter.width * tall / letter.height)), max(4, round(tall))))
    seen = max(1, min(round(letter.width * rng.uniform(0.05, SLIVER)), wide // 8))
    top = round((high - letter.height) * rng.uniform(0, 1))
    if rng.random() < 0.5:
        mask.paste(letter.crop((0, 0, seen, letter.height)), (wide - seen, top))
    else:
        mask.paste(letter.crop((letter.width - seen, 0, *letter.size)), (0, top))
    return mask


def beyond_reading(rng: np.random.Generator, size: Size) -> np.ndarray:
    """A word of two or three pixels' height, scaled up again or not; or blurred until letters run into each other."""
    ink = line(rng, int(rng.choice((1, 1, 1, 2, 4))))
    margin = [round(ink.height * v) for v in rng.uniform(0.05, 0.4, 4)]
    mask = Image.new("L", (ink.width + margin[0] + margin[1], ink.height + margin[2] + margin[3]))
    mask.paste(ink, (margin[0], margin[2]))
    if rng.random() < 0.6:
        scale = rng.uniform(*PIXELS) / ink.height
        small = _printed(rng, mask, (max(3, round(mask.width * scale)), max(2, round(mask.height * scale))))
        if rng.random() < 0.3:
            return small
        wide = max(4, round(size[0] * mask.width / mask.height))
        grown = Image.fromarray(small).resize((min(wide, 8 * size[0]), size[0]), _SAMPLING[rng.integers(3)])
        return np.asarray(grown)
    mask = mask.filter(ImageFilter.GaussianBlur(float(rng.uniform(*BLUR)) * ink.height))
    high = min(size[0], mask.height)
    return _printed(rng, mask, (max(4, round(mask.width * high / mask.height)), high))


def _printed(rng: np.random.Generator, mask: Image.Image, to: tuple[int, int] | None = None) -> np.ndarray:
    """The mask's ink on some ground, at the size (width, height) it is to have."""
    if to is not None:
        mask = mask.resize(to, Image.Resampling.BOX if to[0] < mask.width else Image.Resampling.BILINEAR)
    below = ground(rng, (mask.height, mask.width)).astype(np.float32)
    ink, paper = two_colours(rng, 60)
    if rng.random() < 0.6 or abs(below.mean() - ink.mean()) < 50:  # plain, so that there is something to see
        below = np.broadcast_to(paper, below.shape)
    share = np.asarray(mask, np.float32)[..., None] / 255
    return np.clip(below + share * (ink - below), 0, 255).astype(np.uint8)
