"""The command behind `python training/render.py`: a pool of words in an LMDB, or a contact sheet."""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from clip4str.runtime.cli import Parser, one_line
from clip4str.runtime.errors import Clip4StrError, DataError, UsageError
from clip4str.training.fonts import find_fonts
from clip4str.training.render import Renderer
from clip4str.training.words import read_words

CHUNK = 250  # words drawn from one seed: the result does not depend on the number of workers
Encoded = tuple[bytes, str]


def encode(image: np.ndarray, quality: int) -> bytes:
    """JPEG, or PNG for a quality of 0."""
    buffer = io.BytesIO()
    picture = Image.fromarray(image)
    if quality:
        picture.save(buffer, "JPEG", quality=quality)
    else:
        picture.save(buffer, "PNG")
    return buffer.getvalue()


_renderer: Renderer


def _start_worker(settings: dict) -> None:
    global _renderer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent cleans up
    _renderer = Renderer(**settings)


def _draw_chunk(job: tuple[str, int, int]) -> list[Encoded]:
    seed, count, quality = job
    _renderer.reseed(seed)
    samples = (_renderer.sample() for _ in range(count))
    return [(encode(image, quality), label) for image, label in samples]


def draw(settings: dict, count: int, seed: int, workers: int, quality: int) -> Generator[Encoded, None, None]:
    """`count` encoded crops with their labels, in an order that depends on the seed alone."""
    jobs = [(f"{seed}/{i}", min(CHUNK, count - i), quality) for i in range(0, count, CHUNK)]
    if workers <= 1:
        renderer = Renderer(**settings)
        for chunk_seed, size, _ in jobs:
            renderer.reseed(chunk_seed)
            for _ in range(size):
                image, label = renderer.sample()
                yield encode(image, quality), label
        return
    with multiprocessing.get_context("spawn").Pool(workers, _start_worker, (settings,)) as pool:
        for chunk in pool.imap(_draw_chunk, jobs):
            yield from chunk


def write_lmdb(output: Path, samples: Iterable[Encoded], count: int, force: bool = False) -> None:
    """Writes `count` samples as a scene-text LMDB; `output` appears complete or not at all."""
    try:
        import lmdb
    except ImportError as error:
        raise UsageError("writing a pool needs the lmdb package: pip install lmdb") from error
    if output.exists() and not force:
        raise UsageError(f"{output} exists already: choose another --output, or replace it with --force")
    if output.exists() and not (output / "data.mdb").is_file():
        raise UsageError(f"{output} is not an LMDB folder: not replacing it, choose another --output")
    draft = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        # The map is only address space; the file is cut to what was used.
        env = lmdb.open(str(draft), map_size=max(1 << 28, count << 18), sync=False)
        try:
            bar = tqdm(samples, total=count, unit=" words", unit_scale=True, disable=not sys.stderr.isatty())
            txn = env.begin(write=True)
            for i, (image, label) in enumerate(bar, 1):
                txn.put(b"image-%09d" % i, image)
                txn.put(b"label-%09d" % i, label.encode())
                if i % 2000 == 0:
                    txn.commit()
                    txn = env.begin(write=True)
            txn.put(b"num-samples", str(count).encode())
            txn.commit()
            env.sync(True)
        finally:
            env.close()
        (draft / "lock.mdb").unlink(missing_ok=True)
        if output.exists():
            shutil.rmtree(output)
        draft.rename(output)
    except (OSError, lmdb.Error) as error:
        raise UsageError(f"cannot write {output}: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def contact_sheet(renderer: Renderer, count: int = 100, columns: int = 10) -> Image.Image:
    """`count` crops, each with its label beneath."""
    wide, high, text = 150, 52, 14
    sheet = Image.new("RGB", (columns * wide, -(-count // columns) * (high + text)), "white")
    pen = ImageDraw.Draw(sheet)
    for k in range(count):
        image, label = renderer.sample()
        picture = Image.fromarray(image)
        scale = min((wide - 4) / picture.width, (high - 2) / picture.height)
        size = (max(1, int(picture.width * scale)), max(1, int(picture.height * scale)))
        x, y = k % columns * wide, k // columns * (high + text)
        sheet.paste(picture.resize(size, Image.Resampling.BICUBIC), (x, y))
        pen.text((x, y + high - 1), label, fill=(170, 0, 0))
    return sheet


def arguments() -> Parser:
    parser = Parser(
        prog="render.py",
        description="Render synthetic scene-text words into an LMDB (num-samples, image-%09d, label-%09d).",
        epilog="example: python training/render.py --output words.lmdb --count 100000 --words words.txt",
    )
    add = parser.add_argument
    add("--output", type=Path, metavar="DIR", help="LMDB folder to write; appears only when complete")
    add("--count", type=int, default=10_000, metavar="N", help="words to render (default: %(default)s)")
    add(
        "--seed",
        type=int,
        default=0,
        metavar="S",
        help="same seed, words and fonts: same crops (default: %(default)s)",
    )
    add(
        "--workers",
        type=int,
        default=1,
        metavar="W",
        help="processes; the result does not depend on it (default: 1)",
    )
    add(
        "--words",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="word lists, one a line, frequent first",
    )
    add("--labels", type=Path, nargs="+", default=[], metavar="FILE", help="texts of real crops, one a line")
    add(
        "--height",
        type=int,
        nargs=2,
        default=(24, 64),
        metavar=("MIN", "MAX"),
        help="heights in pixels (default: 24 64)",
    )
    add(
        "--quality",
        type=int,
        default=92,
        metavar="Q",
        help="JPEG quality, or 0 for PNG (default: %(default)s)",
    )
    add("--force", action="store_true", help="replace an existing --output")
    add("--sheet", type=Path, metavar="FILE", help="draw a contact sheet of 100 words into this picture")
    return parser


def run(options: argparse.Namespace) -> None:
    if options.output is None and options.sheet is None:
        raise UsageError("nothing to do: name an --output folder or a --sheet picture")
    low, high = options.height
    if options.count < 1 or options.workers < 1:
        raise UsageError("--count and --workers must be at least 1")
    if not 0 <= options.quality <= 100 or not 16 <= low <= high <= 256:
        raise UsageError("--quality must lie within 0..100, --height within 16..256 with MIN <= MAX")
    # Found here, once: a worker that fails while it starts would be started again for ever.
    settings: dict[str, Any] = {
        "fonts": find_fonts(),
        "words": _lists(options.words),
        "labels": _lists(options.labels),
        "height": (low, high),
    }
    if options.sheet is not None:
        try:
            contact_sheet(Renderer(options.seed, **settings)).save(options.sheet)
        except (OSError, ValueError) as error:
            raise UsageError(f"cannot write {options.sheet}: {error}") from error
        print(f"contact sheet: {options.sheet}")
    if options.output is not None:
        start = time.perf_counter()
        # Closed here, so that workers end even when writing fails.
        drawn = draw(settings, options.count, options.seed, options.workers, options.quality)
        with contextlib.closing(drawn) as samples:
            write_lmdb(options.output, samples, options.count, options.force)
        seconds = time.perf_counter() - start
        speed = options.count / seconds
        print(f"{options.output}: {options.count} words in {seconds:.1f} s ({speed:.0f} words/s)")


def _lists(paths: Sequence[Path]) -> list[str]:
    words: list[str] = []
    for path in paths:
        try:
            words += read_words(path)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error
    return words


def main(argv: Sequence[str] | None = None) -> int:
    try:
        run(arguments().parse_args(argv))
    except Clip4StrError as error:
        print(f"render.py: error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("render.py: interrupted, nothing written", file=sys.stderr)
        return 130
    return 0
