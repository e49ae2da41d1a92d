"""Words that were read wrong, as pictures: what is the matter with them is seen at a glance."""

from __future__ import annotations

import heapq
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from clip4str.core.charts import GREEN, GREY, RED
from clip4str.core.console import one_line
from clip4str.core.output_files import check_output, write_whole
from clip4str.video.outputs.lettering import font_for

MOST = 240  # words
ACROSS = 8
CELL, CROP, GAP = (172, 114), (164, 56), 6  # (width, height) in pixels
LONGEST = 64  # characters; fewer have room


class ErrorSheet:
    """The surest mistakes, those first: among them are wrong labels. Keeps small pictures of MOST words. Raises
    UsageError where the file cannot be written."""

    def __init__(self, file: Path) -> None:
        check_output(file, (".png",))
        self.file, self.count = file, 0
        self._kept: list[tuple[float, int, Image.Image, dict[str, Any]]] = []  # a heap, the least sure on top

    def add(self, pixels: np.ndarray | None, mistake: dict[str, Any]) -> None:
        """pixels: uint8 (H, W, 3) RGB; None where the picture cannot be read. mistake: as eval lists it."""
        self.count += 1
        picture = Image.fromarray(np.zeros((1, 1, 3), np.uint8) if pixels is None else pixels)
        scale = min(CROP[0] / picture.width, CROP[1] / picture.height)
        size = max(1, round(scale * picture.width)), max(1, round(scale * picture.height))
        one = (mistake["confidence"], -self.count, picture.resize(size), mistake)
        (heapq.heappush if len(self._kept) < MOST else heapq.heappushpop)(self._kept, one)

    def save(self) -> None:
        """Whole or not at all."""
        content = io.BytesIO()
        self.picture().save(content, "PNG")
        write_whole(self.file, content.getvalue())

    def picture(self) -> Image.Image:
        """Rows of crops; below each its label, what was read and how surely, its set and number."""
        words = sorted(self._kept, reverse=True)
        rows = max(1, -(-len(words) // ACROSS))
        sheet = Image.new("RGB", (ACROSS * (CELL[0] + GAP) + GAP, 30 + rows * (CELL[1] + GAP)), "#f3f3f1")
        draw = ImageDraw.Draw(sheet)
        shown = "" if len(words) == self.count else f", the surest {len(words)} of them"
        draw.text((GAP, 7), f"{self.count} words read wrong{shown}", "#202020", font_for("a", 14))
        for number, (confidence, _, crop, mistake) in enumerate(words):
            left, top = GAP + number % ACROSS * (CELL[0] + GAP), 30 + number // ACROSS * (CELL[1] + GAP)
            draw.rectangle((left, top, left + CELL[0] - 1, top + CELL[1] - 1), fill="white")
            sheet.paste(crop, (left + (CELL[0] - crop.width) // 2, top + 4 + (CROP[1] - crop.height) // 2))
            at, sure = (left + 4, top + CROP[1] + 7), f"{confidence:.0%}"
            room = CROP[0] - draw.textlength(sure, font_for(sure, 13)) - 8
            draw.text((left + 4 + CROP[0], at[1] + 17), sure, RED, font_for(sure, 13), anchor="ra")
            _fitted(draw, at, mistake["label_stored"], GREEN, 13, CROP[0])
            _fitted(draw, (at[0], at[1] + 17), mistake["text"] or "(nothing)", RED, 13, room)
            _fitted(draw, (at[0], at[1] + 34), f"{mistake['dataset']} {mistake['number']}", GREY, 10, CROP[0])
        return sheet


def _fitted(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, ink: str, size: int, room: float) -> None:
    """In one line of so many pixels; what is cut off is marked."""
    shown = whole = one_line(text)
    cut = whole[:LONGEST]  # a label may be as long as its data set likes
    font = font_for(f"{cut}.", size)
    if len(whole) > LONGEST or draw.textlength(whole, font) > room:
        while len(cut) > 1 and draw.textlength(f"{cut}...", font) > room:
            cut = cut[:-1]
        shown = f"{cut}..."
    draw.text(place, shown, ink, font)
