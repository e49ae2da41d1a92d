"""Words as pixels, in a font that has their characters."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

# Sought where the system keeps fonts. Pillow's own, which is last, has ASCII alone.
FONTS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "LiberationSans-Regular.ttf", "Arial.ttf", "arial.ttf", "Helvetica.ttc",
    "NotoSansCJK-Regular.ttc", "wqy-zenhei.ttc", "Arial Unicode.ttf", "msyh.ttc", "Hiragino Sans GB.ttc", "unifont.ttf",
)  # fmt: skip
NOTHING = "\uffff"  # is no character: drawn as the box that stands for what is missing


@lru_cache(512)
def font_for(text: str, size: int) -> Any:
    """The first Pillow font that has every character of text; Pillow's own where none has."""
    from PIL import ImageFont

    if text.isascii():
        return ImageFont.load_default(size)
    for name in FONTS:
        font = _font(name, size)
        if font is not None and all(_has(name, size, character) for character in set(text) if not character.isspace()):
            return font
    return _font(FONTS[0], size) or ImageFont.load_default(size)


@lru_cache(64)
def _font(name: str, size: int) -> Any:
    from PIL import ImageFont

    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@lru_cache(4096)
def _has(name: str, size: int, character: str) -> bool:
    font = _font(name, size)
    return bytes(font.getmask(character)) != bytes(font.getmask(NOTHING))


@lru_cache(512)
def lettering(text: str, size: int) -> np.ndarray:
    """uint8 (H, W): how much of each pixel the text covers, 0 to 255; a margin around it. size: in pixels. Not to be
    written to."""
    from PIL import Image, ImageDraw

    font = font_for(text, size)
    left, _, right, _ = font.getbbox(text)
    ascent, descent = font.getmetrics()
    margin = max(2, size // 6)
    image = Image.new("L", (max(1, round(right - left)) + 2 * margin, ascent + descent + margin))
    ImageDraw.Draw(image).text((margin - left, margin // 2), text, fill=255, font=font)
    return np.asarray(image)
