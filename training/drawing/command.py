"""The command behind `python training/render.py`: a pool of words, a contact sheet, figures beside real crops."""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from clip4str.core.console import Parser, one_line
from clip4str.core.errors import Clip4StrError, DataError, UsageError
from clip4str.core.output_files import check_output as check_file
from clip4str.core.output_files import write_whole
from clip4str.core.text import Charset
from clip4str.training.augment import resize
from clip4str.training.data import HELD_OUT, Words, load_words
from clip4str.training.words import read_words

from .atlas import load_atlas
from .data import blurred_places
from .order import Orders
from .pool import batches, check_output, made_of, write_pool
from .renderer import Renderer

FIGURES = ("grey", "deviation", "contrast", "edges", "sharpness", "saturation", "ink", "dark text", "border")
COLUMNS, SHOWN, MEASURED = 10, 100, 1000


def figures(pixels: np.ndarray) -> np.ndarray:
    """uint8 [n, H, W, 3] -> float64 [n, len(FIGURES)].

    grey, deviation: mean and standard deviation of the luminance. contrast: between the means of the two sides of
    Otsu's threshold. edges: mean step between neighbours. sharpness: edges / deviation. saturation: mean of max - min
    of RGB. ink: share of pixels on the smaller side. dark text: whether that side is the darker. border: deviation
    along the rim.
    """
    grey = pixels.astype(np.float64) @ (0.299, 0.587, 0.114)
    n = len(grey)
    flat = grey.reshape(n, -1)
    deviation = flat.std(1)
    edges = (np.abs(np.diff(grey, axis=2)).mean((1, 2)) + np.abs(np.diff(grey, axis=1)).mean((1, 2))) / 2
    wide = pixels.astype(np.float64)
    ranked = np.sort(flat, axis=1)
    count = np.arange(1, flat.shape[1])
    below = ranked.cumsum(1)[:, :-1]
    low, high = below / count, (ranked.sum(1, keepdims=True) - below) / (flat.shape[1] - count)
    split = (count * (flat.shape[1] - count) * (high - low) ** 2).argmax(1)
    rows = np.arange(n)
    share = (split + 1) / flat.shape[1]
    rim = np.concatenate((grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]), axis=1)
    return np.stack((flat.mean(1), deviation, (high - low)[rows, split], edges, edges / (deviation + 1),
                     (wide.max(3) - wide.min(3)).mean((1, 2)), np.minimum(share, 1 - share),
                     (share < 0.5).astype(float), rim.std(1)), axis=1)  # fmt: skip


def compare(rendered: np.ndarray, real: np.ndarray | None) -> str:
    """A table of the figures: 10th percentile, median, 90th percentile and mean of each."""
    lines = [f"{'':12}" + "".join(f"{name:>34}" for name in ("rendered", *(("real",) if real is not None else ())))]
    columns = [figures(pixels) for pixels in (rendered, real) if pixels is not None]
    for i, name in enumerate(FIGURES):
        cells = []
        for values in columns:
            low, middle, high = np.percentile(values[:, i], (10, 50, 90))
            cells.append(f"{low:8.2f}{middle:8.2f}{high:8.2f} ({values[:, i].mean():6.2f})")
        lines.append(f"{name:12}" + "".join(f"{cell:>34}" for cell in cells))
    return "\n".join(lines)


def contact_sheet(pixels: np.ndarray, labels: Sequence[str], real: np.ndarray | None) -> Image.Image:
    """Words with their labels; rows of real crops between those of rendered ones, marked by a bar at the left."""
    wide, high = pixels.shape[2] + 4, pixels.shape[1] + 20
    rows = -(-len(pixels) // COLUMNS)
    real_rows = 0 if real is None else min(rows, len(real) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * wide + 6, (rows + real_rows) * high), "white")
    pen = ImageDraw.Draw(sheet)
    y = 0
    for row in range(rows):
        for k in range(row * COLUMNS, min(len(pixels), (row + 1) * COLUMNS)):
            x = 6 + k % COLUMNS * wide
            sheet.paste(Image.fromarray(pixels[k]), (x, y))
            pen.text((x, y + pixels.shape[1] + 1), labels[k], fill=(170, 0, 0))
        y += high
        if real is not None and row < real_rows:
            for k in range(row * COLUMNS, (row + 1) * COLUMNS):
                sheet.paste(Image.fromarray(real[k]), (6 + k % COLUMNS * wide, y))
            pen.rectangle((0, y, 3, y + pixels.shape[1]), fill=(0, 120, 0))
            y += high
    return sheet


def real_words(folders: Sequence[str], size: tuple[int, int], count: int, seed: int) -> tuple[np.ndarray, Words]:
    """Some crops, resized, and all words they are from, but for those that training holds out."""
    words, _ = load_words(folders, Charset(), HELD_OUT)
    chosen = np.random.default_rng(seed).permutation(len(words))[:count]
    pictures = [picture for picture in (words.picture(int(i)) for i in chosen) if picture is not None]
    return np.stack([resize(picture, size) for picture in pictures]), words


def speed(renderer: Renderer, batch: int, seconds: float) -> str:
    """Draws for a while, after one batch to warm up."""

    def wait() -> None:
        if renderer.device.type == "cuda":
            torch.cuda.synchronize(renderer.device)

    renderer.batch(batch)
    wait()
    words, start, busy = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds or words == 0:
        renderer.batch(batch)
        words += batch
        wait()
    wall, cpu = time.perf_counter() - start, time.process_time() - busy
    return (f"{words} words in batches of {batch} on {renderer.device}: {words / wall:.0f} words/s "
            f"({words / cpu:.0f} per second of processor time)")  # fmt: skip


