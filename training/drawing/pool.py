"""A pool of drawn words, in the usual LMDB of word crops: num-samples, image-%09d, label-%09d, counted from 1.

One more key, made-of, says in JSON what the pool was drawn from.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from clip4str.core.errors import DataError, UsageError
from clip4str.data.lmdb_file import LmdbFile

from .order import Orders
from .renderer import Renderer

Batch = tuple[np.ndarray, list[str]]  # uint8 [n, H, W, 3] and labels


def batches(renderer: Renderer, count: int, batch: int, first: int = 0) -> Iterator[Batch]:
    """Words `first` (a multiple of `batch`) to `count` of the renderer's, the same wherever one begins."""
    renderer.number = first // batch
    for start in range(first, count, batch):
        pixels, labels = renderer.batch(min(batch, count - start))
        yield pixels.cpu().numpy(), labels


def encode(pixels: np.ndarray, quality: int) -> bytes:
    """JPEG, or PNG for a quality of 0."""
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels)
    if quality:
        picture.save(buffer, "JPEG", quality=quality)
    else:
        picture.save(buffer, "PNG")
    return buffer.getvalue()


def made_of(atlas: Path, orders: Orders, places: Tensor | None, **settings: Any) -> str:
    """JSON that differs wherever the words would."""

    def digest(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()[:16]

    texts = "\n".join((*orders.words.words, "", *orders.words.extra, "", *orders.words.labels))
    grounds = None if places is None else digest(places.numpy().tobytes())
    return json.dumps(
        {"atlas": digest(atlas.read_bytes()), "texts": digest(texts.encode()), "grounds": grounds, **settings}
    )


def check_output(output: Path, force: bool) -> None:
    """Raises UsageError for what must not be replaced."""
    if output.exists() and not force:
        raise UsageError(f"{output} exists already: choose another --output, or replace it with --force")
    if output.exists() and not (output / "data.mdb").is_file():
        raise UsageError(f"{output} is not an LMDB folder: not replacing it, choose another --output")


def write_pool(
    output: Path, draw: Callable[[int], Iterator[Batch]], count: int, quality: int, recipe: str, force: bool = False,
    progress: bool = True,
) -> int:  # fmt: skip
    """Writes `count` words; `output` appears complete or not at all. Returns how many were there already.

    draw: gives batches from the word of that number on. recipe: what the words depend on. What an interrupted call
    wrote is kept beside `output`, and gone on with by the next one that has the same recipe.
    """
    try:
        import lmdb
    except ImportError as error:
        raise UsageError("writing a pool needs the lmdb package: pip install lmdb") from error
    check_output(output, force)
    draft = output.with_name(f".{output.name}.part")
    try:
        done = _written(draft, recipe)
        if not done:
            shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True, exist_ok=True)
        silent = not progress or not sys.stderr.isatty()
        bar = tqdm(total=count, initial=done, unit=" words", unit_scale=True, disable=silent)
        # The map is only address space; the file is as long as what was written.
        with bar, lmdb.open(str(draft), map_size=max(1 << 28, count << 18)) as environment:
            number = done
            for pixels, labels in draw(done):
                with environment.begin(write=True) as txn:  # a whole batch or nothing of it
                    for picture, label in zip(pixels, labels):
                        number += 1
                        txn.put(b"image-%09d" % number, encode(picture, quality))
                        txn.put(b"label-%09d" % number, label.encode())
                    txn.put(b"num-samples", str(number).encode())
                    txn.put(b"made-of", recipe.encode())
                bar.update(len(labels))
        (draft / "lock.mdb").unlink(missing_ok=True)
        if output.exists():
            shutil.rmtree(output)
        draft.rename(output)
    except (OSError, lmdb.Error) as error:
        raise UsageError(f"cannot write {output}: {error}") from error
    return done


def _written(draft: Path, recipe: str) -> int:
    """Words of this recipe that an earlier call has written; 0 where a power cut left a file that is not whole."""
    if not (draft / "data.mdb").is_file():
        return 0
    try:
        with closing(LmdbFile(draft / "data.mdb")) as file:
            return int(file.get(b"num-samples") or 0) if file.get(b"made-of") == recipe.encode() else 0
    except (DataError, ValueError):
        return 0
