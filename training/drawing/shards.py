"""A pool of drawn words in parts, drawn by several processes: the parts that are there stay, one that was interrupted
is gone on with.

Each part is an LMDB of `PART` words; part k of seed s is the renderer's seed "s.k", so a larger pool begins with the
smaller one.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from clip4str.core.errors import DataError

PART = 20_000
BATCH = 512
QUALITY = 92


class Recipe(NamedTuple):
    """What words are drawn from: atlas and word lists, training folders that lend texts and blurred grounds, pictures
    of those to leave out (see data/left_out.py); height and width of the pictures."""

    atlas: Path
    words: tuple[Path, ...]
    real: tuple[str, ...] = ()
    leave_out: str | None = None
    size: tuple[int, int] = (32, 128)
    seed: int = 0


class Part(NamedTuple):
    """An LMDB folder of the pool, the seed and the number of its words."""

    folder: Path
    seed: str
    words: int


def parts(pool: Path, seed: int, words: int) -> list[Part]:
    """All parts of a pool of at least so many words."""
    return [Part(pool / f"seed-{seed}" / f"{k:04d}", f"{seed}.{k}", PART) for k in range(-(-words // PART))]


@contextmanager
def locked(file: Path, busy: str | None = None) -> Iterator[None]:
    """Holds a lock that ends with the process, however it ends. If another process has it: raises DataError with
    `busy`, or waits where there is no such text."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise DataError(str(busy)) from None
        yield


def draw_parts(recipe: Recipe, wanted: Sequence[Part], processes: int) -> None:
    """Draws the parts, each in the next free process, which computes in one thread; one process is this one.

    Raises what goes wrong in a process, and DataError if one is killed; the other ones end, too. What was drawn is gone
    on with next time.
    """
    bar = tqdm(total=sum(part.words for part in wanted), desc="pool", unit=" words", unit_scale=True,
               disable=not sys.stderr.isatty(), leave=False)  # fmt: skip
    if processes == 1:
        _SHARED.clear()
        _SHARED.update(recipe=recipe)
        with bar:
            for part in wanted:
                bar.update(_draw(part))
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    told = (recipe, stop, os.getpid())
    try:
        with bar, ProcessPoolExecutor(min(processes, len(wanted)), context, _start, told) as pool:
            tasks = [pool.submit(_draw, part) for part in wanted]
            try:
                for task in as_completed(tasks):
                    bar.update(task.result())
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    except BrokenProcessPool:
        raise DataError("a drawing process was killed, maybe for want of memory; the same command goes on") from None


_SHARED: dict[str, Any] = {}  # by all parts that a process draws


def _start(recipe: Recipe, stop: Any, parent: int) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    torch.set_num_threads(1)
    _SHARED.update(recipe=recipe, stop=stop, parent=parent)


def _until_stopped(drawn: Iterator[Any]) -> Iterator[Any]:
    """Ends the process between two batches once its parent says so, or is no more."""
    for batch in drawn:
        if "stop" in _SHARED and (_SHARED["stop"].is_set() or os.getppid() != _SHARED["parent"]):
            raise DataError("interrupted; the same command goes on")
        yield batch


def _load(recipe: Recipe) -> tuple[Any, Any, Any]:
    """Atlas, orders and places; once for all parts of a process."""
    if "loaded" not in _SHARED:
        from clip4str.core.text import Charset
        from clip4str.data.left_out import read_left_out
        from clip4str.training.data import HELD_OUT, load_words
        from clip4str.training.words import read_words

        from .atlas import load_atlas
        from .data import blurred_places
        from .order import Orders

        atlas = load_atlas(recipe.atlas)
        left_out = read_left_out(recipe.leave_out) if recipe.leave_out else ()
        real = load_words(recipe.real, Charset(), HELD_OUT, left_out=left_out)[0] if recipe.real else None
        texts = [word for path in recipe.words for word in read_words(path)]
        orders = Orders(atlas, texts, labels=real.labels if real is not None else ())
        _SHARED["loaded"] = atlas, orders, blurred_places(real) if real is not None else None
    return _SHARED["loaded"]


def _draw(part: Part) -> int:
    """One part, in a process of its own; returns its words."""
    from .pool import batches, made_of, write_pool
    from .renderer import Renderer

    recipe: Recipe = _SHARED["recipe"]
    with locked(part.folder.with_name(f".{part.folder.name}.lock")):  # a killed command's process may be at it, briefly
        atlas, orders, places = _load(recipe)
        renderer = Renderer(atlas, orders, recipe.size, "cpu", part.seed, places)
        made = made_of(recipe.atlas, orders, places, seed=part.seed, size=recipe.size, count=part.words, batch=BATCH,
                       quality=QUALITY, device="cpu")  # fmt: skip

        def draw(first: int) -> Iterator[Any]:
            return _until_stopped(batches(renderer, part.words, BATCH, first))

        if not part.folder.exists():
            write_pool(part.folder, draw, part.words, QUALITY, made, progress=False)
    return part.words