# fmt: off


def arguments() -> Parser:
    parser = Parser(
        prog="render.py",
        description="Draw synthetic words from a glyph atlas: into an LMDB to train on, or to look at.",
        epilog="example: python training/render.py --output pool --count 100000 --words words.txt",
    )
    add = parser.add_argument
    add("--atlas", type=Path, default=Path("atlas.safetensors"), metavar="FILE",
        help="glyph atlas, made by clip4str atlas (default: %(default)s)")
    add("--output", type=Path, metavar="DIR",
        help="LMDB folder to write; appears only when complete, the same command goes on after an interruption")
    add("--sheet", type=Path, metavar="FILE", help=f"draw a contact sheet of the first {SHOWN} words into this picture")
    add("--figures", action="store_true", help="print figures of the pictures, beside those of --real")
    add("--seconds", type=float, default=0.0, metavar="S", help="measure the speed for so long")
    add("--count", type=int, default=10_000, metavar="N", help="words to draw (default: %(default)s)")
    add("--words", type=Path, nargs="+", default=[], metavar="FILE", help="word lists, one a line, frequent first")
    add("--real", nargs="+", default=[], metavar="DIR",
        help="LMDBs of real words: they lend texts and blurred grounds, and are shown on the sheet")
    add("--seed", type=int, default=0, metavar="S",
        help="same seed, atlas, texts, batch and device: same words (default: %(default)s)")
    add("--size", type=int, nargs=2, default=(32, 128), metavar=("H", "W"),
        help="of a picture: the input size of the network to train (default: 32 128)")
    add("--quality", type=int, default=92, metavar="Q", help="JPEG quality, or 0 for PNG (default: %(default)s)")
    add("--batch", type=int, default=512, metavar="N", help="words drawn at once (default: %(default)s)")
    add("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    add("--force", action="store_true", help="replace an existing --output")
    return parser


# fmt: on


def check(args: argparse.Namespace) -> None:
    """Raises UsageError for what cannot be meant."""
    if args.output is None and args.sheet is None and not args.figures and not args.seconds:
        raise UsageError("nothing to do: name an --output folder or a --sheet, or ask for --figures or --seconds")
    if min(args.count, args.batch) < 1 or min(args.size) < 8 or max(args.size) > 1024:
        raise UsageError("--count and --batch are at least 1, the sides of --size 8 to 1024")
    if not 0 <= args.quality <= 100:
        raise UsageError(f"--quality is 0 to 100, not {args.quality}")
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError("torch sees no GPU here; use --device cpu")
    if args.output is not None:
        check_output(args.output, args.force)
    check_file(args.sheet, (".png", ".jpg"))


def run(args: argparse.Namespace) -> None:
    check(args)
    size = (args.size[0], args.size[1])
    atlas = load_atlas(args.atlas)
    try:
        words = [word for path in args.words for word in read_words(path)]
    except OSError as error:
        raise DataError(f"cannot read {error.filename}: {error.strerror}") from None
    shown = min(args.count, MEASURED if args.figures else SHOWN)
    real, source = real_words(args.real, size, shown, args.seed) if args.real else (None, None)
    places = blurred_places(source) if source is not None else None
    orders = Orders(atlas, words, labels=source.labels if source is not None else ())
    renderer = Renderer(atlas, orders, size, args.device, args.seed, places)
    if args.sheet is not None or args.figures:
        _look(args, renderer, shown, real)
    if args.output is not None:
        recipe = made_of(args.atlas, orders, places, seed=args.seed, size=size, count=args.count, batch=args.batch,
                         quality=args.quality, device=renderer.device.type)  # fmt: skip
        start = time.perf_counter()
        done = write_pool(args.output, lambda first: batches(renderer, args.count, args.batch, first), args.count,
                          args.quality, recipe, args.force)  # fmt: skip
        seconds = time.perf_counter() - start
        before = f", {done} of them before" if done else ""
        rate = (args.count - done) / seconds
        print(f"{args.output}: {args.count} words{before} in {seconds:.1f} s ({rate:.0f} words/s)")
    if args.seconds:
        print(f"{len(atlas)} faces, {speed(renderer, args.batch, args.seconds)}")


def _look(args: argparse.Namespace, renderer: Renderer, shown: int, real: np.ndarray | None) -> None:
    """The contact sheet and the figures of the first words of the pool."""
    drawn: list[np.ndarray] = []
    texts: list[str] = []
    for pixels, labels in batches(renderer, args.count, args.batch):
        drawn.append(pixels)
        texts += labels
        if len(texts) >= shown:
            break
    pictures = np.concatenate(drawn)
    if args.sheet is not None:
        content = io.BytesIO()
        kind = Image.registered_extensions()[args.sheet.suffix.lower()]
        contact_sheet(pictures[: min(shown, SHOWN)], texts, real).save(content, kind)
        write_whole(args.sheet, content.getvalue())
        print(f"contact sheet: {args.sheet}")
    if args.figures:
        print(compare(pictures[:shown], real))


def main(argv: Sequence[str] | None = None) -> int:
    try:
        run(arguments().parse_args(argv))
    except Clip4StrError as error:
        print(f"render.py: error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("render.py: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0
