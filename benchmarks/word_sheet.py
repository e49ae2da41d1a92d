"""Pictures of words with what was read in them: rows of crops under their names, coloured by right and wrong.

Run as a script, it reads the sample crops with the bundled network and draws the picture that README begins with.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

from clip4str.core.console import Parser, run_script
from clip4str.core.output_files import check_output, write_whole
from clip4str.runtime.images import load_image

PROGRAM = "benchmarks/word_sheet.py"
SAMPLES = Path(__file__).resolve().parents[1] / "export" / "sample_crops"
_INKS = {"read exactly": "#1a7f37", "but for case and punctuation": "#9a6700", "wrong": "#c0262d"}
_LEFT, _WIDE, _HIGH, _LINE, _TOP = 300, 222, 66, 108, 44  # pixels: row names, a crop and its line, the legend above


class Read(NamedTuple):
    """A crop, what it says, and what was read with which confidence."""

    image: Image.Image
    text: str
    read: str
    confidence: float


def plain(text: str) -> str:
    """0-9a-z alone, case folded."""
    return "".join(c for c in text.lower() if c in "0123456789abcdefghijklmnopqrstuvwxyz")


def sheet(rows: Sequence[tuple[str, str, Sequence[Read]]]) -> Image.Image:
    """rows: name, a line below it, crops. Without names the crops begin at the left edge."""
    left = _LEFT if any(name for name, _, _ in rows) else 14
    font, small, bold = (ImageFont.load_default(size) for size in (19, 16, 18))
    across = max(len(crops) for _, _, crops in rows)
    picture = Image.new("RGB", (left + across * _WIDE, _TOP + _LINE * len(rows) + 6), "white")
    draw = ImageDraw.Draw(picture)
    x = 14.0
    for text, ink in (("what was read, and its confidence in percent:", "#555"), *((t, _INKS[t]) for t in _INKS)):
        draw.text((x, 10), text, ink, small)
        x += draw.textlength(text, small) + 18
    for k, (name, line, crops) in enumerate(rows):
        top = _TOP + k * _LINE
        draw.text((14, top + 10), name, "black", font)
        draw.text((14, top + 38), line, "#555", small)
        for n, crop in enumerate(crops):
            scale = min((_WIDE - 18) / crop.image.width, _HIGH / crop.image.height)
            size = max(1, round(scale * crop.image.width)), max(1, round(scale * crop.image.height))
            at = left + n * _WIDE
            picture.paste(crop.image.resize(size, Image.Resampling.BICUBIC), (at, top + (_HIGH - size[1]) // 2))
            exact, folded = crop.read == crop.text, plain(crop.read) == plain(crop.text)
            ink = list(_INKS.values())[0 if exact else 1 if folded else 2]
            draw.text((at, top + _HIGH + 6), f"{crop.read[:20]}  {100 * crop.confidence:.0f}", ink, bold)
    return picture


def save(picture: Image.Image, path: Path) -> None:
    """As a PNG of few colours, a fifth of the size. Raises UsageError."""
    content = io.BytesIO()
    few = picture.quantize(200, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(content, "PNG", optimize=True)
    write_whole(path, content.getvalue())


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="bundle to read with (default: the newest)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the picture (.png)")
    parser.add_argument("--words", type=Path, default=SAMPLES, metavar="DIR",
                        help="crops named NUMBER-WORD.jpg (default: the bundled ones, which are drawn)")  # fmt: skip
    args = parser.parse_args(argv)
    check_output(args.output, (".png",))
    from clip4str.runtime import Recognizer
    from clip4str.runtime.default_bundle import default_bundle

    paths = sorted(args.words.glob("*-*.jpg"))[:12]
    read = Recognizer.load(args.bundle or default_bundle()).read(paths)
    crops = [Read(load_image(path), path.stem.partition("-")[2], word.text, word.confidence)
             for path, word in zip(paths, read)]  # fmt: skip
    save(sheet([("", "", crops[k : k + 4]) for k in range(0, len(crops), 4)]), args.output)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
