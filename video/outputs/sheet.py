"""A contact sheet: the best crop of every word, with the word, its times and how sure it is (.png)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clip4str.core.charts import GREEN, GREY, ORANGE, RED
from clip4str.core.console import one_line
from clip4str.core.errors import UsageError
from clip4str.core.output_files import check_output, write_whole

from ..events import Event, WordEnded
from .base import source_name
from .lettering import font_for

ACROSS, DOWN = 5, 12  # words on a page
CELL, CROP, GAP, MARGIN = (232, 132), (216, 72), 8, 16  # (width, height) in pixels
SURE, UNSURE = 0.9, 0.6  # confidence from which the mark is green, and below which it is red


class Sheet:
    """A Sink. Pages of 60 words, in the order in which they ended: sheet.png, sheet-2.png, ... Each is written as soon
    as it is full, whole or not at all, so that a long run keeps one page of crops. Further pages of an earlier sheet of
    this name, which was longer, are removed at the end. Raises UsageError."""

    def __init__(self, file: Path, names: Sequence[str] = ()) -> None:
        check_output(file, (".png",))
        self.file, self.names = file, list(names)
        self.pages: list[Path] = []
        self._words: list[WordEnded] = []
        self._closed = False

    def write(self, event: Event) -> None:
        if isinstance(event, WordEnded):
            self._words.append(event)
            if len(self._words) == ACROSS * DOWN:
                self._page()

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._words or not self.pages:
                self._page()
            number = len(self.pages) + 1
            while _is_page(old := self._path(number), number):
                try:
                    old.unlink()
                except OSError as error:
                    raise UsageError(f"{old}: of a longer sheet before, cannot be removed ({error.strerror})") from None
                number += 1

    def _path(self, number: int) -> Path:
        return self.file if number == 1 else self.file.with_stem(f"{self.file.stem}-{number}")

    def _page(self) -> None:
        number = len(self.pages) + 1
        path = self._path(number)
        if number > 1:  # the first was checked before the run
            check_output(path, (".png",))
        words, self._words = sorted(self._words, key=lambda word: word.start), []
        write_whole(path, _png(sheet(words, self.names), number))
        self.pages.append(path)


def sheet(words: Sequence[WordEnded], names: Sequence[str] = ()) -> Any:
    """A Pillow image of the words, up to ACROSS in a row. Their size depends on how many there are."""
    from PIL import Image, ImageDraw

    across = min(ACROSS, max(2, len(words)))
    rows = max(1, -(-len(words) // across))
    width, height = CELL
    size = (2 * MARGIN + across * width + (across - 1) * GAP, 2 * MARGIN + rows * height + (rows - 1) * GAP)
    image = Image.new("RGB", size, "#f3f3f1")
    if not words:
        ImageDraw.Draw(image).text((MARGIN, MARGIN), "no words found", "#202020", font_for("a", 18))
    for number, word in enumerate(words):
        row, column = divmod(number, across)
        place = (MARGIN + column * (width + GAP), MARGIN + row * (height + GAP))
        image.paste(_cell(word, source_name(names, word.source) if len(names) > 1 else ""), place)
    return image


def _cell(word: WordEnded, source: str) -> Any:
    from PIL import Image, ImageDraw

    image = Image.new("RGB", CELL, "white")
    draw = ImageDraw.Draw(image)
    left = (CELL[0] - CROP[0]) // 2
    draw.rectangle((left, left, left + CROP[0] - 1, left + CROP[1] - 1), fill="#e4e4e1")
    if word.crop is not None and word.crop.size:
        crop = Image.fromarray(np.ascontiguousarray(word.crop))
        scale = min(CROP[0] / crop.width, CROP[1] / crop.height)
        crop = crop.resize((max(1, round(crop.width * scale)), max(1, round(crop.height * scale))))
        image.paste(crop, (left + (CROP[0] - crop.width) // 2, left + (CROP[1] - crop.height) // 2))
    top = left + CROP[1] + 4
    sure = f"{word.confidence:.0%}"
    colour = GREEN if word.confidence >= SURE else ORANGE if word.confidence >= UNSURE else RED
    room = CROP[0] - draw.textlength(sure, font_for(sure, 14)) - 10
    text = one_line(word.text) or "-"
    size = next((size for size in (19, 16) if draw.textlength(text, font_for(text, size)) <= room), 13)
    draw.text((left, top + 19), _cut(draw, text, size, room), "#101010", font_for(text, size), anchor="ls")
    draw.text((left + CROP[0], top + 19), sure, colour, font_for(sure, 14), anchor="rs")
    times = f"{_short(word.start)} - {_short(word.end)}"
    draw.text((left, CELL[1] - 20), times, GREY, font_for(times, 12))
    room = CROP[0] - draw.textlength(times, font_for(times, 12)) - 10
    last = _cut(draw, Path(source).name if source else f"{word.reads} reads", 12, room)
    draw.text((left + CROP[0], CELL[1] - 20), last, GREY, font_for(last, 12), anchor="ra")
    return image


def _short(seconds: float) -> str:
    """1:02:03.4, without the hours where there are none."""
    tenths = round(seconds * 10)
    minutes = f"{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"
    return f"{tenths // 36000}:{minutes}" if tenths >= 36000 else minutes.removeprefix("0")


def _cut(draw: Any, text: str, size: int, room: float) -> str:
    """As much of the text as there is room for."""
    if draw.textlength(text, font_for(text, size)) <= room:
        return text
    while text and draw.textlength(f"{text}...", font_for(text, size)) > room:
        text = text[:-1]
    return f"{text}..."


def _png(image: Any, page: int) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    out, told = io.BytesIO(), PngInfo()
    told.add_text("Software", f"clip4str sheet, page {page}.")
    image.save(out, "PNG", pnginfo=told)
    return out.getvalue()


def _is_page(file: Path, number: int) -> bool:
    """Is it that page of a sheet? One that is called so is the first of its own."""
    try:
        if file.is_symlink() or not file.is_file():
            return False
        with file.open("rb") as opened:
            return f"tEXtSoftware\0clip4str sheet, page {number}.".encode() in opened.read(256)
    except OSError:
        return False
